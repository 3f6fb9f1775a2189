/* CPU features that instruction sets ask for (isa.def). A bit is set only if the CPU has the feature AND the operating
 * system saves its registers (XCR0): CPUID alone would promise instructions that trap. */
#ifndef MRN_CPU_H
#define MRN_CPU_H

enum {
    MRN_CPU_AVX2 = 1 << 0,
    MRN_CPU_FMA = 1 << 1,
    MRN_CPU_AVX512F = 1 << 2,
    MRN_CPU_AVX512VL = 1 << 3,
    MRN_CPU_AVX512BW = 1 << 4,
    MRN_CPU_AVX512DQ = 1 << 5,
};

unsigned mrn_cpu_features(void);

#endif
