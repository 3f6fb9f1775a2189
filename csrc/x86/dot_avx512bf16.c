/* bfloat16 with AVX512_BF16: vdpbf16ps takes 16 cells at once, the odd products first, denormals as zeros. */
#include "../cpu.h"

#if defined(MRN_X86)

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")))
#define SET(x) x##_avx512bf16
#include "dot_avx512.h"

/* In place of stage_bf16 of dot_avx512.h: the instruction rounds in the same way. */
static inline TARGET void convert_avx512bf16(const float *x, size_t inputs, size_t groups,
                                             unsigned char *cells, const mrn_dot_row *row) {
    size_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + k + LANES), _mm512_loadu_ps(x + k));
        _mm512_storeu_si512(cells + 2 * k, (__m512i)both);
    }
    if (2 * k < groups * MRN_CELL)
        stage_bf16_avx512bf16(x + k, inputs - k, groups - k / 2, cells + 2 * k, row);
}

#define NAME(x) x##_bf16_avx512bf16
#define TILE_ROWS 6
#define TILES(T) TILES_OF(T, 1) TILES_OF(T, 2) TILES_OF(T, 3) TILES_OF(T, 4) TILES_OF(T, 5) TILES_OF(T, 6)
#define WEIGHTS __m512i
#define GET_WEIGHTS(p) load_avx512bf16(p)
#define VALUE __m512i
#define GET_VALUE(p) cell_avx512bf16(p)
#define SUM __m512
#define DOT(sum, value, weights) _mm512_dpbf16_ps(sum, (__m512bh)(value), (__m512bh)(weights))
#define FIRST(layer, unit) _mm512_loadu_ps((layer)->bias + (unit))
#define LAST(layer, unit, row, sum) (sum)
#define RANGE range_bf16_avx512bf16
#define STAGE convert_avx512bf16
#include "../dot_template.h"

const mrn_dots mrn_dots_bf16_avx512bf16 = {1, dense_bf16_avx512bf16};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
