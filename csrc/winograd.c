/* Winograd's convolution F(2x2, 3x3) (Lavin & Gray, Fast algorithms for convolutional neural networks, 2016).
 *
 * Two neighboring outputs of three taps take six products, y = (d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2); or four,
 * m = (B' d) (G g) with y = A' m. Along both axes the 36 products of a tile, 2 x 2 outputs, become 16:
 *
 *          1  0 -1  0              1   0   0             1  1  1  0
 *     B' = 0  1  1  0         G = 1/2 1/2 1/2       A' = 0  1 -1 -1       y = A' ((G g G') (B' d B)) A
 *          0 -1  1  0             1/2-1/2 1/2
 *          0  1  0 -1              0   0   1
 *
 * With many channels each of the 16 components is a matrix product: of all tiles (tiles, ci) with all weights (ci, co).
 * An output depends on the same pixels as ever, exactly; but what taps of 0 meet cancels only up to rounding,
 * so masks keep to conv.c.
 *
 * An item is so many tiles that all their components stay in the L2 cache: whole images, if they fit. The gradient to x
 * is such a convolution with the taps in reverse; that to w turns the matrices around: gw = G' ((B' d B) (A gy A')) G,
 * summed over the tiles. */
#include <string.h>
#include "mask.h"
#include "winograd.h"

enum {
    COMPONENTS = 16, LINE = 16,     /* a line, in elements, between components keeps them apart in the cache */
    CHANNELS = 32, TILES = 56,      /* fewer aren't worth the transforms */
    BLOCK_BYTES = 512 << 10,        /* of an item's components, about; */
    LEAST = 24, MOST_TILES = 96,    /* tiles of part of an image, multiples of LEAST: of each register tile's rows */
    AHEAD = 16,                     /* how many tiles before its use a tile is fetched into the cache */
    ROWS = 16,                      /* of w that are packed at a time */
    PARTS = 16, COPIES = 1 << 19    /* of gw: copies at most, for every number of threads, and bytes of all of them */
};

typedef struct {
    void (*read)(const void *const *pixel, int64_t channels, int relu, void *to, int64_t step);
    void (*write)(const void *from, int64_t step, int64_t channels, const void *bias, intptr_t positive, intptr_t add,
                  const void *const *pixel);
    void (*spread_taps)(const void *const *tap, int64_t n, void *to, int64_t step);
    void (*spread_pixels)(const void *const *pixel, int64_t channels, void *to, int64_t step);
    void (*gather_taps)(const void *from, int64_t step, int64_t n, void *const *tap);
} winograd_kernels;

#define FAMILY "winograd.inc"
#include "runtime/variants.h"

static const winograd_kernels *transforms(int dtype)
{
    static const winograd_kernels *const table[][2] = {
        {&winograd_f32_base, &winograd_f64_base},
#ifdef __x86_64__
        {&winograd_f32_avx2, &winograd_f64_avx2}, {&winograd_f32_avx512, &winograd_f64_avx512},
#endif
    };
    return table[tg_isa()][dtype];
}

typedef struct { const char *data; int64_t h, w, channels; } images;

typedef struct {
    const tile_kernels *k;
    const winograd_kernels *f;
    int64_t size, n;
    images in, out;                         /* what is read, and what is written; for gw both are read */
    int64_t top, left;                      /* from a pixel of out to the first that it meets of in */
    int64_t rows, columns, tiles, block;    /* of tiles: in an image; in all images; in an item */
    int64_t in_step, out_step, slot_bytes;  /* from component to component */
    int relu, reversed;
    const char *weight, *bias, *zeros;
    intptr_t positive, add;
    char *packed, *slots;                   /* G g G', each component in panels; the threads' own memory */
    int64_t parts, part_bytes, *at;         /* at: of an item's tiles, as `outer` takes them */
    char *sums, *gw;                        /* each part's sums of the 16 components of gw, and of gbias */
    int gbias;                              /* whether it is asked for */
} winograd;

