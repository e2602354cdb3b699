/* Convolutions of 3 x 3 taps in 16 products where the plain way takes 36, and of 4 x 4 taps with a stride of 2 in 9 where
 * it takes 16: Winograd's minimal filtering, F(2x2, 3x3) and F(2x2, 2x2). */
#ifndef TINYGEN_WINOGRAD_H
#define TINYGEN_WINOGRAD_H
#include "tile.h"

/* Whether this is the faster way, on any machine: for such taps without a mask, of many channels. */
int winograd_suits(const tg_conv_shape *s);
int winograd_suits_transpose(int dtype, const tg_conv_shape *s);

/* As tg_conv2d, tg_conv_transpose2d and tg_conv2d_weight of valid sizes, none of them 0. */
int winograd_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
                    const void *add, void *y, int threads);
int winograd_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                       const void *positive, void *x, int threads);
int winograd_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                    int threads);

#endif
