/* Every kernel of tinygen, declared once: the C and CUDA files include this header, and the Python side reads the same
 * text.
 *
 * Arrays are passed as `void *`, the type of their elements as `dtype`. Every array is contiguous, with the shape that
 * its comment gives and in C order (the last index runs fastest). Kernels return 0 or an error code; they never print
 * and never exit. `threads` is the most threads that a call may use. The same call gives the same bytes on every run
 * and for every number of threads. */
#ifndef TINYGEN_H
#define TINYGEN_H
#include <stdint.h>
#ifdef __cplusplus
#pragma GCC visibility push(default)  /* the CUDA library exports what is declared here, and no more */
extern "C" {
#endif

enum { TG_F32 = 0, TG_F64 = 1 };
enum { TG_OK = 0, TG_NO_MEMORY = 1, TG_BAD_ARGUMENT = 2 };
enum { TG_MASK_NONE = 0, TG_MASK_A = 1, TG_MASK_B = 2 };
enum { TG_BASELINE = 0, TG_AVX2 = 1, TG_AVX512 = 2 };

/* --- the machine ---------------------------------------------------------------------------------------- */

/* The instruction set in use: TG_BASELINE, TG_AVX2 (with FMA) or TG_AVX512. tg_set_isa asks for one and returns the
 * one that is used from now on, never above what the machine has. */
int tg_isa(void);
int tg_set_isa(int level);

/* For benchmarks: runs float32 multiply-adds that touch no memory, for some milliseconds on each thread. Returns the
 * number of operations; divided by the time taken, it is the rate that no kernel can exceed. */
int64_t tg_peak(int threads);

/* For tests: makes the n-th scratch allocation from now on fail (1: the next one; 0: none). No kernel makes more than
 * four. */
void tg_fail_allocation(int64_t n);

/* --- convolution ---------------------------------------------------------------------------------------- */

/* x (n, h, w, ci), y (n, oh, ow, co) and w (kh, kw, ci, co) are tied together by
 *
 *     T = sum y[n, p, q, o] * w[i, j, c, o]
 *           * x[n, p * stride_h + i * dil_h - pad_h, q * stride_w + j * dil_w - pad_w, c]
 *
 * with x zero outside its bounds (a negative padding crops). The kernels are T's derivatives with respect to y, to x
 * and to w.
 *
 * mask (PixelCNN): in raster order, the taps before the center (kh / 2, kw / 2) take part, those after it don't. At
 * the center, channels come in `groups` equal blocks (1: gray, 3: R, G, B), and block g of y sees the blocks of x
 * below g with TG_MASK_A, up to g with TG_MASK_B. Masked weights are never read. */
typedef struct {
    int64_t n, h, w, ci, oh, ow, co, kh, kw;
    int64_t stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
    int64_t mask, groups;
} tg_conv_shape;

/* y = conv(x, w) + bias + add; bias (co) and add (like y) may be NULL. relu 1: of max(x, 0) in place of x, where NaN
 * stays NaN. So what residual blocks are made of takes no pass over memory of its own. A linear layer is the case
 * h = w = oh = ow = kh = kw = 1. */
int tg_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
              const void *add, void *y, int threads);

/* x = the gradient of conv to its input, for y: transposed convolution, plus bias. Where `positive` (like x) isn't
 * above 0, x is 0: with relu's input there, the gradient to that. bias (ci) and positive may be NULL. */
int tg_conv_transpose2d(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                        const void *positive, void *x, int threads);

/* gw = the gradient of conv to its weight, for gy at x (relu 1: at max(x, 0)), exactly 0 where masked; gbias (co) =
 * sum of gy, or NULL. */
int tg_conv2d_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw,
                     void *gbias, int threads);

/* --- recurrence ----------------------------------------------------------------------------------------- */

