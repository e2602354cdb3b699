/* The matrix product, blocked for the caches (Goto & van de Geijn 2008).
 *
 *   depth      k runs through blocks of at most BLOCK terms: a panel of B that deep stays in the L1 cache while an
 *              item's rows meet it, and no sum in float32 is longer (tile.inc)
 *   panels     B is packed a panel at a time, as wide as the widest register tile (tile.h), right before its use. The
 *              next one is fetched into the cache meanwhile: its rows lie apart, which the hardware doesn't foresee
 *   rows       an item's rows of A, a block deep, stay in the L2 cache: where they are, or packed if A is transposed,
 *              if relu is taken, or if rows lie apart by whole pages, which share a few places in the cache
 *
 * An item is some rows and some panels of C: threads share out panels, and rows too where there are many. The blocks of
 * k don't depend on the threads, so neither do the bytes. */
#include <string.h>
#include "matmul.h"

enum {
    BLOCK = 256,                    /* terms of a sum between two additions to C, */
    LONG_BLOCK = 1024,              /* or, so that additions to C stay few, from LONG terms on */
    LONG = 1 << 14,
    A_BYTES = 256 << 10,            /* of an item's rows of A, a block deep */
    FEW_ROWS = 8,                   /* for which packing B doesn't pay */
    PAGE = 4096, LINE = 64
};

typedef struct {
    const matmul *p;
    const tile_kernels *t;
    int64_t size, blocks, depth, panels;        /* blocks of k, of at most so many terms */
    int64_t rows, row_items, splits;            /* an item's rows; how many items of rows, and of panels */
    int in_place, packs_a;                      /* whether B is used where it is; whether A isn't */
    int64_t panel_bytes, slot_bytes;            /* of a thread's own memory: a panel of B, then rows of A */
    char *bias, *slots;
} product_plan;

typedef struct { int64_t from, depth; } block;

static block block_of(const product_plan *g, int64_t i)
{
    int64_t from = i * g->p->k / g->blocks;
    return (block){from, (i + 1) * g->p->k / g->blocks - from};
}

static int64_t panel_width(const product_plan *g, int64_t panel)
{
    return min64(g->t->panel, g->p->n - panel * g->t->panel);
}

/* Rows of memory: a panel of B, as it is before it is packed. */
typedef struct { const char *at; int64_t rows, bytes, stride; } area;

static area panel_area(const product_plan *g, block k, int64_t panel)
{
    const matmul *p = g->p;
    const char *b = p->b;
    int64_t column = panel * g->t->panel, width = panel_width(g, panel);
    if (p->b_transposed)
        return (area){b + (column * p->k + k.from) * g->size, width, k.depth * g->size, p->k * g->size};
    return (area){b + (k.from * p->n + column) * g->size, k.depth, width * g->size, p->n * g->size};
}

/* The lines in which pieces of LINE bytes end: where one begins in another line, the panel before has brought that. */
static void fetch(const area *a, int64_t first, int64_t last)
{
    for (int64_t row = first; row < last; row++)
        for (int64_t end = min64(LINE, a->bytes); end <= a->bytes; end += LINE)
            __builtin_prefetch(a->at + row * a->stride + end - 1);
}

/* --- packing -------------------------------------------------------------------------------------------- */

/* A panel of B, its columns rounded up to whole vectors. */
static void pack_b(const product_plan *g, const area *from, block k, int64_t width, char *to)
{
    int64_t ld = round_up(width, g->t->vector);
    if (!g->p->b_transposed) {
        g->t->pack(from->at, g->p->n, to, k.depth, width);
        return;
    }
    if (ld > width)
        memset(to, 0, (size_t)(k.depth * ld * g->size));
    g->t->transpose(from->at, g->p->k, to, ld, width, k.depth);
}

/* A's rows from `row` on in a block of k, and their stride: where they are, or from a copy. */
static const char *rows_of_a(const product_plan *g, int64_t row, int64_t rows, block k, char *copy, int64_t *lda)
{
    const matmul *p = g->p;
    const char *a = (const char *)p->a + (p->a_transposed ? k.from * p->m + row : row * p->k + k.from) * g->size;
    *lda = g->packs_a ? k.depth : p->k;
    if (!g->packs_a)
        return a;
    if (p->a_transposed)
        g->t->transpose(a, p->m, copy, k.depth, k.depth, rows);
    for (int64_t i = 0; i < rows; i++) {
        char *to = copy + i * k.depth * g->size;
        const char *from = p->a_transposed ? to : a + i * p->k * g->size;
        if (p->relu)
            g->t->relu(from, to, k.depth);
        else if (from != to)
            memcpy(to, from, (size_t)(k.depth * g->size));
    }
    return copy;
}

/* --- the products --------------------------------------------------------------------------------------- */

