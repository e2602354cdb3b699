/* What the kernels share: threads, scratch memory, the instruction set. Nothing here is public. */
#ifndef TINYGEN_INTERNAL_H
#define TINYGEN_INTERNAL_H
#include <stddef.h>
#include <stdint.h>
#include "tinygen.h"
#include "valid.h"

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

/* task(context, i, slot) for every i < items, on up to `threads` threads in any order. Calls that run at
 * the same moment have different slots, all below `threads`. */
typedef void (*parallel_task)(void *context, int64_t item, int slot);
void parallel(int64_t items, int threads, parallel_task task, void *context);
enum { MAX_THREADS = 64 };
static inline int clamp_threads(int n) { return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n; }

/* A kernel adds up what it needs with reserve(), which returns each array's offset, and then asks for it
 * all at once: scratch() gives the calling thread's own block (one for lists, one for data), kept from
 * call to call, so that its pages are faulted in only once. NULL if there is no memory or if a size
 * overflowed. release_scratch() ends the use. */
enum { ALIGNMENT = 64 };
typedef struct { size_t bytes; int overflow; } plan;
size_t reserve(plan *p, int64_t count, size_t size);
enum { LISTS, DATA, BLOCKS };
void *scratch(int which, const plan *p);
void release_scratch(void);

#endif
