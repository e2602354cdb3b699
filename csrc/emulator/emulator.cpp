/* The emulator's scheduler. It is compiled without a sanitizer's instruments, which would mistake its own work for the
 * kernels'. EMULATOR_ASAN and EMULATOR_TSAN say which sanitizer has to be told of fibers and barriers. */
#include "emulator.h"
#include <algorithm>
#include <mutex>
#include <random>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>

#ifndef __x86_64__
#error "the emulator's fibers are written for x86-64"
#endif

#ifdef EMULATOR_ASAN
extern "C" void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
#endif
#ifdef EMULATOR_TSAN
extern "C" void *__tsan_get_current_fiber();
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
extern "C" void __tsan_acquire(void *address);
extern "C" void __tsan_release(void *address);
#else
static void __tsan_acquire(void *) {}
static void __tsan_release(void *) {}
#endif

namespace emulator {

place here;

namespace {

enum { WARP = 32, MOST_THREADS = 1024, PAGE = 4096, STACK = 256 << 10 };
enum { SHARED_BYTES = 48 << 10 };           /* of a block; CUDA, too, gives no more unless it is told to */
enum { KNOWN_THREADS = 1000 };              /* that TSan tells apart: the last ones of a launch */

enum status { READY, AT_BARRIER, AT_WARP, ENDED };

struct fiber {
    status state;
    char *sp, *stack;
    dim3 thread;
    const char *file;                       /* where it waits */
    int line, warp_waits;
    unsigned mask;
    uint64_t value[2];                      /* what it gives to a shuffle, and to the one after that */
    [[maybe_unused]] void *sanitizer;
};

struct array { const void *site; char *memory; };

struct {
    const char *kernel;
    void (*body)(void *);
    void *context;
    std::vector<fiber> fibers;              /* of the block that runs */
    std::vector<array> shared;
    int self, barriers;
    size_t used;                            /* bytes of shared memory */
    size_t begun;                           /* threads, of all blocks so far */
} now;

char *host_sp;
[[maybe_unused]] void *host_sanitizer;
/* Given back when the library is closed: it may be opened hundreds of times. */
struct stack_list : std::vector<char *> {
    ~stack_list()
    {
        for (char *p : *this)
            if (p)
                munmap(p, STACK);
    }
} stacks;
std::mutex one_at_a_time;
std::mt19937_64 rng;
int64_t seed;
cudaError_t last_error;
char start_of_launch, end_of_launch, block_sync[2], warp_sync[MOST_THREADS / WARP][2];

/* Saves the registers that a function keeps and where they lie in *from; goes on where `to` was saved. */
extern "C" void emulator_switch(char **from, char *to);
asm(".text\n"
    ".hidden emulator_switch\n"
    ".type emulator_switch, @function\n"
    "emulator_switch:\n"
    "    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
    "    ret\n");

/* Ends the process with a list of what the block's threads are doing: how many do each thing, and the first of them. */
[[noreturn]] void fail(const char *what)
{
    const dim3 &b = here.block;
    fprintf(stderr, "emulator: %s, block (%u, %u, %u): %s\n", now.kernel, b.x, b.y, b.z, what);
    std::vector<bool> listed(now.fibers.size());
    for (size_t i = 0; i < now.fibers.size(); i++) {
        const fiber &f = now.fibers[i];
        int count = 0;
        for (size_t j = i; j < now.fibers.size() && !listed[i]; j++) {
            const fiber &other = now.fibers[j];
            if (other.state == f.state && (f.state == ENDED || (other.line == f.line && other.file == f.file))) {
                listed[j] = j > i;
                count++;
            }
        }
        if (count)
            fprintf(stderr, "  %d threads, (%u, %u, %u) the first: ", count, f.thread.x, f.thread.y, f.thread.z);
        if (count && f.state == ENDED)
            fprintf(stderr, "ended\n");
        else if (count)
            fprintf(stderr, "%s %s:%d\n", f.state == READY ? "between barriers, behind" : "waiting at",
                    f.file ? f.file : "the start", f.line);
    }
    abort();
}

/* From the thread that runs to another, or (-1) to the scheduler. */
void switch_to(int other)
{
    char **from = now.self < 0 ? &host_sp : &now.fibers[(size_t)now.self].sp;
    fiber *f = other < 0 ? NULL : &now.fibers[(size_t)other];
    now.self = other;
    if (f)
        here.thread = f->thread;
#ifdef EMULATOR_TSAN
    __tsan_switch_to_fiber(f ? f->sanitizer : host_sanitizer, 1);
#endif
#ifdef EMULATOR_ASAN
    static const void *host_stack;
    static size_t host_size;
    void *fake = NULL;
    bool leaves_host = f != NULL;
    __sanitizer_start_switch_fiber(&fake, f ? f->stack : host_stack, f ? (size_t)STACK : host_size);
#endif
    emulator_switch(from, f ? f->sp : host_sp);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake, leaves_host ? NULL : &host_stack, leaves_host ? NULL : &host_size);
#endif
}

void wait(status reason, const char *file, int line)
{
    fiber &f = now.fibers[(size_t)now.self];
    f.state = reason;
    f.file = file;
    f.line = line;
    switch_to(-1);
}

void run_fiber()
{
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    __tsan_acquire(&start_of_launch);
    now.body(now.context);
    __tsan_release(&end_of_launch);
    now.fibers[(size_t)now.self].state = ENDED;
    switch_to(-1);
}

char *stack_of(size_t i)
{
    for (; i >= stacks.size(); stacks.push_back(NULL)) {}
    if (!stacks[i]) {
        void *p = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE))
            fail("no memory for a stack");
        stacks[i] = (char *)p;
    }
    return stacks[i];
}

