/* Convolution and transposed convolution, two products over the same meetings of pixels and taps (tinygen.h has the
 * formula), without im2col:
 *
 *   conv2d              m pixels (n, oh, ow), depth (tap, ci), n co
 *   conv_transpose2d    the same from the other side, for each phase (y mod stride_h, x mod stride_w) of the
 *                       large image, whose pixels all meet the same taps: depth (tap, co), n ci
 *
 * A raster mask only makes the list of taps shorter; at the center, channels that don't see each other are
 * never read. */
#include "source.cuh"

namespace {

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

/* What is done to a pixel's sums: + bias + add, and 0 where `positive` isn't above 0; each may be NULL. */
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

/* --- on the host ---------------------------------------------------------------------------------------- */

int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* Result r + q * stride (r is the phase) meets source p through tap k where r + q * stride = p * stride + k * dilation
 * - pad. So a phase has the taps whose k * dilation is r + pad modulo the stride; they are `period` apart. */
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

/* What a call adds to the plain convolution. */
struct options { int relu; const void *bias, *add, *positive; };

/* The sizes of the images on one side of the convolution. */
struct side { int64_t height, width, channels; };

side image_of(const tg_conv_shape *s) { return {s->h, s->w, s->ci}; }
side output_of(const tg_conv_shape *s) { return {s->oh, s->ow, s->co}; }

/* conv2d, or one phase of conv_transpose2d, from a source to a result; `columns` is the operand that reads w. */
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
    a.relu = o.relu;
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

}

int tg_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
              const void *add, void *y, int)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    options o = {relu, bias, add, NULL};
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return (wide<real>(s, x, w, y) ? forward<real, widest<real>()> : forward<real, 1>)(s, x, w, o, y);
    });
}

int tg_conv_transpose2d(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                        const void *positive, void *x, int)
{
    if (!conv_fits(dtype, s))
        return TG_BAD_ARGUMENT;
    options o = {0, bias, NULL, positive};
    return typed(dtype, [&](auto zero) {
        typedef decltype(zero) real;
        return (wide<real>(s, x, w, y) ? transposed<real, widest<real>()> : transposed<real, 1>)(s, y, w, o, x);
    });
}
