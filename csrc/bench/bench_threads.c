/* A forward pass alone and with a pool: median and 99th percentile of a call, in turn, with or without a busy
 * neighbour. make -C csrc build/bench_threads && csrc/build/bench_threads [THREADS [NEIGHBOURS]] */
#include "bench.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAYERS = 3, SHAPES = 3, BATCHES = 4, CALLS_MAX = 4000, RUN = 10 };

int main(int count, char **arguments) {
    static const uint32_t shapes[SHAPES][LAYERS + 1] = {
        {784, 256, 128, 10}, {784, 1024, 1024, 10}, {512, 2048, 2048, 512}};
    static const size_t batches[BATCHES] = {1, 8, 64, 512};
    static double times[2][CALLS_MAX];
    const size_t threads = count > 1 ? strtoul(arguments[1], NULL, 10) : 2;
    const size_t neighbours = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    pid_t busy[16];
    mrn_pool *pool;
    size_t isa;
    for (size_t i = 0; i < neighbours && i < 16; i++)
        if ((busy[i] = fork()) == 0)
            for (volatile unsigned n = 0;; n++)
                ;
    CHECK(mrn_pool_open(threads, aligned(mrn_pool_bytes(), 64), mrn_pool_bytes(), &pool) == MRN_OK, "pool");
    CHECK(mrn_isa_choose(NULL, &isa) == MRN_OK, "isa");
    printf("%zu threads, %zu busy neighbours, %s; us a call\n", threads, neighbours, mrn_isa_name(isa));
    for (size_t s = 0; s < SHAPES; s++) {
        const uint32_t *widths = shapes[s];
        mrn_layer layers[LAYERS] = {{0}};
        for (size_t i = 0; i < LAYERS; i++) {
            layers[i].weight = random_floats((size_t)widths[i] * widths[i + 1], 2 / sqrtf((float)widths[i]));
            layers[i].inputs = widths[i];
            layers[i].units = widths[i + 1];
            layers[i].activation = i + 1 < LAYERS ? 1 : 4;
        }
        const mrn_network network = {.layers = layers, .layer_count = LAYERS, .columns = widths[0]};
        mrn_plan plan;
        mrn_model *model;
        size_t bytes;
        CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
        CHECK(mrn_model_open(&network, isa, aligned(plan.model_bytes, 64), plan.model_bytes, &model) ==
                  MRN_OK,
              "open");
        CHECK(mrn_model_workspace_bytes(model, pool, &bytes) == MRN_OK, "workspace");
        void *scratch = aligned(plan.scratch_bytes, 64), *workspace = aligned(bytes, 64);
        float *x = random_floats(512 * (size_t)widths[0], 1),
              *y = random_floats(512 * (size_t)widths[LAYERS], 1);
        for (size_t b = 0; b < BATCHES; b++) {
            size_t calls = 0;
            for (const double end = wall_seconds() + 2; calls + RUN <= CALLS_MAX && wall_seconds() < end;
                 calls += RUN)
                for (size_t i = 0; i < 2 * RUN;
                     i++) { /* in runs: a helper is awake from the second call on */
                    const double start = wall_seconds();
                    CHECK((i < RUN ? mrn_model_predict(model, x, batches[b], y, scratch)
                                   : mrn_model_predict_shared(model, pool, x, batches[b], y, workspace)) ==
                              MRN_OK,
                          "predict");
                    times[i / RUN][calls + i % RUN] = (wall_seconds() - start) * 1e6;
                }
            for (size_t i = 0; i < 2; i++)
                qsort(times[i], calls, sizeof **times, by_value);
            printf("%u-%u-%u-%u batch %3zu: alone %9.1f (p99 %9.1f), shared %9.1f (p99 %9.1f): %.2fx, p99 "
                   "%.2fx\n",
                   widths[0], widths[1], widths[2], widths[3], batches[b], times[0][calls / 2],
                   times[0][calls * 99 / 100], times[1][calls / 2], times[1][calls * 99 / 100],
                   times[0][calls / 2] / times[1][calls / 2],
                   times[0][calls * 99 / 100] / times[1][calls * 99 / 100]);
        }
    }
    mrn_pool_close(pool);
    for (size_t i = 0; i < neighbours && i < 16; i++) {
        kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
    return 0;
}
