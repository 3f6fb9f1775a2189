/* The arithmetic of kernels_generic.c for one row at a time, without padding and without libc: what an
 * exported model needs beside its weights. `mariana export --to c` puts activation_template.h where the last
 * include stands; nothing of it is written twice.
 *
 * The bits are those of the generic kernels: each unit sums bias + x[0] w[0] + x[1] w[1] + ... with two
 * roundings a term, never fused, and a softmax row is padded to whole strips of 16, whose parts are added as
 * there. */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math: it changes what the network computes"
#endif

#include <stddef.h>
#include <stdint.h>

/* A model uses some of these functions; the others vanish without a warning. What its program calls is not
 * inlined there: the program may be compiled with -ffp-contract=fast. */
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

#if defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__)
#include <arm_acle.h>
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

/* Four products of unsigned and signed bytes, added to `sum`: two instructions where the CPU multiplies
 * pairs. */
static MARIANA_MAYBE int32_t mariana_dot4(const uint8_t *x, const int8_t *weight, int32_t sum) {
#if defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__)
    uint32_t a, b;
    __builtin_memcpy(&a, x, sizeof a);
    __builtin_memcpy(&b, weight, sizeof b);
    const uint32_t turned_a = a >> 8 | a << 24, turned_b = b >> 8 | b << 24;
    sum = __smlad((int32_t)__uxtb16(a), __sxtb16(b), sum);
    return __smlad((int32_t)__uxtb16(turned_a), __sxtb16(turned_b), sum);
#else
    for (size_t i = 0; i < 4; i++)
        sum += (int32_t)x[i] * weight[i];
    return sum;
#endif
}

/* The same with int8 weights: y[u] = max(floor, ((q - zero) . weight[u]) * step * scale[u] + bias[u]), where
 * x = (q - zero) * step, q in 0..255: stage_s8 of dot_stage.h. total[u] is the sum of the unit's weights;
 * `cells` has room for the inputs. A row that is not finite gives NaN. */
static MARIANA_MAYBE void mariana_dense_s8(const int8_t *weight, const float *scale, const int32_t *total,
                                           const float *bias, const float *x, size_t inputs, size_t units,
                                           float floor, uint8_t *cells, float *y) {
    const float magic = 12582912.0F; /* its low bits take the nearest integer, ties to even */
    float low = 0, high = 0, step;
    int finite = 1;
    for (size_t k = 0; k < inputs; k++) {
        low = x[k] < low ? x[k] : low;
        high = x[k] > high ? x[k] : high;
        finite &= (mariana_bits(x[k]) & 0x7f800000U) != 0x7f800000U;
    }
    step = high / 255.0F - low / 255.0F;
    step = step > 1e-37F ? step : 1e-37F;
    const float inverse = 1.0F / step;
    int32_t zero = (int32_t)(mariana_bits(magic - low * inverse) - 0x4b400000U);
    zero = zero > 255 ? 255 : zero;
    for (size_t k = 0; k < inputs; k++) {
        const int32_t q = (int32_t)(mariana_bits(x[k] * inverse + magic) - 0x4b400000U + (uint32_t)zero);
        cells[k] = (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
    }
    for (size_t u = 0; u < units; u++) {
        int32_t sum = 0;
        size_t k = 0;
        for (; k + 4 <= inputs; k += 4)
            sum = mariana_dot4(cells + k, weight + k, sum);
        for (; k < inputs; k++)
            sum += (int32_t)cells[k] * weight[k];
        weight += inputs;
        sum = (int32_t)((uint32_t)sum - (uint32_t)zero * (uint32_t)total[u]);
        const float made = (float)sum * (step * scale[u]) + (bias ? bias[u] : 0.0F);
        y[u] = !finite ? MARIANA_NAN : made < floor ? floor : made;
    }
}

/* The square root of 1 <= x < 2^26, rounded to nearest: a digit of the root a time. x = m 2^(e - 23). */
static MARIANA_MAYBE float mariana_sqrt(float x) {
    const uint32_t bits = mariana_bits(x), e = (bits >> 23) - 127U;
    uint64_t left = (uint64_t)((bits & 0x7fffffU) | 0x800000U) << (25U + (e & 1U));
    uint64_t root = 0;
    for (uint64_t digit = (uint64_t)1 << 48; digit; digit >>= 2) {
        const uint64_t next = root + digit;
        root >>= 1;
        if (left >= next) {
            left -= next;
            root += digit;
        }
    }
    return (float)(uint32_t)((root + 1) >> 1) * mariana_float((e / 2 + 127U - 23U) << 23);
}

/* What becomes of a shifted and scaled number: enum mrn_form of mrn.h, shaped() of forward.c. */
enum { MARIANA_LINEAR, MARIANA_SOFT, MARIANA_RAMP, MARIANA_MISSING };

static inline float mariana_shaped(unsigned form, float v) {
    if (form == MARIANA_RAMP)
        return v < 0.0F ? 0.0F : v > 1.0F ? 1.0F : v;
    if (form == MARIANA_SOFT && v == v) {
        const float bounded = v < -4096.0F ? -4096.0F : v > 4096.0F ? 4096.0F : v;
        return bounded / mariana_sqrt(1.0F + bounded * bounded);
    }
    return v;
}

/* One raw row to one encoded row: fill, one-hot or copies, shift, scale and form; each table may be NULL. */
static MARIANA_MAYBE void mariana_encode(const float *row, size_t columns, const uint32_t *categories,
                                         const uint16_t *copies, const uint8_t *forms, const float *fill,
                                         const float *shift, const float *scale, float *encoded) {
    float *e = encoded;
    for (size_t c = 0; c < columns; c++) {
        const int missing = row[c] != row[c];
        const float value = fill && missing ? fill[c] : row[c];
        const uint32_t count = categories ? categories[c] : 0;
        const uint32_t width = count ? count : copies ? copies[c] : 1;
        for (uint32_t i = 0; i < width; i++, e++) {
            const unsigned form = forms ? *forms++ : MARIANA_LINEAR;
            *e = value;
            if (count)
                *e = value == (float)i ? 1.0F : 0.0F;
            else if (form == MARIANA_MISSING)
                *e = missing ? 1.0F : 0.0F;
            if (shift)
                *e -= *shift++;
            if (scale)
                *e *= *scale++;
            *e = mariana_shaped(form, *e);
        }
    }
}

static MARIANA_MAYBE void mariana_scale_back(float *out, size_t count, const float *scale,
                                             const float *shift) {
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
