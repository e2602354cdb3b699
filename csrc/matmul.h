/* The matrix product: linear layers, 1 x 1 convolutions, what recurrent layers see of their input, and the gradients of
 * all of them. */
#ifndef TINYGEN_MATMUL_H
#define TINYGEN_MATMUL_H
#include "tile.h"

/* c (m, n) = a (m, k) b (k, n) + bias + add, and 0 where `positive` isn't above 0 (before add). A transposed matrix is
 * in memory as (k, m) or (n, k). bias (n), add and positive (m, n) may be NULL. relu 1: of max(a, 0) in place of a.
 * column_sums (n), or NULL: those of b. */
typedef struct {
    int64_t m, n, k;
    const void *a, *b;
    int a_transposed, b_transposed, relu;
    const void *bias, *add, *positive;
    void *c, *column_sums;
} matmul;

int multiply_matrices(int dtype, const matmul *p, int threads);
#endif
