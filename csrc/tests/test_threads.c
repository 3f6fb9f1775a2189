/* The pool: the same bits as one thread, whatever the rows, also with late helpers, several callers and a
 * fork. */
#include "../kernels.h"
#include "../mrn.h"
#include "../pool.h"
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3, ROWS = 700 };

static void *aligned(size_t bytes) {
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    CHECK(block, "memory");
    memset(block, 0xa5, (bytes + 63) / 64 * 64);
    return block;
}

static mrn_pool *open_pool(size_t threads) {
    mrn_pool *pool;
    void *block = aligned(mrn_pool_bytes());
    CHECK(mrn_pool_open(threads, block, mrn_pool_bytes(), &pool) == MRN_OK, "pool of %zu", threads);
    return pool;
}

static float *random_floats(size_t count, float size) {
    static uint64_t state = 88172645463325252u;
    float *made = malloc(count * sizeof *made);
    CHECK(made, "memory");
    for (size_t i = 0; i < count; i++)
        made[i] = next_float(&state) * size;
    return made;
}

/* ---- Networks -------------------------------------------------------------------------------------------
 */

typedef struct opened {
    mrn_model *model;
    size_t columns, outputs, scratch_bytes;
    float *x, *expected;
} opened;

static opened open_network(const uint32_t *widths, size_t layer_count, uint32_t last, int encodes,
                           size_t isa) {
    mrn_layer layers[4] = {{0}};
    mrn_plan plan;
    opened o = {.columns = widths[0], .outputs = widths[layer_count]};
    for (size_t i = 0; i < layer_count; i++) {
        const size_t inputs = widths[i], units = widths[i + 1];
        layers[i] = (mrn_layer){.weight = random_floats(inputs * units, 2 / sqrtf((float)inputs)),
                                .bias = random_floats(units, 1),
                                .inputs = widths[i],
                                .units = widths[i + 1],
                                .activation = i + 1 < layer_count ? MRN_ACTIVATION_tanh : last};
    }
    float *shift = random_floats(o.columns, 1), *scale = random_floats(o.columns, 1);
    float *back = random_floats(o.outputs, 1);
    const mrn_network network = {.layers = layers,
                                 .layer_count = layer_count,
                                 .columns = o.columns,
                                 .shift = encodes ? shift : NULL,
                                 .scale = encodes ? scale : NULL,
                                 .target_shift = encodes ? back : NULL};
    CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
    CHECK(mrn_model_open(&network, isa, aligned(plan.model_bytes), plan.model_bytes, &o.model) == MRN_OK,
          "open");
    o.scratch_bytes = plan.scratch_bytes;
    o.x = random_floats(ROWS * o.columns, 1);
    o.expected = random_floats(ROWS * o.outputs, 1);
    void *scratch = aligned(plan.scratch_bytes);
    CHECK(mrn_model_predict(o.model, o.x, ROWS, o.expected, scratch) == MRN_OK, "predict");
    free(scratch), free(shift), free(scale), free(back);
    for (size_t i = 0; i < layer_count; i++)
        free((void *)layers[i].weight), free((void *)layers[i].bias);
    return o;
}

static void close_network(opened *o) {
    free(o->model), free(o->x), free(o->expected);
}

static void *workspace_for(const opened *o, const mrn_pool *pool) {
    size_t bytes;
    CHECK(mrn_model_workspace_bytes(o->model, pool, &bytes) == MRN_OK, "workspace");
    return aligned(bytes);
}

static void compare(const opened *o, mrn_pool *pool, size_t rows, float *y, void *workspace) {
    memset(y, 0x5a, rows * o->outputs * sizeof *y);
    CHECK(mrn_model_predict_shared(o->model, pool, o->x, rows, y, workspace) == MRN_OK, "%zu rows", rows);
    CHECK(memcmp(y, o->expected, rows * o->outputs * sizeof *y) == 0, "other bits at %zu rows", rows);
}

static void test_same_bits(mrn_pool *pool) {
    static const uint32_t shapes[][5] = {{784, 256, 128, 10, 0}, {300, 1030, 530, 7, 0}, {40, 900, 0, 0, 0}};
    static const size_t layer_counts[] = {3, 3, 1}, batches[] = {0, 1, 2, 15, 63, 64, 65, 100, 512, ROWS};
    for (size_t s = 0; s < 3; s++)
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            if (!mrn_isa_usable(isa))
                continue;
            const uint32_t last = s ? MRN_ACTIVATION_linear : MRN_ACTIVATION_softmax;
            opened o = open_network(shapes[s], layer_counts[s], last, s == 2, isa);
            void *workspace = workspace_for(&o, pool);
            float *y = malloc(ROWS * o.outputs * sizeof *y);
            for (size_t round = 0; round < 2; round++)
                for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
                    compare(&o, pool, batches[b], y, workspace);
            mrn_pool_settle(pool);
            close_network(&o), free(workspace), free(y);
        }
}

