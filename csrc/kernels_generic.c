/* No instruction beyond the baseline: runs everywhere, and is what every other instruction set is compared
 * with.
 *
 * What each instruction set defines before it includes the two templates:
 *   NAME(x)        x with the name of the set at its end
 *   TARGET         the function attribute that allows its instructions
 *   vec, LANES     a vector of float32 and how many it holds; STRIP_VECTORS of them make a strip of 16
 *   PANEL_STRIPS   strips of a panel (kernels.h)
 *   TILE_ROWS      rows of the highest tile
 *   TILES(T)       T(rows, strips) for each tile whose sums fit into the registers; every height has a tile
 * of 1 strip; LANE_UNITS, LANE_VECTORS, LANE_TILES(T): T(units) for the tiles with one row a lane
 *   V_LOAD V_STORE V_SET V_ADD V_SUB V_MUL V_DIV V_SQRT V_ABS V_FMA(a, b, c)        a * b + c
 *   V_MAX(a, b) V_MIN(a, b)      b when one of them is NaN
 *   V_IF_LESS(a, b, then, else)  `else` when one of them is NaN
 *   V_COPY_SIGN(size, sign)
 *   V_SCALE(e, shifted)          e * 2^n for shifted = 1.5 * 2^23 + n, -152 <= n <= 130
 *   NAME(strip_sum), NAME(strip_max)(const vec strip[STRIP_VECTORS])
 * Nothing of one set is used by another, so that no wide instruction leaks into code that runs everywhere. */
#include "kernels.h"
#include "train.h"
#include "unroll.h"

#include <math.h> /* INFINITY */
#include <string.h>

#define NAME(x) x##_generic
#define TARGET
#define LANES 4
#define STRIP_VECTORS 4
#define PANEL_STRIPS 1
#define TILE_ROWS 2
#define TILES(T) T(1, 1) T(1, 2) T(2, 1)
#define LANE_UNITS 4
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4)

/* Four lanes as gcc and clang know them: SSE or NEON registers where there are such, else four floats. */
typedef float vec __attribute__((vector_size(16)));
typedef uint32_t bits __attribute__((vector_size(16)));

#define SIGN 0x80000000U

static inline vec V_LOAD(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void V_STORE(float *p, vec v) {
    memcpy(p, &v, sizeof v);
}
static inline vec V_SET(float f) {
    return (vec){f, f, f, f};
}
/* The first n lanes, n < LANES; the others are 0. */
static inline vec V_LOAD_PART(const float *p, size_t n) {
    vec v = V_SET(0.0F);
    memcpy(&v, p, n * sizeof *p);
    return v;
}
static inline void V_STORE_PART(float *p, vec v, size_t n) {
    memcpy(p, &v, n * sizeof *p);
}
static inline vec V_FIRST(vec v, size_t n) {
    vec first = V_SET(0.0F);
    memcpy(&first, &v, n * sizeof(float));
    return first;
}
static inline vec V_ADD(vec a, vec b) {
    return a + b;
}
static inline vec V_SUB(vec a, vec b) {
    return a - b;
}
static inline vec V_MUL(vec a, vec b) {
    return a * b;
}
static inline vec V_DIV(vec a, vec b) {
    return a / b;
}
static inline vec V_SQRT(vec a) {
    return (vec){__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}
static inline vec V_ABS(vec a) {
    return (vec)((bits)a & ~SIGN);
}
static inline vec V_COPY_SIGN(vec size, vec sign) {
    return (vec)((bits)size | ((bits)sign & SIGN));
}

/* Two roundings: the compiler is told not to fuse them (-ffp-contract=off). */
static inline vec V_FMA(vec a, vec b, vec c) {
    return a * b + c;
}

static inline vec V_IF_LESS(vec a, vec b, vec then, vec otherwise) {
    const bits less = (bits)(a < b);
    return (vec)(((bits)then & less) | ((bits)otherwise & ~less));
}
static inline vec V_MAX(vec a, vec b) {
    return V_IF_LESS(b, a, a, b);
}
static inline vec V_MIN(vec a, vec b) {
    return V_IF_LESS(a, b, a, b);
}

/* n is in the low bits of `shifted`; n + 2 * 127 is shared out to the biased exponents of two powers of two.
 */
static inline vec V_SCALE(vec e, vec shifted) {
    const bits n = (bits)shifted - (0x4b400000U - 254U);
    const bits half = n >> 1;
    return e * (vec)(half << 23) * (vec)((n - half) << 23);
}

/* Both reductions fold halves: 16, 8, 4, 2, 1. */
static inline float strip_sum_generic(const vec *strip) {
    const vec four = (strip[0] + strip[2]) + (strip[1] + strip[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

static inline float strip_max_generic(const vec *strip) {
    const vec four = V_MAX(V_MAX(strip[0], strip[2]), V_MAX(strip[1], strip[3]));
    float highest = four[0];
    for (int i = 1; i < LANES; i++)
        highest = four[i] > highest ? four[i] : highest;
    return highest;
}

#include "activation_template.h"
#include "dense_template.h"
#include "train_template.h"

const mrn_kernels mrn_kernels_generic = {PANEL_STRIPS,     384 * 1024,    dense_generic,
                                         activate_generic, lanes_generic, activate_lanes_generic};

const mrn_trainer mrn_trainer_generic = {
    forward_generic,        backward_generic, rescale_generic, normalize_generic, standardize_generic,
    normalize_back_generic, drop_generic,     loss_generic,    update_generic,    squares_generic};
