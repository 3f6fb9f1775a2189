/* Advanced SIMD of 64-bit Arm, which every such CPU has: 32 registers of 4 float32. */
#include "../cpu.h"

#if defined(MRN_ARM64)

#include "../kernels.h"
#include "../train.h"
#include "../unroll.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define NAME(x) x##_neon
#define TARGET
#define LANES 4
#define STRIP_VECTORS 4
#define PANEL_STRIPS 1
#define TILE_ROWS 6
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(5, 1) T(6, 1)
#define LANE_UNITS 8
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)

typedef float32x4_t vec;

#define V_LOAD(p) vld1q_f32(p)
#define V_STORE(p, v) vst1q_f32(p, v)
#define V_SET(f) vdupq_n_f32(f)
#define V_ADD(a, b) vaddq_f32(a, b)
#define V_SUB(a, b) vsubq_f32(a, b)
#define V_MUL(a, b) vmulq_f32(a, b)
#define V_DIV(a, b) vdivq_f32(a, b)
#define V_SQRT(a) vsqrtq_f32(a)
#define V_FMA(a, b, c) vfmaq_f32(c, a, b)
#define V_MAX(a, b) max_neon(a, b)
#define V_MIN(a, b) min_neon(a, b)
#define V_ABS(a) vabsq_f32(a)
#define V_COPY_SIGN(size, sign) vbslq_f32(vdupq_n_u32(0x80000000U), sign, size)
#define V_IF_LESS(a, b, then, otherwise) vbslq_f32(vcltq_f32(a, b), then, otherwise)
#define V_SCALE(e, shifted) scale_neon(e, shifted)

#define V_LOAD_PART(p, n) load_part_neon(p, n)
#define V_STORE_PART(p, v, n) store_part_neon(p, v, n)
#define V_FIRST(v, n) first_lanes_neon(v, n)

/* The first n lanes, n < LANES; the others are 0. */
static inline vec load_part_neon(const float *p, size_t n) {
    vec v = V_SET(0.0F);
    memcpy(&v, p, n * sizeof *p);
    return v;
}
static inline void store_part_neon(float *p, vec v, size_t n) {
    memcpy(p, &v, n * sizeof *p);
}
static inline vec first_lanes_neon(vec v, size_t n) {
    vec first = V_SET(0.0F);
    memcpy(&first, &v, n * sizeof(float));
    return first;
}

/* Not vmaxq_f32, which gives NaN when either is: here the second one counts. */
static inline vec max_neon(vec a, vec b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline vec min_neon(vec a, vec b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

/* e * 2^n in two halves, each a float32 made from its exponent: see kernels_generic.c. */
static inline vec scale_neon(vec e, vec shifted) {
    const uint32x4_t n = vsubq_u32(vreinterpretq_u32_f32(shifted), vdupq_n_u32(0x4b400000U - 254U));
    const uint32x4_t half = vshrq_n_u32(n, 1), rest = vsubq_u32(n, half);
    e = vmulq_f32(e, vreinterpretq_f32_u32(vshlq_n_u32(half, 23)));
    return vmulq_f32(e, vreinterpretq_f32_u32(vshlq_n_u32(rest, 23)));
}

/* Both reductions fold halves, 16, 8, 4, 2, 1, as on AVX2: the two sets give the same bits. */
static inline float strip_sum_neon(const vec *strip) {
    const vec four = vaddq_f32(vaddq_f32(strip[0], strip[2]), vaddq_f32(strip[1], strip[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline float strip_max_neon(const vec *strip) {
    const vec four = V_MAX(V_MAX(strip[0], strip[2]), V_MAX(strip[1], strip[3]));
    const vec two = V_MAX(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(V_MAX(two, vextq_f32(two, two, 1)), 0);
}

#include "../activation_template.h"
#include "../dense_template.h"
#include "../train_template.h"

const mrn_kernels mrn_kernels_neon = {PANEL_STRIPS,  384 * 1024, dense_neon,
                                      activate_neon, lanes_neon, activate_lanes_neon};

const mrn_trainer mrn_trainer_neon = {forward_neon,     backward_neon,       rescale_neon, normalize_neon,
                                      standardize_neon, normalize_back_neon, drop_neon,    loss_neon,
                                      update_neon,      squares_neon};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
