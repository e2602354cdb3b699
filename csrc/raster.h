/* Convolutions of 3 x 3 taps with PixelCNN's mask B in 7 products where the plain way takes 10. */
#ifndef TINYGEN_RASTER_H
#define TINYGEN_RASTER_H
#include "tile.h"

/* Whether this is the faster way: for mask B of all channels, and many of them. */
int raster_suits(const tg_conv_shape *s);

/* As tg_conv2d, tg_conv_transpose2d and tg_conv2d_weight of valid sizes, none of them 0. */
int raster_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
                  const void *add, void *y, int threads);
int raster_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                     const void *positive, void *x, int threads);
int raster_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                  int threads);

#endif
