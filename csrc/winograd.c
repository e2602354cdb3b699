/* Winograd's convolution (Winograd, Arithmetic complexity of computations, 1980; Lavin & Gray, Fast algorithms for
 * convolutional neural networks, 2016), for 3 x 3 taps and for 4 x 4 taps with a stride of 2.
 *
 * Two neighboring outputs of three taps take six products, y = (d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2); or four,
 * m = (B' d) (G g) with y = A' m (winograd.inc has the matrices). Of two taps they take three in place of four.
 *
 * Along both axes a tile of 2 x 2 outputs, y = A' ((G g G') (B' d B)) A, has 16 components in place of 36 products, or
 * 9 in place of 16. With many channels each component is a matrix product: of all tiles (tiles, ci) with all weights
 * (ci, co). The last tile of an odd row or column is short, of one output, and has one component less.
 *
 * With a stride of 2, every other row and column of x is an image of its own, one of four phases, and meets its own
 * 2 x 2 of the 4 x 4 taps: they lie side by side as 4 ci channels. Transposed, each phase of x is a convolution of y.
 *
 * An output depends on the same pixels as ever, exactly (of three outputs of two taps, F(3, 2), the first would depend
 * on d2, up to rounding); but what taps of 0 meet cancels only up to rounding: masks keep to conv.c and raster.c.
 *
 * An item is so many tiles that all their components stay in the L2 cache: whole images, if they fit. The gradient to x
 * is such a convolution with the taps in reverse; that to w turns the matrices around: gw = G' ((B' d B) (A gy A')) G,
 * summed over the tiles. */
#include <string.h>
#include "mask.h"
#include "winograd.h"

enum {
    MOST_COMPONENTS = 16, LINE = 16,        /* a line, in elements, between them keeps them apart in the cache */
    CHANNELS = 32, TILES = 56,      /* fewer aren't worth the transforms */
    STRIDED = 128 * 256,            /* weights of a tap, if there is a stride: more would be read too often; */
    SMALL_IMAGE = 4 * 4,            /* outputs of which taps.c leaves out as much */
    BLOCK_BYTES = 512 << 10,        /* of an item's components, about; more of large weights, which each item reads */
    ITEMS = 4,                      /* at least, if there are as many images */
    LEAST = 24, MOST_TILES = 96,    /* tiles of part of an image, multiples of LEAST: of each register tile's rows */
    AHEAD = 16,                     /* how many tiles before its use a tile is fetched into the cache */
    ROWS = 16,                      /* of w that are packed at a time */
    PARTS = 16, COPIES = 1 << 19    /* of gw: copies at most, for every number of threads, and bytes of all of them */
};

/* Of tiles of pixels, [short in height][in width]. */
typedef struct {
    void (*read[2][2])(const void *const *pixel, int64_t channels, int relu, void *to, int64_t step);
    void (*write[2][2])(const void *from, int64_t step, int64_t channels, const void *bias, intptr_t positive,
                        intptr_t add, const void *const *pixel);
    void (*spread_pixels[2][2])(const void *const *pixel, int64_t channels, void *to, int64_t step);
    void (*spread_taps)(const void *const *tap, int64_t n, void *to, int64_t step);
    void (*gather_taps)(const void *from, int64_t step, int64_t n, void *const *tap);
} winograd_kernels;

#define FAMILY "winograd.inc"
#include "runtime/variants.h"

static const winograd_kernels *transforms(int dtype, int taps)
{
    static const winograd_kernels *const table[][2] = TABLE(winograd);
    return &table[tg_isa()][dtype][taps - 2];
}

/* stride: from a pixel to the next one of its phase. */
typedef struct { const char *data; int64_t h, w, channels, stride, phases; } images;

typedef struct {
    const tile_kernels *k;
    const winograd_kernels *f;
    int64_t size, n;
    int taps, side, components;             /* along an axis: of taps; of pixels and components, taps + 1; in all */
    images in, out;                         /* what is read, and what is written; for gw both are read */
    int64_t rows, columns, tiles, block;    /* of tiles: in an image; in all images; in an item */
    int64_t long_rows, long_columns;        /* those that aren't short */
    int64_t depth;                          /* channels of all phases of in */
    int64_t in_step, out_step, slot_bytes;  /* from component to component */
    int relu, reversed;
    const char *weight, *bias, *zeros;
    intptr_t positive, add;
    char *packed, *slots;                   /* G g G', each component in panels; the threads' own memory */
    int64_t parts, part_bytes, *at;         /* at: of an item's tiles, as `outer` takes them */
    char *sums, *gw;                        /* each part's sums of the components of gw, and of gbias */
    int gbias;                              /* whether it is asked for */
} winograd;

