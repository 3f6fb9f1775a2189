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
#define V_STORE(p, v) vst1q_f32(p, v)

#define NAME(x) x##_neon
#include "../dot_stage.h"
#undef NAME

/* ---- bfloat16: products are exact in float32; the order is that of vdpbf16ps ---- */

/* The even and the odd half of each cell, as float32 in their place. */
typedef struct halves_neon {
    float32x4_t even, odd;
} halves_neon;

static inline halves_neon floats_neon(uint32x4_t cells) {
    return (halves_neon){vreinterpretq_f32_u32(vshlq_n_u32(cells, 16)),
                         vreinterpretq_f32_u32(vandq_u32(cells, vdupq_n_u32(0xffff0000U)))};
}
static inline uint32x4_t load_neon(const void *p) {
    return vreinterpretq_u32_u8(vld1q_u8(p));
}
static inline uint32x4_t cell_neon(const void *p) {
    uint32_t cell;
    memcpy(&cell, p, sizeof cell);
    return vdupq_n_u32(cell);
}
static inline float32x4_t dot_bf16_neon(float32x4_t sum, halves_neon a, halves_neon w) {
    return vfmaq_f32(vfmaq_f32(sum, a.odd, w.odd), a.even, w.even);
}

#define NAME(x) x##_bf16_neon
#define TILE_ROWS 4
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(3, 1) T(4, 1)
#define WEIGHTS halves_neon
#define GET_WEIGHTS(p) floats_neon(load_neon(p))
#define VALUE halves_neon
#define GET_VALUE(p) floats_neon(cell_neon(p))
#define SUM float32x4_t
#define DOT(sum, value, weights) dot_bf16_neon(sum, value, weights)
#define FIRST(layer, unit) vld1q_f32((layer)->bias + (unit))
#define LAST(layer, unit, row, sum) (sum)
#define RANGE range_bf16_neon
#define STAGE stage_bf16_neon
#include "../dot_template.h"
#undef NAME
#undef TILE_ROWS
#undef TILES
#undef WEIGHTS
#undef GET_WEIGHTS
#undef VALUE
#undef GET_VALUE
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGE
#undef STAGE

/* ---- int8: both factors signed. The activations q, 0 to 255, are taken as q - 128, and 128 from their zero:
 * the same difference, so the same sums. ---- */

static inline int8x16_t signed_neon(uint32x4_t cells) {
    return vreinterpretq_s8_u32(veorq_u32(cells, vdupq_n_u32(0x80808080U)));
}
static inline float32x4_t last_s8_neon(const mrn_dot_layer *layer, size_t unit, const mrn_dot_row *row,
                                       int32x4_t sum) {
    const int32x4_t shift = vmulq_n_s32(vld1q_s32(layer->sum + unit), row->zero - 128);
    const float32x4_t scale = vmulq_n_f32(vld1q_f32(layer->scale + unit), row->scale);
    const float32x4_t exact = vcvtq_f32_s32(vsubq_s32(sum, shift));
    return vaddq_f32(vmulq_f32(exact, scale), vld1q_f32(layer->bias + unit));
}

#define WEIGHTS int8x16_t
#define GET_WEIGHTS(p) vld1q_s8((const void *)(p))
#define VALUE int8x16_t
#define GET_VALUE(p) signed_neon(cell_neon(p))
#define RANGE range_s8_neon
#define STAGE stage_s8_neon

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
#define SUM pairs_neon
#define DOT(sum, value, weights) dot_s8_neon(sum, value, weights)
#define FIRST(layer, unit) ((pairs_neon){vdupq_n_s32(0), vdupq_n_s32(0)})
#define LAST(layer, unit, row, sum) last_s8_neon(layer, unit, row, vpaddq_s32((sum).low, (sum).high))
#include "../dot_template.h"
#undef NAME
#undef TARGET
#undef TILE_ROWS
#undef TILES
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
#define SUM int32x4_t
#define DOT(sum, value, weights) dot_s8_neondot(sum, value, weights)
#define FIRST(layer, unit) vdupq_n_s32(0)
#define LAST(layer, unit, row, sum) last_s8_neon(layer, unit, row, sum)
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_neon = {1, dense_bf16_neon};
const mrn_dots mrn_dots_s8_neon = {1, dense_s8_neon};
const mrn_dots mrn_dots_s8_neondot = {1, dense_s8_neondot};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
