/* Convolution tap by tap. Of a 4 x 4 kernel on a small image many taps lie outside: with stride 2, from 8 x 8 to 4 x 4
 * pixels, 23 % of all. Here each tap has a product of its own, of those pixels only that meet it inside of the image,
 * which is added to the output. Nothing is copied, since no pixel needs a margin of zeros.
 *
 *   chunk     taps of one row of the kernel, or some channels of one tap: about DEPTH rows of B, so that a panel of
 *             them stays in the L1 cache while all of an item's pixels meet it
 *   piece     of a chunk, the pixels that meet the same of its taps inside of the image
 *   item      some images and panels; their part of C stays in the L2 cache from chunk to chunk
 *
 * A pixel q of the small image y meets through tap k the pixel q * stride + k * dil - pad of the large image x. The
 * convolution reads there and adds to q, the transposed one reads q and adds there: they share the lists. */
#include <string.h>
#include "mask.h"
#include "taps.h"

enum {
    DEPTH = 256,                    /* rows of B in a chunk, about: its panel of float32 is 16 kB with AVX2 */
    PIXELS = 256,                   /* of the small image in an item, about: with DEPTH channels 256 kB */
    CHANNELS = 64, LEAST = 128,     /* channels and pixels: fewer aren't worth the additions to C */
    PACK = 8,                       /* panels that are packed at a time */
    LINE = 64
};

typedef struct { int64_t row, depth, first, pixels; } piece;    /* in the chunk's rows; in the lists, of one image */
typedef struct { int64_t tap, from, depth, row, first_piece, pieces; } chunk;      /* row: of B, where it begins */

typedef struct {
    const tile_kernels *k;
    const tg_conv_shape *s;
    int transposed;
    int64_t size, channels, columns, panels;    /* of the source; of B */
    int64_t beside;                             /* taps of a chunk */
    int64_t images, splits;                     /* of an item; items that share some images' panels */
    int64_t chunks, pieces, pixels;
    chunk *chunk;
    piece *piece;
    int64_t *from, *to;                         /* of an item's pixels: offsets in source and target */
    const char *source, *weight, *bias;
    char *packed, *target;
} tap_products;

/* --- planning ------------------------------------------------------------------------------------------- */

/* How many of the taps' rows, or columns, meet a pixel inside of the image. */
static int64_t met_inside(int64_t taps, int64_t count, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    int64_t sum = 0;
    for (int64_t k = 0; k < taps; k++) {
        range r = inside(count, stride, k * dilation - pad, size);
        sum += max64(0, r.last - r.first);
    }
    return sum;
}

int taps_suit(const tg_conv_shape *s, int percent)
{
    if (s->mask != TG_MASK_NONE || s->ci < CHANNELS || s->co < CHANNELS || s->oh * s->ow > PIXELS
        || s->n * s->oh * s->ow < LEAST)
        return 0;
    int64_t y = met_inside(s->kh, s->oh, s->stride_h, s->dil_h, s->pad_h, s->h);
    int64_t x = met_inside(s->kw, s->ow, s->stride_w, s->dil_w, s->pad_w, s->w);
    return 100 * x * y <= (100 - percent) * s->kh * s->oh * s->kw * s->ow;
}

/* The places of a piece's pixels, image by image: rows y of the small image, columns x, through the tap (r, c). */
static void list_piece(tap_products *g, range y, range x, int64_t r, int64_t c)
{
    const tg_conv_shape *s = g->s;
    for (int64_t i = 0; i < g->images; i++)
        for (int64_t q = y.first; q < y.last; q++)
            for (int64_t p = x.first; p < x.last; p++) {
                int64_t row = i * s->h + q * s->stride_h + r * s->dil_h - s->pad_h;
                int64_t large = (row * s->w + p * s->stride_w + c * s->dil_w - s->pad_w) * s->ci;
                int64_t small = ((i * s->oh + q) * s->ow + p) * s->co;
                g->from[g->pixels] = g->transposed ? small : large;
                g->to[g->pixels++] = g->transposed ? large : small;
            }
}

/* Which of the taps [c, last) of a row a pixel of column x meets. */
static range met(const tg_conv_shape *s, int64_t x, int64_t c, int64_t last)
{
    range r = {last, c};
    for (; c < last; c++) {
        int64_t at = x * s->stride_w + c * s->dil_w - s->pad_w;
        if (at >= 0 && at < s->w)
            r = (range){min64(r.first, c), c + 1};
    }
    return r;
}

