/* Functions of one element at a time: sums, relu, tanh, sigmoid, the gated activation, Adam's step.
 *
 * They are as fast as memory if the arithmetic is vectorised (vector.inc) and an element is read and
 * written once: hence the fused gated activation, whose backward computes tanh and sigmoid again instead
 * of reading them. */
#include <math.h>
#include "internal.h"

enum { ITEM = 1 << 14 };                /* elements that one thread takes at a time */

typedef struct {
    int64_t n, rows, columns;           /* elements, or rows of columns of which an item has `rows` */
    const void *in[2];
    void *out[3];
    double scalar[6];
} flat;

#define FAMILY "elementwise.inc"
#include "variants.h"

static const parallel_task add_task[][2] = TABLE(add_item), relu_task[][2] = TABLE(relu_item),
    relu_backward_task[][2] = TABLE(relu_backward_item);
static const parallel_task tanh_task[][2] = TABLE(tanh_item), sigmoid_task[][2] = TABLE(sigmoid_item),
    gated_task[][2] = TABLE(gated_item), gated_backward_task[][2] = TABLE(gated_backward_item),
    adam_task[][2] = TABLE(adam_item);

static int each(int dtype, const parallel_task task[][2], flat *f, int threads)
{
    if (!valid_dtype(dtype) || f->n < 0)
        return TG_BAD_ARGUMENT;
    parallel(ceil_div(f->n, ITEM), clamp_threads(threads), task[tg_isa()][dtype], f);
    return TG_OK;
}

static int each_row(int dtype, const parallel_task task[][2], flat *f, int threads)
{
    if (!valid_dtype(dtype) || f->n < 0 || f->columns < 0)
        return TG_BAD_ARGUMENT;
    f->rows = ceil_div(ITEM, f->columns + 1);
    parallel(ceil_div(f->n, f->rows), clamp_threads(threads), task[tg_isa()][dtype], f);
    return TG_OK;
}

int tg_add(int dtype, int64_t n, const void *x, const void *y, void *out, int threads)
{
    flat f = {.n = n, .in = {x, y}, .out = {out}};
    return each(dtype, add_task, &f, threads);
}

int tg_relu(int dtype, int64_t n, double slope, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}, .scalar = {slope}};
    return each(dtype, relu_task, &f, threads);
}

int tg_relu_backward(int dtype, int64_t n, double slope, const void *gy, const void *y, void *gx, int threads)
{
    flat f = {.n = n, .in = {gy, y}, .out = {gx}, .scalar = {slope}};
    return each(dtype, relu_backward_task, &f, threads);
}

int tg_tanh(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, tanh_task, &f, threads);
}

int tg_sigmoid(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, sigmoid_task, &f, threads);
}

int tg_gated(int dtype, int64_t rows, int64_t channels, const void *x, void *y, int threads)
{
    flat f = {.n = rows, .columns = channels, .in = {x}, .out = {y}};
    return each_row(dtype, gated_task, &f, threads);
}

int tg_gated_backward(int dtype, int64_t rows, int64_t channels, const void *x, const void *gy, void *gx,
                      int threads)
{
    flat f = {.n = rows, .columns = channels, .in = {x, gy}, .out = {gx}};
    return each_row(dtype, gated_backward_task, &f, threads);
}

int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr,
            double beta1, double beta2, double eps, double weight_decay, int threads)
{
    if (step < 1)
        return TG_BAD_ARGUMENT;
    flat f = {.n = n, .in = {g}, .out = {p, m, v},
              .scalar = {weight_decay, 1 - beta1, 1 - beta2, lr / (1 - pow(beta1, (double)step)),
                         1 / sqrt(1 - pow(beta2, (double)step)), eps}};
    return each(dtype, adam_task, &f, threads);
}
