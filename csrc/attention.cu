/* Attention and its gradient (tinygen.h has the formulas; the gradients are those of attention.c). A row of p, a query
 * of one of the n, is the work of a warp: its lanes take keys first, then the numbers of a key or value. */
#include "runtime/cuda.cuh"

namespace {

enum { ATTENTION_THREADS = 256, WARP = 32, WARPS = ATTENTION_THREADS / WARP };

template <class real>
__device__ __forceinline__ real dot_of(const real *a, const real *b, int64_t n)
{
    real sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

struct sizes { int64_t n, queries, keys, size, width; };

/* y (columns) = row (keys) m, with m (keys, columns). */
template <class real>
__device__ __forceinline__ void row_times(const real *row, const real *m, int64_t keys, int64_t columns, int lane,
                                          real *y)
{
    for (int64_t e = lane; e < columns; e += WARP) {
        real sum = 0;
        for (int64_t j = 0; j < keys; j++)
            sum += row[j] * m[j * columns + e];
        y[e] = sum;
    }
}

/* p and y. */
template <class real>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_rows(sizes s, real scale, const real *q, const real *k, const real *v, real *p, real *y)
{
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= s.n * s.queries)                         /* a whole warp */
        return;
    int64_t item = quotient(row, s.queries);
    const real *of_k = k + item * s.keys * s.size;
    real *own = p + row * s.keys, most = -(real)INFINITY, sum = 0;
    for (int64_t j = lane; j < s.keys; j += WARP) {
        own[j] = scale * dot_of(q + row * s.size, of_k + j * s.size, s.size);
        most = larger(most, own[j]);
    }
    most = over_lanes(most, WARP, maximum());
    for (int64_t j = lane; j < s.keys; j += WARP) {
        own[j] = exp(own[j] - most);
        sum += own[j];
    }
    sum = over_lanes(sum, WARP, addition());
    for (int64_t j = lane; j < s.keys; j += WARP)
        own[j] /= sum;
    __syncwarp();
    row_times(own, v + item * s.keys * s.width, s.keys, s.width, lane, y + row * s.width);
}

/* gs, and gq of it. */
template <class real>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_gradients(sizes s, real scale, const real *k, const real *v, const real *p, const real *gy, real *gs,
                    real *gq)
{
    int lane = threadIdx.x % WARP;
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= s.n * s.queries)
        return;
    int64_t item = quotient(row, s.queries);
    const real *of_p = p + row * s.keys, *of_v = v + item * s.keys * s.width;
    real *own = gs + row * s.keys, sum = 0;
    for (int64_t j = lane; j < s.keys; j += WARP) {
        own[j] = dot_of(gy + row * s.width, of_v + j * s.width, s.width);
        sum += of_p[j] * own[j];
    }
    sum = over_lanes(sum, WARP, addition());
    for (int64_t j = lane; j < s.keys; j += WARP)
        own[j] = scale * of_p[j] * (own[j] - sum);
    __syncwarp();
    row_times(own, k + item * s.keys * s.size, s.keys, s.size, lane, gq + row * s.size);
}

/* c (n, keys, columns) = x' b of each of the n, x (n, queries, keys) and b (n, queries, columns): a thread a number. */
template <class real>
__global__ void __launch_bounds__(ATTENTION_THREADS)
transposed_product(sizes s, const real *x, const real *b, int64_t columns, real *c)
{
    int64_t i = (int64_t)blockIdx.x * ATTENTION_THREADS + threadIdx.x;
    if (i >= s.n * s.keys * columns)
        return;
    int64_t row = quotient(i, columns), e = i - row * columns, item = quotient(row, s.keys), j = row - item * s.keys;
    real sum = 0;
    for (int64_t r = item * s.queries; r < (item + 1) * s.queries; r++)
        sum += x[r * s.keys + j] * b[r * columns + e];
    c[i] = sum;
}

/* The blocks of all launches, or 0 for sizes that are refused. */
int64_t blocks_of(int dtype, const sizes &s)
{
    int64_t wide = max64(s.size, s.width);
    const int64_t all[] = {s.n, max64(s.queries, s.keys), max64(s.keys, wide)};
    if (!attention_valid(dtype, s.n, s.queries, s.keys, s.size, s.width) || !countable(all, 3))
        return 0;
    int64_t blocks = 1 + max64(s.n * s.queries / WARPS, s.n * s.keys * wide / ATTENTION_THREADS);
    return blocks > INT32_MAX ? 0 : blocks;
}

}

int tg_attention(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width, double scale,
                 const void *q, const void *k, const void *v, void *p, void *y, int)
{
    sizes s = {n, queries, keys, size, width};
    if (!blocks_of(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!n)
        return TG_OK;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        LAUNCH(attention_rows<real>, (unsigned)ceil_of<int64_t>(n * queries, WARPS), ATTENTION_THREADS, s, (real)scale,
               (const real *)q, (const real *)k, (const real *)v, (real *)p, (real *)y);
        return launched();
    });
}

int tg_attention_backward(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width,
                          double scale, const void *q, const void *k, const void *v, const void *p, const void *gy,
                          void *gq, void *gk, void *gv, int)
{
    sizes s = {n, queries, keys, size, width};
    if (!blocks_of(dtype, s))
        return TG_BAD_ARGUMENT;
    if (!n)
        return TG_OK;
    scratch_memory memory(n * queries * keys * element_size(dtype));
    if (!memory.p)
        return TG_NO_MEMORY;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        auto blocks = [&](int64_t width) { return (unsigned)ceil_of<int64_t>(n * keys * width, ATTENTION_THREADS); };
        real *gs = (real *)memory.p;
        LAUNCH(attention_gradients<real>, (unsigned)ceil_of<int64_t>(n * queries, WARPS), ATTENTION_THREADS, s,
               (real)scale, (const real *)k, (const real *)v, (const real *)p, (const real *)gy, gs, (real *)gq);
        LAUNCH(transposed_product<real>, blocks(size), ATTENTION_THREADS, s, (const real *)gs, (const real *)q, size,
               (real *)gk);
        LAUNCH(transposed_product<real>, blocks(width), ATTENTION_THREADS, s, (const real *)p, (const real *)gy, width,
               (real *)gv);
        return launched();
    });
}
