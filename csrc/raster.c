/* Winograd's convolution (winograd.c) along rows, for 3 x 3 taps with PixelCNN's mask B. Of two neighboring outputs,
 * each with three taps g in the row above, of pixels d, and two taps h in its own row, of pixels e,
 *
 *     y0 = d0 g0 + d1 g1 + d2 g2 + e0 h0 + e1 h1
 *     y1 = d1 g0 + d2 g1 + d3 g2 + e1 h0 + e2 h1
 *
 * the ten products become seven, F(2, 3) above and F(2, 2) beside, in four components:
 *
 *     P = (d0 - d2) g0 + (e0 - e1) h0                             y0 = P + (Q + R)
 *     Q = (d1 + d2) (g0 + g1 + g2) / 2 + e1 (h0 + h1)             y1 = S + (Q - R)
 *     S = (d3 - d1) g2 + (e2 - e1) h1
 *     R = (d2 - d1) (g0 + g2 - g1) / 2
 *
 * With many channels each component is a matrix product: of all tiles, of their one or two shares side by side. No
 * share has a tap that the mask leaves out: so causality is exact, as ever. An item is so many tiles, in raster order, that
 * their shares stay in the L2 cache.
 *
 * The gradient to x is such a convolution: it meets the row below, and its own from its pixel on, with the taps in
 * reverse. That to w turns the matrices around. */
#include <string.h>
#include "mask.h"
#include "raster.h"

enum {
    TAPS = 5, SHARES = 7, COMPONENTS = 4,
    CHANNELS = 64, LINE = 16, TILES = 56,       /* fewer aren't worth the transforms */
    BLOCK_BYTES = 384 << 10, LEAST = 24,        /* of an item's shares and components, about; a multiple of tiles */
    ROWS = 16,                                  /* of w that are packed at a time */
    PARTS = 16                                  /* of gw: copies, for every number of threads */
};

typedef struct {
    void (*read)(const void *const *pixel, int64_t channels, int relu, void *to);
    void (*write)(const void *from, int64_t channels, const void *bias, intptr_t positive, intptr_t add,
                  const void *const *pixel);
    void (*spread_pixels)(const void *const *pixel, int64_t channels, void *to);
    void (*spread_taps)(const void *const *tap, int64_t n, void *const *to);
    void (*gather_taps)(const void *from, int64_t step, int64_t n, void *const *tap);
} raster_kernels;

#define FAMILY "raster.inc"
#include "runtime/variants.h"

static const raster_kernels *transforms(int dtype)
{
    static const raster_kernels *const table[][2] = {
        {&raster_f32_base, &raster_f64_base},
#ifdef __x86_64__
        {&raster_f32_avx2, &raster_f64_avx2}, {&raster_f32_avx512, &raster_f64_avx512},
#endif
    };
    return table[tg_isa()][dtype];
}

typedef struct {
    const tile_kernels *k;
    const raster_kernels *f;
    int64_t size, n, h, w, in, out;             /* channels of what is read and written; for gw both are read */
    int64_t columns, tiles, block;              /* of tiles: in a row; in all; in an item */
    int64_t above, left;                        /* from a tile to its d's row, and to its e's first column */
    int relu, reversed;
    const char *from, *weight, *bias, *zeros;
    char *to;
    intptr_t positive, add;
    char *packed, *slots;                       /* the components of w in panels; the threads' own memory */
    int64_t slot_bytes, parts, part_bytes, *at; /* at: of an item's tiles, as `outer` takes them */
    char *sums, *gw;                            /* each part's sums of the shares of gw, and of gbias */
    int gbias;                                  /* whether it is asked for */
} raster;

int raster_suits(const tg_conv_shape *s)
{
    return s->mask == TG_MASK_B && s->groups == 1 && s->kh == 3 && s->kw == 3 && s->stride_h == 1 && s->stride_w == 1
        && s->dil_h == 1 && s->dil_w == 1 && s->pad_h == 1 && s->pad_w == 1 && s->oh == s->h && s->ow == s->w
        && s->w > 3 && s->ci >= CHANNELS && s->co >= CHANNELS && s->ci % LINE == 0 && s->co % LINE == 0
        && s->n * s->h * ceil_div(s->w, 2) >= TILES;
}

static raster plan_raster(int dtype, const tg_conv_shape *s, int64_t in, int64_t out, const void *from, const void *to)
{
    raster g = {.k = tiles(dtype), .f = transforms(dtype), .size = element_size(dtype), .n = s->n, .h = s->h, .w = s->w,
                .in = in, .out = out, .columns = ceil_div(s->w, 2), .above = -1, .left = -1, .from = from,
                .to = (char *)(uintptr_t)to};
    g.tiles = s->n * s->h * g.columns;
    g.block = max64(LEAST, BLOCK_BYTES / ((SHARES * in + COMPONENTS * out) * g.size) / LEAST * LEAST);
    g.slot_bytes = max64(g.block * (SHARES * in + COMPONENTS * out), TAPS * ROWS * g.k->panel) * g.size;
    return g;
}

