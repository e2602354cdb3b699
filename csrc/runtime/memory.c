/* Scratch memory: two blocks for each thread, kept between calls. Fresh memory above a few MB is mapped and faulted in
 * page by page at every use, which takes longer than many kernels; a block that is kept pays for that once. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "internal.h"
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef struct { void *memory; size_t bytes; } block;

enum { PAGE = 1 << 21, KEEP = 1 << 28 };        /* a huge page; a block above 256 MB is not kept */
static _Thread_local block *mine;                /* BLOCKS of them */
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_llong failing;                    /* the allocation to fail, counted down to 0 */

static void free_blocks(void *blocks)
{
    for (int i = 0; i < BLOCKS; i++)
        free(((block *)blocks)[i].memory);
    free(blocks);
}

static void make_key(void) { pthread_key_create(&key, free_blocks); }

void tg_fail_allocation(int64_t n) { atomic_store(&failing, n); }

size_t reserve(plan *p, int64_t count, size_t size)
{
    size_t offset = p->bytes, bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes)
        || bytes > SIZE_MAX / 4 || p->bytes > SIZE_MAX / 4) {
        p->overflow = 1;
        return 0;
    }
    p->bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return offset;
}

static void *grow(block *b, size_t bytes)
{
    size_t alignment = bytes < PAGE ? ALIGNMENT : PAGE;
    free(b->memory);
    b->bytes = 0;
    b->memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!b->memory)
        return NULL;
    b->bytes = bytes;
#ifdef MADV_HUGEPAGE
    if (alignment == PAGE)
        madvise(b->memory, bytes, MADV_HUGEPAGE);
#endif
    return b->memory;
}

void *scratch(int which, const plan *p)
{
    if (p->overflow || (atomic_load(&failing) > 0 && atomic_fetch_sub(&failing, 1) == 1))
        return NULL;
    pthread_once(&once, make_key);
    if (!mine) {
        block *b = calloc(BLOCKS, sizeof *b);
        if (!b || pthread_setspecific(key, b)) {
            free(b);
            return NULL;
        }
        mine = b;
    }
    block *b = &mine[which];
    return b->memory && b->bytes >= p->bytes ? b->memory : grow(b, p->bytes + ALIGNMENT);
}

void release_scratch(void)
{
    for (int i = 0; mine && i < BLOCKS; i++)
        if (mine[i].bytes > KEEP) {
            free(mine[i].memory);
            mine[i] = (block){0};
        }
}