/* An LSTM over images, rows of pixels (n, h, w), gates in the order i, f, g, o:
 *
 *     a = z + sum over taps of h[a pixel of the previous step] u[tap]
 *     i, f, o = sigmoid(a..), g = tanh(a..),  c = f * c[the previous step] + i * g,  h = o * tanh(c)
 *
 * where states outside the image are 0.
 *
 * diagonal 0: a step is a row, and tap t of `taps` (odd) sees the previous row at x + t - taps / 2. taps 1
 *             is a plain sequence (n = 1, h = time, w = batch), taps 3 the Row LSTM.
 * diagonal 1: a step is a diagonal x + y; taps = 2, tap 0 sees the pixel above, tap 1 the one on the left,
 *             whose c continues. -1: from right to left, tap 1 sees the pixel on the right.
 *
 * z, gates, gz (n, h, w, 4, units); h, c, gh, gc (n, h, w, units); u (taps, units, 4, units). For n = 1
 * and diagonal 0, h0, c0, gh0, gc0 (w, units) are the states before the first row, or all NULL. */
typedef struct { int64_t n, h, w, units, taps, diagonal; } tg_lstm_shape;

/* gates (activated), c and h from z. gates may be z itself, or NULL if they aren't needed. */
int tg_lstm(int dtype, const tg_lstm_shape *s, const void *z, const void *u, const void *h0, const void *c0,
            void *gates, void *c, void *h, int threads);

/* gz, gh0 and gc0, the gradients of z, h0 and c0, from gh and gc, those of h and c (either may be NULL). */
int tg_lstm_backward(int dtype, const tg_lstm_shape *s, const void *u, const void *c0, const void *gates,
                     const void *c, const void *gh, const void *gc, void *gz, void *gh0, void *gc0,
                     int threads);

/* gu, the gradient of u, without the part of h0, which is h0' gz[first row]. */
int tg_lstm_weight(int dtype, const tg_lstm_shape *s, const void *h, const void *gz, void *gu, int threads);

/* --- elementwise ---------------------------------------------------------------------------------------- */

/* All (n).  out = x + y;  out = x * y */
int tg_add(int dtype, int64_t n, const void *x, const void *y, void *out, int threads);
int tg_mul(int dtype, int64_t n, const void *x, const void *y, void *out, int threads);

/* y = e to the x; the natural logarithm of x (-infinity of 0, NaN below); the square root of x */
int tg_exp(int dtype, int64_t n, const void *x, void *y, int threads);
int tg_log(int dtype, int64_t n, const void *x, void *y, int threads);
int tg_sqrt(int dtype, int64_t n, const void *x, void *y, int threads);

/* y = x where x > 0, slope * x elsewhere (exactly 0 for slope 0), NaN where x is; gx = gy where y > 0, slope * gy
 * elsewhere. For a slope from 0 on, the sign of x tells the same as that of y, so either may be passed as y. */
int tg_relu(int dtype, int64_t n, double slope, const void *x, void *y, int threads);
int tg_relu_backward(int dtype, int64_t n, double slope, const void *gy, const void *y, void *gx,
                     int threads);

/* y = x where x > 0, alpha * expm1(x) elsewhere; gx = gy where x > 0, gy * alpha * exp(x) elsewhere */
int tg_elu(int dtype, int64_t n, double alpha, const void *x, void *y, int threads);
int tg_elu_backward(int dtype, int64_t n, double alpha, const void *gy, const void *x, void *gx, int threads);

/* y = tanh(x); y = sigmoid(x); gx = gy (1 - y) (y - low), for tanh with low = -1, for sigmoid with low = 0 */
int tg_tanh(int dtype, int64_t n, const void *x, void *y, int threads);
int tg_sigmoid(int dtype, int64_t n, const void *x, void *y, int threads);
int tg_logistic_backward(int dtype, int64_t n, double low, const void *gy, const void *y, void *gx,
                         int threads);

/* y = x sigmoid(x); gx = gy sigmoid(x) (1 + x (1 - sigmoid(x))) */
int tg_silu(int dtype, int64_t n, const void *x, void *y, int threads);
int tg_silu_backward(int dtype, int64_t n, const void *gy, const void *x, void *gx, int threads);

/* y = tanh(a) * sigmoid(b), with y (rows, channels) and x (rows, 2, channels): a and b of each row. */
int tg_gated(int dtype, int64_t rows, int64_t channels, const void *x, void *y, int threads);
int tg_gated_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *gy, void *gx,
                      int threads);