/* C's rows from `c` on = (or +=) A's times a panel's block. Meanwhile the next panel is fetched. */
static void multiply_panel(const product_plan *g, const product *p, const char *a, int64_t lda, char *c, int64_t rows,
                           int accumulate, const area *next)
{
    int64_t size = g->size, vectors = ceil_div(p->n, g->t->vector), left = ceil_div(rows, g->t->product_rows[vectors]);
    for (int64_t done = 0, m; done < rows; done += m, left--) {
        const void *from[TILE_ROWS];
        void *to[TILE_ROWS];
        m = ceil_div(rows - done, left);
        for (int64_t i = 0; i < m; i++) {
            from[i] = a + (done + i) * lda * size;
            to[i] = c + (done + i) * g->p->n * size;
            for (int64_t line = 0; line < p->n * size; line += LINE)    /* needed after the product */
                __builtin_prefetch((char *)to[i] + line, 1);
        }
        fetch(next, done * next->rows / rows, (done + m) * next->rows / rows);
        g->t->product[vectors][m](p, from, accumulate ? (const void *const *)to : NULL, to);
    }
}

static void product_item(void *context, int64_t item, int slot)
{
    const product_plan *g = context;
    const matmul *p = g->p;
    int64_t row = item / g->splits * g->rows, rows = min64(g->rows, p->m - row), split = item % g->splits, lda;
    int64_t first = split * g->panels / g->splits, last = (split + 1) * g->panels / g->splits;
    char *packed = g->slots + slot * g->slot_bytes, *copy = packed + g->panel_bytes;
    area here = panel_area(g, block_of(g, 0), first), next;
    for (int64_t i = 0; i < g->blocks; i++) {
        block k = block_of(g, i);
        run all = {0, k.depth};
        const char *a = rows_of_a(g, row, rows, k, copy, &lda);
        product t = {.runs = &all, .count = 1};
        if (i + 1 == g->blocks) {
            t.positive = p->positive ? (intptr_t)p->positive - (intptr_t)p->c : 0;
            t.add = p->add ? (intptr_t)p->add - (intptr_t)p->c : 0;
        }
        for (int64_t panel = first; panel < last; panel++, here = next) {
            int64_t column = panel * g->t->panel;
            next = panel + 1 < last ? panel_area(g, k, panel + 1)
                : i + 1 < g->blocks ? panel_area(g, block_of(g, i + 1), first) : (area){0};
            t.n = panel_width(g, panel);
            t.ldb = g->in_place ? p->n : round_up(t.n, g->t->vector);
            t.b = g->in_place ? here.at : packed;
            t.bias = g->bias ? g->bias + column * g->size : NULL;
            if (!g->in_place)
                pack_b(g, &here, k, t.n, packed);
            multiply_panel(g, &t, a, lda, (char *)p->c + (row * p->n + column) * g->size, rows, i > 0, &next);
        }
    }
}

/* Rows of an item: as many as fit. Then as many items of panels as keep the threads busy; and if there aren't so many
 * panels, fewer rows. */
static void plan_items(product_plan *g, int threads)
{
    const matmul *p = g->p;
    int64_t vectors = ceil_div(min64(p->n, g->t->panel), g->t->vector), tile = g->t->product_rows[vectors];
    int64_t enough = threads > 1 ? 4 * threads : 1;
    g->rows = A_BYTES / (g->depth * g->size);
    g->rows = min64(g->rows, max64(4 * tile, ceil_div(p->m * g->panels, enough)));
    g->rows = round_up(max64(1, g->rows), tile);
    g->row_items = ceil_div(p->m, g->rows);
    g->splits = max64(1, min64(g->panels, ceil_div(enough, g->row_items)));
    g->packs_a = p->a_transposed || p->relu || (g->panels > 4 * g->splits && p->k * g->size % PAGE == 0);
    g->panel_bytes = round_up(g->depth * g->t->panel * g->size, ALIGNMENT);
    g->slot_bytes = g->panel_bytes + (g->packs_a ? round_up(g->rows * g->depth * g->size, ALIGNMENT) : 0);
}

int multiply_matrices(int dtype, const matmul *p, int threads)
{
    product_plan g = {.p = p, .t = tiles(dtype), .size = element_size(dtype)};
    plan data = {0};
    if (!p->m || !p->n)
        return TG_OK;
    g.blocks = max64(1, ceil_div(p->k, p->k < LONG ? BLOCK : LONG_BLOCK));
    g.depth = max64(1, ceil_div(p->k, g.blocks));
    g.panels = ceil_div(p->n, g.t->panel);
    g.in_place = p->m <= FEW_ROWS && !p->b_transposed && p->n % g.t->vector == 0;
    plan_items(&g, threads);
    int64_t columns = round_up(p->n, g.t->vector);
    size_t bias_at = reserve(&data, p->bias ? columns : 0, (size_t)g.size);
    size_t slots_at = reserve(&data, g.slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g.slots = memory + slots_at;
    if (p->bias) {
        g.bias = memset(memory + bias_at, 0, (size_t)(columns * g.size));
        memcpy(g.bias, p->bias, (size_t)(p->n * g.size));
    }
    parallel(g.row_items * g.splits, threads, product_item, &g);
    release_scratch();
    return TG_OK;
}
