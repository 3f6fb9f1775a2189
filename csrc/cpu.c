#include "cpu.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Bit numbers: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID leaves 1 and 7. */
unsigned mrn_cpu_features(void) {
    unsigned a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    const uint64_t xcr0 = read_xcr0();
    const uint64_t ymm_state = 0x6, zmm_state = 0xe6; /* SSE+AVX; plus opmask, upper halves, registers 16-31 */
    const int fma = (c & bit_FMA) != 0;
    if ((xcr0 & ymm_state) != ymm_state || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    found |= fma ? MRN_CPU_FMA : 0;
    found |= b & bit_AVX2 ? MRN_CPU_AVX2 : 0;
    if ((xcr0 & zmm_state) == zmm_state) {
        found |= b & bit_AVX512F ? MRN_CPU_AVX512F : 0;
        found |= b & bit_AVX512VL ? MRN_CPU_AVX512VL : 0;
        found |= b & bit_AVX512BW ? MRN_CPU_AVX512BW : 0;
        found |= b & bit_AVX512DQ ? MRN_CPU_AVX512DQ : 0;
    }
    return found;
}

#else

unsigned mrn_cpu_features(void) { return 0; }

#endif
