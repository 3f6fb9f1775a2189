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
#define PANEL_STRIPS 1
#define STAGED (2 * MRN_CELL) /* a group of a row is taken apart when it is staged */
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
#include "dot_range.h"
#undef NAME

/* The even and the odd half of each cell, as float32 (bfloat16) or int16 (int8) in their place. */
typedef struct halves_avx2 {
    __m256i even, odd;
} halves_avx2;

static inline TARGET halves_avx2 halves_at_avx2(const unsigned char *at) {
    return (halves_avx2){I_SET(mrn_dot_cell(at)), I_SET(mrn_dot_cell(at + MRN_CELL))};
}
#define VALUES halves_avx2
#define VALUE(at) halves_at_avx2(at)
#define VALUES_OF_LANES(at, half) ((halves_avx2){I_LOAD(at), I_LOAD((at) + (half))})

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
#define TILE_ROWS 5
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(3, 1) T(4, 1) T(5, 1)
#define WEIGHTS halves_avx2
#define TAKE_WEIGHTS(cells) floats_avx2(cells)
#define SUM __m256
#define DOT(sum, value, weights) dot_bf16_avx2(sum, value, weights)
#define FIRST(bias, row, unit) (bias)
#define LAST(sum, zero, total, scale, unit_scale, bias) (sum)
#define RANGES(x, x_stride, rows, inputs, about, row) ((void)0)
#define STAGE(x, inputs, groups, about, row, cells) stage_floats_bf16_avx2(x, inputs, groups, cells)
#define STAGE_LANES(x, inputs, rows, about, cells) stage_lanes_floats_bf16_avx2(x, inputs, rows, cells)
#include "../dot_template.h"
#undef NAME
#undef TAKE_WEIGHTS
#undef SUM
#undef DOT
#undef FIRST
#undef LAST
#undef RANGES
#undef STAGE
#undef STAGE_LANES

/* ---- int8 ----
 *
 * vpmaddubsw would saturate, and cells that become int16 take two multiplications. So two inputs share one
 * (Winograd 1968):
 *
 *   (q0 + w1) * (q1 + w0) = q0 w0 + q1 w1 + q0 q1 + w0 w1
 *
 * What it has too much, summed up over a row or over a unit, is taken off before: `first`, modulo 2^32 as all
 * sums. Here that is two additions, a multiplication and an addition for 32 products, which go to any of
 * four units but for the multiplication, where two multiplications and two additions would wait for two of
 * them. Weights of even inputs are packed with 128 on top, so that one instruction takes them out of their
 * cells, and staged numbers of odd inputs have 128 less. */

static inline TARGET halves_avx2 weights_avx2(__m256i cells) {
    return (halves_avx2){_mm256_and_si256(cells, _mm256_set1_epi16(0xff)), _mm256_srai_epi16(cells, 8)};
}
/* The end is written out: gcc 12 keeps sums of a tile on the stack when it is given intrinsics. */
static inline TARGET __m256i dot_s8_avx2(__m256i sum, halves_avx2 a, halves_avx2 w) {
    __m256i p = _mm256_add_epi16(a.even, w.odd), q = _mm256_add_epi16(a.odd, w.even);
    __asm__("vpmaddwd %1, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "+x"(p) : "x"(q));
    return sum;
}
static inline TARGET __m256 last_s8_avx2(__m256i sum, __m256i zero, __m256i total, __m256 scale,
                                         __m256 unit_scale, __m256 bias) {
    const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_mullo_epi32(zero, total)));
    return _mm256_add_ps(_mm256_mul_ps(exact, _mm256_mul_ps(scale, unit_scale)), bias);
}

