/* How convolutions read their images on a GPU: which pixels and taps meet where, and what of w the mask lets take
 * part. The source is the image that is read: x for conv2d and conv2d_weight, y for conv_transpose2d. */
#ifndef TINYGEN_SOURCE_CUH
#define TINYGEN_SOURCE_CUH
#include "mask.h"
#include "tile.cuh"

enum { NOWHERE = INT32_MIN / 2 };                       /* outside of every image, also with a tap added */

/* Along one axis, pixel q < count and tap t < taps meet at q * step + first + t * stride of the source, which has
 * `size` pixels. q is pixel out + q * out_step of the result, t is entry kernel + t * kernel_step of the kernel. */
struct axis { int size, count, step, first, taps, stride, out, out_step, kernel, kernel_step; };

struct meeting {
    axis y, x;
    int taps;                                           /* those that the mask lets take part */
};

/* The source as a matrix of pixels by (tap, channel), or the other way round: an operand of tile.cuh whose lines are
 * either. */
template <class real>
struct gather {
    meeting at;
    const real *data;
    int channels, pixels, relu;                         /* relu: what is below 0 counts as 0 */
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
            result.v[i] = relu ? larger(result.v[i], real(0)) : result.v[i];
        return result;
    }
};

/* The mask: through a tap, input channel c is seen by the output channels from first(tap, c) on. */
struct masking {
    int ci, co, center;                                 /* -1: no mask */
    int blocks, own;                                    /* own: mask A, the own block isn't seen */
    __device__ __forceinline__ int first(int tap, int c) const
    {
        return tap == center ? (c / (ci / blocks) + own) * (co / blocks) : 0;
    }
};

/* Stores the sums of 4 neighboring columns, `width` at a time. */
template <int width, class real>
static __device__ __forceinline__ void store_columns(real *to, const real *sums, int column, int columns)
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

/* --- on the host ---------------------------------------------------------------------------------------- */

/* Whether coordinates, and the sum of two, fit an int. */
static inline bool fits(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
{
    return size + out * stride + kernel * dilation + (pad < 0 ? -pad : pad) < MOST;
}

/* Whether the kernels take this shape: they also count pixels, and taps times channels, in ints. */
static inline int conv_fits(int dtype, const tg_conv_shape *s)
{
    return conv_valid(dtype, s) && s->n * max64(s->h * s->w, s->oh * s->ow) < LIMIT
        && s->kh * s->kw * max64(1, max64(s->ci, s->co)) < LIMIT
        && fits(s->h, s->oh, s->kh, s->stride_h, s->pad_h, s->dil_h)
        && fits(s->w, s->ow, s->kw, s->stride_w, s->pad_w, s->dil_w);
}

static inline axis forward_axis(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                                int64_t dilation)
{
    return {(int)size, (int)out, (int)stride, (int)-pad, (int)kernel, (int)dilation, 0, 1, 0, 1};
}

static inline axis forward_y(const tg_conv_shape *s)
{
    return forward_axis(s->h, s->oh, s->kh, s->stride_h, s->pad_h, s->dil_h);
}

static inline axis forward_x(const tg_conv_shape *s)
{
    return forward_axis(s->w, s->ow, s->kw, s->stride_w, s->pad_w, s->dil_w);
}

static inline masking mask_of(const tg_conv_shape *s)
{
    return {(int)s->ci, (int)s->co, s->mask == TG_MASK_NONE ? -1 : (int)center(s), (int)s->groups,
            s->mask == TG_MASK_A};
}

/* Whether both channels and all arrays allow reads of 16 bytes. */
template <class real>
static bool wide(const tg_conv_shape *s, const void *a, const void *b, const void *c)
{
    return s->ci % widest<real>() == 0 && s->co % widest<real>() == 0 && aligned(a) && aligned(b) && aligned(c);
}

#endif
