/* The gradient of convolution to its weight, without im2col: one product with m (tap, ci) and one more row, of ones,
 * for the bias; depth pixels (n, oh, ow), n co. */
#include "source.cuh"

namespace {

/* (tap, ci) by pixels, and the row of ones behind them. */
template <class real>
struct source_taps : gather<real> {
    enum { along_depth = 0 };
    int rows;
    struct line : gather<real>::tap { int one; };
    typedef typename gather<real>::spot point;
    __device__ __forceinline__ line line_of(int i) const
    {
        return {this->channel_of_tap(i), i == rows};
    }
    __device__ __forceinline__ point point_of(int k) const { return this->pixel(k); }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &l, const point &p) const
    {
        pack<real, width> result = this->template meet<width>(p, l);
        if (l.one)
            result.v[0] = p.y != NOWHERE;
        return result;
    }
};

/* A matrix (depth, n). */
template <class real>
struct matrix {
    enum { along_depth = 0 };
    const real *data;
    int depth, n;
    typedef int line, point;
    __device__ __forceinline__ line line_of(int i) const { return i; }
    __device__ __forceinline__ point point_of(int k) const { return k; }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &i, const point &k) const
    {
        return i < n && k < depth ? load<width>(data + (int64_t)k * n + i) : pack<real, width>{};
    }
};

/* gw's rows (tap, ci), then gbias; each split has its own. */
template <class real, int width>
struct to_weight {
    masking mask;
    int rows;
    int64_t split;
    real *gw, *gbias;
    __device__ __forceinline__ void operator()(int i, int column, real *sums, int s) const
    {
        int tap = i == rows ? 0 : i / mask.ci, first = i == rows ? 0 : mask.first(tap, i - tap * mask.ci);
        real *to = i == rows ? gbias : gw + (int64_t)i * mask.co;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column + j < first)
                sums[j] = 0;
        if (to)
            store_columns<width>(to + s * split, sums, column, mask.co);
    }
};

/* out[i] = the sum of all splits' numbers i; the last `columns` ones are gbias. */
template <class real>
__global__ void __launch_bounds__(MAP_THREADS)
add_splits(const real *partial, int64_t count, int64_t splits, int64_t columns, real *gw, real *gbias)
{
    int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x;
    if (i >= count)
        return;
    double sum = 0;
    for (int64_t s = 0; s < splits; s++)
        sum += (double)partial[s * count + i];
    if (i < count - columns)
        gw[i] = (real)sum;
    else if (gbias)
        gbias[i - (count - columns)] = (real)sum;
}

/* --- on the host ---------------------------------------------------------------------------------------- */

/* How many pixels each split has, such that there are enough splits to keep a GPU busy. */
int split_of(int64_t rows, int64_t columns, int64_t depth)
{
    int64_t blocks = max64(1, ceil_of<int64_t>(rows, SMALL_TILE) * ceil_of<int64_t>(columns, SMALL_TILE));
    int64_t splits = max64(1, min64(SPLITS / blocks, depth / (8 * SLICE)));
    return (int)max64(1, ceil_of(depth, splits * SLICE)) * SLICE;
}

template <class real, int width>
int weight_gradient(const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias)
{
    source_taps<real> a;
    a.at = {forward_y(s), forward_x(s), s->ci ? (int)kept_taps(s) : 0};
    a.data = (const real *)x;
    a.channels = (int)max64(s->ci, 1);
    a.rows = a.at.taps * (int)s->ci;
    a.relu = relu;
    a.pixels = (int)(s->n * s->oh * s->ow);
    matrix<real> b = {(const real *)gy, a.pixels, (int)s->co};
    int split = split_of(a.rows + 1, s->co, a.pixels);
    int64_t rows = a.rows, count = (rows + 1) * s->co, splits = max64(1, ceil_of(a.pixels, split));
    int64_t rest = (s->kh * s->kw * s->ci - rows) * s->co;
    if (rest)
        cudaMemsetAsync((real *)gw + rows * s->co, 0, (size_t)rest * sizeof(real), cuda_stream());
    extent size = {a.rows + 1, (int)s->co, a.pixels, split};
    to_weight<real, width> e = {mask_of(s), a.rows, count, (real *)gw, (real *)gbias};
    if (splits == 1)
        return product<real, width, width>(a, b, e, size);
    scratch_memory partial(splits * count * (int64_t)sizeof(real));
    if (!partial.p)
        return TG_NO_MEMORY;
    e.gw = (real *)partial.p;
    e.gbias = e.gw + rows * s->co;
    int error = product<real, width, width>(a, b, e, size);
    LAUNCH(add_splits<real>, (unsigned)ceil_of<int64_t>(count, MAP_THREADS), MAP_THREADS, (const real *)partial.p,
           count, splits, s->co, (real *)gw, (real *)gbias);
    return error ? error : launched();
}

}

int tg_conv2d_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw,
                     void *gbias, int)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        auto run = wide<real>(s, x, gy, gw) && aligned(gbias) ? weight_gradient<real, widest<real>()>
                                                              : weight_gradient<real, 1>;
        return run(s, relu, x, gy, gw, gbias);
    });
}
