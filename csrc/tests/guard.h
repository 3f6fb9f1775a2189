/* A block that ends, or begins, exactly at a page that cannot be touched. */
#ifndef MRN_TESTS_GUARD_H
#define MRN_TESTS_GUARD_H

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

typedef struct guarded {
    unsigned char *map, *block;
    size_t map_bytes;
} guarded;

static inline guarded guard(size_t bytes, int at_end, size_t alignment) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page) / page * page;
    guarded g = {.map_bytes = body + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(g.map != MAP_FAILED, "mmap");
    CHECK(mprotect(g.map, page, PROT_NONE) == 0 && mprotect(g.map + page + body, page, PROT_NONE) == 0,
          "mprotect");
    g.block = g.map + page + (at_end ? (body - bytes) / alignment * alignment : 0);
    return g;
}

static inline void unguard(guarded g) {
    munmap(g.map, g.map_bytes);
}

#endif