/* y (n, columns, rows) = x (n, rows, columns), each matrix transposed: from NHWC to NCHW, and back. */
int tg_transpose(int dtype, int64_t n, int64_t rows, int64_t columns, const void *x, void *y, int threads);

/* out (rows, x_columns + y_columns): each row of x (rows, x_columns), and after it that of y (rows, y_columns). And apart
 * again: gx and gy, like x and y, from gout. */
int tg_cat(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *x, const void *y, void *out,
           int threads);
int tg_cat_backward(int dtype, int64_t rows, int64_t x_columns, int64_t y_columns, const void *gout, void *gx, void *gy,
                    int threads);

/* --- over rows ------------------------------------------------------------------------------------------ */

/* y = (x - mean) * weight / sqrt(var + eps) + bias with x, y (rows, channels); mean and var (channels,
 * biased) of the batch are outputs. weight and bias (channels) may be NULL for 1 and 0. At least one row. */
int tg_batch_norm(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                  const void *bias, double eps, void *y, void *mean, void *var, int threads);
int tg_batch_norm_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                           const void *mean, const void *var, double eps, const void *gy, void *gx,
                           void *gweight, void *gbias, int threads);

/* y = silu((x + shift - mean) * rstd * weight + bias), or what silu is taken of with silu 0. x, y (n, pixels, channels);
 * shift (n, channels), or NULL for 0; mean and rstd = 1 / sqrt(var + eps) of x + shift, outputs (n, groups), of each
 * image and group: channels / groups of them in a row at all pixels. weight and bias (channels) may be NULL for 1 and 0.
 * At least one pixel and one channel. gshift (n, channels) may be NULL. */
int tg_group_norm(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu, const void *x,
                  const void *shift, const void *weight, const void *bias, double eps, void *y, void *mean, void *rstd,
                  int threads);
int tg_group_norm_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t groups, int silu,
                           const void *x, const void *shift, const void *weight, const void *bias, const void *mean,
                           const void *rstd, const void *gy, void *gx, void *gshift, void *gweight, void *gbias,
                           int threads);

/* p = softmax(scale q k') of each row, y = p v: each of n by itself. q (n, queries, size), k (n, keys, size), v (n, keys,
 * width), p (n, queries, keys), y (n, queries, width). All sizes but n are at least 1. Backward, p is given. */
int tg_attention(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width, double scale,
                 const void *q, const void *k, const void *v, void *p, void *y, int threads);
int tg_attention_backward(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width,
                          double scale, const void *q, const void *k, const void *v, const void *p, const void *gy,
                          void *gq, void *gk, void *gv, int threads);

/* loss (rows), in nats, of logits (rows, classes) and labels (rows); a label outside 0 .. classes - 1 is a bad
 * argument. glogits, the gradient of logits, from gloss (rows). */
int tg_cross_entropy(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels,
                     void *loss, int threads);
int tg_cross_entropy_backward(int dtype, int64_t rows, int64_t classes, const void *logits,
                              const int64_t *labels, const void *gloss, void *glogits, int threads);

/* --- affine maps ---------------------------------------------------------------------------------------- */

/* The affine coupling: y = x, but x2 exp(s) + t in place of its k channels x2 from `start` on, and log_det (n), the sum
 * of s of each image. x, y (n, pixels, channels); both (n, pixels, 2, k): v, of which s = 2 tanh(v / 2), and t.
 * gx and gboth are the gradients of x and both, from gy and glog_det (n), either of which may be NULL for 0. */
int tg_affine_coupling(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start, const void *x,
                       const void *both, void *y, void *log_det, int threads);
int tg_affine_coupling_backward(int dtype, int64_t n, int64_t pixels, int64_t channels, int64_t k, int64_t start,
                                const void *x, const void *both, const void *gy, const void *glog_det, void *gx,
                                void *gboth, int threads);

/* y = x * weight + bias, of each channel, with x, y (rows, channels); and the gradients of x, weight and bias. */
int tg_channel_affine(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight, const void *bias,
                      void *y, int threads);
