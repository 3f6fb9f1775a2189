/* The precisions on the best instruction set: microseconds a call and GOP/s, by shape and batch, best of some
 * rounds. make -C csrc build/bench_precision && csrc/build/bench_precision */
#include "../dot.h"
#include "../mrn.h"
#include "../tests/check.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 3, SHAPES = 4, BATCHES = 4, ROUNDS = 9 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *aligned(size_t bytes, size_t alignment) {
    void *block = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    CHECK(block, "memory");
    return block;
}

/* The best time of one call, from calls repeated for about 20 ms. */
static double best_time(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch) {
    double best = INFINITY;
    size_t calls = 1;
    for (int round = 0; round < ROUNDS; round++) {
        const double start = seconds();
        for (size_t i = 0; i < calls; i++)
            CHECK(mrn_model_predict(model, x, rows, y, scratch) == MRN_OK, "predict");
        const double once = (seconds() - start) / (double)calls;
        best = fmin(best, once);
        calls = (size_t)fmax(1, 0.02 / once);
    }
    return best;
}

int main(void) {
    static const uint32_t shapes[SHAPES][LAYERS + 1] = {
        {64, 64, 32, 10}, {784, 256, 128, 10}, {784, 1024, 1024, 10}, {1024, 1024, 1024, 1024}};
    static const size_t batches[BATCHES] = {1, 8, 64, 512};
    uint64_t seed = 1;
    size_t isa;
    CHECK(mrn_isa_choose(getenv("MARIANA_ISA"), &isa) == MRN_OK, "MARIANA_ISA");
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
                const double time = best_time(model, x, batches[b], y, scratch);
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
