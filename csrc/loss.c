/* Softmax cross entropy of each row of logits (rows, classes):  loss = log sum exp(x) - x[label], in nats;
 * its gradient gx = gloss * (softmax(x) - onehot(label)). Rows are independent, and short enough to stay
 * in the L1 cache while they are read three times: for their maximum, for the sum of exponentials, for the
 * result. With few classes, a vector holds one class of as many rows as it has lanes. Nothing is kept for the
 * gradient: exp(x - (log sum exp)) would lose digits where logits are large. */
#include <math.h>
#include "runtime/internal.h"

enum { BLOCK = 64 };                    /* vectors that are added up one after the other */

typedef struct {
    int64_t rows, classes, chunk;
    const void *logits, *gloss;
    const int64_t *labels;
    void *out;
} entropy;

#define FAMILY "loss.inc"
#include "runtime/variants.h"

enum { ITEM = 1 << 14 };                /* logits that one thread takes at a time */
static const parallel_task forward[][2] = TABLE(cross_entropy_item),
    backward[][2] = TABLE(cross_entropy_backward_item);

static int run_rows(int dtype, const parallel_task task[][2], entropy *e, int threads)
{
    int64_t all;
    if (!valid_dtype(dtype) || e->rows < 0 || e->classes < 1
        || __builtin_mul_overflow(e->rows, e->classes, &all))
        return TG_BAD_ARGUMENT;
    for (int64_t i = 0; i < e->rows; i++)
        if (e->labels[i] < 0 || e->labels[i] >= e->classes)
            return TG_BAD_ARGUMENT;
    e->chunk = ceil_div(ITEM, e->classes);
    parallel(ceil_div(e->rows, e->chunk), clamp_threads(threads), task[tg_isa()][dtype], e);
    return TG_OK;
}

int tg_cross_entropy(int dtype, int64_t rows, int64_t classes, const void *logits, const int64_t *labels,
                     void *loss, int threads)
{
    entropy e = {.rows = rows, .classes = classes, .logits = logits, .labels = labels, .out = loss};
    return run_rows(dtype, forward, &e, threads);
}

int tg_cross_entropy_backward(int dtype, int64_t rows, int64_t classes, const void *logits,
                              const int64_t *labels, const void *gloss, void *glogits, int threads)
{
    entropy e = {.rows = rows, .classes = classes, .logits = logits, .labels = labels, .gloss = gloss,
                 .out = glogits};
    return run_rows(dtype, backward, &e, threads);
}
