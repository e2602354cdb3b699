/* Functions of one element at a time (tinygen.h has the formulas), each a functor for map() of cuda.cuh. All of
 * them are bound by memory. */
#include "cuda.cuh"

namespace {

struct add {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0] + x[1]; }
};

template <class real>
struct relu {
    real slope;
    __device__ void operator()(const real *x, real *y) const
    {
        y[0] = x[0] > 0 || x[0] != x[0] ? x[0] : slope != 0 ? slope * x[0] : 0;
    }
};

/* Of gy and y. */
template <class real>
struct relu_backward {
    real slope;
    __device__ void operator()(const real *x, real *gx) const
    {
        gx[0] = x[1] > 0 ? x[0] : slope != 0 ? slope * x[0] : 0;
    }
};

struct tanh_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = tanh(x[0]); }
};

struct sigmoid_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = sigmoid(x[0]); }
};

struct gated {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = tanh(x[0]) * sigmoid(x[1]); }
};

/* Of a, b and gy. */
struct gated_backward {
    template <class real>
    __device__ void operator()(const real *x, real *gx) const
    {
        real t = tanh(x[0]), s = sigmoid(x[1]), g = x[2] * s;
        gx[0] = g * (1 - t * t);
        gx[1] = g * t * (1 - s);
    }
};

/* Of g, p, m and v; gives p, m and v. */
template <class real>
struct adam {
    real decay, one, two, step, root, eps;
    __device__ void operator()(const real *x, real *y) const
    {
        real g = x[0] + decay * x[1];
        y[1] = x[2] + one * (g - x[2]);
        y[2] = x[3] + two * (g * g - x[3]);
        y[0] = x[1] - step * y[1] / (sqrt(y[2]) * root + eps);
    }
};

enum { TILE = 32, TILE_STRIPS = 8 };

/* A block a tile of a matrix: read and written in rows, turned in shared memory. */
template <class real>
__global__ void __launch_bounds__(TILE * TILE_STRIPS)
transpose(int64_t rows, int64_t columns, int64_t tiles, const real *x, real *y)
{
    SHARED(real, tile, [TILE][TILE + 1]);
    int64_t across = ceil_of<int64_t>(columns, TILE), matrix = blockIdx.x / tiles, at = blockIdx.x % tiles;
    int64_t row = at / across * TILE, column = at % across * TILE;
    int lane = threadIdx.x % TILE, strip = threadIdx.x / TILE;
    x += matrix * rows * columns;
    y += matrix * rows * columns;
    for (int i = strip; i < TILE; i += TILE_STRIPS)
        if (row + i < rows && column + lane < columns)
            tile[i][lane] = x[(row + i) * columns + column + lane];
    __syncthreads();
    for (int i = strip; i < TILE; i += TILE_STRIPS)
        if (column + i < columns && row + lane < rows)
            y[(column + i) * rows + row + lane] = tile[lane][i];
}

template <int ins, int outs, class function>
int each(int dtype, int64_t rows, int64_t columns, const source (&in)[ins], const target (&out)[outs], function f)
{
    if (!rows_valid(dtype, rows, columns))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) { return map<decltype(zero)>(rows, columns, in, out, f); });
}

}

int tg_add(int dtype, int64_t n, const void *x, const void *y, void *out, int)
{
    return each(dtype, 1, n, {{x, 0}, {y, 0}}, {{out, 0}}, add());
}

int tg_relu(int dtype, int64_t n, double slope, const void *x, void *y, int)
{
    if (!rows_valid(dtype, 1, n))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return map<real>(1, n, {{x, 0}}, {{y, 0}}, relu<real>{(real)slope});
    });
}

int tg_relu_backward(int dtype, int64_t n, double slope, const void *gy, const void *y, void *gx, int)
{
    if (!rows_valid(dtype, 1, n))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return map<real>(1, n, {{gy, 0}, {y, 0}}, {{gx, 0}}, relu_backward<real>{(real)slope});
    });
}

int tg_tanh(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, tanh_of());
}

int tg_sigmoid(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, sigmoid_of());
}

int tg_gated(int dtype, int64_t rows, int64_t channels, const void *x, void *y, int)
{
    const char *b = (const char *)x + channels * element_size(dtype);
    return each(dtype, rows, channels, {{x, 2 * channels}, {b, 2 * channels}}, {{y, channels}}, gated());
}

int tg_gated_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *gy, void *gx, int)
{
    int64_t half = channels * element_size(dtype), pitch = 2 * channels;
    return each(dtype, rows, channels, {{x, pitch}, {(const char *)x + half, pitch}, {gy, channels}},
                {{gx, pitch}, {(char *)gx + half, pitch}}, gated_backward());
}

int tg_transpose(int dtype, int64_t n, int64_t rows, int64_t columns, const void *x, void *y, int)
{
    if (n < 0 || n > MOST || !rows_valid(dtype, n, 1) || !rows_valid(dtype, rows, columns))
        return TG_BAD_ARGUMENT;
    int64_t tiles = ceil_of<int64_t>(rows, TILE) * ceil_of<int64_t>(columns, TILE);
    if (tiles && n > INT32_MAX / tiles)
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        if (n && tiles)
            LAUNCH(transpose<real>, (unsigned)(n * tiles), TILE * TILE_STRIPS, rows, columns, tiles, (const real *)x,
                   (real *)y);
        return launched();
    });
}

int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr, double beta1,
            double beta2, double eps, double weight_decay, int)
{
    if (step < 1 || !rows_valid(dtype, 1, n))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        adam<real> f = {(real)weight_decay, (real)(1 - beta1), (real)(1 - beta2),
                        (real)(lr / (1 - pow(beta1, (double)step))),
                        (real)(1 / sqrt(1 - pow(beta2, (double)step))), (real)eps};
        return map<real>(1, n, {{g, 0}, {p, 0}, {m, 0}, {v, 0}}, {{p, 0}, {m, 0}, {v, 0}}, f);
    });
}

int tg_adam_list(int dtype, int64_t count, const int64_t *n, const void *const *g, void *const *p, void *const *m,
                 void *const *v, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                 int threads)
{
    int code = !valid_dtype(dtype) || count < 0 || count > MOST || step < 1 ? TG_BAD_ARGUMENT : TG_OK;
    for (int64_t i = 0; i < count && code == TG_OK; i++)
        code = tg_adam(dtype, n[i], g[i], p[i], m[i], v[i], step, lr, beta1, beta2, eps, weight_decay, threads);
    return code;
}