/* How many shares a component has; it begins with the second times its number. */
static int64_t shares_of(int component) { return component < 3 ? 2 : 1; }

/* --- tiles ---------------------------------------------------------------------------------------------- */

/* A tile's row among those of all images and of its own, and its first column. */
typedef struct { int64_t row, y, x; } place;

static place place_of(const raster *g, int64_t tile)
{
    int64_t row = tile / g->columns;
    return (place){row, row % g->h, tile % g->columns * 2};
}

static void advance(const raster *g, place *p)
{
    p->x += 2;
    if (p->x < g->w)
        return;
    p->x = 0;
    p->row++;
    p->y = p->y + 1 < g->h ? p->y + 1 : 0;
}

/* `count` pixels of the row `above` a tile from its column + left on, zeros outside. */
static void locate(const raster *g, place p, int64_t above, int64_t left, int count, const void **pixel)
{
    int64_t y = p.y + above, x = p.x + left, bytes = g->in * g->size;
    const char *first = g->from + ((p.row + above) * g->w + x) * bytes;
    int inside = y >= 0 && y < g->h;
    for (int i = 0; i < count; i++)
        pixel[i] = inside && x + i >= 0 && x + i < g->w ? first + i * bytes : g->zeros;
}

static void read_tiles(const raster *g, int64_t first, int64_t count, char *to)
{
    const void *pixel[SHARES];
    place p = place_of(g, first);
    for (int64_t i = 0; i < count; i++, advance(g, &p)) {
        locate(g, p, g->above, -1, 4, pixel);
        locate(g, p, 0, g->left, 3, pixel + 4);
        g->f->read(pixel, g->in, g->relu, to + i * SHARES * g->in * g->size);
    }
}

/* A tile's two outputs; `outside` for the second if there is none. */
static void locate_out(const raster *g, place p, const char *outside, const void **pixel)
{
    int64_t bytes = g->out * g->size;
    pixel[0] = g->to + (p.row * g->w + p.x) * bytes;
    pixel[1] = p.x + 1 < g->w ? (const char *)pixel[0] + bytes : outside;
}

/* --- convolution ---------------------------------------------------------------------------------------- */

/* The shares of ROWS of a panel of w's columns, whose taps are in `local` before. An item is one of each. */
static void pack_item(void *context, int64_t item, int slot)
{
    static const int back[TAPS] = {2, 1, 0, 4, 3};
    const raster *g = context;
    int64_t blocks = g->in / ROWS, row = item % blocks * ROWS, column = item / blocks * g->k->panel, size = g->size;
    int64_t n = min64(g->k->panel, g->out - column), in = g->in, out = g->out;
    char *local = g->slots + slot * g->slot_bytes;
    const void *tap[TAPS];
    void *share[SHARES];
    for (int i = 0; i < TAPS; i++) {
        const char *w = g->weight + (g->reversed ? back[i] : i) * in * out * size;
        char *to = local + i * ROWS * n * size;
        if (g->reversed)
            g->k->transpose(w + (column * in + row) * size, in, to, n, n, ROWS);
        else
            g->k->pack(w + (row * out + column) * size, out, to, ROWS, n);
        tap[i] = to;
    }
    for (int i = 0; i < SHARES; i++)
        share[i] = g->packed + (i / 2 * 2 * in * out + shares_of(i / 2) * in * column + (i % 2 * in + row) * n) * size;
    g->f->spread_taps(tap, ROWS * n, share);
}

static void convolve_item(void *context, int64_t item, int slot)
{
    const raster *g = context;
    int64_t first = item * g->block, count = min64(g->block, g->tiles - first), size = g->size;
    char *in = g->slots + slot * g->slot_bytes, *out = in + g->block * SHARES * g->in * size;
    read_tiles(g, first, count, in);
    for (int i = 0; i < COMPONENTS; i++)
        multiply_panels(g->k, count, g->out, shares_of(i) * g->in, size, in + i * 2 * g->in * size, SHARES * g->in,
                        g->packed + i * 2 * g->in * g->out * size, out + i * g->out * size, COMPONENTS * g->out);
    place p = place_of(g, first);
    for (int64_t i = 0; i < count; i++, advance(g, &p)) {
        const void *pixel[2];
        locate_out(g, p, NULL, pixel);
        g->f->write(out + i * COMPONENTS * g->out * size, g->out, g->bias, g->positive, g->add, pixel);
    }
}

