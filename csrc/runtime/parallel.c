/* A small pool of threads. One job runs at a time; its items are shared out in order and evenly among the caller and the
 * workers. From job to job a thread has the same share, mostly the same images, which its core's cache holds since the
 * kernel before. Whoever is done helps with the others' shares, by atomic counters, so a worker that is late isn't
 * waited for. A caller that finds the pool busy (another Python thread is in a kernel) runs its items alone: what an
 * item computes never depends on who runs it, so the bytes are the same.
 *
 * Workers spin for a moment while they wait for the next job, since kernels come in quick succession, and then sleep.
 * The caller waits only for workers that have joined, so one that the system hasn't woken yet delays nobody. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include "internal.h"

enum { SPINS = 4000 };

typedef struct { _Alignas(64) atomic_llong next; int64_t end; } share;     /* of the items; each in a cache line */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    atomic_int busy;                     /* a caller owns the pool */
    atomic_uint jobs;                    /* jobs so far: a worker sees a new one here */
    atomic_int working;                  /* workers inside the job */
    int workers, open, threads;          /* under the lock, like all that follows but `next` */
    parallel_task task;
    void *context;
    share shares[MAX_THREADS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER,
          .idle = PTHREAD_COND_INITIALIZER};

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void run_items(int slot)
{
    for (int i = 0; i < pool.threads; i++) {
        share *s = &pool.shares[(slot + i) % pool.threads];
        for (int64_t item; (item = atomic_fetch_add(&s->next, 1)) < s->end; )
            pool.task(pool.context, item, slot);
    }
}

/* own: its slot, a number from 1 on; the caller's is 0. */
static void *worker(void *own)
{
    int slot = (int)(intptr_t)own;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool.jobs) == seen; i++)
            relax();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.jobs) == seen)
            pthread_cond_wait(&pool.wake, &pool.lock);
        seen = atomic_load(&pool.jobs);
        int joins = pool.open && slot < pool.threads;
        if (joins)
            atomic_fetch_add(&pool.working, 1);
        pthread_mutex_unlock(&pool.lock);
        if (!joins)
            continue;
        run_items(slot);
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.working, 1) == 1)
            pthread_cond_signal(&pool.idle);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* A forked child has the caller alone: no workers, and locks in whatever state the parent's other threads
 * left them. */
static void after_fork(void)
{
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.idle, NULL);
    pool.workers = pool.open = 0;
    atomic_store(&pool.jobs, 0);
    atomic_store(&pool.working, 0);
    atomic_store(&pool.busy, 0);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }

/* Signals belong to the program's own threads, so workers block them all. It is no error if the system gives fewer
 * workers than asked for. */
static void hire(int workers)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (pthread_t id; pool.workers < workers; pool.workers++) {
        if (pthread_create(&id, NULL, worker, (void *)(intptr_t)(pool.workers + 1)))
            break;
        pthread_detach(id);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void finish(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.open = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < SPINS && atomic_load(&pool.working); i++)
        relax();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.working))
        pthread_cond_wait(&pool.idle, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void parallel(int64_t items, int threads, parallel_task task, void *context)
{
    if (threads <= 1 || items <= 1 || atomic_exchange(&pool.busy, 1)) {
        for (int64_t i = 0; i < items; i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    hire(threads - 1);
    pool.task = task;
    pool.context = context;
    pool.threads = (int)min64(threads, items);
    for (int i = 0; i < pool.threads; i++) {
        atomic_store(&pool.shares[i].next, items * i / pool.threads);
        pool.shares[i].end = items * (i + 1) / pool.threads;
    }
    pool.open = 1;
    atomic_fetch_add(&pool.jobs, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_items(0);
    finish();
    atomic_store(&pool.busy, 0);
}
