/* Helper threads that never make a caller wait for the operating system.
 *
 * The items of a job are dealt out by one counter: the caller and the helpers each take the next one until
 * there are none left. The caller then looks at every item that it did not take itself:
 *
 *   free    a helper drew it and has not begun: the caller takes it back
 *   helped  a helper is at it: the caller waits for about as long as an item takes, then revokes it and
 *           computes it itself
 *   done    the result is in the item's slot: the caller takes it over
 *
 * A helper writes nothing but its item's slot and reads nothing that belongs to the caller, so one that was
 * put aside in the middle of an item does no harm when it comes back. The gate lets helpers in while a job is
 * open and counts those inside; a new job is written only when nobody is.
 *
 * A helper spins for 20 us after its last job, then sleeps. It runs as SCHED_IDLE: on a core that nobody
 * wants, and at once aside for anybody else. With a fair share it would push a neighbour over to the caller's
 * core, where that one takes milliseconds at a time.
 *
 * After a revoked item, or some jobs in a row that no helper came to (a busy machine either way), the pool
 * rests for a number of calls that doubles each time, so that a bad neighbour costs one call in a hundred.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* SCHED_IDLE */
#endif
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum {
    OPEN = 1,   /* of the gate */
    INSIDE = 2, /* for each helper inside */
    SPIN_NS = 20000,
    SETTLE_NS = 3000,
    STARTING = -1, /* no process has this number */
    MISSES = 16,   /* jobs in a row without help that say as much as a revoked item */
    REST_MAX = 127
};
enum state { FREE, MINE, HELPED, DONE, REVOKED };

typedef struct helper {
    struct mrn_pool *pool;
    size_t number;
    pthread_t thread;
} helper;

struct mrn_pool {
    _Alignas(64) atomic_uint gate;
    _Alignas(64) atomic_size_t next; /* the next item of the job */
    _Alignas(64) atomic_uint posted; /* counts jobs, and the end */
    atomic_uint sleepers;
    atomic_int closing;
    mrn_job job;
    _Atomic unsigned char states[MRN_POOL_ITEMS];

    _Alignas(64) atomic_int busy; /* a caller has it */
    size_t wanted, threads;       /* asked for; that started, the caller among them */
    unsigned rest, penalty;       /* calls to do alone from now on; the last such number */
    unsigned misses;              /* jobs in a row that no helper came to */
    atomic_int process;           /* where the helpers live: not in a child that was forked */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    helper helpers[MRN_MAX_THREADS - 1];
};

static long long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- A helper's side ------------------------------------------------------------------------------------
 */

/* Waits until something is posted beyond `seen`; gives its number. */
static unsigned wait_for_post(mrn_pool *pool, unsigned seen) {
    const long long end = nanoseconds() + SPIN_NS;
    unsigned posted;
    do {
        for (int i = 0; i < 32; i++, relax())
            if ((posted = atomic_load(&pool->posted)) != seen)
                return posted;
    } while (nanoseconds() < end);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while ((posted = atomic_load(&pool->posted)) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return posted;
}

static int enter(mrn_pool *pool) {
    unsigned gate = atomic_load(&pool->gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + INSIDE))
            return 1;
    return 0;
}

static void help(mrn_pool *pool, size_t thread) {
    const mrn_job *job = &pool->job;
    size_t item;
    while ((item = atomic_fetch_add(&pool->next, 1)) < job->items) {
        unsigned char state = FREE;
        if (!atomic_compare_exchange_strong(&pool->states[item], &state, HELPED))
            continue;
        job->compute(job->context, item, thread, job->slots + (item + 1) * job->slot_bytes);
        state = HELPED;
        (void)atomic_compare_exchange_strong(&pool->states[item], &state, DONE); /* or it was revoked */
    }
}

static void *helper_main(void *argument) {
    const helper *me = argument;
    mrn_pool *pool = me->pool;
    unsigned seen = 0;
#if defined(SCHED_IDLE)
    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0});
#endif
    for (;;) {
        seen = wait_for_post(pool, seen);
        if (atomic_load(&pool->closing))
            return NULL;
        if (enter(pool)) {
            help(pool, me->number);
            atomic_fetch_sub(&pool->gate, INSIDE);
        }
    }
}

/* ---- The caller's side ----------------------------------------------------------------------------------
 */

static void start(mrn_pool *pool, size_t threads) {
    pthread_attr_t attributes;
    atomic_init(&pool->gate, 0);
    atomic_init(&pool->next, 0);
    atomic_init(&pool->posted, 0);
    atomic_init(&pool->sleepers, 0);
    atomic_init(&pool->closing, 0);
    pool->rest = pool->penalty = pool->misses = 0;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)256 * 1024);
    for (pool->threads = 1; pool->threads < threads; pool->threads++) {
        helper *next = &pool->helpers[pool->threads - 1];
        *next = (helper){.pool = pool, .number = pool->threads};
        if (pthread_create(&next->thread, &attributes, helper_main, next) != 0)
            break;
    }
    pthread_attr_destroy(&attributes);
    atomic_store(&pool->process, (int)getpid());
}

