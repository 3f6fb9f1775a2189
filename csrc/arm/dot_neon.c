/* The precisions of dot.h on Advanced SIMD of 64-bit Arm: bfloat16 for every such CPU, int8 with and without
 * its dot products.
 *
 * BFDOT and BFMMLA are not used: they round to odd, so a model would have other bits here than elsewhere. A
 * shift and a fused multiply-add take as many multiplications as BFMLALB and BFMLALT would. */
#include "../cpu.h"

#if defined(MRN_ARM64)

#include "../dot.h"
#include "../unroll.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define TARGET
#define LANES 4
#define STRIP_VECTORS 4
#define PANEL_STRIPS 1
#define LANE_VECTORS 2
#define V_LOAD(p) vld1q_f32(p)
#define V_STORE(p, v) vst1q_f32(p, v)
#define V_SET(f) vdupq_n_f32(f)
#define V_MAX(a, b) vbslq_f32(vcgtq_f32(a, b), a, b) /* not vmaxq_f32: kernels_neon.c */
#define I_LOAD(p) vreinterpretq_s32_u8(vld1q_u8((const void *)(p)))
#define I_SET(i) vdupq_n_s32(i)
#define I_STORE(p, i) vst1q_u8((void *)(p), vreinterpretq_u8_s32(i))
#define V_ADD(a, b) vaddq_f32(a, b)
#define V_SUB(a, b) vsubq_f32(a, b)
#define V_MUL(a, b) vmulq_f32(a, b)
#define V_DIV(a, b) vdivq_f32(a, b)
#define V_BITS(v) vreinterpretq_s32_f32(v)
#define I_FLOATS(i) vreinterpretq_f32_s32(i)
#define I_ADD(a, b) vaddq_s32(a, b)
#define I_SUB(a, b) vsubq_s32(a, b)
#define I_AND(a, b) vandq_s32(a, b)
#define I_OR(a, b) vorrq_s32(a, b)
#define I_MIN(a, b) vminq_s32(a, b)
#define I_MAX(a, b) vmaxq_s32(a, b)
#define U_MAX(a, b) vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)))
#define I_LEFT(a, bits) vshlq_s32(a, vdupq_n_s32((int32_t)(bits)))
#define I_RIGHT(a, bits)                                                                                     \
    vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(int32_t)(bits))))
#define I_IF_MORE(a, b, then, otherwise) vbslq_s32(vcgtq_s32(a, b), then, otherwise)

typedef float32x4_t vec;
typedef int32x4_t ivec;

#define NAME(x) x##_neon
#include "../dot_stage.h"
#include "../dot_lanes.h"
#undef NAME

/* ---- bfloat16: products are exact in float32; the order is that of vdpbf16ps ---- */

/* The even and the odd half of each cell, as float32 in their place. */
typedef struct halves_neon {
    float32x4_t even, odd;
} halves_neon;

static inline halves_neon floats_neon(int32x4_t cells) {
    return (halves_neon){vreinterpretq_f32_s32(vshlq_n_s32(cells, 16)),
                         vreinterpretq_f32_s32(vandq_s32(cells, vdupq_n_s32((int32_t)0xffff0000U)))};
}
static inline halves_neon floats_at_neon(const unsigned char *at) {
    return (halves_neon){vreinterpretq_f32_s32(I_SET(mrn_dot_cell(at))),
                         vreinterpretq_f32_s32(I_SET(mrn_dot_cell(at + MRN_CELL)))};
}
static inline float32x4_t dot_bf16_neon(float32x4_t sum, halves_neon a, halves_neon w) {
    return vfmaq_f32(vfmaq_f32(sum, a.odd, w.odd), a.even, w.even);
}

#define NAME(x) x##_bf16_neon
#define TILE_ROWS 4
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(3, 1) T(4, 1)
#define LANE_UNITS 8
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)
#define WEIGHTS halves_neon
#define TAKE_WEIGHTS(cells) floats_neon(cells)
#define STAGED (2 * MRN_CELL) /* as float32 */
#define VALUES halves_neon
#define VALUE(at) floats_at_neon(at)
#define VALUES_OF_LANES(at, half)                                                                            \
    ((halves_neon){vreinterpretq_f32_s32(I_LOAD(at)), vreinterpretq_f32_s32(I_LOAD((at) + (half)))})