/* Thread i of its block will begin in run_fiber when it is switched to. */
void begin(fiber &f, size_t i)
{
#ifdef EMULATOR_TSAN
    static void *known[KNOWN_THREADS];
    i = now.begun % KNOWN_THREADS;
    if (!known[i])
        known[i] = __tsan_create_fiber(0);
    f.sanitizer = known[i];
#endif
    f.stack = stack_of(i);
    void **top = (void **)(f.stack + STACK) - 1;         /* as if called */
    *--top = (void *)run_fiber;
    f.sp = (char *)(top - 6);                           /* six registers, of any value */
}

std::vector<int> order(int64_t count)
{
    std::vector<int> indices((size_t)count);
    for (int64_t i = 0; i < count; i++)
        indices[(size_t)i] = (int)(seed < 0 ? count - 1 - i : i);
    if (seed > 0)
        std::shuffle(indices.begin(), indices.end(), rng);
    return indices;
}

/* Every thread waits or has ended: they go on if it is at one barrier. */
void release_barrier()
{
    const fiber &first = now.fibers[0];
    for (fiber &f : now.fibers)
        if (f.state != AT_BARRIER || f.file != first.file || f.line != first.line)
            fail("not all threads reach one barrier");
    for (fiber &f : now.fibers)
        f.state = READY;
    now.barriers++;
}

void run_threads()
{
    for (size_t ended = 0; ended < now.fibers.size();) {
        bool any = false;
        for (int i : order((int64_t)now.fibers.size()))
            if (now.fibers[(size_t)i].state == READY) {
                any = true;
                switch_to(i);
                ended += now.fibers[(size_t)i].state == ENDED;
            }
        if (!any)
            release_barrier();
    }
}

char *allocate_shared(size_t bytes)
{
#ifdef EMULATOR_TSAN
    static char arena[32 << 20];        /* every block has its own part, or blocks would seem to share it */
    static size_t at;
    at = at + bytes > sizeof arena ? 0 : at;
    char *p = arena + at;
    at += (bytes + 63) / 64 * 64;
#else
    char *p = NULL;
    if (posix_memalign((void **)&p, 16, bytes))
        fail("no shared memory");
#endif
    for (size_t i = 0; i < bytes; i++)
        p[i] = (char)-1;                /* NaN */
    return p;
}

void free_shared()
{
#ifndef EMULATOR_TSAN
    for (array &a : now.shared)
        free(a.memory);
#endif
    now.shared.clear();
    now.used = 0;
}

void run_block()
{
    dim3 n = here.threads;
    now.fibers.assign((size_t)n.x * n.y * n.z, {});
    for (size_t i = 0; i < now.fibers.size(); i++) {
        fiber &f = now.fibers[i];
        f.thread = dim3((unsigned)i % n.x, (unsigned)i / n.x % n.y, (unsigned)i / n.x / n.y);
        begin(f, i);
        now.begun++;
    }
    now.barriers = 0;
    run_threads();
    free_shared();
}

}

