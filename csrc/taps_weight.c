/* The gradient of convolution to its weight, tap by tap (taps.c): each tap's part of gw is a matrix product x' gy of those
 * pixels only that meet it inside of the image.
 *
 * A sum over pixels runs fastest where they lie one after the other. So x is transposed, some images at a time: for each
 * channel, pixels in raster order and of each pixel all of these images. What meets a tap in a row of gy is then one run
 * of columns * images numbers. With a stride, pixels go to the phase (y mod stride_h, x mod stride_w) first, in which
 * neighbors of gy meet neighbors. gy is packed into panels in the same order.
 *
 *   block     so many images that a row of gy has about DEPTH pixels: its panel stays in the L1 cache
 *   item      some taps, and some rows and panels of their parts of gw, which stay in the L2 cache: the sum over blocks and
 *             rows of gy, in this order; each row of gy meets all taps before the next one does */
#include <string.h>
#include "mask.h"
#include "taps.h"

enum {
    DEPTH = 256,                    /* pixels of a run, about */
    ROWS = 256,                     /* of x', at most, that meet a panel while it is in the cache */
    GW_BYTES = 512 << 10,           /* of gw in an item, about */
    FEW = 8,                        /* images, too few to be side by side */
    OUTSIDE = 10,                   /* percent of the products: what they cost pays for the transposed x */
    LINE = 64
};

typedef struct {
    const tile_kernels *k;
    const tg_conv_shape *s;
    int relu;
    int64_t size, images, blocks;               /* images: of a block; the last one may have fewer */
    int64_t columns, plane, phase_bytes, block_bytes;   /* of x transposed: a phase's columns; a channel's elements */
    int64_t panels, panel_bytes, row_bytes;     /* of gy: a panel of a row of pixels; all of its panels */
    int64_t tap_items, row_items, splits;       /* how many items of taps, rows, and panels */
    const char *x, *gy;
    char *gw, *transposed, *packed, *sums;      /* sums: of a row of gy in each block */
} tap_sums;

/* Enough rows have to meet a panel to pay for its way into the cache. */
int taps_suit_weight(int dtype, const tg_conv_shape *s)
{
    return taps_suit(s, OUTSIDE) && s->n >= FEW && DEPTH / s->ow >= FEW && s->ci >= 2 * tiles(dtype)->panel;
}

static int64_t images_of(const tap_sums *g, int64_t block) { return min64(g->images, g->s->n - block * g->images); }

/* Where a pixel of x and its first channel are, transposed. */
static char *place(const tap_sums *g, int64_t block, int64_t y, int64_t x)
{
    const tg_conv_shape *s = g->s;
    int64_t phase = y % s->stride_h * s->stride_w + x % s->stride_w;
    int64_t pixel = y / s->stride_h * g->columns + x / s->stride_w;
    return g->transposed + block * g->block_bytes + phase * g->phase_bytes + pixel * images_of(g, block) * g->size;
}

/* A row of pixels of a block's images. */
static void transpose_item(void *context, int64_t item, int slot)
{
    const tap_sums *g = context;
    const tg_conv_shape *s = g->s;
    int64_t block = item / s->h, y = item % s->h, images = images_of(g, block);
    (void)slot;
    for (int64_t x = 0; x < s->w; x++) {
        char *to = place(g, block, y, x);
        g->k->transpose(g->x + ((block * g->images * s->h + y) * s->w + x) * s->ci * g->size, s->h * s->w * s->ci, to,
                        g->plane, images, s->ci);
        for (int64_t c = 0; g->relu && c < s->ci; c++)
            g->k->relu(to + c * g->plane * g->size, to + c * g->plane * g->size, images);
    }
}

