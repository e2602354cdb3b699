/* The matrix product, blocked for the caches (Goto & van de Geijn 2008).
 *
 *   depth      k runs through blocks of at most BLOCK terms: a group of panels of B that deep stays in the L1 cache
 *              while an item's rows meet it, and no sum in float32 is longer (tile.inc)
 *   groups     B is packed a group of panels at a time, each as wide as the widest register tile (tile.h), right before
 *              its use: one panel if it is deep, several if k is short, so that A and C are passed over once. The next
 *              one is fetched into the cache meanwhile: its rows lie apart, which the hardware doesn't foresee
 *   rows       an item's rows of A, a block deep, stay in the L2 cache: where they are, or packed if A is transposed,
 *              if relu is taken, or if rows lie apart by whole pages, which share a few places in the cache. A thread
 *              keeps what it has packed for its next item
 *   parts      a long k and a small C, as in a weight's gradient: parts of k have sums of their own, which are added up
 *              in a fixed order at the end
 *
 * An item is some rows and some columns of C, in one part: threads share out parts, columns (to half a panel, or one
 * thread would wait where panels are odd), and rows too where there are many. The blocks and parts of k don't depend on
 * the threads, so neither do the bytes. */
#include <string.h>
#include "matmul.h"
#include "narrow.h"

enum {
    BLOCK = 256,                    /* terms of a sum between two additions to C, */
    LONG_BLOCK = 1024,              /* or, so that additions to C stay few, from LONG terms of a part on */
    LONG = 1 << 14,
    PART = 4 * BLOCK,               /* terms of a part, at least; */
    PARTS = 16, COPIES = 1 << 21,   /* how many there are at most, and bytes of all of them */
    SMALL = 1 << 15,                /* elements of C that one thread adds up */
    A_BYTES = 256 << 10,            /* of an item's rows of A, a block deep */
    GROUP_BYTES = 16 << 10,         /* of a group of panels */
    FEW_ROWS = 8,                   /* for which packing B doesn't pay; */
    MANY_PANELS = 16,               /* of an item, from which packing A pays */
    PAGE = 4096, LINE = 64
};

typedef struct {
    const matmul *p;
    const tile_kernels *t;
    int64_t size, blocks, depth;                /* blocks of k, of at most so many terms */
    int64_t panels, group, lda;                 /* of B, and how many are packed at a time; A's stride */
    int64_t rows, row_items, splits;            /* an item's rows; how many items of rows, and of columns */
    int in_place, packs_a;                      /* whether B is used where it is; whether A isn't */
    int64_t group_bytes, slot_bytes;            /* of a thread's own memory: a group of panels, then rows of A */
    int64_t parts, part_bytes, column_bytes;    /* parts of k, each with its own sums if there are several */
    char *bias, *slots, *sums, *column_sums;    /* of the parts: C, and the sums of B's columns */
    int64_t *held;                              /* of each slot: which rows of A, in which block, it has packed last */
} product_plan;

typedef struct { int64_t from, depth; } block;

static block block_of(const product_plan *g, int64_t i)
{
    int64_t from = i * g->p->k / g->blocks;
    return (block){from, (i + 1) * g->p->k / g->blocks - from};
}

static int64_t vectors_of(const product_plan *g, int64_t n) { return ceil_div(min64(n, g->t->panel), g->t->vector); }

/* Rows of memory: a group of panels of B, as it is before it is packed. */
typedef struct { const char *at; int64_t rows, bytes, stride; } area;

