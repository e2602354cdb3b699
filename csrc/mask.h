/* PixelCNN's raster mask of a convolution (tg_conv_shape in tinygen.h), in C and CUDA alike. */
#ifndef TINYGEN_MASK_H
#define TINYGEN_MASK_H
#include "tinygen.h"

/* The tap at the kernel's center. Taps are numbered in raster order: (i, j) is tap i * kw + j. */
static inline int64_t center(const tg_conv_shape *s) { return s->kh / 2 * s->kw + s->kw / 2; }

/* How many taps take part: the first ones. */
static inline int64_t kept_taps(const tg_conv_shape *s)
{
    if (s->mask == TG_MASK_NONE)
        return s->kh * s->kw;
    return center(s) + !(s->mask == TG_MASK_A && s->groups == 1);
}

/* The first output channel that sees input channel c through this tap; all after it do, too. */
static inline int64_t first_output(const tg_conv_shape *s, int64_t tap, int64_t c)
{
    if (s->mask == TG_MASK_NONE || tap != center(s))
        return 0;
    return (c / (s->ci / s->groups) + (s->mask == TG_MASK_A)) * (s->co / s->groups);
}

/* Whether each pixel of y sees the same pixel of x and no other, all its channels: then conv is a matrix product. */
static inline int is_pointwise(const tg_conv_shape *s)
{
    return s->kh == 1 && s->kw == 1 && s->stride_h == 1 && s->stride_w == 1 && !s->pad_h && !s->pad_w
        && s->oh == s->h && s->ow == s->w && (!s->mask || (s->mask == TG_MASK_B && s->groups == 1));
}

#endif
