/* CPUID says what the CPU has, XGETBV what the operating system saves on a task switch; AMX needs a
 * permission too. */
#include "cpu.h"

#if defined(MRN_X86)

#include <cpuid.h>
#include <stddef.h>

enum {
    YMM = 0x6,
    ZMM = 0xe6,
    TILES = 0x60000
}; /* XCR0; ZMM: also the mask registers and both halves of zmm */

/* The register sets that the operating system saves (XCR0). Only valid when CPUID reports OSXSAVE. */
static unsigned saved_registers(void) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux from 5.16 on gives a process the tile registers, 8 KiB a thread, when it asks: a system call that may
 * be made again, from any thread, and that children inherit. It is written out here because libc has no
 * function for it. */
static int may_use_tiles(void) {
#if defined(__linux__)
    enum { ARCH_PRCTL = 158, ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    long status;
    __asm__ volatile("syscall"
                     : "=a"(status)
                     : "0"((long)ARCH_PRCTL), "D"((long)ARCH_REQ_XCOMP_PERM), "S"((long)XTILEDATA)
                     : "rcx", "r11", "memory");
    return status == 0;
#else
    return 0;
#endif
}

unsigned mrn_cpu_features(void) {
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27 };                                         /* leaf 1, ecx */
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* leaf 7, ebx */
    const unsigned AVX512VL = 1U << 31;
    enum { AVX512_VNNI = 1 << 11 };                                      /* leaf 7, ecx */
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* leaf 7, edx */
    enum { AVX512_BF16 = 1 << 5 };                                       /* leaf 7, subleaf 1, eax */
    unsigned eax, ebx, ecx, edx, features = 0;

    if (__get_cpuid_max(0, NULL) < 7) /* asked once: under a hypervisor each CPUID takes microseconds */
        return 0;
    __cpuid(1, eax, ebx, ecx, edx);
    if (!(ecx & OSXSAVE))
        return 0;
    const unsigned saved = saved_registers();
    const unsigned fma = ecx & FMA;
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    if (fma && (ebx & AVX2) && (saved & YMM) == YMM)
        features |= MRN_CPU_AVX2_FMA;
    const unsigned avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    if ((ebx & avx512) != avx512 || (saved & ZMM) != ZMM)
        return features;
    features |= MRN_CPU_AVX512;
    if (ecx & AVX512_VNNI)
        features |= MRN_CPU_VNNI;
    const unsigned amx = AMX_BF16 | AMX_TILE | AMX_INT8;
    if ((edx & amx) == amx && (saved & TILES) == TILES && may_use_tiles())
        features |= MRN_CPU_AMX;
    if (eax >= 1) {
        __cpuid_count(7, 1, eax, ebx, ecx, edx);
        if (eax & AVX512_BF16)
            features |= MRN_CPU_BF16;
    }
    return features;
}

#else

unsigned mrn_cpu_features(void) {
    return 0;
}

#endif
