/* What is chosen on machines that are not here: CPUs, operating systems that save fewer registers, and a
 * kernel that refuses the tiles. */
#define mrn_cpu_features features_here
#include "../cpu.c"
#undef mrn_cpu_features

#include <string.h>

#include "../dot.h"
#include "../mrn.h"
#include "check.h"

unsigned mrn_cpu_features(void);

static unsigned pretended;

/* In place of cpu.c for the rest of the library. */
unsigned mrn_cpu_features(void) {
    return pretended;
}

static void choose(const char *highest, const char *wanted) {
    size_t isa;
    CHECK(mrn_isa_choose(highest, &isa) == MRN_OK && strcmp(mrn_isa_name(isa), wanted) == 0,
          "%s: chose %s, not %s", highest ? highest : "unset", mrn_isa_name(isa), wanted);
}

static void refuse(const char *highest) {
    size_t isa = 77;
    CHECK(mrn_isa_choose(highest, &isa) == MRN_E_ISA && isa == 77, "%s was taken for a set", highest);
}

#if defined(MRN_X86)

static int asked, answer;

static int ask(void) {
    asked++;
    return answer;
}

/* A machine as CPUID and XCR0 describe it, what the kernel says about tiles, and what must come of it. */
static void machine(const char *name, cpu_words says, int permitted, int questions, const char *wanted) {
    asked = 0, answer = permitted;
    pretended = features_of(&says, ask);
    CHECK(asked == questions, "%s: the kernel was asked %d times", name, asked);
    choose(NULL, wanted);
}

static void test_machines(void) {
    const unsigned fma = 1U << 12, avx2 = 1U << 5, vnni = 1U << 11, bf16 = 1U << 5;
    const unsigned avx512 = 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31, f_only = 1U << 16;
    const unsigned amx = 1U << 22 | 1U << 24 | 1U << 25, ymm = 0x7, zmm = 0xe7, tiles = 0x600e7;
    machine("none", (cpu_words){0}, 1, 0, "generic");
    machine("Haswell", (cpu_words){fma, avx2, 0, 0, 0, ymm}, 1, 0, "avx2");
    machine("AVX2 without FMA", (cpu_words){0, avx2, 0, 0, 0, ymm}, 1, 0, "generic");
    machine("no ymm saved", (cpu_words){fma, avx2, 0, 0, 0, 0x3}, 1, 0, "generic");
    machine("Knights Landing", (cpu_words){fma, avx2 | f_only, 0, 0, 0, zmm}, 1, 0, "avx2");
    machine("Skylake-X", (cpu_words){fma, avx2 | avx512, 0, 0, 0, zmm}, 1, 0, "avx512");
    machine("no zmm saved", (cpu_words){fma, avx2 | avx512, vnni, amx, bf16, ymm}, 1, 0, "avx2");
    machine("Ice Lake", (cpu_words){fma, avx2 | avx512, vnni, 0, 0, zmm}, 1, 0, "avx512vnni");
    machine("Zen 4", (cpu_words){fma, avx2 | avx512, vnni, 0, bf16, zmm}, 1, 0, "avx512bf16");
    machine("Sapphire Rapids", (cpu_words){fma, avx2 | avx512, vnni, amx, bf16, tiles}, 1, 1, "amx");
    machine("refused", (cpu_words){fma, avx2 | avx512, vnni, amx, bf16, tiles}, 0, 1, "avx512bf16");
    machine("no tiles saved", (cpu_words){fma, avx2 | avx512, vnni, amx, bf16, zmm}, 1, 0, "avx512bf16");
    machine("half saved", (cpu_words){fma, avx2 | avx512, vnni, amx, bf16, 0x200e7}, 1, 0, "avx512bf16");
    machine("no int8 tiles", (cpu_words){fma, avx2 | avx512, vnni, 1U << 22 | 1U << 24, bf16, tiles}, 1, 0,
            "avx512bf16");
}

/* Names cap; what a cap allows and the machine lacks is passed over; unknown names are errors. */
static void test_names(void) {
    size_t amx;
    pretended = MRN_CPU_AVX2_FMA | MRN_CPU_AVX512 | MRN_CPU_VNNI | MRN_CPU_BF16 | MRN_CPU_AMX;
    const char *const names[] = {"generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        choose(names[i], names[i]);
    CHECK(mrn_isa_choose("amx", &amx) == MRN_OK && mrn_precision_usable(MRN_PRECISION_float32_split, amx),
          "split float32 has its kernels on amx");
    pretended = MRN_CPU_AVX2_FMA;
    choose("amx", "avx2");
    CHECK(!mrn_precision_usable(MRN_PRECISION_float32_split, amx), "amx is not here");
    pretended = 0;
    choose("amx", "generic");
}

#elif defined(MRN_ARM64)

static void test_machines(void) {
    pretended = MRN_CPU_DOTPROD;
    choose(NULL, "neondot");
    choose("neon", "neon");
    pretended = 0;
    choose(NULL, "neon");
    choose("neondot", "neon");
}

static void test_names(void) {}

#else

static void test_machines(void) {
    choose(NULL, "generic");
}

static void test_names(void) {}

#endif

int main(void) {
    test_machines();
    test_names();
    refuse("");
    refuse("AVX2");
    refuse("avx");
    refuse("avx5120");
    size_t isa;
    pretended = features_here();
    CHECK(mrn_isa_choose(NULL, &isa) == MRN_OK && mrn_isa_usable(isa), "this machine");
    printf("  this machine: %s\n", mrn_isa_name(isa));
    return 0;
}
