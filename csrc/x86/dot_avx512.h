/* What the three files for AVX-512 share: loads, staging, and how int8 sums end. Each gets its own copy,
 * compiled for its own TARGET, under its own SET. */
#include "../dot.h"
#include "../unroll.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 16
#define STRIP_VECTORS 1
#define PANEL_STRIPS MRN_PANEL_STRIPS
#define STAGED MRN_CELL
#define LANE_UNITS 8
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_SET(f) _mm512_set1_ps(f)
#define V_MAX(a, b) _mm512_max_ps(a, b)
#define I_LOAD(p) _mm512_loadu_si512(p)
#define I_SET(i) _mm512_set1_epi32(i)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_DIV(a, b) _mm512_div_ps(a, b)
#define V_BITS(v) _mm512_castps_si512(v)
#define I_FLOATS(i) _mm512_castsi512_ps(i)
#define I_ADD(a, b) _mm512_add_epi32(a, b)
#define I_SUB(a, b) _mm512_sub_epi32(a, b)
#define I_AND(a, b) _mm512_and_si512(a, b)
#define I_OR(a, b) _mm512_or_si512(a, b)
#define I_MIN(a, b) _mm512_min_epi32(a, b)
#define I_MAX(a, b) _mm512_max_epi32(a, b)
#define U_MAX(a, b) _mm512_max_epu32(a, b)
#define I_LEFT(a, bits) _mm512_slli_epi32(a, (unsigned)(bits))
#define I_RIGHT(a, bits) _mm512_srli_epi32(a, (unsigned)(bits))
#define I_IF_MORE(a, b, then, otherwise)                                                                     \
    _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), otherwise, then)
#define I_STORE(p, i) _mm512_storeu_si512(p, i)

typedef __m512 vec;
typedef __m512i ivec;
#define TILES_OF(T, R) T(R, 1) T(R, 2) T(R, 3) T(R, 4)

#define NAME(x) SET(x)

#include "../dot_stage.h"
#include "../dot_lanes.h"
#include "dot_range.h"

/* The lanes of a vector from `at` on that come before `end`. */
static inline TARGET __mmask16 NAME(lanes_from)(size_t at, size_t end) {
    const size_t left = end > at ? end - at : 0;
    return (__mmask16)(left < LANES ? (1U << left) - 1U : 0xffffU);
}

/* Rows side by side as in dot_stage.h, 16 numbers at once. */
static inline TARGET void NAME(wide_stage_bf16)(const float *x, size_t inputs, size_t groups,
                                                unsigned char *cells) {
    const __m512i one = _mm512_set1_epi32(1), sign = _mm512_set1_epi32((int32_t)0x80000000U);
    for (size_t k = 0, end = groups * 2; k < end; k += LANES) {
        const __mmask16 inside = NAME(lanes_from)(k, inputs);
        const __m512i bits = _mm512_maskz_loadu_epi32(inside, x + k), size = _mm512_andnot_si512(sign, bits);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
        __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        rounded = _mm512_mask_or_epi32(rounded, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7f800000)),
                                       bits, _mm512_set1_epi32(0x400000));
        rounded = _mm512_mask_and_epi32(rounded, _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(0x00800000)),
                                        bits, sign);
        const __m256i cut = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
        if (k + LANES <= end) /* masked stores are slow on some CPUs */
            _mm256_storeu_si256((__m256i *)(void *)(cells + k * 2), cut);
        else
            _mm256_mask_storeu_epi16(cells + k * 2, NAME(lanes_from)(k, end), cut);
    }
}