size_t mrn_pool_bytes(void) {
    return sizeof(mrn_pool);
}

int mrn_pool_open(size_t threads, void *block, size_t block_bytes, mrn_pool **pool) {
    if (!block || !pool || threads == 0 || threads > MRN_MAX_THREADS)
        return MRN_E_ARGUMENT;
    if (block_bytes < sizeof(mrn_pool) || (uintptr_t)block % MRN_BLOCK_ALIGN != 0)
        return MRN_E_MEMORY;
    mrn_pool *opened = block;
    atomic_init(&opened->busy, 0);
    atomic_init(&opened->process, STARTING);
    opened->wanted = threads;
    start(opened, threads);
    if (opened->threads < threads) {
        mrn_pool_close(opened);
        return MRN_E_NO_MEMORY;
    }
    *pool = opened;
    return MRN_OK;
}

void mrn_pool_close(mrn_pool *pool) {
    if (!pool || atomic_load(&pool->process) != getpid())
        return;
    atomic_store(&pool->closing, 1);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->posted, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    while (pool->threads > 1)
        pthread_join(pool->helpers[--pool->threads - 1].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}

size_t mrn_pool_threads(const mrn_pool *pool) {
    return pool->wanted;
}

/* Whether every helper has left, after at most `patience` nanoseconds. */
static int empty(mrn_pool *pool, long long patience) {
    if (atomic_load(&pool->gate) < INSIDE)
        return 1;
    for (const long long end = nanoseconds() + patience; nanoseconds() < end; relax())
        if (atomic_load(&pool->gate) < INSIDE)
            return 1;
    return 0;
}

void mrn_pool_settle(mrn_pool *pool) {
    if (pool && atomic_load(&pool->process) == getpid())
        while (!empty(pool, SPIN_NS))
            sched_yield();
}

int mrn_pool_begin(mrn_pool *pool) {
    int process = atomic_load(&pool->process), busy = 0;
    if (process != getpid()) { /* a child: the helpers, and whoever had the pool, stayed in the parent */
        if (process == STARTING || !atomic_compare_exchange_strong(&pool->process, &process, STARTING))
            return 0;
        atomic_store(&pool->busy, 0);
        start(pool, pool->wanted);
    }
    if (!atomic_compare_exchange_strong(&pool->busy, &busy, 1))
        return 0;
    if (pool->rest == 0 && pool->threads > 1 && empty(pool, 0))
        return 1;
    pool->rest -= pool->rest > 0;
    mrn_pool_end(pool);
    return 0;
}

void mrn_pool_end(mrn_pool *pool) {
    atomic_store(&pool->busy, 0);
}

static void post(mrn_pool *pool, const mrn_job *job) {
    pool->job = *job;
    for (size_t i = 0; i < job->items; i++)
        atomic_store_explicit(&pool->states[i], FREE, memory_order_relaxed);
    atomic_store(&pool->next, 0);
    atomic_store(&pool->gate, OPEN);
    atomic_fetch_add(&pool->posted, 1);
    /* Who holds the lock is about to sleep or to wake up; the caller does not wait to find out which. */
    if (atomic_load(&pool->sleepers) && pthread_mutex_trylock(&pool->lock) == 0) {
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void do_item(const mrn_job *job, size_t item) {
    job->compute(job->context, item, 0, job->slots);
    job->take(job->context, item, job->slots);
}

int mrn_pool_ready(mrn_pool *pool) {
    return empty(pool, SETTLE_NS);
}

void mrn_pool_run(mrn_pool *pool, const mrn_job *job) {
    const long long started = nanoseconds();
    post(pool, job);
    long long mine = 0;
    for (size_t i; (i = atomic_fetch_add(&pool->next, 1)) < job->items; mine++) {
        atomic_store_explicit(&pool->states[i], MINE, memory_order_relaxed);
        do_item(job, i);
    }
    atomic_fetch_and(&pool->gate, ~(unsigned)OPEN);

    const long long finished = nanoseconds();
    const long long patience = finished + (finished - started) / (mine + 1) + SETTLE_NS;
    int revoked = 0, helped = 0;
    for (size_t i = 0; i < job->items;) {
        unsigned char state = atomic_load(&pool->states[i]);
        if (state == HELPED && nanoseconds() < patience) {
            relax();
        } else if (state == FREE || state == HELPED) {
            if (atomic_compare_exchange_strong(&pool->states[i], &state, REVOKED)) {
                revoked |= state == HELPED;
                do_item(job, i++);
            }
        } else {
            helped |= state == DONE;
            if (state == DONE)
                job->take(job->context, i, job->slots + (i + 1) * job->slot_bytes);
            i++;
        }
    }
    pool->misses = helped || revoked ? 0 : pool->misses + 1;
    const int busy = revoked || pool->misses >= MISSES;
    if (!busy && !helped)
        return;
    pool->penalty = busy ? pool->penalty * 2 + 1 : pool->penalty / 2;
    pool->penalty = pool->penalty > REST_MAX ? REST_MAX : pool->penalty;
    pool->rest = busy ? pool->penalty : 0;
    if (busy)
        pool->misses = 0;
}
