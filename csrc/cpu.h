/* What this CPU can do and the operating system allows. */
#ifndef MRN_CPU_H
#define MRN_CPU_H

/* The sources under x86/ need gcc's or clang's function-level target attribute; elsewhere they are empty. */
#if defined(__x86_64__) && defined(__GNUC__)
#define MRN_X86 1
#endif

enum {
    MRN_CPU_AVX2_FMA = 1, /* AVX2 and FMA, and the ymm registers are saved on a task switch */
    MRN_CPU_AVX512 = 2    /* AVX512F, DQ, BW and VL, and the zmm registers are saved on a task switch */
};

#if defined(MRN_X86)

#include <cpuid.h>

/* The register sets that the operating system saves (XCR0). Only valid when CPUID reports OSXSAVE. */
static inline unsigned mrn_cpu_saved_registers(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static inline unsigned mrn_cpu_features(void) {
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27 };                                         /* leaf 1, ecx */
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* leaf 7, ebx */
    const unsigned AVX512VL = 1U << 31;
    enum { YMM = 0x6, ZMM = 0xe6 }; /* XCR0: xmm and ymm; also the mask registers and both halves of zmm */
    unsigned eax, ebx, ecx, edx, features = 0;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & OSXSAVE))
        return 0;
    const unsigned saved = mrn_cpu_saved_registers();
    const unsigned fma = ecx & FMA;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return 0;
    if (fma && (ebx & AVX2) && (saved & YMM) == YMM)
        features |= MRN_CPU_AVX2_FMA;
    const unsigned avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    if ((ebx & avx512) == avx512 && (saved & ZMM) == ZMM)
        features |= MRN_CPU_AVX512;
    return features;
}

#else

static inline unsigned mrn_cpu_features(void) {
    return 0;
}

#endif

#endif
