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
#include "../dot_stage.h"

static inline TARGET __m512i NAME(load)(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline TARGET __m512i NAME(cell)(const void *p) {
    int32_t cell;
    memcpy(&cell, p, sizeof cell);
    return _mm512_set1_epi32(cell);
}
static inline TARGET __m512 NAME(last_s8)(const mrn_dot_layer *layer, size_t unit, const mrn_dot_row *row,
                                          __m512i sum) {
    const __m512i shift = _mm512_mullo_epi32(_mm512_set1_epi32(row->zero), NAME(load)(layer->sum + unit));
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(row->scale), _mm512_loadu_ps(layer->scale + unit));
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, shift));
    return _mm512_add_ps(_mm512_mul_ps(exact, scale), _mm512_loadu_ps(layer->bias + unit));
}
#undef NAME
