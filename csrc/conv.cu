/* Convolution, transposed convolution and the gradient of the weight: three products over the same meetings of
 * pixels and taps (tinygen.h has the formula), without im2col.
 *
 *   conv2d              m pixels (n, oh, ow), depth (tap, ci), n co
 *   conv_transpose2d    the same from the other side, for each phase (y mod stride_h, x mod stride_w) of the
 *                       large image, whose pixels all meet the same taps: depth (tap, co), n ci
 *   conv2d_weight       m (tap, ci) and one more row, of ones, for the bias; depth pixels, n co
 *
 * A raster mask only makes the list of taps shorter; at the centre, channels that don't see each other are
 * never read. */
#include "tile.cuh"

namespace {

enum { NOWHERE = INT32_MIN / 2 };                       /* outside of every image, also with a tap added */

/* Along one axis, pixel q and tap t meet at q * step + first + t * stride of the source, an image of that
 * size; q is out + q * out_step of the result, t is kernel + t * kernel_step of the kernel. */
struct axis { int size, count, step, first, taps, stride, out, out_step, kernel, kernel_step; };

struct meeting {
    axis y, x;
    int taps;                                           /* those that the mask lets take part */
};

/* The source, by pixel and by (tap, channel): whichever of them is the line. */
template <class real>
struct gather {
    meeting at;
    const real *data;
    int channels, pixels, rectified;                    /* rectified: what is below 0 counts as 0 */
    struct spot { const real *image; int y, x; };
    struct tap { int y, x, channel; };

    __device__ __forceinline__ spot pixel(int i) const
    {
        int row = i / at.x.count, image = row / at.y.count;
        int q = i - row * at.x.count, p = row - image * at.y.count;
        spot s = {data + (int64_t)image * at.y.size * at.x.size * channels, p * at.y.step + at.y.first,
                  q * at.x.step + at.x.first};
        if (i >= pixels)
            s.y = NOWHERE;
        return s;
    }

    __device__ __forceinline__ tap channel_of_tap(int i) const
    {
        int t = i / channels, row = t / at.x.taps;
        tap where = {row * at.y.stride, (t - row * at.x.taps) * at.x.stride, i - t * channels};
        if (t >= at.taps)
            where.y = NOWHERE;
        return where;
    }

    template <int width>
    __device__ __forceinline__ pack<real, width> meet(const spot &s, const tap &t) const
    {
        int y = s.y + t.y, x = s.x + t.x;
        if ((unsigned)y >= (unsigned)at.y.size || (unsigned)x >= (unsigned)at.x.size)
            return {};
        pack<real, width> result = load<width>(s.image + ((int64_t)y * at.x.size + x) * channels + t.channel);
#pragma unroll
        for (int i = 0; i < width; i++)
            result.v[i] = rectified ? larger(result.v[i], real(0)) : result.v[i];
        return result;
    }
};

template <class real>
struct source_pixels : gather<real> {
    enum { along_depth = 1 };
    typedef typename gather<real>::spot line;
    typedef typename gather<real>::tap point;
    __device__ __forceinline__ line line_of(int i) const { return this->pixel(i); }
    __device__ __forceinline__ point point_of(int k) const { return this->channel_of_tap(k); }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &l, const point &p) const
    {
        return this->template meet<width>(l, p);
    }
};

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

/* What of w takes part: from output channel `first` on. */
struct masking {
    int ci, co, centre;                                 /* -1: no mask */
    int blocks, own;                                    /* own: mask A, the own block isn't seen */
    __device__ __forceinline__ int first(int tap, int c) const
    {
        return tap == centre ? (c / (ci / blocks) + own) * (co / blocks) : 0;
    }
};

/* `width` of w's output channels from o on, 0 below `first`, which are not read. */
template <int width, class real>
__device__ __forceinline__ pack<real, width> visible(const real *w, int o, int first)
{
    if (o >= first)
        return load<width>(w + o);
    pack<real, width> result = {};
#pragma unroll
    for (int i = 0; i < width; i++)
        if (o + i >= first)
            result.v[i] = w[o + i];
    return result;
}

