/* What the three files for AVX-512 share: loads, staging, and how int8 sums end. Each gets its own copy,
 * compiled for its own TARGET, under its own SET. */
#include "../dot.h"
#include "../unroll.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 16
#define STRIP_VECTORS 1
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define TILES_OF(T, R) T(R, 1) T(R, 2) T(R, 3) T(R, 4)

#define NAME(x) SET(x)

static inline TARGET __m512i NAME(load)(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline TARGET __m512i NAME(cell)(const void *p) {
    int32_t cell;
    memcpy(&cell, p, sizeof cell);
    return _mm512_set1_epi32(cell);
}
/* The lanes of a vector from `at` on that come before `end`. */
static inline TARGET __mmask16 NAME(lanes)(size_t at, size_t end) {
    const size_t left = end > at ? end - at : 0;
    return (__mmask16)(left < LANES ? (1U << left) - 1U : 0xffffU);
}

/* As in dot_stage.h, 16 numbers at once. */
static inline TARGET mrn_dot_row NAME(range_bf16)(const float *x, size_t inputs) {
    (void)x, (void)inputs;
    return (mrn_dot_row){1, 0};
}

static inline TARGET void NAME(stage_bf16)(const float *x, size_t inputs, size_t groups, unsigned char *cells,
                                           const mrn_dot_row *row) {
    const __m512i one = _mm512_set1_epi32(1), sign = _mm512_set1_epi32((int32_t)0x80000000U);
    for (size_t k = 0, end = groups * 2; k < end; k += LANES) {
        const __mmask16 inside = NAME(lanes)(k, inputs);
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
            _mm256_mask_storeu_epi16(cells + k * 2, NAME(lanes)(k, end), cut);
    }
    (void)row;
}

static inline TARGET mrn_dot_row NAME(range_s8)(const float *x, size_t inputs) {
    __m512 low = _mm512_setzero_ps(), high = low, low2 = low, high2 = low;
    __mmask16 broken = 0;
    size_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES) {
        const __m512 v = _mm512_loadu_ps(x + k), w = _mm512_loadu_ps(x + k + LANES);
        broken = _kor_mask16(broken, _mm512_cmp_ps_mask(v, w, _CMP_UNORD_Q)); /* either is NaN */
        low = _mm512_min_ps(v, low);
        high = _mm512_max_ps(v, high);
        low2 = _mm512_min_ps(w, low2);
        high2 = _mm512_max_ps(w, high2);
    }
    for (; k < inputs; k += LANES) {
        const __m512 v = _mm512_maskz_loadu_ps(NAME(lanes)(k, inputs), x + k);
        broken = _kor_mask16(broken, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
        low = _mm512_min_ps(v, low);
        high = _mm512_max_ps(v, high);
    }
    const float lowest = _mm512_reduce_min_ps(_mm512_min_ps(low, low2));
    const float highest = _mm512_reduce_max_ps(_mm512_max_ps(high, high2));
    if (broken || highest == INFINITY || lowest == -INFINITY)
        return (mrn_dot_row){NAN, 0};
    const float step = highest / 255.0F - lowest / 255.0F;
    const float scale = step > 1e-37F ? step : 1e-37F, inverse = 1.0F / scale;
    const int32_t shift = _mm_cvtss_si32(_mm_set_ss(-lowest * inverse));
    return (mrn_dot_row){scale, shift > 255 ? 255 : shift};
}

static inline TARGET __m512i NAME(rounded)(const float *x, __m512 inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
}

static inline TARGET void NAME(stage_s8)(const float *x, size_t inputs, size_t groups, unsigned char *cells,
                                         const mrn_dot_row *row) {
    const size_t end = groups * MRN_CELL;
    if (row->scale != row->scale) {
        memset(cells, 0, end);
        return;
    }
    const __m512 inverse = _mm512_set1_ps(1.0F / row->scale);
    const __m512i zero = _mm512_set1_epi16((int16_t)row->zero);
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
        const __mmask16 inside = NAME(lanes)(k, inputs);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(inside, x + k), inverse);
        const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(row->zero));
        const __m128i cut = _mm512_cvtusepi32_epi8(_mm512_maskz_max_epi32(inside, q, _mm512_setzero_si512()));
        if (k + LANES <= end) /* masked stores are slow on some CPUs */
            _mm_storeu_si128((__m128i *)(void *)(cells + k), cut);
        else
            _mm_mask_storeu_epi8(cells + k, NAME(lanes)(k, end), cut);
    }
}

static inline TARGET __m512 NAME(last_s8)(const mrn_dot_layer *layer, size_t unit, const mrn_dot_row *row,
                                          __m512i sum) {
    const __m512i shift = _mm512_mullo_epi32(_mm512_set1_epi32(row->zero), NAME(load)(layer->sum + unit));
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(row->scale), _mm512_loadu_ps(layer->scale + unit));
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, shift));
    return _mm512_add_ps(_mm512_mul_ps(exact, scale), _mm512_loadu_ps(layer->bias + unit));
}
#undef NAME
