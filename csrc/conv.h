/* What the convolutions share: masks, and a plan of how pixels and taps meet (source.c). */
#ifndef TINYGEN_CONV_H
#define TINYGEN_CONV_H
#include "tile.h"

enum {
    SOURCE_BYTES = 256 << 10,       /* of the source that an item reads: a quarter of the L2 cache */
    DEPTH = 1024,                    /* rows of B that pixels run through at a time */
    AHEAD = 12 << 10,               /* how far ahead of their use pixels that are read in place are fetched */
    PIXELS = 1 << 12,               /* of several images: what their lists may hold */
    SMALL = 1 << 15                 /* elements that are not worth a second thread */
};

typedef struct { int64_t dy, dx, weight; } tap;         /* from pixel to source; which (i, j) of w */

typedef struct {
    int64_t rows, columns, target;                      /* pixels; the first one's offset in the output */
    int64_t first_pixel;                                /* of the lists of them */
    /* B has depth = taps * channels rows, from offset packed */
    int64_t taps, first_tap, depth, packed;
    int64_t runs, first_run;
} phase;

/* The source's part in a correlation: how its pixels are read, in place or from a padded copy. */
typedef struct {
    const char *data;
    int64_t size, n, h, w, channels;                    /* size: of an element */
    int64_t step_y, step_x, top, left, span_y, span_x;  /* pixel steps; the box of taps from (top, left) */
    int64_t rows, columns;                              /* of pixels, the most that a phase has */
    int in_place;
    /* an item: so many images, so many rows; items of each kind */
    int64_t images, band, groups, bands;
    int64_t row, image;                                 /* strides of what is read, in elements */
    void (*relu)(const void *from, void *to, int64_t n);        /* what is read is max(x, 0); or NULL */
} source;

/* Pixels of one item, or chunk: rows [row0, row0 + rows) of images [n0, n0 + images). */
typedef struct { int64_t n0, images, row0, rows; } region;

int64_t centre(const tg_conv_shape *s);
int64_t kept_taps(const tg_conv_shape *s);
int64_t first_output(const tg_conv_shape *s, int64_t weight, int64_t c);
void plan_taps(const tg_conv_shape *s, tap *taps);
void plan_box(source *s, const phase *phases, int64_t count, const tap *taps);
void plan_items(source *s, int64_t bytes, int64_t enough, int64_t panels);
int64_t plan_runs(const source *s, const tap *taps, int64_t count, run *runs);
int64_t most_runs(int64_t taps, int64_t channels);
region region_of(const source *s, int64_t i);
const char *read_source(const source *s, region r, char *copy);
int64_t next_source(const source *s, region r, int threads, const char **ahead);
int64_t source_copy_bytes(const source *s);
void list_pixels(int64_t *at, int64_t images, int64_t rows, int64_t columns, int64_t image, int64_t row,
                 int64_t column);

static inline int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

#endif
