/* AVX-512 F, DQ, BW and VL: 32 registers of 16 float32. */
#include "../cpu.h"

#if defined(MRN_X86)

#include "../kernels.h"
#include "../train.h"
#include "../unroll.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")))
#define LANES 16
#define STRIP_VECTORS 1
#define PANEL_STRIPS 4
#define TILE_ROWS 6
#define TILES_OF(T, R) T(R, 1) T(R, 2) T(R, 3) T(R, 4)
#define TILES(T) TILES_OF(T, 1) TILES_OF(T, 2) TILES_OF(T, 3) TILES_OF(T, 4) TILES_OF(T, 5) TILES_OF(T, 6)
#define LANE_UNITS 8
#define LANE_VECTORS 2
#define LANE_TILES(T) T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8)

typedef __m512 vec;

#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_SET(f) _mm512_set1_ps(f)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_DIV(a, b) _mm512_div_ps(a, b)
#define V_SQRT(a) _mm512_sqrt_ps(a)
#define V_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define V_MAX(a, b) _mm512_max_ps(a, b)
#define V_MIN(a, b) _mm512_min_ps(a, b)
#define V_ABS(a) _mm512_andnot_ps(_mm512_set1_ps(-0.0F), a)
#define V_COPY_SIGN(size, sign) _mm512_or_ps(size, _mm512_and_ps(_mm512_set1_ps(-0.0F), sign))
#define V_IF_LESS(a, b, then, otherwise)                                                                     \
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, then)
#define V_SCALE(e, shifted) _mm512_scalef_ps(e, _mm512_sub_ps(shifted, _mm512_set1_ps(12582912.0F)))

#define V_LOAD_PART(p, n) _mm512_maskz_loadu_ps(FIRST_LANES(n), p)
#define V_STORE_PART(p, v, n) _mm512_mask_storeu_ps(p, FIRST_LANES(n), v)
#define V_FIRST(v, n) _mm512_maskz_mov_ps(FIRST_LANES(n), v)
#define FIRST_LANES(n) ((__mmask16)((1U << (n)) - 1U))

/* Both reductions fold halves, 16, 8, 4, 2, 1, as on AVX2: the two sets give the same bits. */
static inline TARGET float strip_sum_avx512(const vec *strip) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(*strip), _mm512_extractf32x8_ps(*strip, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static inline TARGET float strip_max_avx512(const vec *strip) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(*strip), _mm512_extractf32x8_ps(*strip, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#include "../activation_template.h"
#include "../dense_template.h"
#include "../train_template.h"

const mrn_kernels mrn_kernels_avx512 = {PANEL_STRIPS,    1024 * 1024,  dense_avx512,
                                        activate_avx512, lanes_avx512, activate_lanes_avx512};

const mrn_trainer mrn_trainer_avx512 = {
    forward_avx512,        backward_avx512, rescale_avx512, normalize_avx512, standardize_avx512,
    normalize_back_avx512, drop_avx512,     loss_avx512,    update_avx512,    squares_avx512};

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
