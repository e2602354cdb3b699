/* The gradient of convolution to its weight: the sum over pixels of the outer products of a pixel's runs (source.h)
 * and its row of gy. gw's rows, (tap, c) in raster order, are the runs one after the other.
 *
 * A chunk is the pixels of one region. Threads share out the work in one of two ways, both of which add up in an
 * order that doesn't depend on their number:
 *
 *   parts     for a small gw: it has private copies, each the sum over a fixed range of chunks, which are added up in
 *             a fixed order at the end
 *   blocks    for a large gw: all chunks are read into memory first; then an item is a block of gw's rows
 *
 * With few outputs most of a vector's lanes would be idle. There a pixel of x meets gy at all taps side by side instead:
 * gw[c, (k, o)] = sum over pixels i of x[i, c] gy[i + pad - k * dil, o], for a stride of 1. */
#include <string.h>
#include "matmul.h"
#include "narrow.h"
#include "raster.h"
#include "source.h"
#include "taps.h"
#include "winograd.h"

enum {
    PRODUCT = 1 << 16,              /* bytes of a 1 x 1 gw from which it is a matrix product like any other, x' gy */
    LARGE = 1 << 20,                /* bytes of a gw that has no private copies */
    FEW = 1 << 10,                  /* pixels for which copies don't pay either */
    CHUNK_BYTES = 32 << 10,         /* of x in a chunk that is read in place: with gy's it nearly fits the L1 cache */
    BLOCK_PIXELS = 256,             /* of a chunk for the blocks, if images are small */
    PARTS = 16,                     /* copies at most, for every number of threads */
    COPIES = 1 << 21                /* bytes of all copies, about: they are written and read once more */
};

typedef struct {
    source s;
    const tile_kernels *k;
    const tg_conv_shape *shape;
    const run *run;
    int64_t *at;                                /* of a chunk's pixels, see list_pixels */
    int64_t runs, depth, panels, chunks;        /* depth: gw's rows that aren't masked */
    int64_t parts, blocks, block_rows, splits;  /* blocks: whether; splits: items that share a block's panels */
    int64_t columns;                            /* of B: outputs, or taps times outputs if they lie side by side */
    int beside;                                 /* whether they do */
    const char *gy;
    char *gw, *gbias, *sums, *chunk;            /* sums: of the parts; chunk: one for each slot or (blocks) chunk */
    int64_t sum_bytes, source_bytes, chunk_bytes;
    int packs;                                  /* whether gy is packed into panels */
} weight_sum;

static int64_t gy_offset(const weight_sum *g, region r)
{
    int64_t rows = g->beside ? g->shape->oh : g->s.rows, columns = g->beside ? g->shape->ow : g->s.columns;
    return (r.n0 * rows + (g->beside ? 0 : r.row0)) * columns * g->shape->co * g->s.size;
}

static int64_t pixels_of(const weight_sum *g, region r) { return r.images * r.rows * g->s.columns; }

/* gy of a region, one panel after the other, their columns rounded up to whole vectors. */
static void pack_gy(const weight_sum *g, region r, char *to)
{
    g->k->pack(g->gy + gy_offset(g, r), g->shape->co, to, pixels_of(g, r), g->shape->co);
}

/* One panel of gy of a region at all taps side by side, whose columns begin at `column`: zeros, and to them added what
 * lies in gy. */
static void gather_panel(const weight_sum *g, region r, int64_t column, int64_t n, int64_t ld, char *to)
{
    const tg_conv_shape *s = g->shape;
    int64_t size = g->s.size, first = column / s->co, last = ceil_div(column + n, s->co);
    memset(to, 0, (size_t)(pixels_of(g, r) * ld * size));
    for (int64_t k = first; k < last; k++) {
        int64_t o0 = max64(0, column - k * s->co), o1 = min64(s->co, column + n - k * s->co);
        int64_t left = s->pad_w - k % s->kw * s->dil_w;         /* pixel x meets gy at x + left */
        int64_t x0 = max64(0, -left), x1 = min64(s->w, s->ow - left);
        for (int64_t i = 0; i < r.images && x0 < x1; i++)
            for (int64_t row = 0; row < r.rows; row++) {
                int64_t y = r.row0 + row + s->pad_h - k / s->kw * s->dil_h;
                int64_t from = (((r.n0 + i) * s->oh + y) * s->ow + x0 + left) * s->co + o0;
                int64_t at = ((i * r.rows + row) * s->w + x0) * ld + k * s->co + o0 - column;
                if (y >= 0 && y < s->oh)
                    g->k->add_steps(g->gy + from * size, s->co, to + at * size, ld, x1 - x0, o1 - o0);
            }
    }
}

