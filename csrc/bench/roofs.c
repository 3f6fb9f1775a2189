/* What this machine can do at most: as many independent multiply-adds as the registers hold, and plain reads.
 */
#include "roofs.h"
#include "../cpu.h"
#include "../unroll.h"

#include <stdint.h>
#include <string.h>

/* Sums in registers: more than latency times throughput anywhere, few enough for each set's registers. */
enum { SUMS = 12, STEPS = 64 };

/* Keeps a value in a register, and unknown to the compiler. */
#define OPAQUE(constraint, v) __asm__ volatile("" : "+" constraint(v))

typedef float four __attribute__((vector_size(16)));

/* Multiplication and addition apart, as kernels_generic.c has them. */
static double run_generic(size_t repeats) {
    four sum[SUMS], a = {1, 1, 1, 1}, b = {0.5F, 0.5F, 0.5F, 0.5F};
    for (int i = 0; i < SUMS; i++)
        sum[i] = a * (float)i;
    for (size_t r = 0; r < repeats; r++)
        for (int s = 0; s < STEPS; s++) {
            UNROLL for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * b + a;
        }
    volatile float sink = 0;
    for (int i = 0; i < SUMS; i++)
        sink = sink + sum[i][0];
    return (double)repeats * STEPS * SUMS * 4 * 2;
}

static double read_generic(const char *from, size_t bytes, size_t repeats) {
    uint64_t sum[8] = {0};
    for (size_t r = 0; r < repeats; r++)
        for (size_t at = 0; at < bytes; at += 64) {
            uint64_t line[8];
            memcpy(line, from + at, sizeof line);
            UNROLL for (int i = 0; i < 8; i++) sum[i] ^= line[i];
        }
    uint64_t all = 0;
    for (int i = 0; i < 8; i++)
        all ^= sum[i];
    return (double)all;
}

/* int8 without dot products multiplies in 16 bits: the multiplications alone, each of the next factor, are
 * the limit, for sums have units of their own. `generic` is measured against the baseline of the machine,
 * which is what its compiler may take; elsewhere than on these two nobody knows what that is.
 *
 * A function that steps SUMS independent sums; `lanes` multiply-adds each. The compiler must not know that
 * they begin as one number: it would compute one of them. `v` is the constraint of a vector register. */
#define RUN_IN(v, name, attribute, vec, zero, step, lanes)                                                   \
    attribute static double run_##name(size_t repeats) {                                                     \
        vec sum[SUMS], a = zero, b = zero;                                                                   \
        OPAQUE(v, a);                                                                                        \
        OPAQUE(v, b);                                                                                        \
        UNROLL for (int i = 0; i < SUMS; i++) {                                                              \
            sum[i] = zero;                                                                                   \
            OPAQUE(v, sum[i]);                                                                               \
        }                                                                                                    \
        for (size_t r = 0; r < repeats * STEPS; r++) {                                                       \
            UNROLL for (int i = 0; i < SUMS; i++) sum[i] = step(sum[i], a, b);                               \
        }                                                                                                    \
        UNROLL for (int i = 0; i < SUMS; i++) OPAQUE(v, sum[i]);                                             \
        return (double)repeats * STEPS * SUMS * (lanes) * 2;                                                 \
    }

#if defined(MRN_ARM64)

#include <arm_neon.h>

#if defined(__clang__)
#define DOTPROD __attribute__((target("dotprod")))
#else
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

DOTPROD static inline int32x4_t dot_neon(int32x4_t sum, int32x4_t a, int32x4_t b) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}
RUN_IN("w", neon, , float32x4_t, vdupq_n_f32(0), vfmaq_f32, 4)
#define PAIRS_NEON(s, a, b)                                                                                  \
    vmull_s8(vreinterpret_s8_s16(vget_low_s16(s)), vreinterpret_s8_s16(vget_low_s16(b)))
RUN_IN("w", pairs_neon, , int16x8_t, vdupq_n_s16(0), PAIRS_NEON, 8)
RUN_IN("w", neondot, DOTPROD, int32x4_t, vdupq_n_s32(0), dot_neon, 16)

#endif

#if defined(MRN_X86)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")))
#define AVX512VNNI __attribute__((target("avx512f,avx512vnni")))
#define AVX512BF16 __attribute__((target("avx512f,avx512bf16")))
#define AMX __attribute__((target("amx-tile,amx-bf16,amx-int8")))

#define RUN(...) RUN_IN("v", __VA_ARGS__)
#define FMA256(s, a, b) _mm256_fmadd_ps(a, b, s)
#define FMA512(s, a, b) _mm512_fmadd_ps(a, b, s)
#define PAIRS128(s, a, b) _mm_madd_epi16(s, b)
#define PAIRS256(s, a, b) _mm256_madd_epi16(s, b)
#define PAIRS512(s, a, b) _mm512_madd_epi16(s, b)
#define BF16(s, a, b) _mm512_dpbf16_ps(s, (__m512bh)(a), (__m512bh)(b))
RUN(avx2, AVX2, __m256, _mm256_setzero_ps(), FMA256, 8)
RUN(avx512, AVX512, __m512, _mm512_setzero_ps(), FMA512, 16)
RUN(avx512bf16, AVX512BF16, __m512, _mm512_setzero_ps(), BF16, 32)
RUN(pairs_sse2, , __m128i, _mm_setzero_si128(), PAIRS128, 8)
RUN(pairs_avx2, AVX2, __m256i, _mm256_setzero_si256(), PAIRS256, 16)
RUN(pairs_avx512, AVX512, __m512i, _mm512_setzero_si512(), PAIRS512, 32)
RUN(avx512vnni, AVX512VNNI, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32, 64)