/* The group that begins at a column, of those before `last`. */
static area group_area(const product_plan *g, block k, int64_t column, int64_t last)
{
    const matmul *p = g->p;
    const char *b = p->b;
    int64_t width = min64(g->group * g->t->panel, last - column);
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

/* A group of panels of B, their columns rounded up to whole vectors. */
static void pack_b(const product_plan *g, const area *from, block k, int64_t width, char *to)
{
    int64_t size = g->size, panel = g->t->panel;
    if (!g->p->b_transposed) {
        g->t->pack(from->at, g->p->n, to, k.depth, width);
        return;
    }
    for (int64_t column = 0; column < width; column += panel, to += k.depth * panel * size) {
        int64_t n = min64(panel, width - column), ld = round_up(n, g->t->vector);
        if (ld > n)
            memset(to, 0, (size_t)(k.depth * ld * size));
        g->t->transpose(from->at + column * g->p->k * size, g->p->k, to, ld, n, k.depth);
    }
}

/* A's rows from `row` on in block i of k, lda elements apart: where they are, or from a copy, if need be a new one. */
static const char *rows_of_a(const product_plan *g, int64_t row, int64_t rows, int64_t i, char *copy, int64_t *held)
{
    const matmul *p = g->p;
    block k = block_of(g, i);
    const char *a = (const char *)p->a + (p->a_transposed ? k.from * p->m + row : row * p->k + k.from) * g->size;
    if (!g->packs_a)
        return a;
    if (*held == row * g->blocks + i)
        return copy;
    *held = row * g->blocks + i;
    if (p->a_transposed)
        g->t->transpose(a, p->m, copy, g->lda, k.depth, rows);
    for (int64_t r = 0; r < rows; r++) {
        char *to = copy + r * g->lda * g->size;
        const char *from = p->a_transposed ? to : a + r * p->k * g->size;
        if (p->relu)
            g->t->relu(from, to, k.depth);
        else if (from != to)
            memcpy(to, from, (size_t)(k.depth * g->size));
    }
    return copy;
}

/* --- the products --------------------------------------------------------------------------------------- */

/* What a tile of m rows, n columns wide, is added to, or masked by, is fetched before the tile's turn comes. */
static void fetch_rows(const product *t, const char *c, int64_t stride, int64_t rows, int64_t bytes)
{
    for (const char *row = c; rows > 0; rows--, row += stride)
        for (int64_t line = 0; line < bytes; line += LINE) {
            __builtin_prefetch(row + line, 1);
            if (t->add)
                __builtin_prefetch(row + line + t->add);
            if (t->positive)
                __builtin_prefetch(row + line + t->positive);
        }
}

/* C's rows from `c` on = (or +=) A's times a group's block: tiles of some rows and all panels of the group, one after
 * the other. Meanwhile the next group is fetched. */
static void multiply_group(const product_plan *g, product t, int64_t n, const char *a, char *c, int64_t rows,
                           int accumulate, const area *next)
{
    int64_t size = g->size, ldc = g->p->n * size, panel = g->t->panel, wide = vectors_of(g, n), fetched = 0;
    int64_t tiles = ceil_div(rows, g->t->product_rows[wide]), share = ceil_div(next->rows, tiles), m = rows / tiles + 1;
    const product first = t;
    for (int64_t tile = 0; tile < tiles; tile++, a += m * g->lda * size, c += m * ldc, fetched += share, t = first) {
        const void *from[TILE_ROWS];
        void *to[TILE_ROWS];
        m -= tile == rows % tiles;              /* the first ones have a row more */
        for (int64_t i = 0; i < m; i++) {
            from[i] = a + i * g->lda * size;
            to[i] = c + i * ldc;
        }
        fetch_rows(&t, c + m * ldc, ldc, m, n * size);
        fetch(next, fetched, min64(fetched + share, next->rows));
        for (int64_t column = 0; column < n; column += panel) {
            int64_t vectors = n - column < panel ? vectors_of(g, n - column) : wide;
            t.n = min64(panel, n - column);
            t.ldb = g->in_place ? g->p->n : vectors * g->t->vector;
            g->t->product[vectors][m](&t, from, accumulate ? (const void *const *)to : NULL, to);
            for (int64_t i = 0; i < m; i++)
                to[i] = (char *)to[i] + panel * size;
            t.b = (const char *)t.b + (g->in_place ? 1 : t.runs->len) * panel * size;
            t.bias = t.bias ? (const char *)t.bias + panel * size : NULL;
        }
    }
}

/* to += the sums of a packed group's columns */
static void add_columns(const product_plan *g, const char *packed, int64_t depth, int64_t n, char *to)
{
    for (int64_t column = 0, ld; column < n; column += ld, packed += depth * ld * g->size) {
        ld = round_up(min64(n - column, g->t->panel), g->t->vector);
        g->t->add_rows(packed, to + column * g->size, depth, ld);
    }
}

static int64_t split_column(const product_plan *g, int64_t split)
{
    int64_t half = g->t->panel / 2;
    return min64(g->p->n, split * ceil_div(g->p->n, half) / g->splits * half);
}

static void product_item(void *context, int64_t item, int slot)
{
    const product_plan *g = context;
    const matmul *p = g->p;
    int64_t part = item % g->parts, split = item / g->parts % g->splits;
    int64_t row = item / g->parts / g->splits * g->rows, rows = min64(g->rows, p->m - row);
    int64_t first = split_column(g, split), last = split_column(g, split + 1), wide = g->group * g->t->panel;
    int64_t begin = part * g->blocks / g->parts, end = (part + 1) * g->blocks / g->parts;
    char *packed = g->slots + slot * g->slot_bytes, *copy = packed + g->group_bytes;
    char *c = g->parts > 1 ? g->sums + part * g->part_bytes : p->c;
    area here = group_area(g, block_of(g, begin), first, last), next;
    for (int64_t i = begin; i < end; i++) {
        block k = block_of(g, i);
        run all = {0, k.depth};
        const char *a = rows_of_a(g, row, rows, i, copy, g->held + slot);
        product t = {.runs = &all, .count = 1};
        if (i + 1 == end) {
            t.positive = p->positive ? (intptr_t)p->positive - (intptr_t)p->c : 0;
            t.add = p->add ? (intptr_t)p->add - (intptr_t)p->c : 0;
        }
        for (int64_t column = first; column < last; column += wide, here = next) {
            int64_t n = min64(wide, last - column);
            next = column + wide < last ? group_area(g, k, column + wide, last)
                : i + 1 < end ? group_area(g, block_of(g, i + 1), first, last) : (area){0};
            t.b = g->in_place ? here.at : packed;
            t.bias = g->bias ? g->bias + column * g->size : NULL;
            if (!g->in_place)
                pack_b(g, &here, k, n, packed);
            if (p->column_sums && !row)
                add_columns(g, packed, k.depth, n, g->column_sums + part * g->column_bytes + column * g->size);
            multiply_group(g, t, n, a, c + (row * p->n + column) * g->size, rows, i > begin, &next);
        }
    }
}

static void sum_item(void *context, int64_t item, int slot)
{
    const product_plan *g = context;
    int64_t first = item * SMALL, n = min64(SMALL, g->p->m * g->p->n - first);
    char *to = (char *)g->p->c + first * g->size;
    (void)slot;
    memcpy(to, g->sums + first * g->size, (size_t)(n * g->size));
    for (int64_t part = 1; part < g->parts; part++)
        g->t->add_rows(g->sums + part * g->part_bytes + first * g->size, to, 1, n);
}

/* --- the call ------------------------------------------------------------------------------------------- */

/* Parts and blocks of k. */
static void plan_blocks(product_plan *g)
{
    const matmul *p = g->p;
    g->part_bytes = round_up(p->m * p->n * g->size, ALIGNMENT);
    g->parts = p->bias || p->add || p->positive ? 1 : min64(min64(PARTS, COPIES / g->part_bytes), p->k / PART);
    g->parts = max64(1, g->parts);
    g->blocks = max64(1, ceil_div(p->k, p->k < LONG * g->parts ? BLOCK : LONG_BLOCK));
    g->depth = max64(1, ceil_div(p->k, g->blocks));
    g->panels = ceil_div(p->n, g->t->panel);
    g->group = max64(1, min64(g->panels, GROUP_BYTES / (g->depth * g->t->panel * g->size)));
}

/* Rows of an item: as many as fit. Then as many items of columns as keep the threads busy; and if there aren't so many
 * panels, fewer rows. All about as many. */
static void plan_items(product_plan *g, int threads)
{
    const matmul *p = g->p;
    int64_t tile = g->t->product_rows[vectors_of(g, p->n)];
    int64_t enough = threads > 1 ? ceil_div(4 * threads, g->parts) : 1;
    g->rows = A_BYTES / (g->depth * g->size);
    g->rows = min64(g->rows, max64(4 * tile, ceil_div(p->m * g->panels, enough)));
    g->row_items = ceil_div(p->m, round_up(max64(1, g->rows), tile));
    g->rows = round_up(ceil_div(p->m, g->row_items), tile);
    g->row_items = ceil_div(p->m, g->rows);
    g->splits = max64(1, min64(g->panels, ceil_div(enough, g->row_items)));
    g->in_place = p->m <= FEW_ROWS && !p->b_transposed && !p->column_sums && p->n % g->t->vector == 0;
    g->packs_a = p->a_transposed || p->relu || (g->panels > MANY_PANELS * g->splits && p->k * g->size % PAGE == 0);
    g->lda = g->packs_a ? g->depth + LINE / g->size : p->k;          /* a line more, or rows would share few places */
    g->group_bytes = round_up(g->depth * g->group * g->t->panel * g->size, ALIGNMENT);
    g->slot_bytes = g->group_bytes + (g->packs_a ? round_up(g->rows * g->lda * g->size, ALIGNMENT) : 0);
}

static void finish_sums(product_plan *g, int threads)
{
    if (g->parts > 1)
        parallel(ceil_div(g->p->m * g->p->n, SMALL), threads, sum_item, g);
    if (!g->p->column_sums)
        return;
    for (int64_t part = 1; part < g->parts; part++)
        g->t->add_rows(g->column_sums + part * g->column_bytes, g->column_sums, 1, g->p->n);
    memcpy(g->p->column_sums, g->column_sums, (size_t)(g->p->n * g->size));
}

/* A product of many rows with a small square matrix, or its gradient to that: narrow.h. */
static int is_square(int dtype, const matmul *p)
{
    if (p->relu || p->add || p->positive)
        return 0;
    if (p->a_transposed)
        return !p->b_transposed && !p->bias && p->m == p->n && is_narrow(dtype, p->k, p->n);
    return !p->column_sums && p->k == p->n && is_narrow(dtype, p->m, p->n);
}

int multiply_matrices(int dtype, const matmul *p, int threads)
{
    product_plan g = {.p = p, .t = tiles(dtype), .size = element_size(dtype)};
    plan data = {0};
    if (!p->m || !p->n)
        return TG_OK;
    if (is_square(dtype, p) && p->a_transposed)
        return narrow_weight(dtype, p->k, p->n, p->a, p->b, p->c, p->column_sums, threads);
    if (is_square(dtype, p))
        return narrow_product(dtype, p->m, p->n, p->a, p->b, p->b_transposed, p->bias, p->c, threads);
    plan_blocks(&g);
    plan_items(&g, threads);
    g.column_bytes = round_up(round_up(p->n, g.t->vector) * g.size, ALIGNMENT);
    size_t bias_at = reserve(&data, p->bias ? 1 : 0, (size_t)g.column_bytes);
    size_t columns_at = reserve(&data, p->column_sums ? g.parts : 0, (size_t)g.column_bytes);
    size_t sums_at = reserve(&data, g.parts > 1 ? g.parts : 0, (size_t)g.part_bytes);
    size_t slots_at = reserve(&data, g.slot_bytes, (size_t)threads);
    size_t held_at = reserve(&data, threads, sizeof *g.held);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g.slots = memory + slots_at;
    g.held = memset(memory + held_at, -1, (size_t)threads * sizeof *g.held);
    g.sums = memory + sums_at;
    g.column_sums = memory + columns_at;
    if (p->column_sums)
        memset(g.column_sums, 0, (size_t)(g.parts * g.column_bytes));
    if (p->bias) {
        g.bias = memset(memory + bias_at, 0, (size_t)g.column_bytes);
        memcpy(g.bias, p->bias, (size_t)(p->n * g.size));
    }
    parallel(g.parts * g.row_items * g.splits, threads, product_item, &g);
    finish_sums(&g, threads);
    release_scratch();
    return TG_OK;
}
