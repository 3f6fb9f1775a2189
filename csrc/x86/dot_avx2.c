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
#define V_STORE(p, v) _mm256_storeu_ps(p, v)

#define NAME(x) x##_avx2
#include "../dot_stage.h"
#undef NAME

/* The even and the odd half of each cell, as float32 (bfloat16) or int16 (int8) in their place. */
typedef struct halves_avx2 {
    __m256i even, odd;
} halves_avx2;

static inline TARGET __m256i load_avx2(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline TARGET __m256i cell_avx2(const void *p) {
    int32_t cell;
    memcpy(&cell, p, sizeof cell);
    return _mm256_set1_epi32(cell);
}

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
#define GET_WEIGHTS(p) floats_avx2(load_avx2(p))
#define VALUE halves_avx2
#define GET_VALUE(p) floats_avx2(cell_avx2(p))
#define SUM __m256
#define DOT(sum, value, weights) dot_bf16_avx2(sum, value, weights)
#define FIRST(layer, unit) _mm256_loadu_ps((layer)->bias + (unit))
#define LAST(layer, unit, row, sum) (sum)
#define RANGE range_bf16_avx2
#define STAGE stage_bf16_avx2
#include "../dot_template.h"
#undef NAME
#undef GET_WEIGHTS
#undef GET_VALUE
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGE
#undef STAGE

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
static inline TARGET __m256 last_s8_avx2(const mrn_dot_layer *layer, size_t unit, const mrn_dot_row *row,
                                         __m256i sum) {
    const __m256i shift = _mm256_mullo_epi32(_mm256_set1_epi32(row->zero), load_avx2(layer->sum + unit));
    const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(row->scale), _mm256_loadu_ps(layer->scale + unit));
    const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, shift));
    return _mm256_add_ps(_mm256_mul_ps(exact, scale), _mm256_loadu_ps(layer->bias + unit));
}

#define NAME(x) x##_s8_avx2
#define GET_WEIGHTS(p) signed_avx2(load_avx2(p))
#define GET_VALUE(p) unsigned_avx2(cell_avx2(p))
#define SUM __m256i
#define DOT(sum, value, weights) dot_s8_avx2(sum, value, weights)
#define FIRST(layer, unit) _mm256_setzero_si256()
#define LAST(layer, unit, row, sum) last_s8_avx2(layer, unit, row, sum)
#define RANGE range_s8_avx2
#define STAGE stage_s8_avx2
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx2 = {1, dense_bf16_avx2};
const mrn_dots mrn_dots_s8_avx2 = {1, dense_s8_avx2};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
