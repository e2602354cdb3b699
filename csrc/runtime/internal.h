/* What the C kernels share: threads (parallel.c) and scratch memory (memory.c). Nothing here is public. */
#ifndef TINYGEN_INTERNAL_H
#define TINYGEN_INTERNAL_H
#include <stddef.h>
#include <stdint.h>
#include "tinygen.h"
#include "valid.h"

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

/* Calls task(context, i, slot) for every i < items, in any order and on up to `threads` threads. Calls that run at the
 * same moment have different slots, all below `threads`. */
typedef void (*parallel_task)(void *context, int64_t item, int slot);
void parallel(int64_t items, int threads, parallel_task task, void *context);
enum { MAX_THREADS = 64 };
static inline int clamp_threads(int n) { return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n; }

/* Scratch memory. A kernel first adds up what it needs with reserve(), which returns each array's offset. Then
 * scratch() gives it all at once: the calling thread's own block (one for LISTS, one for DATA), kept from call to call
 * so that its pages are faulted in only once. It is NULL if there is no memory or if a size overflowed.
 * release_scratch() ends the use. */
enum { ALIGNMENT = 64 };
typedef struct { size_t bytes; int overflow; } plan;
size_t reserve(plan *p, int64_t count, size_t size);
enum { LISTS, DATA, BLOCKS };
void *scratch(int which, const plan *p);
void release_scratch(void);

#endif