static void gather_gy(const weight_sum *g, region r, char *to)
{
    for (int64_t column = 0; column < g->columns; column += g->k->panel) {
        int64_t n = min64(g->k->panel, g->columns - column), ld = round_up(n, g->k->vector);
        gather_panel(g, r, column, n, ld, to);
        to += pixels_of(g, r) * ld * g->s.size;
    }
}

/* What one chunk adds to gw's rows [row0, row1) of one panel. Meanwhile the next chunk's x and gy are
 * fetched from next[0] and next[1] on, fetch[0] and fetch[1] bytes, in turns from tile to tile. */
static void accumulate(const weight_sum *g, region r, const char *a, const char *b, int64_t panel,
                       int64_t row0, int64_t row1, char *gw, int add, const char *const *next_chunk,
                       const int64_t *fetch)
{
    int64_t size = g->s.size, co = g->columns, column = panel * g->k->panel;
    int64_t n = min64(g->k->panel, co - column);
    int vectors = (int)ceil_div(n, g->k->vector);
    int64_t tile = 0, tiles = g->runs + g->depth / g->k->outer_rows[vectors], pixels = pixels_of(g, r);
    outer o = {.pixels = pixels, .at = g->at, .ldb = g->packs ? vectors * g->k->vector : co, .ldc = co, .n = n,
               .b = b + (g->packs ? pixels : 1) * column * size, .add = add};
    const run *u = g->run;
    for (int64_t row = 0, next; row < row1; row = next, u++) {
        next = row + u->len;
        int64_t first = max64(row, row0), left = min64(next, row1) - first, m;
        for (int64_t i = first, pieces = ceil_div(left, g->k->outer_rows[vectors]); left > 0; i += m,
             left -= m, tile++) {
            m = ceil_div(left, pieces--);
            if (fetch) {
                o.ahead_step = ceil_div(fetch[tile % 2], max64(1, tiles / 2) * pixels);
                o.ahead = next_chunk[tile % 2] + tile / 2 * pixels * o.ahead_step;
            }
            g->k->outer[vectors][m](&o, a + (u->a + i - row) * size, gw + (i * co + column) * size);
        }
    }
}

static void part_item(void *context, int64_t part, int slot)
{
    const weight_sum *g = context;
    int64_t first = part * g->chunks / g->parts, last = (part + 1) * g->chunks / g->parts, co = g->shape->co;
    char *copy = g->chunk + slot * g->chunk_bytes, *packed = copy + g->source_bytes;
    char *gw = g->parts > 1 || g->beside ? g->sums + part * g->sum_bytes : g->gw;
    char *gbias = g->sums + part * g->sum_bytes + g->depth * co * g->s.size;
    if (g->gbias && !g->beside)
        memset(gbias, 0, (size_t)(co * g->s.size));
    for (int64_t i = first; i < last; i++) {
        region r = region_of(&g->s, i);
        const char *a = read_source(&g->s, r, copy), *gy = g->gy + gy_offset(g, r), *next[2];
        int64_t fetch[2] = {next_source(&g->s, r, 1, &next[0]), pixels_of(g, r) * co * g->s.size};
        next[0] = g->s.in_place ? next[0] - AHEAD + fetch[0] : next[0];
        next[1] = gy + fetch[1];
        if (g->beside)
            gather_gy(g, r, packed);
        else if (g->packs)
            pack_gy(g, r, packed);
        for (int64_t panel = 0; panel < g->panels; panel++)
            accumulate(g, r, a, g->packs ? packed : gy, panel, 0, g->depth, gw, i > first, next,
                       panel ? NULL : fetch);
        if (g->gbias && !g->beside)
            g->k->add_rows(gy, gbias, pixels_of(g, r), co);
    }
}

static void read_item(void *context, int64_t i, int slot)
{
    const weight_sum *g = context;
    region r = region_of(&g->s, i);
    char *copy = g->chunk + i * g->chunk_bytes;
    (void)slot;
    read_source(&g->s, r, copy);
    pack_gy(g, r, copy + g->source_bytes);
}

