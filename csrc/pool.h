/* Helper threads, on request only; pool.c has the protocol, threads.c the users. */
#ifndef MRN_POOL_H
#define MRN_POOL_H

#include "mrn.h"

enum {
    MRN_POOL_ITEMS = 256 /* of one job */
};

/* Work that falls into items which do not depend on each other. A helper that the operating system has put
 * aside may still read `context` and what it points to, and write the slot of the item that it holds, when
 * mrn_pool_run is back: touch them again only when mrn_pool_ready gives 1, free them after mrn_pool_settle.
 */
typedef struct mrn_job {
    const void *context;
    size_t items; /* 1..MRN_POOL_ITEMS */
    /* Computes an item into `out`, on thread 0 (the caller) or a helper's number. */
    void (*compute)(const void *context, size_t item, size_t thread, void *out);
    /* Brings a computed item to where it belongs; runs on the caller's thread. */
    void (*take)(const void *context, size_t item, const void *out);
    char *slots; /* one for each item, and one for the caller in front of them */
    size_t slot_bytes;
} mrn_job;

/* 1: the pool is this caller's until mrn_pool_end, and ready. 0: do the work alone. */
int mrn_pool_begin(mrn_pool *pool);
/* 1: no helper is at work, the next job may be written and run. 0: one is late; do that part alone. */
int mrn_pool_ready(mrn_pool *pool);
void mrn_pool_run(mrn_pool *pool, const mrn_job *job);
void mrn_pool_end(mrn_pool *pool);
size_t mrn_pool_threads(const mrn_pool *pool);

#endif
