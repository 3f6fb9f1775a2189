/* On x86, CPUID says what the CPU has, XGETBV what the operating system saves on a task switch; AMX needs a
 * permission too. On 64-bit Arm, Linux tells what it found in the ID registers. */
#include "cpu.h"

#if defined(MRN_X86)

#include <cpuid.h>
#include <stdatomic.h>
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

/* What a CPU and its operating system say: registers of CPUID, and XCR0; 0 where there is no such leaf. */
typedef struct cpu_words {
    unsigned leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax, saved;
} cpu_words;

/* `permitted` is asked only where CPU and operating system have tiles. */
static unsigned features_of(const cpu_words *says, int (*permitted)(void)) {
    enum { FMA = 1 << 12 };                                                            /* leaf 1, ecx */
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 }; /* leaf 7, ebx */
    const unsigned AVX512VL = 1U << 31;
    enum { AVX512_VNNI = 1 << 11 };                                      /* leaf 7, ecx */
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* leaf 7, edx */
    enum { AVX512_BF16 = 1 << 5 };                                       /* leaf 7, subleaf 1, eax */
    const unsigned avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    const unsigned amx = AMX_BF16 | AMX_TILE | AMX_INT8;
    unsigned features = 0;

    if ((says->leaf1_ecx & FMA) && (says->leaf7_ebx & AVX2) && (says->saved & YMM) == YMM)
        features |= MRN_CPU_AVX2_FMA;
    if ((says->leaf7_ebx & avx512) != avx512 || (says->saved & ZMM) != ZMM)
        return features;
    features |= MRN_CPU_AVX512;
    if (says->leaf7_ecx & AVX512_VNNI)
        features |= MRN_CPU_VNNI;
    if (says->leaf7_1_eax & AVX512_BF16)
        features |= MRN_CPU_BF16;
    if ((says->leaf7_edx & amx) == amx && (says->saved & TILES) == TILES && permitted())
        features |= MRN_CPU_AMX;
    return features;
}

static unsigned detected(void) {
    enum { OSXSAVE = 1 << 27 }; /* leaf 1, ecx */
    cpu_words says = {0};
    unsigned eax, ebx, ecx, edx;
    const unsigned leaves = (unsigned)__get_cpuid_max(0, NULL);

    if (leaves < 1)
        return 0;
    __cpuid(1, eax, ebx, says.leaf1_ecx, edx);
    if (leaves < 7 || !(says.leaf1_ecx & OSXSAVE))
        return 0;
    says.saved = saved_registers();
    __cpuid_count(7, 0, eax, says.leaf7_ebx, says.leaf7_ecx, says.leaf7_edx);
    if (eax >= 1)
        __cpuid_count(7, 1, says.leaf7_1_eax, ebx, ecx, edx);
    return features_of(&says, may_use_tiles);
}

/* Asked once: in a virtual machine each CPUID is a call of the hypervisor, and all of them 20 us. Threads
 * that ask at the same time are told the same. */
unsigned mrn_cpu_features(void) {
    enum { ASKED = 1 << 30 };
    static atomic_uint known;
    unsigned features = atomic_load_explicit(&known, memory_order_relaxed);
    if (!features) {
        features = detected() | ASKED;
        atomic_store_explicit(&known, features, memory_order_relaxed);
    }
    return features & ~(unsigned)ASKED;
}

#elif defined(MRN_ARM64) && defined(__linux__) && __STDC_HOSTED__

#include <sys/auxv.h>

unsigned mrn_cpu_features(void) {
    enum { ASIMDDP = 1 << 20 }; /* of AT_HWCAP: SDOT and UDOT */
    return getauxval(AT_HWCAP) & ASIMDDP ? MRN_CPU_DOTPROD : 0;
}

#else

unsigned mrn_cpu_features(void) {
    return 0;
}

#endif