int winograd_suits(const tg_conv_shape *s)
{
    int64_t tiles = ceil_div(s->oh, 2) * ceil_div(s->ow, 2);
    return s->mask == TG_MASK_NONE && s->kh == 3 && s->kw == 3 && s->stride_h == 1 && s->stride_w == 1 && s->dil_h == 1
        && s->dil_w == 1 && s->oh == s->h && s->ow == s->w && s->ci >= CHANNELS && s->co >= CHANNELS
        && s->ci % LINE == 0 && s->co % LINE == 0 && s->n * tiles >= TILES && 2 * s->oh * s->ow >= 5 * tiles;
}

static winograd plan_tiles(int dtype, int64_t n, images in, images out, int64_t top, int64_t left)
{
    winograd g = {.k = tiles(dtype), .f = transforms(dtype), .size = element_size(dtype), .n = n, .in = in, .out = out,
                  .top = top, .left = left, .rows = ceil_div(out.h, 2), .columns = ceil_div(out.w, 2)};
    g.tiles = n * g.rows * g.columns;
    int64_t fit = BLOCK_BYTES / (COMPONENTS * (in.channels + out.channels) * g.size), image = g.rows * g.columns;
    g.block = fit >= image ? fit / image * image : max64(LEAST, min64(MOST_TILES, fit / LEAST * LEAST));
    g.in_step = g.block * in.channels + LINE;
    g.out_step = g.block * out.channels + LINE;
    g.slot_bytes = COMPONENTS * (g.in_step + g.out_step) * g.size;
    return g;
}

/* --- tiles ---------------------------------------------------------------------------------------------- */

/* A tile's side * side pixels of images, `outside` for those that there aren't. */
static void locate(const winograd *g, const images *of, int64_t tile, int side, int64_t top, int64_t left,
                   const char *outside, const void **pixel)
{
    int64_t image = tile / (g->rows * g->columns), y = tile / g->columns % g->rows * 2 + top;
    int64_t x = tile % g->columns * 2 + left, bytes = of->channels * g->size;
    const char *row = of->data + ((image * of->h + y) * of->w + x) * bytes;
    int whole = y >= 0 && y + side <= of->h && x >= 0 && x + side <= of->w;
    for (int i = 0; i < side; i++, row += of->w * bytes)
        for (int j = 0; j < side; j++) {
            int inside = whole || (y + i >= 0 && y + i < of->h && x + j >= 0 && x + j < of->w);
            *pixel++ = inside ? row + j * bytes : outside;
        }
}

/* 2 x 2 pixels of the tile that comes AHEAD of the given one; for `in`, those that no tile before it has met. */
static void fetch(const winograd *g, const images *of, int64_t tile, int64_t top, int64_t left)
{
    const void *pixel[4];
    int64_t bytes = of->channels * g->size;
    locate(g, of, min64(tile + AHEAD, g->tiles - 1), 2, top, left, g->zeros, pixel);
    for (int i = 0; i < 4; i++)
        for (int64_t line = 0; line < bytes; line += 64)
            __builtin_prefetch((const char *)pixel[i] + line);
}

static void read_tiles(const winograd *g, int64_t first, int64_t count, char *to)
{
    const void *pixel[16];
    for (int64_t i = 0; i < count; i++) {
        fetch(g, &g->in, first + i, g->top + 2, g->left + 2);
        locate(g, &g->in, first + i, 4, g->top, g->left, g->zeros, pixel);
        g->f->read(pixel, g->in.channels, g->relu, to + i * g->in.channels * g->size, g->in_step);
    }
}

/* --- convolution ---------------------------------------------------------------------------------------- */