/* A tile: its image, its first output, and whether it is short. */
typedef struct { int64_t image, y, x; int short_y, short_x; } tile;

/* An item's tiles in the order of their memory: those that are short in width, in nothing, in height, in both. So the
 * tiles that have some component are neighbors. AHEAD more follow, those of the next item, to be fetched. */
typedef struct { int64_t count, begin[5]; tile *tiles; char *in, *out; } block;

int winograd_suits(const tg_conv_shape *s)
{
    int64_t tiles = ceil_div(s->oh, 2) * ceil_div(s->ow, 2), stride = s->stride_h;
    int fits = stride == 1 ? s->kh == 3 && s->kw == 3 : stride == 2 && s->kh == 4 && s->kw == 4;
    if (!fits || s->mask != TG_MASK_NONE || s->stride_w != stride || s->dil_h != 1 || s->dil_w != 1 || s->pad_h != 1
        || s->pad_w != 1 || s->oh * stride != s->h || s->ow * stride != s->w)
        return 0;
    if (stride == 2 && (s->ci * s->co > STRIDED || s->oh * s->ow <= SMALL_IMAGE || s->n * tiles < 3 * TILES))
        return 0;
    return s->ci >= CHANNELS && s->co >= CHANNELS && s->ci % LINE == 0 && s->co % LINE == 0 && s->n * tiles >= TILES
        && 2 * s->oh * s->ow >= 5 * tiles;
}

/* Transposed, with a stride, y is read for each phase: a few vectors of outputs aren't worth it. */
int winograd_suits_transpose(int dtype, const tg_conv_shape *s)
{
    return winograd_suits(s) && (s->stride_h == 1 || s->ci >= TILE_VECTORS * tiles(dtype)->vector);
}

static winograd plan_tiles(int dtype, const tg_conv_shape *s, images in, images out)
{
    int taps = s->stride_h == 1 ? 3 : 2, side = taps + 1;
    winograd g = {.k = tiles(dtype), .f = transforms(dtype, taps), .size = element_size(dtype), .n = s->n, .in = in,
                  .out = out, .taps = taps, .side = side, .components = side * side, .rows = ceil_div(s->oh, 2),
                  .columns = ceil_div(s->ow, 2), .long_rows = s->oh / 2, .long_columns = s->ow / 2,
                  .depth = in.phases * in.channels};
    g.tiles = g.n * g.rows * g.columns;
    int64_t weights = g.components * g.depth * out.channels * g.size, image = g.rows * g.columns;
    int64_t bytes = max64(BLOCK_BYTES, min64(4 * BLOCK_BYTES, weights / 2));
    int64_t fit = bytes / (g.components * (g.depth + out.channels) * g.size);
    fit = fit >= image ? min64(fit, max64(1, g.n / ITEMS) * image) : fit;
    g.block = fit >= image ? fit / image * image : max64(LEAST, min64(MOST_TILES, fit / LEAST * LEAST));
    g.in_step = g.block * g.depth + LINE;
    g.out_step = g.block * out.channels + LINE;
    g.slot_bytes = round_up(g.components * (g.in_step + g.out_step) * g.size, ALIGNMENT)
        + (g.block + AHEAD) * (int64_t)sizeof(tile);
    return g;
}

/* --- tiles ---------------------------------------------------------------------------------------------- */

/* `to` the tiles from `first` on, all of them or those of a kind, short_y * 2 + short_x; returns how many. */
static int64_t list_tiles(const winograd *g, int64_t first, int64_t count, int kind, tile *to)
{
    int64_t i = first / g->columns % g->rows, j = first % g->columns, image = first / (g->rows * g->columns), found = 0;
    for (int64_t left = count; left > 0; left--, j++) {
        if (j == g->columns)
            j = 0, i++;
        if (i == g->rows)
            i = 0, image++;
        tile t = {image, 2 * i, 2 * j, i >= g->long_rows, j >= g->long_columns};
        if (kind < 0 || kind == t.short_y * 2 + t.short_x)
            to[found++] = t;
    }
    return found;
}

