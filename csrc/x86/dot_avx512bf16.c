/* bfloat16 with AVX512_BF16: vdpbf16ps takes 16 cells at once, the odd products first, denormals as zeros. */
#include "../cpu.h"

#if defined(MRN_X86)

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")))
#define SET(x) x##_avx512bf16
#include "dot_avx512.h"

/* In place of wide_stage_bf16 of dot_avx512.h: the instruction rounds in the same way. */
static inline TARGET void convert_avx512bf16(const float *x, size_t inputs, size_t groups,
                                             unsigned char *cells) {
    size_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + k + LANES), _mm512_loadu_ps(x + k));
        _mm512_storeu_si512(cells + 2 * k, (__m512i)both);
    }
    if (2 * k < groups * MRN_CELL)
        wide_stage_bf16_avx512bf16(x + k, inputs - k, groups - k / 2, cells + 2 * k);
}

/* In place of stage_lanes_bf16 of dot_lanes.h. */
static inline TARGET void convert_lanes_avx512bf16(const float *x, size_t inputs, size_t rows,
                                                   unsigned char *cells) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    for (size_t k = 0; k < inputs; k += 2, x += 2 * rows)
        for (size_t row = 0; row < rows; row += LANES, cells += LANES * MRN_CELL) {
            const __m512 odd = k + 1 < inputs ? V_LOAD(x + rows + row) : _mm512_setzero_ps();
            const __m512bh both = _mm512_cvtne2ps_pbh(odd, V_LOAD(x + row));
            I_STORE(cells, _mm512_permutexvar_epi16(I_LOAD(order), (__m512i)both));
        }
}

#define NAME(x) x##_bf16_avx512bf16
#define TILE_ROWS 6
#define TILES(T) TILES_OF(T, 1) TILES_OF(T, 2) TILES_OF(T, 3) TILES_OF(T, 4) TILES_OF(T, 5) TILES_OF(T, 6)
#define WEIGHTS __m512i
#define TAKE_WEIGHTS(cells) (cells)
#define VALUES __m512i
#define VALUE(at) (I_SET(mrn_dot_cell(at)))
#define VALUES_OF_LANES(at, half) (I_LOAD(at))
#define SUM __m512
#define DOT(sum, value, weights) _mm512_dpbf16_ps(sum, (__m512bh)(value), (__m512bh)(weights))
#define FIRST(bias, row, unit) (bias)
#define LAST(sum, zero, total, scale, unit_scale, bias) (sum)
#define RANGES(x, x_stride, rows, inputs, about, row) ((void)0)
#define STAGE(x, inputs, groups, about, row, cells) convert_avx512bf16(x, inputs, groups, cells)
#define STAGE_LANES(x, inputs, rows, about, cells) convert_lanes_avx512bf16(x, inputs, rows, cells)
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx512bf16 = {1, PANEL_STRIPS,          MRN_CELL,
                                           0, dense_bf16_avx512bf16, lanes_bf16_avx512bf16};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