#define SUM float32x4_t
#define DOT(sum, value, weights) dot_bf16_neon(sum, value, weights)
#define FIRST(bias, row, unit) (bias)
#define LAST(sum, zero, total, scale, unit_scale, bias) (sum)
#define RANGES(x, x_stride, rows, inputs, about, row) ((void)0)
#define STAGE(x, inputs, groups, about, row, cells) stage_floats_bf16_neon(x, inputs, groups, cells)
#define STAGE_LANES(x, inputs, rows, about, cells) stage_lanes_floats_bf16_neon(x, inputs, rows, cells)
#include "../dot_template.h"
#undef NAME
#undef TILE_ROWS
#undef TILES
#undef LANE_UNITS
#undef LANE_TILES
#undef WEIGHTS
#undef TAKE_WEIGHTS
#undef STAGED
#undef VALUES
#undef VALUE
#undef VALUES_OF_LANES
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGES
#undef STAGE
#undef STAGE_LANES

/* ---- int8: both factors signed. The activations q, 0 to 255, are taken as q - 128, and 128 from their zero:
 * the same difference, so the same sums. ---- */

static inline int8x16_t signed_neon(int32x4_t cells) {
    return vreinterpretq_s8_s32(veorq_s32(cells, vdupq_n_s32((int32_t)0x80808080U)));
}
static inline float32x4_t last_s8_neon(int32x4_t sum, int32x4_t zero, int32x4_t total, float32x4_t scale,
                                       float32x4_t unit_scale, float32x4_t bias) {
    const int32x4_t shift = vmulq_s32(vsubq_s32(zero, vdupq_n_s32(128)), total);
    const float32x4_t exact = vcvtq_f32_s32(vsubq_s32(sum, shift));
    return vaddq_f32(vmulq_f32(exact, vmulq_f32(scale, unit_scale)), bias);
}

#define WEIGHTS int8x16_t
#define TAKE_WEIGHTS(cells) vreinterpretq_s8_s32(cells)
#define STAGED MRN_CELL
#define VALUES int8x16_t
#define VALUE(at) signed_neon(I_SET(mrn_dot_cell(at)))
#define VALUES_OF_LANES(at, half) signed_neon(I_LOAD(at))
#define RANGES ranges_s8_neon
#define STAGE(x, inputs, groups, about, row, cells)                                                          \
    stage_s8_neon(x, inputs, groups, (about).inverse[row], (about).zero[row], cells)
#define STAGE_LANES stage_lanes_s8_neon

/* Without dot products: the products of a cell, 16 bits each, are added up two by two. */
typedef struct pairs_neon {
    int32x4_t low, high; /* of two units each */
} pairs_neon;

static inline pairs_neon dot_s8_neon(pairs_neon sum, int8x16_t a, int8x16_t w) {
    return (pairs_neon){vpadalq_s16(sum.low, vmull_s8(vget_low_s8(a), vget_low_s8(w))),
                        vpadalq_s16(sum.high, vmull_high_s8(a, w))};
}

#define NAME(x) x##_s8_neon
#define TILE_ROWS 3
#define TILES(T) T(1, 1) T(1, 2) T(2, 1) T(3, 1)
#define LANE_UNITS 4
#define LANE_TILES(T) T(1) T(2) T(3) T(4)
#define SUM pairs_neon
#define DOT(sum, value, weights) dot_s8_neon(sum, value, weights)
#define FIRST(bias, row, unit) ((pairs_neon){vdupq_n_s32(0), vdupq_n_s32(0)})
#define LAST(sum, zero, total, scale, unit_scale, bias)                                                      \
    last_s8_neon(vpaddq_s32((sum).low, (sum).high), zero, total, scale, unit_scale, bias)
#include "../dot_template.h"
#undef NAME
#undef TARGET
#undef TILE_ROWS
#undef TILES
#undef LANE_UNITS
#undef LANE_TILES
#undef SUM
#undef DOT
#undef FIRST
#undef LAST

/* With them: SDOT takes 4 cells at once. The instruction is written out, because clang 14 has its intrinsic
 * only where a whole file may use it. */
#if defined(__clang__)
#define TARGET __attribute__((target("dotprod")))
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

static inline TARGET int32x4_t dot_s8_neondot(int32x4_t sum, int8x16_t a, int8x16_t w) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(w));
    return sum;
}

#define NAME(x) x##_s8_neondot
#define TILE_ROWS 6
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(5, 1) T(6, 1)
#define LANE_UNITS 8
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)
#define SUM int32x4_t
#define DOT(sum, value, weights) dot_s8_neondot(sum, value, weights)
#define FIRST(bias, row, unit) vdupq_n_s32(0)
#define LAST last_s8_neon
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_neon = {1, PANEL_STRIPS, 2 * MRN_CELL, 0, dense_bf16_neon, lanes_bf16_neon};
const mrn_dots mrn_dots_s8_neon = {1, PANEL_STRIPS, MRN_CELL, 0, dense_s8_neon, lanes_s8_neon};
const mrn_dots mrn_dots_s8_neondot = {1, PANEL_STRIPS, MRN_CELL, 0, dense_s8_neondot, lanes_s8_neondot};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