/* Of the tiles from `first` on, in a thread's memory. */
static block order_tiles(const winograd *g, int64_t first, int64_t count, char *slot)
{
    static const int kinds[] = {1, 0, 2, 3};
    block b = {.count = count, .in = slot, .out = slot + g->components * g->in_step * g->size};
    b.tiles = (tile *)(slot + round_up(g->components * (g->in_step + g->out_step) * g->size, ALIGNMENT));
    for (int i = 0; i < 4; i++)
        b.begin[i + 1] = b.begin[i] + list_tiles(g, first, count, kinds[i], b.tiles + b.begin[i]);
    list_tiles(g, min64(first + count, max64(0, g->tiles - AHEAD)), AHEAD, -1, b.tiles + count);
    return b;
}

/* The first of the block's tiles that have a component, and how many they are. */
static int64_t tiles_with(const winograd *g, const block *b, int component, int64_t *count)
{
    int lowest = component / g->side == g->taps, rightmost = component % g->side == g->taps;
    int64_t first = b->begin[rightmost ? 1 : 0];
    *count = b->begin[lowest ? 2 : rightmost ? 3 : 4] - first;
    return first;
}

/* A tile's down * across pixels, of a phase that begins at (top, left), `outside` for those that there aren't. */
static void locate(const winograd *g, const images *of, const tile *t, int down, int across, int64_t top, int64_t left,
                   const char *outside, const void **pixel)
{
    int64_t bytes = of->channels * g->size, y = t->y * of->stride + top, x = t->x * of->stride + left;
    const char *row = of->data + ((t->image * of->h + y) * of->w + x) * bytes;
    int64_t lowest = (down - 1) * of->stride, rightmost = (across - 1) * of->stride;
    int whole = y >= 0 && y + lowest < of->h && x >= 0 && x + rightmost < of->w;
    for (int64_t i = 0; i <= lowest; i += of->stride, row += of->stride * of->w * bytes)
        for (int64_t j = 0; j <= rightmost; j += of->stride) {
            int inside = whole || (y + i >= 0 && y + i < of->h && x + j >= 0 && x + j < of->w);
            *pixel++ = inside ? row + j * bytes : outside;
        }
}

/* 2 x 2 pixels of the tile that comes AHEAD of the given one; for `in`, those that no tile before it has met. */
static void fetch(const winograd *g, const images *of, const block *b, int64_t i, int64_t top, int64_t left)
{
    const void *pixel[4];
    int64_t bytes = of->channels * g->size;
    locate(g, of, &b->tiles[i + AHEAD], 2, 2, top, left, g->zeros, pixel);
    for (int p = 0; p < 4; p++)
        for (int64_t line = 0; line < bytes; line += 64)
            __builtin_prefetch((const char *)pixel[p] + line);
}

/* The components of the block's tiles, of all phases of `in`, from (top, left) on. */
static void read_tiles(const winograd *g, const block *b, int64_t top, int64_t left)
{
    const void *pixel[MOST_COMPONENTS];
    int64_t beyond = (g->taps - 1) * g->in.stride;
    char *to = b->in;
    for (int64_t i = 0; i < b->count; i++)
        for (int64_t phase = 0; phase < g->in.phases; phase++, to += g->in.channels * g->size) {
            tile t = b->tiles[i];
            int64_t y = top + phase / 2, x = left + phase % 2;
            fetch(g, &g->in, b, i, y + beyond, x + beyond);
            locate(g, &g->in, &t, g->side - t.short_y, g->side - t.short_x, y, x, g->zeros, pixel);
            g->f->read[t.short_y][t.short_x](pixel, g->in.channels, g->relu, to, g->in_step);
        }
}

/* The pixels of the block's i-th tile, of a phase of `out` that begins at (top, left). */
static tile locate_out(const winograd *g, const block *b, int64_t i, int64_t top, int64_t left, const char *outside,
                       const void **pixel)
{
    tile t = b->tiles[i];
    fetch(g, &g->out, b, i, top, left);
    locate(g, &g->out, &t, 2 - t.short_y, 2 - t.short_x, top, left, outside, pixel);
    return t;
}

/* --- convolution ---------------------------------------------------------------------------------------- */

/* Where the i-th tap of a phase lies in w, counted from one row of taps to the next. */
static int64_t tap_of(const winograd *g, int64_t phase, int i)
{
    int64_t stride = max64(g->in.stride, g->out.stride), width = g->taps * stride;
    int64_t y = phase / 2 + i / g->taps * stride, x = phase % 2 + i % g->taps * stride;
    return g->reversed ? (width - 1 - y) * width + width - 1 - x : y * width + x;
}