/* G g G' of ROWS of a panel of w's columns, which are in `local` before. An item is one of each. */
static void pack_item(void *context, int64_t item, int slot)
{
    const winograd *g = context;
    int64_t blocks = g->in.channels / ROWS, row = item % blocks * ROWS, column = item / blocks * g->k->panel;
    int64_t n = min64(g->k->panel, g->out.channels - column), size = g->size, depth = g->in.channels;
    char *local = g->slots + slot * g->slot_bytes;
    const void *tap[9];
    for (int i = 0; i < 9; i++) {
        const char *w = g->weight + (g->reversed ? 8 - i : i) * depth * g->out.channels * size;
        char *to = local + i * ROWS * n * size;
        if (g->reversed)
            g->k->transpose(w + (column * depth + row) * size, depth, to, n, n, ROWS);
        else
            g->k->pack(w + (row * g->out.channels + column) * size, g->out.channels, to, ROWS, n);
        tap[i] = to;
    }
    g->f->spread_taps(tap, ROWS * n, g->packed + (depth * column + row * n) * size, depth * g->out.channels);
}

static void multiply(const winograd *g, const char *a, const char *b, char *c, int64_t count)
{
    int64_t depth = g->in.channels, columns = g->out.channels, size = g->size;
    run all = {0, depth};
    for (int64_t column = 0, n; column < columns; column += n) {
        n = min64(g->k->panel, columns - column);
        product p = {.runs = &all, .count = 1, .ldb = n, .n = n, .b = b + depth * column * size};
        int64_t vectors = n / g->k->vector, left = ceil_div(count, g->k->product_rows[vectors]);
        for (int64_t done = 0, m; done < count; done += m, left--) {
            const void *from[TILE_ROWS];
            void *to[TILE_ROWS];
            m = ceil_div(count - done, left);
            for (int64_t i = 0; i < m; i++) {
                from[i] = a + (done + i) * depth * size;
                to[i] = c + ((done + i) * columns + column) * size;
                for (int64_t line = 0; line < n * size; line += 64)     /* needed after the product */
                    __builtin_prefetch((char *)to[i] + line, 1);
            }
            g->k->product[vectors][m](&p, from, NULL, to);
        }
    }
}

static void convolve_item(void *context, int64_t item, int slot)
{
    const winograd *g = context;
    int64_t first = item * g->block, count = min64(g->block, g->tiles - first), size = g->size;
    int64_t weights = g->in.channels * g->out.channels;
    char *in = g->slots + slot * g->slot_bytes, *out = in + COMPONENTS * g->in_step * size;
    read_tiles(g, first, count, in);
    for (int i = 0; i < COMPONENTS; i++)
        multiply(g, in + i * g->in_step * size, g->packed + i * weights * size, out + i * g->out_step * size, count);
    for (int64_t i = 0; i < count; i++) {
        const void *pixel[4];
        fetch(g, &g->out, first + i, 0, 0);
        locate(g, &g->out, first + i, 2, 0, 0, NULL, pixel);
        g->f->write(out + i * g->out.channels * size, g->out_step, g->out.channels, g->bias, g->positive, g->add,
                    pixel);
    }
}

static int convolve(winograd *g, const void *w, int threads)
{
    int64_t blocks = ceil_div(g->out.channels, g->k->panel) * (g->in.channels / ROWS);
    plan data = {0};
    g->slot_bytes = max64(g->slot_bytes, 9 * ROWS * g->k->panel * g->size);
    size_t packed_at = reserve(&data, COMPONENTS * g->in.channels * g->out.channels, (size_t)g->size);
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

int winograd_conv2d(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *w, const void *bias,
                    const void *add, void *y, int threads)
{
    winograd g = plan_tiles(dtype, s->n, (images){x, s->h, s->w, s->ci}, (images){y, s->oh, s->ow, s->co}, -s->pad_h,
                            -s->pad_w);
    g.relu = relu;
    g.bias = bias;
    g.add = add ? (intptr_t)add - (intptr_t)y : 0;
    return convolve(&g, w, threads);
}

int winograd_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias,
                       const void *positive, void *x, int threads)
{
    winograd g = plan_tiles(dtype, s->n, (images){y, s->oh, s->ow, s->co}, (images){x, s->h, s->w, s->ci}, s->pad_h - 2,
                            s->pad_w - 2);
    g.reversed = 1;
    g.bias = bias;
    g.positive = positive ? (intptr_t)positive - (intptr_t)x : 0;
    return convolve(&g, w, threads);
}