template <class real>
struct weights {
    axis y, x;
    masking mask;
    int taps, width;                                    /* width: of the kernel */
    const real *w;
    __device__ __forceinline__ int tap_of(int t) const
    {
        int row = t / x.taps;
        return (y.kernel + row * y.kernel_step) * width + x.kernel + (t - row * x.taps) * x.kernel_step;
    }
};

/* depth (tap, ci), n co */
template <class real>
struct weight_columns : weights<real> {
    enum { along_depth = 0 };
    struct point { const real *w; int first; };
    typedef int line;
    __device__ __forceinline__ line line_of(int i) const { return i; }
    __device__ __forceinline__ point point_of(int k) const
    {
        int t = k / this->mask.ci, c = k - t * this->mask.ci;
        if (t >= this->taps)
            return {this->w, INT32_MAX};
        int tap = this->tap_of(t);
        return {this->w + ((int64_t)tap * this->mask.ci + c) * this->mask.co, this->mask.first(tap, c)};
    }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &o, const point &p) const
    {
        return o < this->mask.co ? visible<width>(p.w, o, p.first) : pack<real, width>{};
    }
};

/* depth (tap, co), n ci */
template <class real>
struct weight_rows : weights<real> {
    enum { along_depth = 1 };
    struct point { const real *w; int o, tap; };
    typedef int line;
    __device__ __forceinline__ line line_of(int i) const { return i; }
    __device__ __forceinline__ point point_of(int k) const
    {
        int t = k / this->mask.co;
        if (t >= this->taps)
            return {this->w, -1, 0};
        int tap = this->tap_of(t);
        return {this->w + (int64_t)tap * this->mask.ci * this->mask.co, k - t * this->mask.co, tap};
    }
    template <int width>
    __device__ __forceinline__ pack<real, width> get(const line &c, const point &p) const
    {
        if (c >= this->mask.ci || p.o < 0)
            return {};
        return visible<width>(p.w + (int64_t)c * this->mask.co, p.o, this->mask.first(p.tap, c));
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

/* Where the sums of 4 neighbouring columns go, `width` at a time. */
template <int width, class real>
__device__ __forceinline__ void store_columns(real *to, const real *sums, int column, int columns)
{
#pragma unroll
    for (int j = 0; j < COLUMNS; j += width)
        if (column + j < columns) {
            pack<real, width> p;
#pragma unroll
            for (int i = 0; i < width; i++)
                p.v[i] = sums[j + i];
            store<width>(to + column + j, p);
        }
}

/* What a pixel's sums become: + bias + add, and 0 where `positive` isn't above 0; each may be NULL. */
template <class real>
struct finish { const real *bias, *add, *positive; };

template <class real, int width>
struct to_pixels {
    axis y, x;
    int height, row, channels;                          /* of the result; row: its width */
    finish<real> f;
    real *out;
    __device__ __forceinline__ void operator()(int i, int column, real *sums, int) const
    {
        int line = i / x.count, image = line / y.count;
        int q = x.out + (i - line * x.count) * x.out_step, p = y.out + (line - image * y.count) * y.out_step;
        int64_t at = (((int64_t)image * height + p) * row + q) * channels;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column + j < channels) {
                sums[j] += f.bias ? f.bias[column + j] : 0;
                sums[j] += f.add ? f.add[at + column + j] : 0;
                sums[j] = f.positive && !(f.positive[at + column + j] > 0) ? 0 : sums[j];
            }
        store_columns<width>(out + at, sums, column, channels);
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
    real sum = 0;
    for (int64_t s = 0; s < splits; s++)
        sum += partial[s * count + i];
    if (i < count - columns)
        gw[i] = sum;
    else if (gbias)
        gbias[i - (count - columns)] = sum;
}

/* --- on the host ---------------------------------------------------------------------------------------- */

int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* Coordinates have to fit an int, with room for a sum. */
bool fits(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
{
    return size + out * stride + kernel * dilation + (pad < 0 ? -pad : pad) < MOST;
}

axis forward_axis(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
{
    return {(int)size, (int)out, (int)stride, (int)-pad, (int)kernel, (int)dilation, 0, 1, 0, 1};
}

/* Result r + q * stride gets source p through tap k where r + q * stride = p * stride + k * dilation - pad: the
 * taps whose k * dilation is r + pad modulo the stride. They are `period` apart. */
axis phase_axis(int64_t phase, int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
{
    int64_t period = stride / gcd(stride, dilation), k = 0;
    while (k < min64(period, kernel) && (phase + pad - k * dilation) % stride)
        k++;
    int64_t taps = k < min64(period, kernel) ? (kernel - 1 - k) / period + 1 : 0;
    int64_t first = taps ? (phase + pad - k * dilation) / stride : 0;
    return {(int)out, (int)ceil_of(size - phase, stride), 1, (int)first, (int)taps, (int)(-period * dilation / stride),
            (int)phase, (int)stride, (int)k, (int)period};
}

/* The taps of a meeting that come before kernel entry `kept` in raster order. */
int taps_before(const axis &y, const axis &x, int64_t kept, int64_t kw)
{
    int64_t taps = 0;
    for (int i = 0; i < y.taps; i++) {
        int64_t left = kept - (y.kernel + i * y.kernel_step) * kw - x.kernel;
        taps += left <= 0 ? 0 : min64(x.taps, ceil_of<int64_t>(left, x.kernel_step));
    }
    return (int)taps;
}

masking mask_of(const tg_conv_shape *s)
{
    int64_t centre = s->kh / 2 * s->kw + s->kw / 2;
    return {(int)s->ci, (int)s->co, s->mask == TG_MASK_NONE ? -1 : (int)centre, (int)s->groups, s->mask == TG_MASK_A};
}

int kept_taps(const tg_conv_shape *s)
{
    masking m = mask_of(s);
    return s->mask == TG_MASK_NONE ? (int)(s->kh * s->kw) : m.centre + !(m.own && m.blocks == 1);
}

/* Also pixels, and taps with channels, are counted by an int. */
int conv_fits(int dtype, const tg_conv_shape *s)
{
    return conv_valid(dtype, s) && s->n * max64(s->h * s->w, s->oh * s->ow) < LIMIT
        && s->kh * s->kw * max64(1, max64(s->ci, s->co)) < LIMIT
        && fits(s->h, s->oh, s->kh, s->stride_h, s->pad_h, s->dil_h)
        && fits(s->w, s->ow, s->kw, s->stride_w, s->pad_w, s->dil_w);
}

axis forward_y(const tg_conv_shape *s) { return forward_axis(s->h, s->oh, s->kh, s->stride_h, s->pad_h, s->dil_h); }
axis forward_x(const tg_conv_shape *s) { return forward_axis(s->w, s->ow, s->kw, s->stride_w, s->pad_w, s->dil_w); }

/* Whether both channels and all arrays allow reads of 16 bytes. */
template <class real>
bool wide(const tg_conv_shape *s, const void *a, const void *b, const void *c)
{
    return s->ci % widest<real>() == 0 && s->co % widest<real>() == 0 && aligned(a) && aligned(b) && aligned(c);
}

/* What a call adds to the plain convolution. */
struct options { int rectified; const void *bias, *add, *positive; };

/* One side of the meetings. */
struct side { int64_t height, width, channels; };

side image_of(const tg_conv_shape *s) { return {s->h, s->w, s->ci}; }
side output_of(const tg_conv_shape *s) { return {s->oh, s->ow, s->co}; }

/* conv2d, or one phase of conv_transpose2d: which of w's operands, from a source to a result. */
template <class real, int width, class columns>
int correlate(const tg_conv_shape *s, const axis &y, const axis &x, const side &from, const void *source, const void *w,
              const options &o, const side &to, void *result)
{
    source_pixels<real> a;
    columns b;
    a.at = {y, x, taps_before(y, x, kept_taps(s), s->kw)};
    a.data = (const real *)source;
    a.channels = (int)from.channels;
    a.pixels = (int)s->n * y.count * x.count;
    a.rectified = o.rectified;
    b.y = y;
    b.x = x;
    b.mask = mask_of(s);
    b.taps = a.at.taps;
    b.width = (int)s->kw;
    b.w = (const real *)w;
    finish<real> f = {(const real *)o.bias, (const real *)o.add, (const real *)o.positive};
    to_pixels<real, width> e = {y, x, (int)to.height, (int)to.width, (int)to.channels, f, (real *)result};
    return product<real, width, width>(a, b, e, whole(a.pixels, to.channels, a.at.taps * from.channels));
}

template <class real, int width>
int forward(const tg_conv_shape *s, const void *x, const void *w, const options &o, void *y)
{
    return correlate<real, width, weight_columns<real>>(s, forward_y(s), forward_x(s), image_of(s), x, w, o,
                                                        output_of(s), y);
}

template <class real, int width>
int transposed(const tg_conv_shape *s, const void *y, const void *w, const options &o, void *x)
{
    for (int64_t i = 0; i < min64(s->stride_h, s->h); i++)
        for (int64_t j = 0; j < min64(s->stride_w, s->w); j++) {
            axis down = phase_axis(i, s->h, s->oh, s->kh, s->stride_h, s->pad_h, s->dil_h);
            axis along = phase_axis(j, s->w, s->ow, s->kw, s->stride_w, s->pad_w, s->dil_w);
            int error = correlate<real, width, weight_rows<real>>(s, down, along, output_of(s), y, w, o, image_of(s),
                                                                  x);
            if (error)
                return error;
        }
    return TG_OK;
}

/* As many splits of the pixels as keep a GPU busy. */
int split_of(int64_t rows, int64_t columns, int64_t depth)
{
    int64_t blocks = max64(1, ceil_of<int64_t>(rows, SMALL_TILE) * ceil_of<int64_t>(columns, SMALL_TILE));
    int64_t splits = max64(1, min64(SPLITS / blocks, depth / (8 * SLICE)));
    return (int)max64(1, ceil_of(depth, splits * SLICE)) * SLICE;
}

template <class real, int width>
int weight_gradient(const tg_conv_shape *s, int rectified, const void *x, const void *gy, void *gw, void *gbias)
{
    source_taps<real> a;
    a.at = {forward_y(s), forward_x(s), s->ci ? kept_taps(s) : 0};
    a.data = (const real *)x;
    a.channels = (int)max64(s->ci, 1);
    a.rows = a.at.taps * (int)s->ci;
    a.rectified = rectified;
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

/* --- the calls, with and without relu ------------------------------------------------------------------- */

int run_forward(int dtype, const tg_conv_shape *s, const void *x, const void *w, const options &o, void *y)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return (wide<real>(s, x, w, y) ? forward<real, widest<real>()> : forward<real, 1>)(s, x, w, o, y);
    });
}

int run_transposed(int dtype, const tg_conv_shape *s, const void *y, const void *w, const options &o, void *x)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return (wide<real>(s, x, w, y) ? transposed<real, widest<real>()> : transposed<real, 1>)(s, y, w, o, x);
    });
}

