/* What the benchmarks in C have in common: clocks, memory, numbers, the best time of a call. */
#ifndef MRN_BENCH_H
#define MRN_BENCH_H

#include "../mrn.h"
#include "../tests/check.h"

#include <math.h>
#include <time.h>

static inline double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Of this thread alone, so that busy neighbours count less. */
static inline double cpu_seconds(void) {
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

/* Of the clock on the wall: with several threads the wait is what counts. */
static inline double wall_seconds(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

static inline int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *samples, size_t count) {
    qsort(samples, count, sizeof *samples, by_value);
    return samples[count / 2];
}

static inline void *aligned(size_t bytes, size_t alignment) {
    void *block = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    CHECK(block, "memory");
    return block;
}

static inline float *random_floats(size_t count, float size) {
    static uint64_t state = 88172645463325252u;
    float *made = malloc(count * sizeof *made);
    CHECK(made, "memory");
    for (size_t i = 0; i < count; i++)
        made[i] = next_float(&state) * size;
    return made;
}

/* The content of a file, with a zero behind it. */
static inline char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0, "cannot read %s", path);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(*bytes + 1);
    CHECK(content && fread(content, 1, *bytes, file) == *bytes, "cannot read %s", path);
    fclose(file);
    content[*bytes] = 0;
    return content;
}

/* The best time of one call in CPU seconds, of some rounds in which it is repeated for about 20 ms. */
static inline double best_time(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch,
                               int rounds) {
    double best = INFINITY;
    size_t calls = 1;
    for (int round = 0; round < rounds; round++) {
        const double start = cpu_seconds();
        for (size_t i = 0; i < calls; i++)
            CHECK(mrn_model_predict(model, x, rows, y, scratch) == MRN_OK, "predict");
        const double once = (cpu_seconds() - start) / (double)calls;
        best = fmin(best, once);
        calls = (size_t)fmax(1, 0.02 / once);
    }
    return best;
}

#endif