static void block_item(void *context, int64_t item, int slot)
{
    const weight_sum *g = context;
    int64_t row0 = item / g->splits * g->block_rows, split = item % g->splits;
    (void)slot;
    for (int64_t i = 0; i < g->chunks; i++) {
        region r = region_of(&g->s, i);
        char *copy = g->chunk + i * g->chunk_bytes;
        const char *a = g->s.in_place ? read_source(&g->s, r, NULL) : copy;
        for (int64_t panel = split * g->panels / g->splits; panel < (split + 1) * g->panels / g->splits; panel++)
            accumulate(g, r, a, copy + g->source_bytes, panel, row0, min64(g->depth, row0 + g->block_rows),
                       g->gw, i > 0, NULL, NULL);
    }
}

static void sum_item(void *context, int64_t item, int slot)
{
    const weight_sum *g = context;
    int64_t count = g->depth * g->columns, first = item * SMALL;
    int64_t n = min64(SMALL, count - first), size = g->s.size;
    (void)slot;
    char *to = (g->beside ? g->sums : g->gw) + first * size;
    if (!g->beside)
        memcpy(to, g->sums + first * size, (size_t)(n * size));
    for (int64_t part = 1; part < g->parts; part++)
        g->k->add_rows(g->sums + part * g->sum_bytes + first * size, to, 1, n);
}

/* gw[k, c, o] from sums[c, (k, o)]. */
static void part_taps(const weight_sum *g)
{
    const tg_conv_shape *s = g->shape;
    int64_t size = g->s.size, row = s->co * size;
    for (int64_t k = 0; k < kept_taps(s); k++)
        for (int64_t c = 0; c < s->ci; c++)
            memcpy(g->gw + (k * s->ci + c) * row, g->sums + (c * g->columns + k * s->co) * size, (size_t)row);
}

/* Exact zeros where w is masked, and the bias. */
static void finish_weight(const weight_sum *g)
{
    const tg_conv_shape *s = g->shape;
    int64_t size = g->s.size, row = s->co * size;
    if (g->beside)
        part_taps(g);
    else
        memset(g->gw + g->depth * row, 0, (size_t)((s->kh * s->kw * s->ci - g->depth) * row));
    if (s->mask && kept_taps(s) > center(s))
        for (int64_t c = 0; c < s->ci; c++)
            memset(g->gw + (center(s) * s->ci + c) * row, 0, (size_t)(first_output(s, center(s), c) * size));
    if (!g->gbias)
        return;
    memset(g->gbias, 0, (size_t)row);
    if (g->blocks || g->beside)
        g->k->add_rows(g->gy, g->gbias, s->n * s->oh * s->ow, s->co);
    else
        for (int64_t part = 0; part < g->parts; part++)
            g->k->add_rows(g->sums + part * g->sum_bytes + g->depth * row, g->gbias, 1, s->co);
}

/* Sizes, chunks and runs, and which of the two ways. */
static int plan_weight(weight_sum *g)
{
    const tg_conv_shape *s = g->shape;
    int64_t size = g->s.size, kept = kept_taps(s), pixels = s->oh * s->ow, image = s->h * s->w * s->ci * size;
    plan lists = {0};
    size_t tap_at = reserve(&lists, kept, sizeof(tap));
    size_t run_at = reserve(&lists, most_runs(kept, s->ci), sizeof(run));
    char *memory = scratch(LISTS, &lists);
    if (!memory)
        return TG_NO_MEMORY;
    tap *taps = (tap *)(memory + tap_at);
    g->run = (run *)(memory + run_at);
    g->blocks = kept * s->ci * s->co * size > LARGE || s->n * pixels < FEW;
    g->beside = !g->blocks && s->co <= g->k->vector / 2 && kept > 2 && s->stride_h == 1 && s->stride_w == 1
        && s->mask == TG_MASK_NONE && s->n * s->h * s->w >= FEW;
    plan_taps(s, taps);
    if (g->beside)
        taps[0] = (tap){0};
    kept = g->beside ? 1 : kept;
    plan_box(&g->s, g->beside ? s->h : s->oh, g->beside ? s->w : s->ow, taps, kept);
    g->depth = kept * s->ci;
    g->columns = g->beside ? kept_taps(s) * s->co : s->co;
    g->panels = ceil_div(g->columns, g->k->panel);
    if (g->blocks) {
        plan_regions(&g->s, max64(SOURCE_BYTES, ceil_div(BLOCK_PIXELS, pixels) * image), 1, 1);
    } else {                                      /* gy side by side has to fit the cache, too */
        int64_t bytes = g->s.in_place ? CHUNK_BYTES : SOURCE_BYTES;
        plan_regions(&g->s, g->beside ? SOURCE_BYTES * s->ci / max64(s->ci, g->columns) : bytes, PARTS, 1);
    }
    g->runs = plan_runs(&g->s, taps, kept, (run *)(memory + run_at));
    g->chunks = g->s.groups * g->s.bands;
    g->parts = g->blocks ? 0 : min64(min64(PARTS, g->chunks), max64(4, COPIES / (g->depth * g->columns * size + 1)));
    g->packs = g->blocks || g->beside || s->co % g->k->vector || (g->panels > 1 && g->depth > 4 * g->k->panel);
    return TG_OK;
}

