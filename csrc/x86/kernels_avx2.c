/* AVX2 with FMA: 16 registers of 8 float32. */
#include "../cpu.h"

#if defined(MRN_X86)

#include "../kernels.h"
#include "../train.h"
#include "../unroll.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define STRIP_VECTORS 2
#define PANEL_STRIPS 1
#define TILE_ROWS 6
#define TILES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(4, 1) T(5, 1) T(6, 1)
#define LANE_UNITS 6
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6)

typedef __m256 vec;

#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps(p, v)
#define V_SET(f) _mm256_set1_ps(f)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_DIV(a, b) _mm256_div_ps(a, b)
#define V_SQRT(a) _mm256_sqrt_ps(a)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define V_MIN(a, b) _mm256_min_ps(a, b)
#define V_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a)
#define V_COPY_SIGN(size, sign) _mm256_or_ps(size, _mm256_and_ps(_mm256_set1_ps(-0.0F), sign))
#define V_IF_LESS(a, b, then, otherwise) _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define V_SCALE(e, shifted) scale_avx2(e, shifted)

#define V_LOAD_PART(p, n) _mm256_maskload_ps(p, first_lanes_avx2(n))
#define V_STORE_PART(p, v, n) _mm256_maskstore_ps(p, first_lanes_avx2(n), v)
#define V_FIRST(v, n) _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes_avx2(n)))

static inline TARGET __m256i first_lanes_avx2(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}

/* e * 2^n in two halves, each a float32 made from its exponent: see scale_generic. */
static inline TARGET vec scale_avx2(vec e, vec shifted) {
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000 - 254));
    const __m256i half = _mm256_srli_epi32(n, 1);
    const __m256i rest = _mm256_sub_epi32(n, half);
    e = _mm256_mul_ps(e, _mm256_castsi256_ps(_mm256_slli_epi32(half, 23)));
    return _mm256_mul_ps(e, _mm256_castsi256_ps(_mm256_slli_epi32(rest, 23)));
}

/* Both reductions fold halves: 16, 8, 4, 2, 1. */
static inline TARGET float strip_sum_avx2(const vec *strip) {
    const __m256 eight = _mm256_add_ps(strip[0], strip[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static inline TARGET float strip_max_avx2(const vec *strip) {
    const __m256 eight = _mm256_max_ps(strip[0], strip[1]);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#include "../activation_template.h"
#include "../dense_template.h"
#include "../train_template.h"

const mrn_kernels mrn_kernels_avx2 = {PANEL_STRIPS,  384 * 1024, dense_avx2,
                                      activate_avx2, lanes_avx2, activate_lanes_avx2};

const mrn_trainer mrn_trainer_avx2 = {forward_avx2,     backward_avx2,       rescale_avx2, normalize_avx2,
                                      standardize_avx2, normalize_back_avx2, drop_avx2,    loss_avx2,
                                      update_avx2,      squares_avx2};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