int run_weight(int dtype, const tg_conv_shape *s, int rectified, const void *x, const void *gy, void *gw, void *gbias)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        auto run = wide<real>(s, x, gy, gw) && aligned(gbias) ? weight_gradient<real, widest<real>()>
                                                              : weight_gradient<real, 1>;
        return run(s, rectified, x, gy, gw, gbias);
    });
}

}

int tg_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, void *y, int)
{
    return run_forward(dtype, s, x, w, {0, bias, NULL, NULL}, y);
}

int tg_conv_transpose2d(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias, void *x, int)
{
    return run_transposed(dtype, s, y, w, {0, bias, NULL, NULL}, x);
}

int tg_conv2d_weight(int dtype, const tg_conv_shape *s, const void *x, const void *gy, void *gw, void *gbias, int)
{
    return run_weight(dtype, s, 0, x, gy, gw, gbias);
}

int tg_relu_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, const void *add,
                   void *y, int)
{
    return run_forward(dtype, s, x, w, {1, bias, add, NULL}, y);
}

int tg_relu_conv2d_input(int dtype, const tg_conv_shape *s, const void *gy, const void *w, const void *x, void *gx, int)
{
    return run_transposed(dtype, s, gy, w, {0, NULL, NULL, x}, gx);
}

int tg_relu_conv2d_weight(int dtype, const tg_conv_shape *s, const void *x, const void *gy, void *gw, void *gbias, int)
{
    return run_weight(dtype, s, 1, x, gy, gw, gbias);
}
