/* The precisions of dot.h on AVX-512 F, DQ, BW and VL: cells are taken apart, as on AVX2. */
#include "../cpu.h"

#if defined(MRN_X86)

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")))
#define SET(x) x##_avx512
#include "dot_avx512.h"

typedef struct halves_avx512 {
    __m512i even, odd;
} halves_avx512;

/* ---- bfloat16 ---- */

static inline TARGET halves_avx512 floats_avx512(__m512i cells) {
    return (halves_avx512){_mm512_slli_epi32(cells, 16),
                           _mm512_and_si512(cells, _mm512_set1_epi32((int32_t)0xffff0000))};
}
static inline TARGET __m512 dot_bf16_avx512(__m512 sum, halves_avx512 a, halves_avx512 w) {
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(a.odd), _mm512_castsi512_ps(w.odd), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a.even), _mm512_castsi512_ps(w.even), sum);
}

#define NAME(x) x##_bf16_avx512
#define TILE_ROWS 4
#define TILES(T) TILES_OF(T, 1) TILES_OF(T, 2) TILES_OF(T, 3) TILES_OF(T, 4)
#define WEIGHTS halves_avx512
#define TAKE_WEIGHTS(cells) floats_avx512(cells)
#define VALUES halves_avx512
#define VALUE(at) floats_avx512(I_SET(mrn_dot_cell(at)))
#define VALUES_OF_LANES(at, half) floats_avx512(I_LOAD(at))
#define SUM __m512
#define DOT(sum, value, weights) dot_bf16_avx512(sum, value, weights)
#define FIRST(bias, row, unit) (bias)
#define LAST(sum, zero, total, scale, unit_scale, bias) (sum)
#define RANGES(x, x_stride, rows, inputs, about, row) ((void)0)
#define STAGE(x, inputs, groups, about, row, cells) wide_stage_bf16_avx512(x, inputs, groups, cells)
#define STAGE_LANES(x, inputs, rows, about, cells) stage_lanes_bf16_avx512(x, inputs, rows, cells)
#include "../dot_template.h"
#undef NAME
#undef TAKE_WEIGHTS
#undef VALUE
#undef VALUES_OF_LANES
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGES
#undef STAGE
#undef STAGE_LANES

/* ---- int8 ---- */

static inline TARGET halves_avx512 signed_avx512(__m512i cells) {
    return (halves_avx512){_mm512_srai_epi16(_mm512_slli_epi16(cells, 8), 8), _mm512_srai_epi16(cells, 8)};
}
static inline TARGET halves_avx512 unsigned_avx512(__m512i cells) {
    return (halves_avx512){_mm512_and_si512(cells, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(cells, 8)};
}
static inline TARGET __m512i dot_s8_avx512(__m512i sum, halves_avx512 a, halves_avx512 w) {
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(a.even, w.even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a.odd, w.odd));
}

#define NAME(x) x##_s8_avx512
#define TAKE_WEIGHTS(cells) signed_avx512(cells)
#define VALUE(at) unsigned_avx512(I_SET(mrn_dot_cell(at)))
#define VALUES_OF_LANES(at, half) unsigned_avx512(I_LOAD(at))
#define SUM __m512i
#define DOT(sum, value, weights) dot_s8_avx512(sum, value, weights)
#define FIRST(bias, row, unit) _mm512_setzero_si512()
#define LAST last_s8_avx512
#define RANGES wide_ranges_s8_avx512
#define STAGE(x, inputs, groups, about, row, cells)                                                          \
    wide_stage_s8_avx512(x, inputs, groups, (about).inverse[row], (about).zero[row], cells)
#define STAGE_LANES stage_lanes_s8_avx512
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx512 = {1, PANEL_STRIPS, MRN_CELL, 0, dense_bf16_avx512, lanes_bf16_avx512};
const mrn_dots mrn_dots_s8_avx512 = {1, PANEL_STRIPS, MRN_CELL, 0, dense_s8_avx512, lanes_s8_avx512};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
