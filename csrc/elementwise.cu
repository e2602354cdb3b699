/* Functions of one element at a time (tinygen.h has the formulas), each a functor for map() of cuda.cuh; and matrices
 * transposed. All of them are bound by memory. */
#include "runtime/cuda.cuh"

namespace {

struct add {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0] + x[1]; }
};

struct mul {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0] * x[1]; }
};

struct exp_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = exp(x[0]); }
};

struct log_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = log(x[0]); }
};

struct sqrt_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = sqrt(x[0]); }
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

struct silu_of {
    template <class real>
    __device__ void operator()(const real *x, real *y) const { y[0] = x[0] * sigmoid(x[0]); }
};

/* Of gy and x. */
struct silu_backward {
    template <class real>
    __device__ void operator()(const real *x, real *gx) const { gx[0] = x[0] * silu_slope(x[1]); }
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
int each(int dtype, int64_t rows, int64_t columns, const rows_in (&in)[ins], const rows_out (&out)[outs], function f)
{
    if (!rows_valid(dtype, rows, columns))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) { return map<decltype(zero)>(rows, columns, in, out, f); });
}

/* each(), of n numbers, for a function that has a number of its own. */
template <template <class> class function, int ins>
int each_with(int dtype, int64_t n, double number, const rows_in (&in)[ins], const rows_out (&out)[1])
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

int tg_mul(int dtype, int64_t n, const void *x, const void *y, void *out, int)
{
    return each(dtype, 1, n, {{x, 0}, {y, 0}}, {{out, 0}}, mul());
}

int tg_exp(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, exp_of());
}

int tg_log(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, log_of());
}

int tg_sqrt(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, sqrt_of());
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

int tg_silu(int dtype, int64_t n, const void *x, void *y, int)
{
    return each(dtype, 1, n, {{x, 0}}, {{y, 0}}, silu_of());
}

int tg_silu_backward(int dtype, int64_t n, const void *gy, const void *x, void *gx, int)
{
    return each(dtype, 1, n, {{gy, 0}, {x, 0}}, {{gx, 0}}, silu_backward());
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