/* Two tiles of 16 rows times two, into four sums: what a GEMM does between its loads from the first-level
 * cache.
 */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

#define RUN_TILES(name, multiply, lanes)                                                                     \
    AMX static double run_##name(size_t repeats) {                                                           \
        static const unsigned char tiles[4][1024] __attribute__((aligned(64))) = {{0}};                      \
        tile_config config = {.palette = 1};                                                                 \
        for (int i = 0; i < 8; i++) {                                                                        \
            config.row_bytes[i] = 64;                                                                        \
            config.rows[i] = 16;                                                                             \
        }                                                                                                    \
        _tile_loadconfig(&config);                                                                           \
        _tile_zero(0);                                                                                       \
        _tile_zero(1);                                                                                       \
        _tile_zero(2);                                                                                       \
        _tile_zero(3);                                                                                       \
        for (size_t r = 0; r < repeats; r++) {                                                               \
            _tile_loadd(4, tiles[0], 64);                                                                    \
            _tile_loadd(5, tiles[1], 64);                                                                    \
            _tile_loadd(6, tiles[2], 64);                                                                    \
            _tile_loadd(7, tiles[3], 64);                                                                    \
            multiply(0, 4, 6);                                                                               \
            multiply(1, 4, 7);                                                                               \
            multiply(2, 5, 6);                                                                               \
            multiply(3, 5, 7);                                                                               \
        }                                                                                                    \
        _tile_release();                                                                                     \
        return (double)repeats * 4 * 16 * 16 * (lanes) * 2;                                                  \
    }
RUN_TILES(amx_bf16, _tile_dpbf16ps, 32)
RUN_TILES(amx_int8, _tile_dpbusd, 64)

AVX2 static double read_avx2(const char *from, size_t bytes, size_t repeats) {
    __m256i sum[8];
    UNROLL for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (size_t r = 0; r < repeats; r++)
        for (size_t at = 0; at < bytes; at += sizeof sum) {
            UNROLL for (size_t i = 0; i < 8; i++) sum[i] =
                _mm256_xor_si256(sum[i], _mm256_load_si256((const __m256i *)(const void *)(from + at) + i));
        }
    UNROLL for (int i = 1; i < 8; i++) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
    return (double)_mm256_extract_epi32(sum[0], 0);
}

AVX512 static double read_avx512(const char *from, size_t bytes, size_t repeats) {
    __m512i sum[8];
    UNROLL for (int i = 0; i < 8; i++) sum[i] = _mm512_setzero_si512();
    for (size_t r = 0; r < repeats; r++)
        for (size_t at = 0; at < bytes; at += sizeof sum) {
            UNROLL for (size_t i = 0; i < 8; i++) sum[i] =
                _mm512_xor_si512(sum[i], _mm512_load_si512((const void *)(from + at + i * 64)));
        }
    UNROLL for (int i = 1; i < 8; i++) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
    return (double)_mm512_reduce_add_epi32(sum[0]);
}

#endif

static const struct {
    const char *name;
    unsigned features;
    double (*run)(size_t repeats);
} roofs[] = {
    {"generic multiply and add float32", 0, run_generic},
#if defined(MRN_X86)
    {"avx2 fma float32", MRN_CPU_AVX2_FMA, run_avx2},
    {"generic pairs int8", 0, run_pairs_sse2},
    {"avx2 pairs int8", MRN_CPU_AVX2_FMA, run_pairs_avx2},
    {"avx512 pairs int8", MRN_CPU_AVX512, run_pairs_avx512},
    {"avx512 fma float32", MRN_CPU_AVX512, run_avx512},
    {"avx512bf16 dot bfloat16", MRN_CPU_BF16, run_avx512bf16},
    {"avx512vnni dot int8", MRN_CPU_VNNI, run_avx512vnni},
    {"amx tile bfloat16", MRN_CPU_AMX, run_amx_bf16},
    {"amx tile int8", MRN_CPU_AMX, run_amx_int8},
#endif
#if defined(MRN_ARM64)
    {"neon fma float32", 0, run_neon},
    {"generic pairs int8", 0, run_pairs_neon},
    {"neon pairs int8", 0, run_pairs_neon},
    {"neondot dot int8", MRN_CPU_DOTPROD, run_neondot},
#endif
};

size_t mrn_roof_count(void) {
    return sizeof roofs / sizeof *roofs;
}

const char *mrn_roof_name(size_t roof) {
    return roof < mrn_roof_count() ? roofs[roof].name : NULL;
}

int mrn_roof_usable(size_t roof) {
    return roof < mrn_roof_count() && (roofs[roof].features & ~mrn_cpu_features()) == 0;
}

double mrn_roof_run(size_t roof, size_t repeats) {
    return mrn_roof_usable(roof) ? roofs[roof].run(repeats) : 0;
}

double mrn_roof_read(const void *from, size_t bytes, size_t repeats) {
#if defined(MRN_X86)
    const unsigned features = mrn_cpu_features();
    if (features & MRN_CPU_AVX512)
        return read_avx512(from, bytes, repeats);
    if (features & MRN_CPU_AVX2_FMA)
        return read_avx2(from, bytes, repeats);
#endif
    return read_generic(from, bytes, repeats);
}
