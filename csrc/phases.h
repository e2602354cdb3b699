/* How convolutions are planned (conv.c): which pixels meet which taps, where w's rows lie once they are packed, and what is
 * read at a time. */
#ifndef TINYGEN_PHASES_H
#define TINYGEN_PHASES_H
#include "source.h"

/* Pixels of the output that all meet the same taps. */
typedef struct {
    int64_t rows, columns, target;                      /* pixels; the first one's offset in the output */
    int64_t first_pixel;                                /* where they begin in correlation's from and to */
    int64_t taps, first_tap, runs, first_run;           /* where they begin in correlation's tap and run */
    int64_t depth, packed;                              /* B's rows, taps * channels; its offset in packed */
} phase;

typedef struct {
    source s;
    const tile_kernels *k;
    const tg_conv_shape *shape;
    int transposed, threads;
    int flat, scatter, reversed;                        /* other ways, see plan_flat and tg_conv2d */
    int64_t columns, panels, splits;                    /* of B; splits: items that share a region's panels */
    int64_t ldb;                                        /* the stride of w, used in place; 0: it is packed */
    int64_t phases, taps;                               /* taps: of all phases together */
    phase *phase;
    tap *tap;
    run *run;
    const char *weight;
    char *packed, *bias, *output, *copies;
    const char *add, *positive;                         /* arrays like the output, or NULL */
    int64_t copy_bytes, items;
    int64_t flat_bytes, sums_at;                        /* of t, a copy of the source comes after it, then a row of sums */
    int64_t out_image, out_row, out_column;
    int64_t pixels, *from, *to;                         /* a region's, of all phases: offsets in source and output */
} correlation;

/* The ways for few channels, and for a 1 x 1 map; see plan_flat. `few`: whether s has so few. choose_flat is for
 * conv_transpose2d; who has chosen another way calls plan_columns. */
int few(const correlation *c, const tg_conv_shape *s);
void choose_flat(correlation *c);
int64_t row_of_sums(const tg_conv_shape *s);            /* numbers that a row of t meets, also outside of x */
void plan_columns(correlation *c);

/* Then, in this order. plan_correlation allocates the lists, whose sizes follow from the shape, and fills all but from and
 * to, whose sizes follow from it: plan_lists counts them, fill_lists fills them. plan_packing: B's elements, packed. */
int plan_correlation(correlation *c);
void plan_lists(correlation *c);
int64_t plan_packing(correlation *c);
void fill_lists(const correlation *c);

#endif