/* The largest of a and of b, a half of the vector each; then a quarter each; then two pairs. */
static inline TARGET __m512i NAME(fold_halves)(__m512i a, __m512i b) {
    return _mm512_max_epi32(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
}
static inline TARGET __m512i NAME(fold_quarters)(__m512i a, __m512i b) {
    return _mm512_max_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

/* The highest and the lowest number of a row, as range_s8 wants them, lane by lane. */
typedef struct NAME(range) {
    __m512i highest, lowest;
} NAME(range);

static inline TARGET NAME(range) NAME(widened)(NAME(range) r, __m512i bits) {
    __asm__("" : "+v"(bits)); /* one load, where gcc would make two operands of memory of it */
    return (NAME(range)){_mm512_max_epi32(r.highest, bits), _mm512_max_epu32(r.lowest, bits)};
}

static inline TARGET NAME(range) NAME(range_of)(const float *x, size_t inputs) {
    NAME(range) a = {_mm512_setzero_si512(), _mm512_set1_epi32(INT32_MIN)}, b = a;
    size_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES) {
        a = NAME(widened)(a, _mm512_loadu_si512(x + k));
        b = NAME(widened)(b, _mm512_loadu_si512(x + k + LANES));
    }
    for (; k < inputs; k += LANES)
        a = NAME(widened)(a, _mm512_maskz_loadu_epi32(NAME(lanes_from)(k, inputs), x + k));
    return (NAME(range)){_mm512_max_epi32(a.highest, b.highest), _mm512_max_epu32(a.lowest, b.lowest)};
}

static inline TARGET void NAME(wide_ranges_s8)(const float *x, size_t x_stride, size_t rows, size_t inputs,
                                               mrn_dot_rows about, size_t row) {
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    __m512i high[MRN_DOT_STAGED], low[MRN_DOT_STAGED]; /* low without the sign, to be compared as signed */
    UNROLL for (size_t r = 0; r < MRN_DOT_STAGED; r++) {
        high[r] = low[r] = _mm512_setzero_si512();
        if (r < rows) {
            const NAME(range) found = NAME(range_of)(x + r * x_stride, inputs);
            high[r] = found.highest;
            low[r] = _mm512_xor_si512(found.lowest, sign);
        }
    }
    const __m512i highs =
        NAME(fold_quarters)(NAME(fold_halves)(high[0], high[1]), NAME(fold_halves)(high[2], high[3]));
    const __m512i lows =
        NAME(fold_quarters)(NAME(fold_halves)(low[0], low[1]), NAME(fold_halves)(low[2], low[3]));
    __m512i both = _mm512_max_epi32(_mm512_unpacklo_epi64(highs, lows), _mm512_unpackhi_epi64(highs, lows));
    both = _mm512_max_epi32(both, _mm512_shuffle_epi32(both, _MM_PERM_CDAB));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    NAME(ranges_of_four)(_mm512_castsi512_si256(_mm512_permutexvar_epi32(order, both)), about, row);
}

static inline TARGET __m512i NAME(rounded)(const float *x, __m512 inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
}

static inline TARGET void NAME(wide_stage_s8)(const float *x, size_t inputs, size_t groups,
                                              float inverse_of_row, int32_t zero_of_row,
                                              unsigned char *cells) {
    const size_t end = groups * MRN_CELL;
    const __m512 inverse = _mm512_set1_ps(inverse_of_row);
    const __m512i zero = _mm512_set1_epi16((int16_t)zero_of_row);
    /* packing takes the lanes of 128 bits apart */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    size_t k = 0;
    for (; k + 4 * LANES <= inputs; k += 4 * LANES) {
        const __m512i a =
            _mm512_packs_epi32(NAME(rounded)(x + k, inverse), NAME(rounded)(x + k + LANES, inverse));
        const __m512i b = _mm512_packs_epi32(NAME(rounded)(x + k + 2 * LANES, inverse),
                                             NAME(rounded)(x + k + 3 * LANES, inverse));
        const __m512i q = _mm512_packus_epi16(_mm512_add_epi16(a, zero), _mm512_add_epi16(b, zero));
        _mm512_storeu_si512(cells + k, _mm512_permutexvar_epi32(order, q));
    }
    for (; k < end; k += LANES) {
        const __mmask16 inside = NAME(lanes_from)(k, inputs);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(inside, x + k), inverse);
        const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero_of_row));
        const __m128i cut = _mm512_cvtusepi32_epi8(_mm512_maskz_max_epi32(inside, q, _mm512_setzero_si512()));
        if (k + LANES <= end) /* masked stores are slow on some CPUs */
            _mm_storeu_si128((__m128i *)(void *)(cells + k), cut);
        else
            _mm_mask_storeu_epi8(cells + k, NAME(lanes_from)(k, end), cut);
    }
}

static inline TARGET __m512 NAME(last_s8)(__m512i sum, __m512i zero, __m512i total, __m512 scale,
                                          __m512 unit_scale, __m512 bias) {
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_mullo_epi32(zero, total)));
    return _mm512_add_ps(_mm512_mul_ps(exact, _mm512_mul_ps(scale, unit_scale)), bias);
}
#undef NAME
