/* The precisions on the best instruction set: microseconds a call and GOP/s, by shape and batch, best of some
 * rounds. make -C csrc build/bench_precision && csrc/build/bench_precision */
#include "../cpu.h"
#include "../dot.h"
#include "bench.h"

#include <string.h>

enum { LAYERS = 3, SHAPES = 5, BATCHES = 4, ROUNDS = 15 };

#if defined(MRN_X86)
/* What the multipliers do in a second when nothing is loaded: 16 chains of one instruction. */
#define ROOF(instruction)                                                                                    \
    do {                                                                                                     \
        double best = INFINITY;                                                                              \
        for (int round = 0; round < 50; round++) {                                                           \
            const double start = cpu_seconds();                                                              \
            for (int i = 0; i < 100000; i++)                                                                 \
                __asm__ volatile(ALL(instruction)::: REGISTERS);                                             \
            best = fmin(best, cpu_seconds() - start);                                                        \
        }                                                                                                    \
        printf("%-12s %7.1f G instructions/s\n", instruction, 16 * 100000 / best * 1e-9);                    \
    } while (0)
#define ALL(i) FOUR(i, 0, 1, 2, 3) FOUR(i, 4, 5, 6, 7) FOUR(i, 8, 9, 10, 11) FOUR(i, 12, 13, 14, 15)
#define FOUR(i, a, b, c, d) ONE(i, a) ONE(i, b) ONE(i, c) ONE(i, d)
#define ONE(i, n) i " %%zmm31, %%zmm31, %%zmm" #n "\n"
#define REGISTERS                                                                                            \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",        \
        "xmm12", "xmm13", "xmm14", "xmm15"

static __attribute__((target("avx512f,avx512vnni,avx512bf16"))) void roofs(void) {
    __asm__ volatile("vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm31");
    ROOF("vfmadd231ps");
    ROOF("vdpbf16ps");
    ROOF("vpdpbusd");
}
#endif

int main(void) {
    static const uint32_t shapes[SHAPES][LAYERS + 1] = {{4, 16, 16, 3},
                                                        {64, 64, 32, 10},
                                                        {784, 256, 128, 10},
                                                        {784, 1024, 1024, 10},
                                                        {1024, 1024, 1024, 1024}};
    static const size_t batches[BATCHES] = {1, 8, 64, 512};
    uint64_t seed = 1;
    size_t isa;
    CHECK(mrn_isa_choose(getenv("MARIANA_ISA"), &isa) == MRN_OK, "MARIANA_ISA");
#if defined(MRN_X86)
    if ((mrn_cpu_features() & (MRN_CPU_AVX512 | MRN_CPU_VNNI | MRN_CPU_BF16)) ==
        (MRN_CPU_AVX512 | MRN_CPU_VNNI | MRN_CPU_BF16))
        roofs(); /* a multiply-add instruction makes 32, 64 or 128 operations */
#endif
    float *x = malloc(512 * 1024 * sizeof *x), *y = malloc(512 * 1024 * sizeof *y);
    for (size_t i = 0; i < 512 * 1024; i++)
        x[i] = next_float(&seed);
    for (size_t s = 0; s < SHAPES; s++)
        for (uint32_t precision = 0; precision < mrn_precision_count(); precision++) {
            const uint32_t *widths = shapes[s];
            mrn_layer layers[LAYERS];
            void *weight[LAYERS];
            float *scale[LAYERS];
            double operations = 0;
            if (!mrn_precision_usable(precision, isa))
                continue;
            for (size_t i = 0; i < LAYERS; i++) {
                const size_t inputs = widths[i], units = widths[i + 1];
                weight[i] = malloc(inputs * units * sizeof(float));
                scale[i] = malloc(units * sizeof(float));
                for (size_t w = 0; w < inputs * units; w++) {
                    const float value = 2 * next_float(&seed) / sqrtf((float)inputs);
                    uint32_t bits;
                    memcpy(&bits, &value, sizeof bits);
                    if (precision == MRN_PRECISION_int8)
                        ((int8_t *)weight[i])[w] = (int8_t)(next_float(&seed) * 127);
                    else if (precision == MRN_PRECISION_bfloat16)
                        ((uint16_t *)weight[i])[w] = (uint16_t)(bits >> 16);
                    else
                        ((float *)weight[i])[w] = value;
                }
                for (size_t u = 0; u < units; u++)
                    scale[i][u] = 2 / sqrtf((float)inputs) / 127;
                layers[i] =
                    (mrn_layer){.weight = weight[i],
                                .inputs = widths[i],
                                .units = widths[i + 1],
                                .activation = i + 1 < LAYERS ? MRN_ACTIVATION_relu : MRN_ACTIVATION_softmax,
                                .weight_scale = scale[i]};
                operations += 2.0 * (double)inputs * (double)units;
            }
            const mrn_network network = {
                .layers = layers, .layer_count = LAYERS, .columns = widths[0], .precision = precision};
            mrn_plan plan;
            mrn_model *model;
            CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
            void *block = aligned(plan.model_bytes, plan.alignment),
                 *scratch = aligned(plan.scratch_bytes, plan.alignment);
            CHECK(mrn_model_open(&network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
            for (size_t b = 0; b < BATCHES; b++) {
                const double time = best_time(model, x, batches[b], y, scratch, ROUNDS);
                printf("%u-%u-%u-%u %-13s %s batch %3zu %10.3f us %7.1f GOP/s\n", widths[0], widths[1],
                       widths[2], widths[3], mrn_precision_name(precision), mrn_isa_name(isa), batches[b],
                       time * 1e6, operations * (double)batches[b] / time * 1e-9);
            }
            free(block), free(scratch);
            for (size_t i = 0; i < LAYERS; i++)
                free(weight[i]), free(scale[i]);
        }
    free(x), free(y);
    return 0;
}