/* A row of gy of a block's images. */
static void pack_item(void *context, int64_t item, int slot)
{
    const tap_sums *g = context;
    const tg_conv_shape *s = g->s;
    int64_t block = item / s->oh, q = item % s->oh, images = images_of(g, block), size = g->size;
    const char *row = g->gy + (block * g->images * s->oh + q) * s->ow * s->co * size;
    char *sum = g->sums + item * s->co * size;
    (void)slot;
    for (int64_t panel = 0; panel < g->panels; panel++) {
        int64_t column = panel * g->k->panel, n = min64(g->k->panel, s->co - column);
        char *to = g->packed + item * g->row_bytes + panel * g->panel_bytes;
        for (int64_t x = 0; x < s->ow; x++, to += images * round_up(n, g->k->vector) * size)
            g->k->pack(row + (x * s->co + column) * size, s->oh * s->ow * s->co, to, images, n);
    }
    memset(sum, 0, (size_t)(s->co * size));
    for (int64_t i = 0; i < images; i++)
        g->k->add_rows(row + i * s->oh * s->ow * s->co * size, sum, s->ow, s->co);
}

/* gw's rows (+)= those of x' times a panel of gy, of `depth` pixels. Meanwhile `bytes` are fetched from `ahead` on. */
static void multiply(const tap_sums *g, const char *a, const char *b, int64_t depth, int64_t rows, int64_t n, char *gw,
                     int add, const char *ahead, int64_t bytes)
{
    int64_t vectors = ceil_div(n, g->k->vector), tiles = ceil_div(rows, g->k->product_rows[vectors]), size = g->size;
    int64_t share = round_up(ceil_div(bytes, tiles), LINE);
    run all = {0, depth};
    product p = {.runs = &all, .count = 1, .ldb = vectors * g->k->vector, .n = n, .b = b};
    for (int64_t m; rows > 0; rows -= m, tiles--) {
        const void *from[TILE_ROWS];
        void *to[TILE_ROWS];
        m = ceil_div(rows, tiles);
        for (int64_t i = 0; i < share; i += LINE, ahead += LINE)
            __builtin_prefetch(ahead);
        for (int64_t i = 0; i < m; i++, a += g->plane * size, gw += g->s->co * size) {
            from[i] = a;
            to[i] = gw;
            for (int64_t line = 0; line < n * size; line += LINE)       /* needed after the product */
                __builtin_prefetch(gw + line, 1);
        }
        g->k->product[vectors][m](&p, from, add ? (const void *const *)to : NULL, to);
    }
}

/* What an item computes: some taps, and of their parts of gw some rows and panels. */
typedef struct { int64_t tap, last_tap, row, rows, panel, last_panel; } part;

static part part_of(const tap_sums *g, int64_t item)
{
    int64_t split = item % g->splits, of_rows = item / g->splits % g->row_items, of_taps = item / g->splits / g->row_items;
    int64_t taps = g->s->kh * g->s->kw, row = of_rows * g->s->ci / g->row_items;
    return (part){of_taps * taps / g->tap_items, (of_taps + 1) * taps / g->tap_items, row,
                  (of_rows + 1) * g->s->ci / g->row_items - row, split * g->panels / g->splits,
                  (split + 1) * g->panels / g->splits};
}

/* What a panel of row q of a block's gy adds to a tap's part of gw. Meanwhile the next panel is fetched, of which each tap
 * has a share. */
static void add_row(const tap_sums *g, const part *p, int64_t tap, int64_t block, int64_t q, int64_t panel)
{
    const tg_conv_shape *s = g->s;
    int64_t top = tap / s->kw * s->dil_h - s->pad_h, left = tap % s->kw * s->dil_w - s->pad_w, size = g->size;
    int64_t images = images_of(g, block), column = panel * g->k->panel, n = min64(g->k->panel, s->co - column);
    int64_t share = round_up(g->panel_bytes / (p->last_tap - p->tap), LINE);
    range y = inside(s->oh, s->stride_h, top, s->h), x = inside(s->ow, s->stride_w, left, s->w);
    if (q < y.first || q >= y.last || x.first >= x.last)
        return;
    const char *a = place(g, block, q * s->stride_h + top, x.first * s->stride_w + left) + p->row * g->plane * size;
    const char *b = g->packed + (block * s->oh + q) * g->row_bytes + panel * g->panel_bytes;
    multiply(g, a, b + x.first * images * round_up(n, g->k->vector) * size, (x.last - x.first) * images, p->rows, n,
             g->gw + ((tap * s->ci + p->row) * s->co + column) * size, block || q > y.first,
             b + g->panel_bytes + (tap - p->tap) * share, share);
}

