/* Attention (Vaswani et al. 2017, equation 1) and its gradient, each of n by itself: p = softmax(scale q k'), y = p v,
 * and
 *
 *     gp = gy v',   gs = scale p (gp - sum(p gp)),   gq = gs k,   gk = gs' q,   gv = p' gy
 *
 * An item is one of the n; its matrices stay in the cache. Made for many small ones: of a large one a single thread
 * computes all. */
#include <string.h>
#include "tile.h"

typedef void (*softmax_rows)(void *x, int64_t rows, int64_t n, double scale);
typedef void (*softmax_rows_backward)(const void *p, void *g, int64_t rows, int64_t n, double scale);

typedef struct {
    const tile_kernels *t;
    softmax_rows softmax;
    softmax_rows_backward softmax_backward;
    int64_t bytes, queries, keys, size, width;
    double scale;
    const char *q, *k, *v, *gy;
    char *p, *y, *gq, *gk, *gv;
    const int64_t *at;                          /* of the rows of p, as `outer` takes them */
    char *slots;
    int64_t slot_bytes, packed_bytes;           /* a slot has a packed matrix, then gs */
} attention;

#define FAMILY "attention.inc"
#include "runtime/variants.h"

static const softmax_rows softmax_of[][2] = TABLE(softmax);
static const softmax_rows_backward softmax_backward_of[][2] = TABLE(softmax_backward);

/* b (n, depth) to panels of its transpose, as tile_kernels' pack makes them of b itself. */
static void pack_transposed(const attention *a, const char *b, char *to, int64_t n, int64_t depth)
{
    for (int64_t column = 0, count; column < n; column += count) {
        count = min64(a->t->panel, n - column);
        int64_t ld = round_up(count, a->t->vector);
        char *panel = to + depth * column * a->bytes;
        if (ld > count)
            memset(panel, 0, (size_t)(depth * ld * a->bytes));
        a->t->transpose(b + column * depth * a->bytes, depth, panel, ld, count, depth);
    }
}

/* c (m, n) = x (m, depth) b, of which b is packed. */
static void multiply(const attention *a, const char *x, const char *b, char *c, int64_t m, int64_t depth, int64_t n)
{
    run all = {0, depth};
    for (int64_t column = 0, count; column < n; column += count) {
        count = min64(a->t->panel, n - column);
        product p = {.runs = &all, .count = 1, .ldb = round_up(count, a->t->vector), .n = count,
                     .b = b + depth * column * a->bytes};
        int64_t vectors = p.ldb / a->t->vector, left = ceil_div(m, a->t->product_rows[vectors]);
        for (int64_t row = 0, rows; row < m; row += rows, left--) {
            const void *from[TILE_ROWS];
            void *to[TILE_ROWS];
            rows = ceil_div(m - row, left);
            for (int64_t i = 0; i < rows; i++) {
                from[i] = x + (row + i) * depth * a->bytes;
                to[i] = c + ((row + i) * n + column) * a->bytes;
            }
            a->t->product[vectors][rows](&p, from, NULL, to);
        }
    }
}

/* c (keys, n) = x' b, with x (queries, keys) and b (queries, n), which is packed. */
static void multiply_transposed(const attention *a, const char *x, const char *b, char *c, int64_t n)
{
    for (int64_t column = 0, count; column < n; column += count) {
        count = min64(a->t->panel, n - column);
        outer o = {.pixels = a->queries, .at = a->at, .ldb = round_up(count, a->t->vector), .ldc = n, .n = count,
                   .b = b + a->queries * column * a->bytes, .ahead = b};
        int64_t vectors = o.ldb / a->t->vector, left = ceil_div(a->keys, a->t->outer_rows[vectors]);
        for (int64_t row = 0, rows; row < a->keys; row += rows, left--) {
            rows = ceil_div(a->keys - row, left);
            a->t->outer[vectors][rows](&o, x + row * a->bytes, c + (row * n + column) * a->bytes);
        }
    }
}

