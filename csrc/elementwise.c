/* Functions of one element at a time: sums and activations. And matrices transposed.
 *
 * They are as fast as memory if the arithmetic is vectorized (vector.inc) and each element is read and written once.
 * That is why there is a fused gated activation, whose backward computes tanh and sigmoid again instead of reading
 * them. */
#include <math.h>
#include "tile.h"

enum { ITEM = 1 << 14 };                /* elements that one thread takes at a time */

typedef struct {
    int64_t n, rows, columns;           /* n elements; or n rows of so many columns, `rows` of them in an item */
    const void *in[2];
    void *out[1];
    double scalar[1];
} flat;

#define FAMILY "elementwise.inc"
#include "runtime/variants.h"

static const parallel_task add_task[][2] = TABLE(add_item), mul_task[][2] = TABLE(mul_item),
    exp_task[][2] = TABLE(exp_item), log_task[][2] = TABLE(log_item), sqrt_task[][2] = TABLE(sqrt_item), relu_task[][2] = TABLE(relu_item),
    relu_backward_task[][2] = TABLE(relu_backward_item), elu_task[][2] = TABLE(elu_item),
    elu_backward_task[][2] = TABLE(elu_backward_item), tanh_task[][2] = TABLE(tanh_item),
    sigmoid_task[][2] = TABLE(sigmoid_item), silu_task[][2] = TABLE(silu_item),
    silu_backward_task[][2] = TABLE(silu_backward_item), logistic_backward_task[][2] = TABLE(logistic_backward_item),
    gated_task[][2] = TABLE(gated_item), gated_backward_task[][2] = TABLE(gated_backward_item);

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

int tg_mul(int dtype, int64_t n, const void *x, const void *y, void *out, int threads)
{
    flat f = {.n = n, .in = {x, y}, .out = {out}};
    return each(dtype, mul_task, &f, threads);
}

int tg_exp(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, exp_task, &f, threads);
}

int tg_log(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, log_task, &f, threads);
}

int tg_sqrt(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, sqrt_task, &f, threads);
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

int tg_silu(int dtype, int64_t n, const void *x, void *y, int threads)
{
    flat f = {.n = n, .in = {x}, .out = {y}};
    return each(dtype, silu_task, &f, threads);
}

int tg_silu_backward(int dtype, int64_t n, const void *gy, const void *x, void *gx, int threads)
{
    flat f = {.n = n, .in = {gy, x}, .out = {gx}};
    return each(dtype, silu_backward_task, &f, threads);
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

/* --- matrices transposed -------------------------------------------------------------------------------- */

typedef struct {
    const tile_kernels *k;
    const char *x;
    char *y;
    int64_t rows, columns, band, bands, size;           /* an item: `band` rows of a matrix */
} transposition;

static void transpose_item(void *context, int64_t item, int slot)
{
    const transposition *t = context;
    int64_t matrix = item / t->bands * t->rows * t->columns, row = item % t->bands * t->band;
    (void)slot;
    t->k->transpose(t->x + (matrix + row * t->columns) * t->size, t->columns, t->y + (matrix + row) * t->size,
                    t->rows, min64(t->band, t->rows - row), t->columns);
}

int tg_transpose(int dtype, int64_t n, int64_t rows, int64_t columns, const void *x, void *y, int threads)
{
    int64_t all;
    if (!valid_dtype(dtype) || n < 0 || rows < 0 || columns < 0 || __builtin_mul_overflow(rows, columns, &all)
        || __builtin_mul_overflow(all, n + 1, &all) || all > INT64_MAX / 64)
        return TG_BAD_ARGUMENT;
    if (!rows || !columns)
        return TG_OK;
    transposition t = {.k = tiles(dtype), .x = x, .y = y, .rows = rows, .columns = columns,
                       .band = ceil_div(ITEM, columns), .size = element_size(dtype)};
    t.bands = ceil_div(rows, t.band);
    parallel(n * t.bands, clamp_threads(threads), transpose_item, &t);
    return TG_OK;
}
