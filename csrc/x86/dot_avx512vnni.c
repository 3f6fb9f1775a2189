/* int8 with AVX512_VNNI: vpdpbusd takes 16 cells at once, and does not saturate on the way. */
#include "../cpu.h"

#if defined(MRN_X86)

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")))
#define SET(x) x##_avx512vnni
#include "dot_avx512.h"

/* The intrinsic, written out: gcc 12 keeps the sums of a tile on the stack when it is given
 * _mm512_dpbusd_epi32. */
static inline TARGET __m512i dot_avx512vnni(__m512i sum, __m512i value, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(value), "v"(weights));
    return sum;
}

#define NAME(x) x##_s8_avx512vnni
#define TILE_ROWS 6
#define TILES(T) TILES_OF(T, 1) TILES_OF(T, 2) TILES_OF(T, 3) TILES_OF(T, 4) TILES_OF(T, 5) TILES_OF(T, 6)
#define WEIGHTS __m512i
#define TAKE_WEIGHTS(cells) (cells)
#define VALUES __m512i
#define VALUE(at) (I_SET(mrn_dot_cell(at)))
#define VALUES_OF_LANES(at, half) (I_LOAD(at))
#define SUM __m512i
#define DOT(sum, value, weights) dot_avx512vnni(sum, value, weights)
#define FIRST(bias, row, unit) _mm512_setzero_si512()
#define LAST last_s8_avx512vnni
#define RANGES wide_ranges_s8_avx512vnni
#define STAGE(x, inputs, groups, about, row, cells)                                                          \
    wide_stage_s8_avx512vnni(x, inputs, groups, (about).inverse[row], (about).zero[row], cells)
#define STAGE_LANES stage_lanes_s8_avx512vnni
#include "../dot_template.h"

const mrn_dots mrn_dots_s8_avx512vnni = {1, PANEL_STRIPS,        MRN_CELL,
                                         0, dense_s8_avx512vnni, lanes_s8_avx512vnni};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