static void attention_item(void *context, int64_t i, int slot)
{
    const attention *a = context;
    int64_t bytes = a->bytes;
    char *packed = a->slots + slot * a->slot_bytes, *p = a->p + i * a->queries * a->keys * bytes;
    pack_transposed(a, a->k + i * a->keys * a->size * bytes, packed, a->keys, a->size);
    multiply(a, a->q + i * a->queries * a->size * bytes, packed, p, a->queries, a->size, a->keys);
    a->softmax(p, a->queries, a->keys, a->scale);
    a->t->pack(a->v + i * a->keys * a->width * bytes, a->width, packed, a->keys, a->width);
    multiply(a, p, packed, a->y + i * a->queries * a->width * bytes, a->queries, a->keys, a->width);
}

static void attention_backward_item(void *context, int64_t i, int slot)
{
    const attention *a = context;
    int64_t bytes = a->bytes, of_q = i * a->queries * a->size * bytes, of_k = i * a->keys * a->size * bytes;
    int64_t of_v = i * a->keys * a->width * bytes;
    const char *gy = a->gy + i * a->queries * a->width * bytes, *p = a->p + i * a->queries * a->keys * bytes;
    char *packed = a->slots + slot * a->slot_bytes, *gs = packed + a->packed_bytes;
    pack_transposed(a, a->v + of_v, packed, a->keys, a->width);
    multiply(a, gy, packed, gs, a->queries, a->width, a->keys);
    a->softmax_backward(p, gs, a->queries, a->keys, a->scale);
    a->t->pack(a->k + of_k, a->size, packed, a->keys, a->size);
    multiply(a, gs, packed, a->gq + of_q, a->queries, a->keys, a->size);
    a->t->pack(a->q + of_q, a->size, packed, a->queries, a->size);
    multiply_transposed(a, gs, packed, a->gk + of_k, a->size);
    a->t->pack(gy, a->width, packed, a->queries, a->width);
    multiply_transposed(a, p, packed, a->gv + of_v, a->width);
}

static int run_items(attention *a, int dtype, int64_t n, parallel_task task, int threads)
{
    int64_t longest = max64(a->queries, a->keys), widest = max64(longest, max64(a->size, a->width));
    plan data = {0};
    a->t = tiles(dtype);
    a->bytes = element_size(dtype);
    a->softmax = softmax_of[tg_isa()][dtype];
    a->softmax_backward = softmax_backward_of[tg_isa()][dtype];
    a->packed_bytes = round_up(widest * round_up(widest, a->t->vector) * a->bytes, ALIGNMENT);
    a->slot_bytes = a->packed_bytes + round_up(a->queries * a->keys * a->bytes, ALIGNMENT);
    size_t at_at = reserve(&data, a->queries + NEAR, sizeof(int64_t));
    size_t slots_at = reserve(&data, a->slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    int64_t *at = (int64_t *)(memory + at_at);
    for (int64_t i = 0; i < a->queries + NEAR; i++)
        at[i] = min64(i, a->queries - 1) * a->keys;
    a->at = at;
    a->slots = memory + slots_at;
    parallel(n, threads, task, a);
    release_scratch();
    return TG_OK;
}

int tg_attention(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width, double scale,
                 const void *q, const void *k, const void *v, void *p, void *y, int threads)
{
    attention a = {.queries = queries, .keys = keys, .size = size, .width = width, .scale = scale, .q = q, .k = k,
                   .v = v, .p = p, .y = y};
    if (!attention_valid(dtype, n, queries, keys, size, width))
        return TG_BAD_ARGUMENT;
    return run_items(&a, dtype, n, attention_item, clamp_threads(threads));
}

int tg_attention_backward(int dtype, int64_t n, int64_t queries, int64_t keys, int64_t size, int64_t width,
                          double scale, const void *q, const void *k, const void *v, const void *p, const void *gy,
                          void *gq, void *gk, void *gv, int threads)
{
    attention a = {.queries = queries, .keys = keys, .size = size, .width = width, .scale = scale, .q = q, .k = k,
                   .v = v, .p = (char *)(uintptr_t)p, .gy = gy, .gq = gq, .gk = gk, .gv = gv};
    if (!attention_valid(dtype, n, queries, keys, size, width))
        return TG_BAD_ARGUMENT;
    return run_items(&a, dtype, n, attention_backward_item, clamp_threads(threads));
}
