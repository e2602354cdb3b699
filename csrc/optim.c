/* Optimizers: a step of Adam, in one pass over the gradient, the parameter and its two moments. */
#include <math.h>
#include "runtime/internal.h"

enum { ITEM = 1 << 14 };                /* numbers that one thread takes at a time */

#define FAMILY "optim.inc"
#include "runtime/variants.h"

typedef void (*adam_kernel)(const double *scalar, int64_t n, const void *g, void *p, void *m, void *v);
static const adam_kernel adam_kernels[][2] = TABLE(adam);

/* The arrays are thought of as one long array that is cut into items of one size, so that many small arrays make one
 * item. */
typedef struct {
    int64_t count, *end;                /* end: where each array ends in the long one */
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
