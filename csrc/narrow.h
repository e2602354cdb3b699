/* Products with a square matrix of a few channels, as of a flow's invertible 1 x 1 convolution (Kingma & Dhariwal
 * 2018): a vector holds several pixels. */
#ifndef TINYGEN_NARROW_H
#define TINYGEN_NARROW_H
#include "runtime/internal.h"

/* Whether there is such a way for so many channels and rows (pixels), with the instruction set in force. */
int is_narrow(int dtype, int64_t rows, int64_t channels);

/* y (rows, n) = x (rows, n) w (n, n) + bias (n), which may be NULL; transposed: x w'. */
int narrow_product(int dtype, int64_t rows, int64_t n, const void *x, const void *w, int transposed, const void *bias,
                   void *y, int threads);

/* gw (n, n) = x' gy, and gbias (n), or NULL: the sums of gy's columns. */
int narrow_weight(int dtype, int64_t rows, int64_t n, const void *x, const void *gy, void *gw, void *gbias,
                  int threads);
#endif