/* The pieces of the taps (r, [c, last)). */
static void plan_pieces(tap_products *g, int64_t r, int64_t c, int64_t last)
{
    const tg_conv_shape *s = g->s;
    range y = inside(s->oh, s->stride_h, r * s->dil_h - s->pad_h, s->h);
    for (range x = {0, 0}; y.first < y.last && x.first < s->ow; x.first = x.last) {
        range taps = met(s, x.first, c, last), next = taps;
        for (x.last = x.first; x.last < s->ow && next.first == taps.first && next.last == taps.last; )
            next = met(s, ++x.last, c, last);
        if (taps.first >= taps.last)
            continue;
        g->piece[g->pieces++] = (piece){(taps.first - c) * g->channels, (taps.last - taps.first) * g->channels,
                                        g->pixels, (y.last - y.first) * (x.last - x.first)};
        list_piece(g, y, x, r, taps.first);
    }
}

static void plan_chunks(tap_products *g)
{
    const tg_conv_shape *s = g->s;
    int64_t row = 0;
    for (int64_t r = 0; r < s->kh; r++)
        for (int64_t c = 0, last; c < s->kw; c = last) {
            last = min64(s->kw, c + g->beside);
            int64_t first = g->pieces, rows = (last - c) * g->channels, parts = ceil_div(rows, DEPTH);
            plan_pieces(g, r, c, last);
            parts = g->beside > 1 ? 1 : parts;
            for (int64_t i = 0; i < parts; i++) {
                int64_t from = i * rows / parts, depth = (i + 1) * rows / parts - from;
                g->chunk[g->chunks++] = (chunk){r * s->kw + c, from, depth, row, first, g->pieces - first};
                row += depth;
            }
        }
}

/* --- the products --------------------------------------------------------------------------------------- */

/* Some panels of a chunk's rows of B. */
static void pack_item(void *context, int64_t item, int slot)
{
    const tap_products *g = context;
    const tg_conv_shape *s = g->s;
    int64_t groups = ceil_div(g->panels, PACK), size = g->size;
    const chunk *c = &g->chunk[item / groups];
    int64_t first = item % groups * PACK * g->k->panel, last = min64(g->columns, first + PACK * g->k->panel);
    int64_t width = round_up(g->columns, g->k->vector);
    char *to = g->packed + (c->row * width + c->depth * first) * size;
    (void)slot;
    if (!g->transposed) {
        g->k->pack(g->weight + ((c->tap * s->ci + c->from) * s->co + first) * size, s->co, to, c->depth, last - first);
        return;
    }
    for (int64_t column = first, ld; column < last; column += g->k->panel, to += c->depth * ld * size) {
        int64_t n = min64(g->k->panel, last - column);
        ld = round_up(n, g->k->vector);
        if (ld > n)
            memset(to, 0, (size_t)(c->depth * ld * size));
        g->k->transpose(g->weight + ((c->tap * s->ci + column) * s->co + c->from) * size, s->co, to, ld, n, c->depth);
    }
}

/* What the products are added to. */
static void begin(const tap_products *g, int64_t n0, int64_t images, int64_t column, int64_t n)
{
    const tg_conv_shape *s = g->s;
    int64_t pixels = g->transposed ? s->h * s->w : s->oh * s->ow, size = g->size;
    char *to = g->target + (n0 * pixels * g->columns + column) * size;
    for (int64_t i = 0; i < images * pixels; i++, to += g->columns * size)
        if (g->bias)
            memcpy(to, g->bias + column * size, (size_t)(n * size));
        else
            memset(to, 0, (size_t)(n * size));
}

/* C += A B of a piece's pixels and a panel of its chunk. Meanwhile `bytes` for each pixel are fetched from `ahead` on. */
static void multiply(const tap_products *g, const product *p, int64_t pixels, const int64_t *from, const int64_t *to,
                     const char *source, char *target, const char *ahead, int64_t bytes)
{
    int64_t vectors = ceil_div(p->n, g->k->vector), tiles = ceil_div(pixels, g->k->product_rows[vectors]), size = g->size;
    for (int64_t done = 0, m; done < pixels; done += m, tiles--) {
        const void *a[TILE_ROWS];
        void *c[TILE_ROWS];
        m = ceil_div(pixels - done, tiles);
        for (int64_t i = done * bytes; i < (done + m) * bytes; i += LINE)
            __builtin_prefetch(ahead + i);
        for (int64_t i = 0; i < m; i++) {
            a[i] = source + from[done + i] * size;
            c[i] = target + to[done + i] * size;
            for (int64_t line = 0; line < p->n * size; line += LINE)        /* needed after the product */
                __builtin_prefetch((char *)c[i] + line, 1);
        }
        g->k->product[vectors][m](p, a, (const void *const *)c, c);
    }
}

