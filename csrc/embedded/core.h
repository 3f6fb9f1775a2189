/* The arithmetic of kernels_generic.c for one row at a time, without padding and without libc: what an exported
 * model needs beside its weights. `mariana export --to c` puts activation_template.h where the last include
 * stands; nothing of it is written twice.
 *
 * The bits are those of the generic kernels: each unit sums bias + x[0] w[0] + x[1] w[1] + ... with two roundings
 * a term, never fused, and a softmax row is padded to whole strips of 16, whose parts are added as there. */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math: it changes what the network computes"
#endif

#include <stddef.h>
#include <stdint.h>

/* A model uses some of these functions; the others vanish without a warning. What its program calls is not inlined
 * there: the program may be compiled with -ffp-contract=fast. */
#if defined(__GNUC__)
#define MARIANA_MAYBE __attribute__((unused))
#define MARIANA_CALL __attribute__((noinline))
#define MARIANA_INFINITY __builtin_inff()
#define MARIANA_NAN __builtin_nanf("")
#else
#include <math.h>
#define MARIANA_MAYBE
#define MARIANA_CALL
#define MARIANA_INFINITY INFINITY
#define MARIANA_NAN NAN
#endif

enum { MARIANA_STRIP = 16 };

static inline uint32_t mariana_bits(float f) {
    union {
        float number;
        uint32_t bits;
    } both;
    both.number = f;
    return both.bits;
}

static inline float mariana_float(uint32_t bits) {
    union {
        uint32_t bits;
        float number;
    } both;
    both.bits = bits;
    return both.number;
}

/* e * 2^n, n in the low bits of `shifted`, in two halves: kernels_generic.c. */
static inline float mariana_scale(float e, float shifted) {
    const uint32_t n = mariana_bits(shifted) - (0x4b400000U - 254U);
    const uint32_t half = n >> 1;
    return e * mariana_float(half << 23) * mariana_float((n - half) << 23);
}

/* Both reductions fold halves: 16, 8, 4, 2, 1. */
static inline MARIANA_MAYBE float mariana_strip_sum(float *strip) {
    for (size_t half = MARIANA_STRIP / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            strip[i] += strip[i + half];
    return strip[0];
}

static inline MARIANA_MAYBE float mariana_strip_max(const float *strip) {
    float highest = strip[0];
    for (size_t i = 1; i < MARIANA_STRIP; i++)
        highest = strip[i] > highest ? strip[i] : highest;
    return highest;
}

/* y[u] = max(floor, bias[u] + x . weight[u]) with weight (units, inputs); bias NULL: zeros. */
static MARIANA_MAYBE void mariana_dense(const float *weight, const float *bias, const float *x, size_t inputs,
                                        size_t units, float floor, float *y) {
    for (size_t u = 0; u < units; u++) {
        float sum = bias ? bias[u] : 0.0F;
        for (size_t k = 0; k < inputs; k++)
            sum += x[k] * *weight++;
        y[u] = sum < floor ? floor : sum;
    }
}

/* One raw row to one encoded row: fill, one-hot, shift and scale; each table may be NULL. */
static MARIANA_MAYBE void mariana_encode(const float *row, size_t columns, const uint32_t *categories,
                                         const float *fill, const float *shift, const float *scale,
                                         float *encoded) {
    float *to = encoded;
    for (size_t c = 0; c < columns; c++) {
        const float value = fill && row[c] != row[c] ? fill[c] : row[c];
        const uint32_t count = categories ? categories[c] : 0;
        if (count == 0) {
            *to++ = value;
            continue;
        }
        for (uint32_t i = 0; i < count; i++)
            *to++ = value == (float)i ? 1.0F : 0.0F;
    }
    for (float *e = encoded; e != to; e++) {
        if (shift)
            *e -= *shift++;
        if (scale)
            *e *= *scale++;
    }
}

static MARIANA_MAYBE void mariana_scale_back(float *out, size_t count, const float *scale, const float *shift) {
    for (size_t i = 0; i < count; i++)
        out[i] = out[i] * scale[i] + shift[i];
}

/* The number of the largest of `count` outputs, the first of equal ones. */
static MARIANA_MAYBE size_t mariana_argmax(const float *out, size_t count) {
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (out[i] > out[best])
            best = i;
    return best;
}

/* What activation_template.h is written in: vectors of one lane. */
#define NAME(x) mariana_##x
#define TARGET MARIANA_MAYBE
#define vec float
#define LANES 1
#define STRIP_VECTORS 16
#define MRN_STRIP 16
#define V_LOAD(p) (*(p))
#define V_STORE(p, v) (*(p) = (v))
#define V_SET(f) (f)
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_DIV(a, b) ((a) / (b))
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_ABS(a) mariana_float(mariana_bits(a) & 0x7fffffffU)
#define V_COPY_SIGN(size, sign) mariana_float(mariana_bits(size) | (mariana_bits(sign) & 0x80000000U))
#define V_IF_LESS(a, b, then, otherwise) ((a) < (b) ? (then) : (otherwise))
#define V_MAX(a, b) V_IF_LESS(b, a, a, b)
#define V_MIN(a, b) V_IF_LESS(a, b, a, b)
#define V_SCALE(e, shifted) mariana_scale(e, shifted)

#include "../activation_template.h"

#undef NAME
#undef TARGET
#undef vec
#undef LANES
#undef STRIP_VECTORS
#undef MRN_STRIP
#undef V_LOAD
#undef V_STORE
#undef V_SET
#undef V_ADD
#undef V_SUB
#undef V_MUL
#undef V_DIV
#undef V_FMA
#undef V_ABS
#undef V_COPY_SIGN
#undef V_IF_LESS
#undef V_MAX
#undef V_MIN
#undef V_SCALE