static inline TARGET __m256i first_lanes_avx2(size_t n) {
    return _mm256_cmpgt_epi32(I_SET((int32_t)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The largest of the lanes of each 128 bits, of four vectors side by side. */
static inline TARGET __m256i fold_avx2(const __m256i *four) {
    const __m256i a = I_MAX(_mm256_unpacklo_epi32(four[0], four[1]), _mm256_unpackhi_epi32(four[0], four[1]));
    const __m256i b = I_MAX(_mm256_unpacklo_epi32(four[2], four[3]), _mm256_unpackhi_epi32(four[2], four[3]));
    return I_MAX(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* ranges_s8 of dot_stage.h. */
static inline TARGET void wide_ranges_s8_avx2(const float *x, size_t x_stride, size_t rows, size_t inputs,
                                              mrn_dot_rows about, size_t row) {
    const __m256i sign = I_SET(INT32_MIN), last = first_lanes_avx2(inputs % LANES);
    const size_t whole = inputs - inputs % LANES;
    __m256i high[MRN_DOT_STAGED], low[MRN_DOT_STAGED];
    for (size_t r = 0; r < MRN_DOT_STAGED; r++) {
        const float *from = x + r * x_stride;
        __m256i highest = I_SET(0), lowest = sign;
        for (size_t k = 0; r < rows && k < whole; k += LANES) {
            const __m256i bits = I_LOAD(from + k);
            highest = I_MAX(highest, bits);
            lowest = U_MAX(lowest, bits);
        }
        if (r < rows && whole < inputs) {
            const __m256i bits = _mm256_castps_si256(_mm256_maskload_ps(from + whole, last));
            highest = I_MAX(highest, bits);
            lowest = U_MAX(lowest, bits);
        }
        high[r] = highest;
        low[r] = _mm256_xor_si256(lowest, sign);
    }
    const __m256i highs = fold_avx2(high), lows = fold_avx2(low);
    ranges_of_four_avx2(
        I_MAX(_mm256_permute2x128_si256(highs, lows, 0x20), _mm256_permute2x128_si256(highs, lows, 0x31)),
        about, row);
}

/* 16 numbers as steps, the first and the second 8 side by side in each 128 bits. */
static inline TARGET __m256i steps_avx2(__m256 a, __m256 b, __m256 inverse, __m256i zero) {
    const __m256i steps = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, inverse)),
                                             _mm256_cvtps_epi32(_mm256_mul_ps(b, inverse)));
    return _mm256_min_epi16(_mm256_max_epi16(_mm256_add_epi16(steps, zero), _mm256_setzero_si256()),
                            _mm256_set1_epi16(255));
}

/* Such steps as 4 groups: q0 q2, then q1 q3 with 128 less, as int16; returns their q0 q1 and q2 q3. */
static inline TARGET __m256i store_pairs_avx2(__m256i steps, unsigned char *staged) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5,
                                           2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    const __m256i less = _mm256_set1_epi64x(0x0080008000000000);
    const __m256i groups = _mm256_sub_epi16(_mm256_shuffle_epi8(steps, order), less);
    I_STORE(staged, _mm256_permute4x64_epi64(groups, 0xd8));
    return _mm256_madd_epi16(steps, _mm256_srli_epi32(steps, 16));
}

/* stage_s8 of dot_stage.h as dot_s8_avx2 wants it. Writes whole vectors, beyond the last group. */
static inline TARGET void stage_pairs_avx2(const float *x, size_t inputs, mrn_dot_rows about, size_t row,
                                           unsigned char *staged) {
    const __m256 inverse = V_SET(about.inverse[row]);
    const __m256i zero = _mm256_set1_epi16((int16_t)about.zero[row]);
    __m256i first = _mm256_setzero_si256();
    size_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES, staged += 2 * LANES * STAGED / MRN_CELL) {
        const __m256i steps = steps_avx2(V_LOAD(x + k), V_LOAD(x + k + LANES), inverse, zero);
        first = I_SUB(first, store_pairs_avx2(steps, staged));
    }
    if (k < inputs) {
        const size_t left = inputs - k, beyond = left > LANES ? LANES : left;
        const __m256i in_a = first_lanes_avx2(left), in_b = first_lanes_avx2(left - beyond);
        const __m256i steps = steps_avx2(_mm256_maskload_ps(x + k, in_a),
                                         _mm256_maskload_ps(x + k + beyond, in_b), inverse, zero);
        first = I_SUB(first, store_pairs_avx2(I_AND(steps, _mm256_packs_epi32(in_a, in_b)), staged));
    }
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(first), _mm256_extracti128_si256(first, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    about.first[row] = _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

static inline TARGET void stage_lanes_pairs_avx2(const float *x, size_t inputs, size_t rows,
                                                 mrn_dot_rows about, unsigned char *staged) {
    const __m256i less = I_SET(0x00800080);
    for (size_t row = 0; row < rows; row += LANES, staged += LANES * MRN_CELL) {
        range_lanes_s8_avx2(x, inputs, rows, about, row);
        const __m256 inverse = V_LOAD(about.inverse + row);
        const __m256i shift = I_SUB(I_LOAD(about.zero + row), I_SET(MAGIC_BITS));
        __m256i first = _mm256_setzero_si256();
        for (size_t k = 0; k < inputs; k += MRN_CELL) {
            __m256i half[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            UNROLL for (size_t i = 0; i < MRN_CELL; i++) {
                if (k + i >= inputs)
                    break;
                const __m256i q = steps_of_avx2(x + (k + i) * rows + row, inverse, shift);
                half[i % 2] = I_OR(half[i % 2], I_LEFT(q, 16 * (i / 2)));
            }
            first = I_SUB(first, _mm256_madd_epi16(half[0], half[1]));
            I_STORE(staged + k * rows * 2, half[0]);
            I_STORE(staged + k * rows * 2 + rows * MRN_CELL, _mm256_sub_epi16(half[1], less));
        }
        I_STORE(about.first + row, first);
    }
}

#undef TILES
#undef TILE_ROWS
#define TILE_ROWS 4
#define TILES(T) T(1, 1) T(1, 2) T(2, 1) T(3, 1) T(4, 1)
#define NAME(x) x##_s8_avx2
#define TAKE_WEIGHTS(cells) weights_avx2(cells)
#define SUM __m256i
#define DOT(sum, value, weights) dot_s8_avx2(sum, value, weights)
#define FIRST(bias, row, unit) _mm256_add_epi32(row, unit)
#define LAST last_s8_avx2
#define RANGES wide_ranges_s8_avx2
#define STAGE(x, inputs, groups, about, row, cells) stage_pairs_avx2(x, inputs, about, row, cells)
#define STAGE_LANES stage_lanes_pairs_avx2
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx2 = {1, PANEL_STRIPS, STAGED, 0, dense_bf16_avx2, lanes_bf16_avx2};
const mrn_dots mrn_dots_s8_avx2 = {1, PANEL_STRIPS, STAGED, 1, dense_s8_avx2, lanes_s8_avx2};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
