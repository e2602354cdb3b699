/* Convolution as tinygen.h's formula says it: loops, and nothing else. Start here: all that conv.c, conv_weight.c and
 * what they use do beside it is for speed. The kernels are held against it in tests/kernels/test_plain.py. */
#ifndef TINYGEN_PLAIN_H
#define TINYGEN_PLAIN_H
#include "mask.h"

static inline void plain_conv2d(const tg_conv_shape *s, const double *x, const double *w, double *y)
{
    for (int64_t n = 0; n < s->n; n++)                          /* each image, pixel and output channel */
        for (int64_t p = 0; p < s->oh; p++)
            for (int64_t q = 0; q < s->ow; q++)
                for (int64_t o = 0; o < s->co; o++, y++) {
                    *y = 0;
                    for (int64_t tap = 0; tap < kept_taps(s); tap++) {
                        int64_t row = p * s->stride_h + tap / s->kw * s->dil_h - s->pad_h;
                        int64_t column = q * s->stride_w + tap % s->kw * s->dil_w - s->pad_w;
                        if (row < 0 || row >= s->h || column < 0 || column >= s->w)
                            continue;                           /* the padding: zeros */
                        for (int64_t c = 0; c < s->ci; c++)
                            if (o >= first_output(s, tap, c))   /* the mask */
                                *y += x[((n * s->h + row) * s->w + column) * s->ci + c]
                                      * w[(tap * s->ci + c) * s->co + o];
                    }
                }
}
#endif