void run_blocks(const char *kernel, dim3 blocks, dim3 threads, void (*body)(void *), void *context)
{
    std::lock_guard<std::mutex> lock(one_at_a_time);
    int64_t count = (int64_t)threads.x * threads.y * threads.z;
    if (!blocks.x || !blocks.y || !blocks.z || blocks.x > INT32_MAX || blocks.y > 65535 || blocks.z > 65535
        || count < 1 || count > MOST_THREADS || threads.z > 64) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    now.kernel = kernel;
    now.body = body;
    now.context = context;
    now.self = -1;
    here.threads = threads;
    here.blocks = blocks;
    rng.seed((uint64_t)seed);
#ifdef EMULATOR_TSAN
    host_sanitizer = __tsan_get_current_fiber();
#endif
    __tsan_release(&start_of_launch);
    now.begun = 0;
    for (int i : order((int64_t)blocks.x * blocks.y * blocks.z)) {
        here.block = dim3((unsigned)i % blocks.x, (unsigned)i / blocks.x % blocks.y,
                          (unsigned)i / blocks.x / blocks.y);
        run_block();
    }
    __tsan_acquire(&end_of_launch);
}

/* The n-th barrier has its own signal, different from the next one's: a thread that is late mustn't seem to wait for
 * what others did after the barrier. */
void barrier(const char *file, int line)
{
    char *signal = &block_sync[now.barriers % 2];
    __tsan_release(signal);
    wait(AT_BARRIER, file, line);
    __tsan_acquire(signal);
}

/* Goes on when all lanes of the mask are here. */
static void join_warp(unsigned mask, const char *file, int line)
{
    size_t first = (size_t)now.self / WARP * WARP, last = std::min(first + WARP, now.fibers.size());
    fiber *lanes = &now.fibers[first];
    now.fibers[(size_t)now.self].warp_waits++;
    now.fibers[(size_t)now.self].mask = mask;
    if (last - first < WARP)
        mask &= (1u << (last - first)) - 1;
    if (!(mask >> ((size_t)now.self - first) & 1))
        fail("a thread isn't in its own mask");
    for (size_t i = 0; i < last - first; i++) {
        bool self = first + i == (size_t)now.self;
        if (mask >> i & 1 && !self && (lanes[i].state != AT_WARP || lanes[i].line != line || lanes[i].file != file))
            return wait(AT_WARP, file, line);
    }
    for (size_t i = 0; i < last - first; i++)
        if (mask >> i & 1)
            lanes[i].state = READY;
}

void warp_barrier(unsigned mask, const char *file, int line)
{
    char *signal = &warp_sync[now.self / WARP][now.fibers[(size_t)now.self].warp_waits % 2];
    __tsan_release(signal);
    join_warp(mask, file, line);
    __tsan_acquire(signal);
}

/* The next exchange writes to the other of a thread's two values, and no thread reaches the one after that before all
 * have read this one. */
uint64_t exchange(unsigned mask, uint64_t value, int from, const char *file, int line)
{
    fiber *self = &now.fibers[(size_t)now.self];
    size_t source = (size_t)(now.self / WARP * WARP + from);
    int which = self->warp_waits % 2;
    if (from < 0 || from >= WARP || source >= now.fibers.size() || !(mask >> from & 1))
        fail("a shuffle reads a lane that doesn't take part");
    self->value[which] = value;
    join_warp(mask, file, line);
    return now.fibers[source].value[which];
}

int lane() { return now.self % WARP; }

void *shared(const void *site, size_t bytes)
{
    for (array &a : now.shared)
        if (a.site == site)
            return a.memory;
    now.used += bytes;
    if (now.used > SHARED_BYTES)
        fail("more than 48 KiB of shared memory");
    now.shared.push_back({site, allocate_shared(bytes)});
    return now.shared.back().memory;
}

}

/* --- the runtime's calls -------------------------------------------------------------------------------- */

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t)
{
    *p = malloc(bytes);
    if (*p)
        memset(*p, -1, bytes);                          /* NaN */
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    memset(p, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    cudaError_t error = emulator::last_error;
    emulator::last_error = cudaSuccess;
    return error;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "emulated error";
}

/* The order of threads and blocks: 0 forwards, -1 backwards, above 0 the seed of a random one. */
extern "C" __attribute__((visibility("default"))) void tg_emulator_order(int64_t seed);
void tg_emulator_order(int64_t seed)
{
    emulator::seed = seed;
}