int tg_channel_affine_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *weight,
                               const void *gy, void *gx, void *gweight, void *gbias, int threads);

/* --- sampling ------------------------------------------------------------------------------------------- */

/* Draws images value by value from a network. Each of the network's numbers is computed once, as soon as what it
 * depends on has been drawn. state (n, size) holds the numbers of each image; the caller sets those that are constant.
 *
 * For each value from `first` to `last`, the value before, as scaled[level], is put at places[value - 1] of the state.
 * Then steps starts[value] .. starts[value + 1] - 1 run in order. A step computes, by its layer's kind, the layer's n
 * numbers that begin at the step's out, from numbers of the state that begin at the step's x and y:
 *
 * TG_LINEAR        out = b + W v        v: for each of the layer's runs (a, length), state[x + a ..]
 * TG_LINEAR_FROM   out = y + W v        low <= 0 and high >= 0 bound what is read around x
 * all others       out = f(x), or f(x, y): elementwise; low = 0, high = n
 *
 * where out doesn't overlap what is read, or is y itself, or (elementwise) x itself. At the layer's place in `weights`
 * b begins, followed by W' row by row; each row is padded to ld numbers, a multiple of 16.
 *
 * Last, from value `known` on, a level is drawn: the one at which the cumulative softmax(logits / temperature) passes
 * uniform[value], or with temperature 0 the likeliest. The logits are state[results[value]]. Or, with K `mixtures`,
 * they are those of a mixture of K discretized logistics over the C `colors` of a pixel, which are C values in a row;
 * then results has 1 + 2 C + C (C - 1) / 2 places for each component: of its logit, C means, C logs of scales (clipped
 * to -7 .. 7), and coefficients (G's for R, B's for R and G, ...), whose tanh times that color, as a number from -1 to
 * 1, is added to the mean.
 *
 * Besides 0 and the error codes, tg_sample may return -1 - value for the first value that can't be drawn in some image,
 * because a logit is NaN or +infinity, or all are -infinity; other images may have gone beyond it. */
enum { TG_LINEAR, TG_LINEAR_FROM, TG_COPY, TG_RELU, TG_ELU, TG_TANH, TG_SIGMOID,
       TG_ADD, TG_SUB, TG_MUL, TG_GATED /* tanh(x) * sigmoid(y) */ };
typedef struct { int64_t kind, n, run, runs, low, high, ld, weights; } tg_layer;
typedef struct { int32_t layer, out, x, y; } tg_step;
typedef struct {
    int64_t n, values, levels, size;            /* images; values, levels and numbers of an image */
    int64_t layers, runs, steps, weights;       /* lengths of the arrays */
    int64_t mixtures, colors;                  /* 0 mixtures: of softmax */
    int64_t first, last, known;
    double temperature;
} tg_sampler;

/* runs (runs, 2), starts (values + 1), places (values), scaled (levels), results (values, numbers of each),
 * uniform (values, n), x (n, values): the levels, those before `known` given. */
int tg_sample(int dtype, const tg_sampler *s, const tg_layer *layers, const int64_t *runs, const void *weights,
              const tg_step *steps, const int64_t *starts, const int32_t *places, const void *scaled,
              const int32_t *results, const double *uniform, void *state, uint8_t *x, int threads);

/* --- optimizers ----------------------------------------------------------------------------------------- */

/* Adam's update number `step` (from 1) of p and its moments m and v, all (n), in place; weight_decay is that of an L2
 * penalty. tg_adam_list updates `count` such arrays in one call, their sizes and pointers given as lists. Both refuse
 * arrays that overlap. */
int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr,
            double beta1, double beta2, double eps, double weight_decay, int threads);
int tg_adam_list(int dtype, int64_t count, const int64_t *n, const void *const *g, void *const *p,
                 void *const *m, void *const *v, int64_t step, double lr, double beta1, double beta2,
                 double eps, double weight_decay, int threads);

#ifdef __cplusplus
}
#pragma GCC visibility pop
#endif
#endif