/* G g G' of ROWS of a panel of w's columns, which are in `local` before. An item is one of each, of a phase. */
static void pack_item(void *context, int64_t item, int slot)
{
    const winograd *g = context;
    int64_t blocks = g->in.channels / ROWS, panels = ceil_div(g->out.channels, g->k->panel), size = g->size;
    int64_t row = item % blocks * ROWS, column = item / blocks % panels * g->k->panel, phase = item / blocks / panels;
    int64_t n = min64(g->k->panel, g->out.channels - column), channels = g->in.channels, columns = g->out.channels;
    int64_t in_phase = phase % g->in.phases, out_phase = phase / g->in.phases;
    char *local = g->slots + slot * g->slot_bytes;
    const void *tap[9];
    for (int i = 0; i < g->taps * g->taps; i++) {
        const char *w = g->weight + tap_of(g, phase, i) * channels * columns * size;
        char *to = local + i * ROWS * n * size;
        if (g->reversed)
            g->k->transpose(w + (column * channels + row) * size, channels, to, n, n, ROWS);
        else
            g->k->pack(w + (row * columns + column) * size, columns, to, ROWS, n);
        tap[i] = to;
    }
    char *to = g->packed + (g->depth * (out_phase * columns + column) + (in_phase * channels + row) * n) * size;
    g->f->spread_taps(tap, ROWS * n, to, g->out.phases * g->depth * columns);
}

/* One phase of what is written. */
static void convolve_phase(const winograd *g, const block *b, int64_t phase)
{
    int64_t size = g->size, weights = g->depth * g->out.channels, count;
    int64_t y = phase / 2, x = phase % 2;
    read_tiles(g, b, y - 1, x - 1);
    for (int i = 0; i < g->components; i++) {
        int64_t first = tiles_with(g, b, i, &count);
        multiply_panels(g->k, count, g->out.channels, g->depth, size,
                        b->in + (i * g->in_step + first * g->depth) * size, g->depth,
                        g->packed + (i * g->out.phases + phase) * weights * size,
                        b->out + (i * g->out_step + first * g->out.channels) * size, g->out.channels);
    }
    for (int64_t i = 0; i < b->count; i++) {
        const void *pixel[4];
        tile t = locate_out(g, b, i, y, x, NULL, pixel);
        g->f->write[t.short_y][t.short_x](b->out + i * g->out.channels * size, g->out_step, g->out.channels, g->bias,
                                          g->positive, g->add, pixel);
    }
}

static void convolve_item(void *context, int64_t item, int slot)
{
    const winograd *g = context;
    int64_t first = item * g->block;
    block b = order_tiles(g, first, min64(g->block, g->tiles - first), g->slots + slot * g->slot_bytes);
    for (int64_t phase = 0; phase < g->out.phases; phase++)
        convolve_phase(g, &b, phase);
}

static int convolve(winograd *g, const void *w, int threads)
{
    int64_t blocks = ceil_div(g->out.channels, g->k->panel) * (g->in.channels / ROWS) * g->in.phases * g->out.phases;
    plan data = {0};
    g->slot_bytes = max64(g->slot_bytes, 9 * ROWS * g->k->panel * g->size);
    size_t packed_at = reserve(&data, g->components * g->depth * g->out.channels * g->out.phases, (size_t)g->size);
    size_t zeros_at = reserve(&data, g->in.channels, (size_t)g->size);
    size_t slots_at = reserve(&data, g->slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g->weight = w;
    g->packed = memory + packed_at;
    g->zeros = memset(memory + zeros_at, 0, (size_t)(g->in.channels * g->size));
    g->slots = memory + slots_at;
    parallel(blocks, threads, pack_item, g);
    parallel(ceil_div(g->tiles, g->block), threads, convolve_item, g);
    release_scratch();
    return TG_OK;
}

/* The large image, every stride-th row and column of which is a phase; and the small one. */
static images large(const tg_conv_shape *s, const void *x)
{
    return (images){x, s->h, s->w, s->ci, s->stride_h, s->stride_h * s->stride_h};
}

static images small(const tg_conv_shape *s, const void *y) { return (images){y, s->oh, s->ow, s->co, 1, 1}; }

int winograd_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
                    const void *add, void *y, int threads)
{
    winograd g = plan_tiles(dtype, s, large(s, x), small(s, y));
    g.relu = relu;
    g.bias = bias;
    g.add = add ? (intptr_t)add - (intptr_t)y : 0;
    return convolve(&g, w, threads);
}

