/* How convolutions read their images. The source is the image that is read: x for conv2d and conv2d_weight, y for
 * conv_transpose2d.
 *
 * In NHWC the taps of one kernel row meet one contiguous run of the source: taps * channels numbers. A raster mask
 * only makes the runs shorter. The source is read a region at a time, one that fits the L2 cache: where it is, or
 * from a copy with zeros around it if taps reach beyond its edge. */
#ifndef TINYGEN_SOURCE_H
#define TINYGEN_SOURCE_H
#include "mask.h"
#include "tile.h"

enum {
    SOURCE_BYTES = 256 << 10,       /* of the source that a region reads: a quarter of the L2 cache */
    DEPTH = 1024,                   /* the longest run, and the rows of B that pixels run through at a time */
    AHEAD = 12 << 10,               /* bytes by which what is read in place is fetched ahead of its use */
    PIXELS = 1 << 12,               /* of a region of several images, at most */
    SMALL = 1 << 15                 /* elements that are not worth a second thread */
};

/* From a pixel, at (y * step_y, x * step_x) of the source, to what it meets there; and which tap of w that is. */
typedef struct { int64_t dy, dx, weight; } tap;

typedef struct {
    const char *data;
    int64_t size, n, h, w, channels;                    /* size: of an element, in bytes */
    int64_t step_y, step_x;                             /* from pixel to pixel */
    void (*relu)(const void *from, void *to, int64_t n);        /* what is read is max(x, 0); or NULL */
    /* plan_box */
    int64_t top, left, span_y, span_x;                  /* the box of all taps around a pixel */
    int64_t rows, columns;                              /* of pixels */
    int in_place;
    /* plan_regions */
    int64_t images, band;                               /* of a region: so many images, so many rows of pixels */
    int64_t groups, bands;                              /* how many regions: of images, times of rows */
    int64_t row, image;                                 /* strides of what is read, in elements */
} source;

/* Rows [row0, row0 + rows) of the pixels of images [n0, n0 + images). */
typedef struct { int64_t n0, images, row0, rows; } region;

/* --- planning, in this order ---------------------------------------------------------------------------- */

/* conv2d's taps: all that take part, in raster order. */
void plan_taps(const tg_conv_shape *s, tap *taps);

/* The box that the taps of rows * columns pixels touch, and whether any of them leaves the image. */
void plan_box(source *s, int64_t rows, int64_t columns, const tap *taps, int64_t count);

/* Regions of about so many bytes, but small enough for `enough` items if each has `panels`. */
void plan_regions(source *s, int64_t bytes, int64_t enough, int64_t panels);

/* The runs that taps, ascending by (dy, dx), make; returns how many, at most most_runs(). */
int64_t plan_runs(const source *s, const tap *taps, int64_t count, run *runs);
int64_t most_runs(int64_t taps, int64_t channels);

/* --- reading -------------------------------------------------------------------------------------------- */

/* The i-th region; the last ones may have fewer images or rows. */
region region_of(const source *s, int64_t i);

/* The source at the first tap of the region's first pixel, copied to `copy` (source_copy_bytes) if need be. */
const char *read_source(const source *s, region r, char *copy);
int64_t source_copy_bytes(const source *s);

/* What to fetch into the cache while a region is computed, and how many bytes of it. */
int64_t next_source(const source *s, region r, int threads, const char **ahead);

/* The offsets of images * rows * columns pixels, in that order, with these strides. A region with fewer images uses
 * the first of them. So does one with fewer rows, since a region is of several images or of some rows, never both. */
void list_pixels(int64_t *at, int64_t images, int64_t rows, int64_t columns, int64_t image, int64_t row,
                 int64_t column);

#endif
