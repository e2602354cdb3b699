/* Functions of one element at a time: sums, activations, the gated one, Adam's step.
 *
 * They are as fast as memory if the arithmetic is vectorized (vector.inc) and an element is read and
 * written once: hence the fused gated activation, whose backward computes tanh and sigmoid again instead
 * of reading them. */
#include <math.h>
#include "runtime/internal.h"

enum { ITEM = 1 << 14 };                /* elements that one thread takes at a time */

typedef struct {
    int64_t n, rows, columns;           /* elements, or rows of columns of which an item has `rows` */
    const void *in[2];
    void *out[1];
    double scalar[1];
} flat;

#define FAMILY "elementwise.inc"
#include "runtime/variants.h"

static const parallel_task add_task[][2] = TABLE(add_item), relu_task[][2] = TABLE(relu_item),
    relu_backward_task[][2] = TABLE(relu_backward_item), elu_task[][2] = TABLE(elu_item),
    elu_backward_task[][2] = TABLE(elu_backward_item), tanh_task[][2] = TABLE(tanh_item),
    sigmoid_task[][2] = TABLE(sigmoid_item), logistic_backward_task[][2] = TABLE(logistic_backward_item),
    gated_task[][2] = TABLE(gated_item), gated_backward_task[][2] = TABLE(gated_backward_item);
typedef void (*adam_kernel)(const double *scalar, int64_t n, const void *g, void *p, void *m, void *v);
static const adam_kernel adam_kernels[][2] = TABLE(adam);

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

int tg_elu(int dtype, int64_t n, double alpha, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}, .scalar = {alpha}};
    return each(dtype, elu_task, &f, threads);
}

int tg_elu_backward(int dtype, int64_t n, double alpha, const void *gy, const void *x, void *gx, int threads)
{
    flat f = {.n = n, .in = {gy, x}, .out = {gx}, .scalar = {alpha}};
    return each(dtype, elu_backward_task, &f, threads);
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

int tg_logistic_backward(int dtype, int64_t n, double low, const void *gy, const void *y, void *gx, int threads)
{
    flat f = {.n = n, .in = {gy, y}, .out = {gx}, .scalar = {low}};
    return each(dtype, logistic_backward_task, &f, threads);
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

/* Adam's arrays stand in a row, of which an item is a piece like any other: many small ones make one item. */
typedef struct {
    int64_t count, *end;                /* end: of each array in the row */
    const int64_t *n;
    const void *const *g;
    void *const *p, *const *m, *const *v;
    adam_kernel run;
    double scalar[6];
    int64_t size;
} adam_list;

static void adam_item(void *context, int64_t item, int slot)
{
    const adam_list *a = context;
    int64_t at = item * ITEM, last = at + ITEM, low = 0, high = a->count - 1;
    (void)slot;
    while (low < high) {                        /* the first array that ends after `at` */
        int64_t middle = (low + high) / 2;
        if (a->end[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    for (int64_t i = low; i < a->count && at < last; i++) {
        int64_t from = (at - a->end[i] + a->n[i]) * a->size, n = min64(last, a->end[i]) - at;
        a->run(a->scalar, n, (const char *)a->g[i] + from, (char *)a->p[i] + from, (char *)a->m[i] + from,
               (char *)a->v[i] + from);
        at += n;
    }
}

int tg_adam_list(int dtype, int64_t count, const int64_t *n, const void *const *g, void *const *p,
                 void *const *m, void *const *v, int64_t step, double lr, double beta1, double beta2,
                 double eps, double weight_decay, int threads)
{
    if (!valid_dtype(dtype) || step < 1 || count < 0 || count > MOST)
        return TG_BAD_ARGUMENT;
    plan lists = {0};
    reserve(&lists, count, sizeof(int64_t));
    adam_list a = {.count = count, .end = scratch(LISTS, &lists), .n = n, .g = g, .p = p, .m = m, .v = v,
                   .run = adam_kernels[tg_isa()][dtype], .size = element_size(dtype),
                   .scalar = {weight_decay, 1 - beta1, 1 - beta2, lr / (1 - pow(beta1, (double)step)),
                              1 / sqrt(1 - pow(beta2, (double)step)), eps}};
    if (!a.end)
        return TG_NO_MEMORY;
    int64_t all = 0;
    for (int64_t i = 0; i < count; i++) {
        const void *arrays[] = {g[i], p[i], m[i], v[i]};
        if (n[i] < 0 || __builtin_add_overflow(all, n[i], &all) || all > INT64_MAX / 64)
            return TG_BAD_ARGUMENT;
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < j; k++)
                if (overlap(arrays[j], arrays[k], n[i] * a.size))
                    return TG_BAD_ARGUMENT;
        a.end[i] = all;
    }
    parallel(ceil_div(all, ITEM), clamp_threads(threads), adam_item, &a);
    release_scratch();
    return TG_OK;
}

int tg_adam(int dtype, int64_t n, const void *g, void *p, void *m, void *v, int64_t step, double lr,
            double beta1, double beta2, double eps, double weight_decay, int threads)
{
    return tg_adam_list(dtype, 1, &n, &g, &p, &m, &v, step, lr, beta1, beta2, eps, weight_decay, threads);
}