static int convolve(raster *g, const void *w, int threads)
{
    plan data = {0};
    size_t packed_at = reserve(&data, SHARES * g->in * g->out, (size_t)g->size);
    size_t zeros_at = reserve(&data, g->in, (size_t)g->size);
    size_t slots_at = reserve(&data, g->slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g->weight = w;
    g->packed = memory + packed_at;
    g->zeros = memset(memory + zeros_at, 0, (size_t)(g->in * g->size));
    g->slots = memory + slots_at;
    parallel(ceil_div(g->out, g->k->panel) * (g->in / ROWS), threads, pack_item, g);
    parallel(ceil_div(g->tiles, g->block), threads, convolve_item, g);
    release_scratch();
    return TG_OK;
}

int raster_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
                  const void *add, void *y, int threads)
{
    raster g = plan_raster(dtype, s, s->ci, s->co, x, y);
    g.relu = relu;
    g.bias = bias;
    g.add = add ? (intptr_t)add - (intptr_t)y : 0;
    return convolve(&g, w, threads);
}

int raster_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                     const void *positive, void *x, int threads)
{
    raster g = plan_raster(dtype, s, s->co, s->ci, y, x);
    g.above = 1;
    g.left = 0;
    g.reversed = 1;
    g.bias = bias;
    g.positive = positive ? (intptr_t)positive - (intptr_t)x : 0;
    return convolve(&g, w, threads);
}

/* --- the gradient to the weight ------------------------------------------------------------------------- */

/* The sums of a fixed range of items. Q's y0 + y1 gives the bias's gradient. */
static void part_item(void *context, int64_t part, int slot)
{
    const raster *g = context;
    int64_t items = ceil_div(g->tiles, g->block), first = part * items / g->parts, size = g->size, out = g->out;
    char *in = g->slots + slot * g->slot_bytes, *gy = in + g->block * SHARES * g->in * size;
    char *sums = g->sums + part * g->part_bytes, *gbias = sums + SHARES * g->in * out * size;
    memset(gbias, 0, (size_t)(out * size));
    for (int64_t item = first; item < (part + 1) * items / g->parts; item++) {
        int64_t tile = item * g->block, count = min64(g->block, g->tiles - tile);
        read_tiles(g, tile, count, in);
        place p = place_of(g, tile);
        for (int64_t i = 0; i < count; i++, advance(g, &p)) {
            const void *pixel[2];
            locate_out(g, p, g->zeros, pixel);
            g->f->spread_pixels(pixel, out, gy + i * COMPONENTS * out * size);
            if (g->gbias)
                g->k->add_rows(gy + (i * COMPONENTS + 1) * out * size, gbias, 1, out);
        }
        for (int i = 0; i < COMPONENTS; i++)
            add_outer(g->k, count, shares_of(i) * g->in, out, size, in + i * 2 * g->in * size, g->at,
                      gy + i * out * size, COMPONENTS * out, sums + i * 2 * g->in * out * size, item > first);
    }
}

/* gw's taps of a row of w, from the sum of all parts; exact zeros where it is masked. */
static void gather_item(void *context, int64_t row, int slot)
{
    const raster *g = context;
    int64_t out = g->out, weights = g->in * out, size = g->size;
    void *tap[TAPS];
    (void)slot;
    for (int i = 0; i < SHARES; i++)
        for (int64_t part = 1, at = (i * weights + row * out) * size; part < g->parts; part++)
            g->k->add_rows(g->sums + part * g->part_bytes + at, g->sums + at, 1, out);
    for (int i = 0; i < TAPS; i++)
        tap[i] = g->gw + (i * weights + row * out) * size;
    for (int i = TAPS; i < 9; i++)
        memset(g->gw + (i * weights + row * out) * size, 0, (size_t)(out * size));
    g->f->gather_taps(g->sums + row * out * size, weights, out, tap);
}

int raster_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                  int threads)
{
    raster g = plan_raster(dtype, s, s->ci, s->co, x, gy);
    int64_t sums = SHARES * s->ci * s->co * g.size, bias_bytes = s->co * g.size;
    plan data = {0};
    g.relu = relu;
    g.gbias = gbias != NULL;
    g.gw = gw;
    g.part_bytes = round_up(sums + bias_bytes, ALIGNMENT);
    g.parts = min64(PARTS, ceil_div(g.tiles, g.block));
    size_t at_at = reserve(&data, g.block + NEAR, sizeof *g.at);
    size_t zeros_at = reserve(&data, max64(s->ci, s->co), (size_t)g.size);
    size_t sums_at = reserve(&data, g.part_bytes, (size_t)g.parts);
    size_t slots_at = reserve(&data, g.slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g.at = (int64_t *)(memory + at_at);
    for (int64_t i = 0; i < g.block + NEAR; i++)
        g.at[i] = min64(i, g.block - 1) * SHARES * s->ci;
    g.zeros = memset(memory + zeros_at, 0, (size_t)(max64(s->ci, s->co) * g.size));
    g.sums = memory + sums_at;
    g.slots = memory + slots_at;
    parallel(g.parts, threads, part_item, &g);
    parallel(s->ci, sums > (1 << 15) ? threads : 1, gather_item, &g);
    if (gbias)
        memset(gbias, 0, (size_t)bias_bytes);
    for (int64_t part = 0; gbias && part < g.parts; part++)
        g.k->add_rows(g.sums + part * g.part_bytes + sums, gbias, 1, s->co);
    release_scratch();
    return TG_OK;
}
