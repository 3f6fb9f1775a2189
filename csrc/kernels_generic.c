/* Plain C11: runs everywhere, and is what every other instruction set is compared with.
 *
 * What each instruction set defines before it includes the two templates:
 *   NAME(x)        x with the name of the set at its end
 *   TARGET         the function attribute that allows its instructions
 *   vec, LANES     a vector of float32 and how many it holds; STRIP_VECTORS of them make a strip of 16
 *   TILE_ROWS      rows of the highest tile
 *   TILES(T)       T(rows, strips) for each tile whose sums fit into the registers; every height has a tile of 1 strip
 *   V_LOAD V_STORE V_SET V_ADD V_SUB V_MUL V_DIV V_ABS
 *   V_FMA(a, b, c)               a * b + c
 *   V_MAX(a, b) V_MIN(a, b)      b when one of them is NaN
 *   V_IF_LESS(a, b, then, else)  `else` when one of them is NaN
 *   V_COPY_SIGN(size, sign)
 *   V_SCALE(e, shifted)          e * 2^n for shifted = 1.5 * 2^23 + n, -152 <= n <= 130
 *   NAME(strip_sum), NAME(strip_max)(const vec strip[STRIP_VECTORS])
 * Nothing of one set is used by another, so that no wide instruction leaks into code that runs everywhere. */
#include "kernels.h"
#include "unroll.h"

#include <math.h>
#include <string.h>

#define NAME(x) x##_generic
#define TARGET
#define LANES 1
#define STRIP_VECTORS 16
#define TILE_ROWS 2
#define TILES(T) T(1, 1) T(2, 1)

typedef float vec;

#define V_LOAD(p) (*(p))
#define V_STORE(p, v) (*(p) = (v))
#define V_SET(f) (f)
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_DIV(a, b) ((a) / (b))
#define V_FMA(a, b, c) ((a) * (b) + (c)) /* two roundings: -ffp-contract=off */
#define V_MAX(a, b) ((a) > (b) ? (a) : (b))
#define V_MIN(a, b) ((a) < (b) ? (a) : (b))
#define V_ABS(a) fabsf(a)
#define V_COPY_SIGN(size, sign) copysignf(size, sign)
#define V_IF_LESS(a, b, then, otherwise) ((a) < (b) ? (then) : (otherwise))
#define V_SCALE(e, shifted) scale_generic(e, shifted)

/* A float32 power of two from a biased exponent. */
static inline float power(uint32_t exponent) {
    const uint32_t bits = exponent << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float scale_generic(float e, float shifted) {
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    const uint32_t n = bits - 0x4b400000U + 254U; /* n + 2 * 127 */
    return e * power(n / 2) * power(n - n / 2);
}

static float strip_sum_generic(const vec *strip) {
    float part[8];
    for (size_t i = 0; i < 8; i++)
        part[i] = strip[i] + strip[i + 8];
    for (size_t half = 4; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            part[i] += part[i + half];
    return part[0];
}

static float strip_max_generic(const vec *strip) {
    float highest = strip[0];
    for (size_t i = 1; i < MRN_STRIP; i++)
        highest = V_MAX(highest, strip[i]);
    return highest;
}

#include "activation_template.h"
#include "dense_template.h"

const mrn_kernels mrn_kernels_generic = {dense_generic};
