/* Convolutions of small images with many channels, without the products of what lies outside of the image. */
#ifndef TINYGEN_TAPS_H
#define TINYGEN_TAPS_H
#include "tile.h"

typedef struct { int64_t first, last; } range;

/* The pixels q < count for which q * stride + at lies in an image of this size. */
static inline range inside(int64_t count, int64_t stride, int64_t at, int64_t size)
{
    range r = {at < 0 ? ceil_div(-at, stride) : 0, at < size ? min64(count, (size - 1 - at) / stride + 1) : 0};
    return r;
}

/* Whether this is the faster way, on any machine: between many channels, if at least so many percent of the products lie
 * outside. */
int taps_suit(const tg_conv_shape *s, int percent);
int taps_suit_weight(int dtype, const tg_conv_shape *s);

/* As tg_conv2d, tg_conv_transpose2d and tg_conv2d_weight of valid sizes, none of them 0. */
int taps_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, void *y, int threads);
int taps_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias, void *x,
                   int threads);
int taps_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                int threads);

#endif
