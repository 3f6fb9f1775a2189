/* The precisions of dot.h on AVX2 with FMA. */
#include "../cpu.h"

#if defined(MRN_X86)

#include "../dot.h"
#include "../unroll.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define STRIP_VECTORS 2
#define LANE_UNITS 4
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4)
#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps(p, v)
#define V_SET(f) _mm256_set1_ps(f)
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define I_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define I_SET(i) _mm256_set1_epi32(i)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_DIV(a, b) _mm256_div_ps(a, b)
#define V_BITS(v) _mm256_castps_si256(v)
#define I_FLOATS(i) _mm256_castsi256_ps(i)
#define I_ADD(a, b) _mm256_add_epi32(a, b)
#define I_SUB(a, b) _mm256_sub_epi32(a, b)
#define I_AND(a, b) _mm256_and_si256(a, b)
#define I_OR(a, b) _mm256_or_si256(a, b)
#define I_MIN(a, b) _mm256_min_epi32(a, b)
#define I_MAX(a, b) _mm256_max_epi32(a, b)
#define U_MAX(a, b) _mm256_max_epu32(a, b)
#define I_LEFT(a, bits) _mm256_slli_epi32(a, (int)(bits))
#define I_RIGHT(a, bits) _mm256_srli_epi32(a, (int)(bits))
#define I_IF_MORE(a, b, then, otherwise) _mm256_blendv_epi8(otherwise, then, _mm256_cmpgt_epi32(a, b))
#define I_STORE(p, i) _mm256_storeu_si256((__m256i *)(void *)(p), i)

typedef __m256 vec;
typedef __m256i ivec;

#define NAME(x) x##_avx2
#include "../dot_stage.h"
#include "../dot_lanes.h"
#undef NAME

/* The even and the odd half of each cell, as float32 (bfloat16) or int16 (int8) in their place. */
typedef struct halves_avx2 {
    __m256i even, odd;
} halves_avx2;

/* ---- bfloat16: products are exact in float32; the order is that of vdpbf16ps ---- */

static inline TARGET halves_avx2 floats_avx2(__m256i cells) {
    return (halves_avx2){_mm256_slli_epi32(cells, 16),
                         _mm256_and_si256(cells, _mm256_set1_epi32((int32_t)0xffff0000))};
}
static inline TARGET __m256 dot_bf16_avx2(__m256 sum, halves_avx2 a, halves_avx2 w) {
    sum = _mm256_fmadd_ps(_mm256_castsi256_ps(a.odd), _mm256_castsi256_ps(w.odd), sum);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(a.even), _mm256_castsi256_ps(w.even), sum);
}

#define NAME(x) x##_bf16_avx2
#define TILE_ROWS 4
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(3, 1) T(4, 1)
#define WEIGHTS halves_avx2
#define TAKE_WEIGHTS(cells) floats_avx2(cells)
#define VALUES halves_avx2
#define TAKE_VALUES(cells) floats_avx2(cells)
#define SUM __m256
#define DOT(sum, value, weights) dot_bf16_avx2(sum, value, weights)
#define FIRST(bias) (bias)
#define LAST(sum, zero, total, scale, unit_scale, bias) (sum)
#define RANGES(x, x_stride, rows, inputs, about, row) ((void)0)
#define STAGE(x, inputs, groups, about, row, cells) stage_bf16_avx2(x, inputs, groups, cells)
#define STAGE_LANES(x, inputs, rows, about, cells) stage_lanes_bf16_avx2(x, inputs, rows, cells)
#include "../dot_template.h"
#undef NAME
#undef TAKE_WEIGHTS
#undef TAKE_VALUES
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGES
#undef STAGE
#undef STAGE_LANES

/* ---- int8: vpmaddubsw would saturate, so cells become int16 first ---- */

static inline TARGET halves_avx2 signed_avx2(__m256i cells) {
    return (halves_avx2){_mm256_srai_epi16(_mm256_slli_epi16(cells, 8), 8), _mm256_srai_epi16(cells, 8)};
}
static inline TARGET halves_avx2 unsigned_avx2(__m256i cells) {
    return (halves_avx2){_mm256_and_si256(cells, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(cells, 8)};
}
static inline TARGET __m256i dot_s8_avx2(__m256i sum, halves_avx2 a, halves_avx2 w) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a.even, w.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a.odd, w.odd));
}
static inline TARGET __m256 last_s8_avx2(__m256i sum, __m256i zero, __m256i total, __m256 scale,
                                         __m256 unit_scale, __m256 bias) {
    const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_mullo_epi32(zero, total)));
    return _mm256_add_ps(_mm256_mul_ps(exact, _mm256_mul_ps(scale, unit_scale)), bias);
}

#define NAME(x) x##_s8_avx2
#define TAKE_WEIGHTS(cells) signed_avx2(cells)
#define TAKE_VALUES(cells) unsigned_avx2(cells)
#define SUM __m256i
#define DOT(sum, value, weights) dot_s8_avx2(sum, value, weights)
#define FIRST(bias) _mm256_setzero_si256()
#define LAST last_s8_avx2
#define RANGES ranges_s8_avx2
#define STAGE(x, inputs, groups, about, row, cells)                                                          \
    stage_s8_avx2(x, inputs, groups, (about).inverse[row], (about).zero[row], cells)
#define STAGE_LANES stage_lanes_s8_avx2
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx2 = {1, dense_bf16_avx2, lanes_bf16_avx2};
const mrn_dots mrn_dots_s8_avx2 = {1, dense_s8_avx2, lanes_s8_avx2};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
