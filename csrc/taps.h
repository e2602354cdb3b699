/* Convolutions of small images with many channels, without the products of what lies outside of the image. */
#ifndef TINYGEN_TAPS_H
#define TINYGEN_TAPS_H
#include "tile.h"

/* Whether this is the faster way, on any machine. */
int taps_suit(const tg_conv_shape *s);

/* As tg_conv2d, tg_conv_transpose2d and tg_conv2d_weight of valid sizes, none of them 0. */
int taps_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, void *y, int threads);
int taps_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias, void *x,
                   int threads);

#endif