/* ---- Several callers at a time, and a child -------------------------------------------------------------
 */

typedef struct caller {
    const opened *o;
    mrn_pool *pool;
} caller;

static void *call_often(void *argument) {
    const caller *c = argument;
    void *workspace = workspace_for(c->o, c->pool);
    float *y = malloc(ROWS * c->o->outputs * sizeof *y);
    for (size_t i = 0; i < 30; i++)
        compare(c->o, c->pool, 1 + i * 11 % ROWS, y, workspace);
    mrn_pool_settle(c->pool);
    free(workspace), free(y);
    return NULL;
}

static void test_callers(mrn_pool *pool, const opened *o) {
    pthread_t threads[3];
    caller c = {o, pool};
    for (size_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, call_often, &c) == 0, "thread");
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void test_fork(mrn_pool *pool, const opened *o) {
    caller c = {o, pool};
    const pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        (void)call_often(&c);
        mrn_pool_close(pool);
        _exit(0);
    }
    (void)call_often(&c);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
          "the child failed");
}

/* ---- Late helpers: they stay in the middle of an item until they are let go ------------------------------
 */

typedef struct slow {
    size_t taken[MRN_POOL_ITEMS];
    atomic_int begun, let_go;
} slow;

static void compute_slowly(const void *context, size_t item, size_t thread, void *out) {
    slow *s = (slow *)(uintptr_t)context;
    if (thread) {
#if defined(SCHED_IDLE)
        CHECK(sched_getscheduler(0) == SCHED_IDLE, "a helper must give way to whoever wants its core");
#endif
        atomic_store(&s->begun, 1);
    }
    while (thread ? !atomic_load(&s->let_go) : !atomic_load(&s->begun))
        sched_yield();
    *(size_t *)out = item * 3 + 1;
}

static void take_number(const void *context, size_t item, const void *out) {
    slow *s = (slow *)(uintptr_t)context;
    s->taken[item] += *(const size_t *)out;
}

static void test_late_helpers(mrn_pool *pool) {
    slow *s = aligned(sizeof *s);
    char *slots = aligned((MRN_POOL_ITEMS + 1) * 64);
    memset(s, 0, sizeof *s);
    const mrn_job job = {s, 20, compute_slowly, take_number, slots, 64};
    while (!mrn_pool_begin(pool)) /* it may rest */
        mrn_pool_settle(pool);
    mrn_pool_run(pool, &job);
    for (size_t i = 0; i < 20; i++)
        CHECK(s->taken[i] == i * 3 + 1, "item %zu was taken as %zu", i, s->taken[i]);
    CHECK(!mrn_pool_ready(pool), "a helper is still in its item");
    mrn_pool_end(pool);
    CHECK(!mrn_pool_begin(pool), "the pool must not be given away while a helper is late");
    atomic_store(&s->let_go, 1);
    mrn_pool_settle(pool);
    CHECK(mrn_pool_ready(pool), "settled");
    for (int calls = 0; !mrn_pool_begin(pool); calls++) /* after a late helper it rests for some calls */
        CHECK(calls < 1024, "the pool never comes back");
    mrn_pool_end(pool);
    free(s), free(slots);
}

static void test_refusals(void) {
    mrn_pool *pool;
    void *block = aligned(mrn_pool_bytes());
    CHECK(mrn_pool_open(0, block, mrn_pool_bytes(), &pool) == MRN_E_ARGUMENT, "no threads");
    CHECK(mrn_pool_open(MRN_MAX_THREADS + 1, block, mrn_pool_bytes(), &pool) == MRN_E_ARGUMENT, "too many");
    CHECK(mrn_pool_open(2, NULL, mrn_pool_bytes(), &pool) == MRN_E_ARGUMENT, "no block");
    CHECK(mrn_pool_open(2, block, mrn_pool_bytes() - 1, &pool) == MRN_E_MEMORY, "too small");
    CHECK(mrn_pool_open(2, (char *)block + 8, mrn_pool_bytes(), &pool) == MRN_E_MEMORY, "not aligned");
    mrn_pool_close(NULL);
    mrn_pool_settle(NULL);
    free(block);
}

int main(void) {
    static const uint32_t shape[] = {200, 600, 300, 5};
    test_refusals();
    for (size_t threads = 1; threads <= THREADS; threads++) {
        mrn_pool *pool = open_pool(threads);
        size_t isa;
        test_same_bits(pool);
        CHECK(mrn_isa_choose(NULL, &isa) == MRN_OK, "isa");
        opened o = open_network(shape, 3, MRN_ACTIVATION_softmax, 1, isa);
        test_callers(pool, &o);
        test_fork(pool, &o);
        if (threads > 1)
            test_late_helpers(pool);
        mrn_pool_close(pool);
        close_network(&o), free(pool);
    }
    puts("threads: ok");
    return 0;
}