static int sum_weight(weight_sum *g, int threads)
{
    if (plan_weight(g))
        return TG_NO_MEMORY;
    int64_t size = g->s.size, co = g->columns, row = round_up(co, g->k->vector) * size;
    int64_t pixels = g->s.images * g->s.band * g->s.columns;
    plan data = {0};
    g->source_bytes = source_copy_bytes(&g->s);
    g->chunk_bytes = g->source_bytes + round_up(pixels * row, ALIGNMENT);
    g->sum_bytes = round_up((g->depth + 1) * co * size, ALIGNMENT);
    size_t at_at = reserve(&data, pixels + NEAR, sizeof *g->at);
    size_t sums_at = reserve(&data, g->parts, (size_t)g->sum_bytes);
    size_t chunk_at = reserve(&data, g->blocks ? g->chunks : threads, (size_t)g->chunk_bytes);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g->at = (int64_t *)(memory + at_at);
    list_pixels(g->at, g->s.images, g->s.band, g->s.columns, g->s.image, g->s.step_y * g->s.row,
                g->s.step_x * g->s.channels);
    memset(g->at + pixels, 0, NEAR * sizeof *g->at);
    g->sums = memory + sums_at;
    g->chunk = memory + chunk_at;
    if (g->blocks) {
        g->block_rows = max64(24, min64(192, ceil_div(g->depth, 8 * threads)));
        int64_t blocks = ceil_div(max64(1, g->depth), g->block_rows);
        g->splits = min64(g->panels, ceil_div(8 * threads, blocks));
        parallel(g->chunks, threads, read_item, g);
        parallel(blocks * g->splits, threads, block_item, g);
    } else {
        parallel(g->parts, threads, part_item, g);
        if (g->parts > 1)
            parallel(ceil_div(g->depth * co, SMALL), threads, sum_item, g);
    }
    finish_weight(g);
    release_scratch();
    return TG_OK;
}

int tg_conv2d_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw,
                     void *gbias, int threads)
{
    if (!conv_valid(dtype, s))
        return TG_BAD_ARGUMENT;
    int64_t pixels = s->n * s->oh * s->ow;
    if (is_pointwise(s) && s->ci && s->co && pixels
        && (s->ci * s->co * element_size(dtype) >= PRODUCT || pixels < FEW || is_narrow(dtype, pixels, s->co))) {
        matmul p = {.m = s->ci, .n = s->co, .k = pixels, .a = x, .b = gy, .a_transposed = 1, .relu = relu, .c = gw,
                    .column_sums = gbias};
        return multiply_matrices(dtype, &p, clamp_threads(threads));
    }
    if (winograd_suits(s) && s->kh * s->kw * s->ci * s->co * element_size(dtype) <= (s->stride_h == 1 ? 4 : 1) * LARGE)
        return winograd_weight(dtype, s, relu, x, gy, gw, gbias, clamp_threads(threads));
    if (raster_suits(s))
        return raster_weight(dtype, s, relu, x, gy, gw, gbias, clamp_threads(threads));
    if (taps_suit_weight(dtype, s))
        return taps_weight(dtype, s, relu, x, gy, gw, gbias, clamp_threads(threads));
    weight_sum g = {.shape = s, .k = tiles(dtype), .gy = gy, .gw = gw, .gbias = gbias};
    g.s = (source){.data = x, .size = element_size(dtype), .n = s->n, .h = s->h, .w = s->w, .channels = s->ci,
                   .step_y = s->stride_h, .step_x = s->stride_w, .relu = relu ? g.k->relu : NULL};
    if (s->n && s->oh && s->ow && s->co)
        return sum_weight(&g, clamp_threads(threads));
    memset(gw, 0, (size_t)(s->kh * s->kw * s->ci * s->co * g.s.size));
    if (gbias)
        memset(gbias, 0, (size_t)(s->co * g.s.size));
    return TG_OK;
}