/* --- the gradient to the weight ------------------------------------------------------------------------- */

/* sums (ci, co) (+)= a' b, of so many tiles' components. */
static void add_products(const winograd *g, const char *a, const char *b, char *sums, int64_t count, int add)
{
    int64_t ci = g->in.channels, co = g->out.channels, size = g->size;
    for (int64_t column = 0, n; column < co; column += n) {
        n = min64(g->k->panel, co - column);
        int64_t vectors = n / g->k->vector, left = ceil_div(ci, g->k->outer_rows[vectors]);
        outer o = {.pixels = count, .at = g->at, .ldb = co, .ldc = co, .n = n, .b = b + column * size,
                   .ahead = b, .add = add};
        for (int64_t row = 0, m; row < ci; row += m, left--) {
            m = ceil_div(ci - row, left);
            g->k->outer[vectors][m](&o, a + row * size, sums + (row * co + column) * size);
        }
    }
}

/* The sums of a fixed range of items. The component whose A gy A' adds up a tile's pixels gives the bias's gradient. */
static void part_item(void *context, int64_t part, int slot)
{
    const winograd *g = context;
    int64_t items = ceil_div(g->tiles, g->block), first = part * items / g->parts, size = g->size;
    int64_t ci = g->in.channels, co = g->out.channels;
    char *in = g->slots + slot * g->slot_bytes, *out = in + COMPONENTS * g->in_step * size;
    char *sums = g->sums + part * g->part_bytes, *gbias = sums + COMPONENTS * ci * co * size;
    memset(gbias, 0, (size_t)(co * size));
    for (int64_t item = first; item < (part + 1) * items / g->parts; item++) {
        int64_t tile = item * g->block, count = min64(g->block, g->tiles - tile);
        const void *pixel[4];
        read_tiles(g, tile, count, in);
        for (int64_t i = 0; i < count; i++) {
            fetch(g, &g->out, tile + i, 0, 0);
            locate(g, &g->out, tile + i, 2, 0, 0, g->zeros, pixel);
            g->f->spread_pixels(pixel, co, out + i * co * size, g->out_step);
        }
        for (int i = 0; i < COMPONENTS; i++)
            add_products(g, in + i * g->in_step * size, out + i * g->out_step * size, sums + i * ci * co * size, count,
                         item > first);
        if (g->gbias)
            g->k->add_rows(out + 5 * g->out_step * size, gbias, count, co);
    }
}

/* gw's taps of a row of w, from the sum of all parts. */
static void gather_item(void *context, int64_t row, int slot)
{
    const winograd *g = context;
    int64_t co = g->out.channels, weights = g->in.channels * co, size = g->size;
    void *tap[9];
    (void)slot;
    for (int i = 0; i < COMPONENTS; i++)
        for (int64_t part = 1, at = (i * weights + row * co) * size; part < g->parts; part++)
            g->k->add_rows(g->sums + part * g->part_bytes + at, g->sums + at, 1, co);
    for (int i = 0; i < 9; i++)
        tap[i] = g->gw + (i * weights + row * co) * size;
    g->f->gather_taps(g->sums + row * co * size, weights, co, tap);
}

int winograd_weight(int dtype, const tg_conv_shape *s, int relu, const void *x, const void *gy, void *gw, void *gbias,
                    int threads)
{
    winograd g = plan_tiles(dtype, s->n, (images){x, s->h, s->w, s->ci}, (images){gy, s->oh, s->ow, s->co}, -s->pad_h,
                            -s->pad_w);
    int64_t sums = COMPONENTS * s->ci * s->co * g.size, bias_bytes = s->co * g.size;
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
        g.at[i] = min64(i, g.block - 1) * s->ci;
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