int winograd_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                       const void *positive, void *x, int threads)
{
    winograd g = plan_tiles(dtype, s, small(s, y), large(s, x));
    g.reversed = 1;
    g.bias = bias;
    g.positive = positive ? (intptr_t)positive - (intptr_t)x : 0;
    return convolve(&g, w, threads);
}

/* --- the gradient to the weight ------------------------------------------------------------------------- */

/* The sums of a fixed range of items. The component whose A gy A' adds up a tile's pixels gives the bias's gradient. */
static void part_item(void *context, int64_t part, int slot)
{
    const winograd *g = context;
    int64_t items = ceil_div(g->tiles, g->block), first = part * items / g->parts, size = g->size, co = g->out.channels;
    char *sums = g->sums + part * g->part_bytes, *gbias = sums + g->components * g->depth * co * size;
    memset(gbias, 0, (size_t)(co * size));
    for (int64_t item = first; item < (part + 1) * items / g->parts; item++) {
        int64_t number = item * g->block, count;
        block b = order_tiles(g, number, min64(g->block, g->tiles - number), g->slots + slot * g->slot_bytes);
        const void *pixel[4];
        read_tiles(g, &b, -1, -1);
        for (int64_t i = 0; i < b.count; i++) {
            tile t = locate_out(g, &b, i, 0, 0, g->zeros, pixel);
            g->f->spread_pixels[t.short_y][t.short_x](pixel, co, b.out + i * co * size, g->out_step);
        }
        for (int i = 0; i < g->components; i++) {
            int64_t from = tiles_with(g, &b, i, &count);
            add_outer(g->k, count, g->depth, co, size, b.in + (i * g->in_step + from * g->depth) * size, g->at,
                      b.out + (i * g->out_step + from * co) * size, co, sums + i * g->depth * co * size, item > first);
        }
        if (g->gbias)
            g->k->add_rows(b.out + (g->side + 1) * g->out_step * size, gbias, b.count, co);
    }
}

/* gw's taps of a row of w, from the sum of all parts. */
static void gather_item(void *context, int64_t row, int slot)
{
    const winograd *g = context;
    int64_t co = g->out.channels, weights = g->depth * co, size = g->size, phase = row / g->in.channels;
    void *tap[9];
    (void)slot;
    for (int i = 0; i < g->components; i++)
        for (int64_t part = 1, at = (i * weights + row * co) * size; part < g->parts; part++)
            g->k->add_rows(g->sums + part * g->part_bytes + at, g->sums + at, 1, co);
    for (int i = 0; i < g->taps * g->taps; i++)
        tap[i] = g->gw + (tap_of(g, phase, i) * g->in.channels + row % g->in.channels) * co * size;
    g->f->gather_taps(g->sums + row * co * size, weights, co, tap);
}

int winograd_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                    int threads)
{
    winograd g = plan_tiles(dtype, s, large(s, x), small(s, gy));
    int64_t sums = g.components * g.depth * s->co * g.size, bias_bytes = s->co * g.size;
    plan data = {0};
    g.relu = relu;
    g.gbias = gbias != NULL;
    g.gw = gw;
    g.part_bytes = round_up(sums + bias_bytes, ALIGNMENT);
    g.parts = min64(min64(PARTS, ceil_div(g.tiles, g.block)), max64(4, COPIES / sums));
    size_t at_at = reserve(&data, g.block + NEAR, sizeof *g.at);
    size_t zeros_at = reserve(&data, max64(s->ci, s->co), (size_t)g.size);
    size_t sums_at = reserve(&data, g.part_bytes, (size_t)g.parts);
    size_t slots_at = reserve(&data, g.slot_bytes, (size_t)threads);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g.at = (int64_t *)(memory + at_at);
    for (int64_t i = 0; i < g.block + NEAR; i++)
        g.at[i] = min64(i, g.block - 1) * g.depth;
    g.zeros = memset(memory + zeros_at, 0, (size_t)(max64(s->ci, s->co) * g.size));
    g.sums = memory + sums_at;
    g.slots = memory + slots_at;
    parallel(g.parts, threads, part_item, &g);
    parallel(g.depth, sums > (1 << 15) ? threads : 1, gather_item, &g);
    if (gbias)
        memset(gbias, 0, (size_t)bias_bytes);
    for (int64_t part = 0; gbias && part < g.parts; part++)
        g.k->add_rows(g.sums + part * g.part_bytes + sums, gbias, 1, s->co);
    release_scratch();
    return TG_OK;
}
