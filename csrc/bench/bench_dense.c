/* The dense kernels alone: microseconds a call and GFLOP/s, by instruction set, shape and batch; best of some
 * rounds. make -C csrc build/bench_dense && csrc/build/bench_dense */
#include "bench.h"

enum { LAYERS = 3, SHAPES = 4, BATCHES = 4, ROUNDS = 7 };

int main(void) {
    static const uint32_t shapes[SHAPES][LAYERS + 1] = {
        {4, 16, 16, 3}, {64, 64, 32, 10}, {784, 256, 128, 10}, {784, 1024, 1024, 10}};
    static const size_t batches[BATCHES] = {1, 8, 64, 512};
    for (size_t s = 0; s < SHAPES; s++) {
        const uint32_t *widths = shapes[s];
        mrn_layer layers[LAYERS];
        double operations = 0;
        for (size_t i = 0; i < LAYERS; i++) {
            const size_t inputs = widths[i], units = widths[i + 1];
            layers[i] = (mrn_layer){random_floats(inputs * units, 2 / sqrtf((float)inputs)),
                                    random_floats(units, 1),
                                    widths[i],
                                    widths[i + 1],
                                    i + 1 < LAYERS ? 1 : 4,
                                    NULL,
                                    NULL};
            operations += 2.0 * (double)inputs * (double)units;
        }
        const mrn_network network = {.layers = layers, .layer_count = LAYERS, .columns = widths[0]};
        float *x = random_floats(512 * (size_t)widths[0], 1),
              *y = random_floats(512 * (size_t)widths[LAYERS], 1);
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            mrn_plan plan;
            mrn_model *model;
            if (!mrn_isa_usable(isa))
                continue;
            CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
            void *block = aligned(plan.model_bytes, plan.alignment),
                 *scratch = aligned(plan.scratch_bytes, plan.alignment);
            CHECK(mrn_model_open(&network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
            for (size_t b = 0; b < BATCHES; b++) {
                const double time = best_time(model, x, batches[b], y, scratch, ROUNDS);
                printf("%u-%u-%u-%u %-7s batch %3zu %10.3f us %7.1f GFLOP/s\n", widths[0], widths[1],
                       widths[2], widths[3], mrn_isa_name(isa), batches[b], time * 1e6,
                       operations * (double)batches[b] / time * 1e-9);
            }
            free(block), free(scratch);
        }
        for (size_t i = 0; i < LAYERS; i++)
            free((void *)layers[i].weight), free((void *)layers[i].bias);
        free(x), free(y);
    }
    return 0;
}
