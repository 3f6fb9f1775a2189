/* AVX2 with FMA (Haswell, Zen and later): 16 registers of 8 floats. VFMADD: latency 4, two a cycle. */
#if defined(__x86_64__)

#include <immintrin.h>

#define ISA avx2
#define TARGET __attribute__((target("avx2,fma")))
#define V 8
#define TILE 6 /* 6 x 2 sums + 2 weights + 1 input = 15 registers */

typedef __m256 vec;

#define VZERO() _mm256_setzero_ps()
#define VSET(f) _mm256_set1_ps(f)
#define VLOAD(p) _mm256_load_ps(p)
#define VSTORE(p, v) _mm256_store_ps(p, v)
#define VFMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VADD(a, b) _mm256_add_ps(a, b)
#define VSUB(a, b) _mm256_sub_ps(a, b)
#define VMUL(a, b) _mm256_mul_ps(a, b)
#define VDIV(a, b) _mm256_div_ps(a, b)
#define VMIN(a, b) _mm256_min_ps(a, b)
#define VMAX(a, b) _mm256_max_ps(a, b)
#define VROUND(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define VPOW2(n)                                                                                             \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23))
#define VABS_LESS(a, limit, x, y)                                                                            \
    _mm256_blendv_ps(y, x,                                                                                   \
                     _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a), _mm256_set1_ps(limit), _CMP_LT_OQ))

#include "../kernels_template.h"

#endif
