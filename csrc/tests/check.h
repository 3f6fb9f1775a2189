/* The little that a C test needs. */
#ifndef MRN_TESTS_CHECK_H
#define MRN_TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                  \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fputc('\n', stderr);                                                                             \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

/* xorshift64* (Vigna 2014): the same numbers on every machine. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* Uniform in [-1, 1). */
static inline float next_float(uint64_t *state) {
    return (float)(int64_t)(next_random(state) >> 40) / 8388608.0f - 1.0f;
}

#endif