static void add_item(void *context, int64_t item, int slot)
{
    const tap_products *g = context;
    const tg_conv_shape *s = g->s;
    int64_t n0 = item / g->splits * g->images, images = min64(g->images, s->n - n0), split = item % g->splits;
    int64_t first = split * g->panels / g->splits, last = (split + 1) * g->panels / g->splits, size = g->size;
    int64_t small = n0 * s->oh * s->ow * s->co * size, large = n0 * s->h * s->w * s->ci * size;
    const char *source = g->source + (g->transposed ? small : large);
    char *target = g->target + (g->transposed ? large : small);
    int64_t width = round_up(g->columns, g->k->vector);
    (void)slot;
    begin(g, n0, images, first * g->k->panel, min64(g->columns, last * g->k->panel) - first * g->k->panel);
    for (const chunk *c = g->chunk; c < g->chunk + g->chunks; c++)
        for (int64_t panel = first; panel < last; panel++) {
            int64_t column = panel * g->k->panel, n = min64(g->k->panel, g->columns - column);
            int64_t ld = round_up(n, g->k->vector), bytes = c->depth * ld * size, pixels = 0;
            const char *b = g->packed + (c->row * width + c->depth * column) * size, *ahead = b + bytes;
            for (int64_t i = 0; i < c->pieces; i++)
                pixels += images * g->piece[c->first_piece + i].pixels;
            for (int64_t i = 0; i < c->pieces; i++) {
                const piece *f = &g->piece[c->first_piece + i];
                run all = {c->from, min64(f->depth, c->depth)};
                product p = {.runs = &all, .count = 1, .ldb = ld, .n = n, .b = b + f->row * ld * size};
                int64_t share = ceil_div(bytes, pixels);
                multiply(g, &p, images * f->pixels, g->from + f->first, g->to + f->first, source,
                         target + column * size, ahead, share);
                ahead += images * f->pixels * share;
            }
        }
}

static int multiply_taps(tap_products *g, int threads)
{
    const tg_conv_shape *s = g->s;
    g->panels = ceil_div(g->columns, g->k->panel);
    g->beside = g->transposed || s->dil_w != 1 ? 1 : max64(1, DEPTH / g->channels);
    g->images = max64(1, min64(s->n, PIXELS / (s->oh * s->ow)));
    int64_t groups = ceil_div(s->kw, g->beside), parts = g->beside > 1 ? 1 : ceil_div(g->channels, DEPTH);
    int64_t blocks = ceil_div(s->n, g->images), pixels = s->kh * groups * g->images * s->oh * s->ow;
    g->splits = max64(1, min64(g->panels, ceil_div(4 * threads, blocks)));
    plan data = {0};
    size_t chunk_at = reserve(&data, s->kh * groups * parts, sizeof *g->chunk);
    size_t piece_at = reserve(&data, s->kh * groups * min64(s->ow, 2 * g->beside + 1), sizeof *g->piece);
    size_t from_at = reserve(&data, pixels, sizeof *g->from), to_at = reserve(&data, pixels, sizeof *g->to);
    size_t packed_at = reserve(&data, s->kh * s->kw * g->channels * round_up(g->columns, g->k->vector), (size_t)g->size);
    char *memory = scratch(DATA, &data);
    if (!memory)
        return TG_NO_MEMORY;
    g->chunk = (chunk *)(memory + chunk_at);
    g->piece = (piece *)(memory + piece_at);
    g->from = (int64_t *)(memory + from_at);
    g->to = (int64_t *)(memory + to_at);
    g->packed = memory + packed_at;
    plan_chunks(g);
    parallel(g->chunks * ceil_div(g->panels, PACK), threads, pack_item, g);
    parallel(blocks * g->splits, threads, add_item, g);
    release_scratch();
    return TG_OK;
}

int taps_conv2d(int dtype, const tg_conv_shape *s, const void *x, const void *w, const void *bias, void *y, int threads)
{
    tap_products g = {.k = tiles(dtype), .s = s, .size = element_size(dtype), .channels = s->ci, .columns = s->co,
                     .source = x, .weight = w, .bias = bias, .target = y};
    return multiply_taps(&g, threads);
}

int taps_transpose(int dtype, const tg_conv_shape *s, const void *y, const void *w, const void *bias, void *x,
                   int threads)
{
    tap_products g = {.k = tiles(dtype), .s = s, .size = element_size(dtype), .channels = s->co, .columns = s->ci,
                     .transposed = 1, .source = y, .weight = w, .bias = bias, .target = x};
    return multiply_taps(&g, threads);
}
