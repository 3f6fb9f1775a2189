/* What this CPU can do and the operating system allows. */
#ifndef MRN_CPU_H
#define MRN_CPU_H

/* The sources under x86/ need gcc's or clang's function-level target attribute; elsewhere they are empty. */
#if defined(__x86_64__) && defined(__GNUC__)
#define MRN_X86 1
#endif

/* Those under arm/ need the compiler's intrinsics: every 64-bit Arm CPU has Advanced SIMD. */
#if defined(__aarch64__) && defined(__GNUC__)
#define MRN_ARM64 1
#endif

enum {
    MRN_CPU_AVX2_FMA = 1, /* AVX2 and FMA, and the ymm registers are saved on a task switch */
    MRN_CPU_AVX512 = 2,   /* AVX512F, DQ, BW and VL, and the zmm registers are saved on a task switch */
    MRN_CPU_VNNI = 4,     /* AVX512_VNNI: dot products of int8 */
    MRN_CPU_BF16 = 8,     /* AVX512_BF16: dot products of bfloat16 */
    MRN_CPU_DOTPROD = 32, /* FEAT_DotProd of 64-bit Arm: dot products of int8 */
    MRN_CPU_AMX = 16      /* AMX_TILE, AMX_INT8 and AMX_BF16, and this process may use them */
};

/* Some of MRN_CPU_*. Asks the kernel for the permission to use AMX where the CPU has it. */
unsigned mrn_cpu_features(void);

#endif
