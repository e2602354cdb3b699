/* Functions of one element at a time (tinygen.h has the formulas), each a functor for map() of cuda.cuh. All of
 * them are bound by memory. */
#include "runtime/cuda.cuh"

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

template <class real>
struct elu {
    real alpha;
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0] > 0 ? x[0] : alpha * expm1(x[0]); }
};

/* Of gy and x. */
template <class real>
struct elu_backward {
    real alpha;
    __device__ void operator()(const real *x, real *gx) const
    {
        gx[0] = x[1] > 0 ? x[0] : x[0] * alpha * exp(x[1]);
    }
};

/* Of gy and y. */
template <class real>
struct logistic_backward {
    real low;
    __device__ void operator()(const real *x, real *gx) const { gx[0] = x[0] * (1 - x[1]) * (x[1] - low); }
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

enum { ADAM_ARRAYS = 64, ADAM_SHARE = 16 * MAP_THREADS };        /* of a launch; numbers of a block */

/* Arrays (n) and the first blocks that work on each, as much as a launch may take along. */
template <class real>
struct adam_group {
    int count, first[ADAM_ARRAYS + 1];
    int64_t n[ADAM_ARRAYS];
    const real *g[ADAM_ARRAYS];
    real *p[ADAM_ARRAYS], *m[ADAM_ARRAYS], *v[ADAM_ARRAYS];
};

template <class real>
__global__ void __launch_bounds__(MAP_THREADS, 16 / sizeof(real)) adam_arrays(adam_group<real> group, adam<real> f)
{
    const int width = widest<real>();
    int k = 0;
    while ((int)blockIdx.x >= group.first[k + 1])
        k++;
    operands<real, 4, 3> a = {1, group.n[k], {}, {}, {group.g[k], group.p[k], group.m[k], group.v[k]},
                              {group.p[k], group.m[k], group.v[k]}};
    int64_t i = (int64_t)((int)blockIdx.x - group.first[k]) * ADAM_SHARE, end = i + ADAM_SHARE;
    end = end < a.columns ? end : a.columns;
    uintptr_t all = (uintptr_t)a.in[0] | (uintptr_t)a.in[1] | (uintptr_t)a.in[2] | (uintptr_t)a.in[3];
    if (all % 16 == 0) {
        for (int64_t j = i + (int)threadIdx.x * width; j + width <= end; j += MAP_THREADS * width)
            map_pack<width>(a, 0, j, f);
        i = end - (end - i) % width;
    }
    for (i += threadIdx.x; i < end; i += MAP_THREADS)
        map_pack<1>(a, 0, i, f);
}

template <class real>
int run_adam(int64_t count, const int64_t *n, const void *const *g, void *const *p, void *const *m, void *const *v,
             const adam<real> &f)
{
    adam_group<real> group = {};
    for (int64_t i = 0; i < count; i++) {
        int k = group.count, blocks = (int)ceil_of<int64_t>(n[i], ADAM_SHARE);
        if (blocks) {
            group.n[k] = n[i];
            group.g[k] = (const real *)g[i];
            group.p[k] = (real *)p[i], group.m[k] = (real *)m[i], group.v[k] = (real *)v[i];
            group.first[k + 1] = group.first[k] + blocks;
            group.count++;
        }
        if (group.count && (group.count == ADAM_ARRAYS || i == count - 1 || group.first[group.count] > MOST / 2)) {
            LAUNCH(adam_arrays<real>, (unsigned)group.first[group.count], MAP_THREADS, group, f);
            group.count = 0;
        }
    }
    return launched();
}

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

/* Of all n numbers, a function that has a number of its own. */
template <template <class> class function, int ins>
int each_with(int dtype, int64_t n, double number, const source (&in)[ins], const target (&out)[1])
{
    if (!rows_valid(dtype, 1, n))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return map<real>(1, n, in, out, function<real>{(real)number});
    });
}

}

int tg_add(int dtype, int64_t n, const void *x, const void *y, void *out, int)
{
    return each(dtype, 1, n, {{x, 0}, {y, 0}}, {{out, 0}}, add());
}

int tg_relu(int dtype, int64_t n, double slope, const void *x, void *y, int)
{
    return each_with<relu>(dtype, n, slope, {{x, 0}}, {{y, 0}});
}

int tg_relu_backward(int dtype, int64_t n, double slope, const void *gy, const void *y, void *gx, int)
{
    return each_with<relu_backward>(dtype, n, slope, {{gy, 0}, {y, 0}}, {{gx, 0}});
}

int tg_elu(int dtype, int64_t n, double alpha, const void *x, void *y, int)
{
    return each_with<elu>(dtype, n, alpha, {{x, 0}}, {{y, 0}});
}

int tg_elu_backward(int dtype, int64_t n, double alpha, const void *gy, const void *x, void *gx, int)
{
    return each_with<elu_backward>(dtype, n, alpha, {{gy, 0}, {x, 0}}, {{gx, 0}});
}

int tg_tanh(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, tanh_of());
}

int tg_sigmoid(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, sigmoid_of());
}

int tg_logistic_backward(int dtype, int64_t n, double low, const void *gy, const void *y, void *gx, int)
{
    return each_with<logistic_backward>(dtype, n, low, {{gy, 0}, {y, 0}}, {{gx, 0}});
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

int tg_adam_list(int dtype, int64_t count, const int64_t *n, const void *const *g, void *const *p, void *const *m,
                 void *const *v, int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                 int)
{
    if (!valid_dtype(dtype) || step < 1 || count < 0 || count > MOST)
        return TG_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; i++) {
        const void *arrays[] = {g[i], p[i], m[i], v[i]};
        if (!rows_valid(dtype, 1, n[i]) || n[i] / ADAM_SHARE > MOST / 2)
            return TG_BAD_ARGUMENT;
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < j; k++)
                if (overlap(arrays[j], arrays[k], n[i] * element_size(dtype)))
                    return TG_BAD_ARGUMENT;
    }
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        adam<real> f = {(real)weight_decay, (real)(1 - beta1), (real)(1 - beta2),
                        (real)(lr / (1 - pow(beta1, (double)step))),
                        (real)(1 / sqrt(1 - pow(beta2, (double)step))), (real)eps};
        return run_adam<real>(count, n, g, p, m, v, f);
    });
}

int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr, double beta1,
            double beta2, double eps, double weight_decay, int)
{
    return tg_adam_list(dtype, 1, &n, &g, &p, &m, &v, step, lr, beta1, beta2, eps, weight_decay, 1);
}
