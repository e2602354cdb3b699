/* Faults on purpose, to see that the sanitizers report such things in a library that Python has loaded. */
#include <stdlib.h>
#include <unistd.h>
#include "runtime/internal.h"

#define PLANTED __attribute__((visibility("default"), noinline))
PLANTED void planted_overrun(void);
PLANTED int planted_stack_overrun(volatile int i);
PLANTED int planted_shift(volatile int by);
PLANTED void planted_leak(void);
PLANTED void planted_race(void);

/* One element behind the end of a heap array. */
void planted_overrun(void)
{
    volatile float *x = malloc(10 * sizeof *x);
    for (int i = 0; i <= 10; i++)
        x[i] = 1;
    free((void *)x);
}

int planted_stack_overrun(volatile int i)
{
    volatile int tile[8] = {0};
    volatile int *p = tile;
    p[8 + (i & 0)] = 1;
    return p[0];
}

int planted_shift(volatile int by) { return 1 << (32 + (by & 0)); }

void planted_leak(void)
{
    void *volatile lost = malloc(1000);
    lost = NULL;
    (void)lost;
}

/* Items of one job that add to the same number. */
static volatile int total;

static void add(void *context, int64_t item, int slot)
{
    (void)context;
    (void)slot;
    usleep(1000); /* or the calling thread alone has done all before another one wakes */
    total = total + (int)item;
}

void planted_race(void)
{
    parallel(400, 4, add, NULL);
}
