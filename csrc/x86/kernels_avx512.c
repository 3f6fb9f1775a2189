/* AVX-512 F, VL, BW, DQ (Skylake-X, Zen 4 and later): 32 registers of 16 floats. VFMADD: latency 4, two a cycle. */
#if defined(__x86_64__)

#include <immintrin.h>

#define ISA avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#define V 16
#define TILE 12 /* 12 x 2 sums + 2 weights; inputs are broadcast from memory inside the multiply-add */

typedef __m512 vec;

#define VZERO() _mm512_setzero_ps()
#define VSET(f) _mm512_set1_ps(f)
#define VLOAD(p) _mm512_load_ps(p)
#define VSTORE(p, v) _mm512_store_ps(p, v)
#define VFMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VADD(a, b) _mm512_add_ps(a, b)
#define VSUB(a, b) _mm512_sub_ps(a, b)
#define VMUL(a, b) _mm512_mul_ps(a, b)
#define VDIV(a, b) _mm512_div_ps(a, b)
#define VMIN(a, b) _mm512_min_ps(a, b)
#define VMAX(a, b) _mm512_max_ps(a, b)
#define VROUND(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define VPOW2(n) _mm512_scalef_ps(_mm512_set1_ps(1.0f), n)
#define VABS_LESS(a, limit, x, y)                                                                            \
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(a), _mm512_set1_ps(limit), _CMP_LT_OQ), y, x)

#include "../kernels_template.h"

#endif
