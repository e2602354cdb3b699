/* The two loops in which nearly all of the arithmetic runs, each on a tile of C that stays in registers (tile.inc).
 *
 * All sizes and strides count elements. A panel of B has the columns of the widest tile. A narrower one has its columns
 * rounded up to whole vectors, and only the first `n` of them are read from or written to C. */
#ifndef TINYGEN_TILE_H
#define TINYGEN_TILE_H
#include "runtime/internal.h"

enum { TILE_ROWS = 8, TILE_VECTORS = 4, SUM_ROWS = 12, NEAR = 16 };

/* Rows of A against a panel of B:  C[m][:n] = start[m] (else bias, else 0) + sum over runs, over k < len,
 * of A[m][run.a + k] * B[.][:n] where B's rows are simply numbered on from run to run. At last C is 0 where
 * the array that lies `positive` bytes after it isn't above 0, and the one `add` bytes after it is added (0: no
 * such array). */
typedef struct { int64_t a, len; } run;
typedef struct {
    const run *runs;
    int64_t count, ldb, n;
    const void *b, *bias;
    intptr_t positive, add;
} product;
typedef void (*product_tile)(const product *p, const void *const *a, const void *const *start,
                             void *const *c);

/* Outer products over pixels:  C[m][:n] (+)= sum over k < pixels of A[at[k] + m] * B[k][:n]. `at` has NEAR more
 * entries, for what is fetched ahead. */
typedef struct {
    int64_t pixels;
    const int64_t *at;
    int64_t ldb, ldc, n;
    const void *b;
    /* fetched into the cache meanwhile, ahead_step bytes for each pixel */
    const char *ahead;
    int64_t ahead_step;
    int add;
} outer;
typedef void (*outer_tile)(const outer *o, const void *a, void *c);

/* Columns of a product that belong to a row of the kernel: taps * channels numbers, for pixels ld apart. Tap j of pixel i
 * belongs to row[i * stride + j * apart], of which the numbers from `left` on are kept. */
typedef struct {
    int64_t pixels, ld, channels, stride, apart, row, left, kept;   /* the last three count numbers */
} scattered;

typedef struct {
    int vector, panel;                              /* elements in a vector and in a panel */
    /* the best number of rows for a tile of so many vectors */
    int product_rows[TILE_VECTORS + 1];
    int outer_rows[TILE_VECTORS + 1];
    product_tile product[TILE_VECTORS + 1][TILE_ROWS + 1];      /* [vectors][rows] */
    outer_tile outer[TILE_VECTORS + 1][SUM_ROWS + 1];
    void (*transpose)(const void *from, int64_t ld, void *to, int64_t ldt, int64_t rows, int64_t columns);
    void (*add_steps)(const void *from, int64_t from_step, void *to, int64_t to_step, int64_t count,
                      int64_t n);
    void (*scatter)(const scattered *s, const void *from, int64_t taps, void *sums, void *to);
    void (*add_rows)(const void *from, void *to, int64_t rows, int64_t n);      /* to += the sum of rows */
    int64_t (*multiply_adds)(int64_t rounds, void *sums);       /* the number of operations; 2 panels of sums */
    void (*relu)(const void *from, void *to, int64_t n);                        /* to = max(from, 0); may be the same */
    /* the panels of a matrix (rows, n), one after the other */
    void (*pack)(const void *from, int64_t ld, void *to, int64_t rows, int64_t n);
} tile_kernels;

const tile_kernels *tiles(int dtype);

/* c (rows, columns) = a (rows, depth) b, whose panels lie one after the other. lda, ldc: from row to row. */
void multiply_panels(const tile_kernels *k, int64_t rows, int64_t columns, int64_t depth, int64_t size, const char *a,
                     int64_t lda, const char *b, char *c, int64_t ldc);

/* c (rows, columns) (+)= a' b, the sum of outer products over pixels: see `outer`. */
void add_outer(const tile_kernels *k, int64_t pixels, int64_t rows, int64_t columns, int64_t size, const char *a,
               const int64_t *at, const char *b, int64_t ldb, char *c, int add);
#endif