/* A tap that meets no pixel has a gradient of 0. */
static void clear(const tap_sums *g, const part *p, int64_t tap)
{
    const tg_conv_shape *s = g->s;
    range y = inside(s->oh, s->stride_h, tap / s->kw * s->dil_h - s->pad_h, s->h);
    range x = inside(s->ow, s->stride_w, tap % s->kw * s->dil_w - s->pad_w, s->w);
    int64_t column = p->panel * g->k->panel, n = min64(s->co, p->last_panel * g->k->panel) - column;
    for (int64_t i = 0; i < p->rows && (y.first >= y.last || x.first >= x.last); i++)
        memset(g->gw + ((tap * s->ci + p->row + i) * s->co + column) * g->size, 0, (size_t)(n * g->size));
}

static void sum_item(void *context, int64_t item, int slot)
{
    const tap_sums *g = context;
    part p = part_of(g, item);
    (void)slot;
    for (int64_t tap = p.tap; tap < p.last_tap; tap++)
        clear(g, &p, tap);
    for (int64_t block = 0; block < g->blocks; block++)
        for (int64_t q = 0; q < g->s->oh; q++)
            for (int64_t panel = p.panel; panel < p.last_panel; panel++)
                for (int64_t tap = p.tap; tap < p.last_tap; tap++)
                    add_row(g, &p, tap, block, q, panel);
}

int taps_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                int threads)
{
    tap_sums g = {.k = tiles(dtype), .s = s, .relu = relu, .size = element_size(dtype), .x = x, .gy = gy, .gw = gw};
    int64_t taps = s->kh * s->kw;
    g.blocks = ceil_div(s->n, DEPTH / s->ow);
    g.images = ceil_div(s->n, g.blocks);
    g.columns = ceil_div(s->w, s->stride_w);
    g.plane = round_up(ceil_div(s->h, s->stride_h) * g.columns * g.images * g.size, LINE) / g.size + 17 * LINE / g.size;
    g.phase_bytes = s->ci * g.plane * g.size;           /* a line between channels keeps them apart in the cache */
    g.block_bytes = s->stride_h * s->stride_w * g.phase_bytes;
    g.panels = ceil_div(s->co, g.k->panel);
    g.panel_bytes = s->ow * g.images * g.k->panel * g.size;
    g.row_bytes = g.panels * g.panel_bytes;
    g.row_items = ceil_div(s->ci, ROWS);
    g.tap_items = ceil_div(taps, max64(1, GW_BYTES * g.row_items / (s->ci * s->co * g.size)));
    g.tap_items = min64(taps, max64(g.tap_items, ceil_div(2 * threads, g.row_items)));
    g.splits = max64(1, min64(g.panels, ceil_div(2 * threads, g.tap_items * g.row_items)));
    plan data = {0};
    size_t transposed_at = reserve(&data, g.blocks, (size_t)g.block_bytes);
    size_t packed_at = reserve(&data, g.blocks * s->oh, (size_t)g.row_bytes);
    size_t sums_at = reserve(&data, g.blocks * s->oh * s->co, (size_t)g.size);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g.transposed = memory + transposed_at;
    g.packed = memory + packed_at;
    g.sums = memory + sums_at;
    parallel(g.blocks * s->h, threads, transpose_item, &g);
    parallel(g.blocks * s->oh, threads, pack_item, &g);
    parallel(g.tap_items * g.row_items * g.splits, threads, sum_item, &g);
    if (gbias) {
        memset(gbias, 0, (size_t)(s->co * g.size));
        g.k->add_rows(g.sums, gbias, g.blocks * s->oh, s->co);
    }
    release_scratch();
    return TG_OK;
}
