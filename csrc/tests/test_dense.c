/* Every instruction set of this machine against a plain double-precision forward pass: random networks, odd
 * sizes, guard pages on both sides of every buffer that a call touches. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels.h"
#include "../mrn.h"
#include "check.h"
#include "guard.h"
#include "twin.h"

enum { LAYERS = 4, WIDEST = TWIN_WIDEST, ROWS = 250 }; /* more rows than one block has */

/* ---- Random networks
 * ------------------------------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252ull;

static size_t pick(size_t low, size_t high) {
    return low + next_random(&seed) % (high - low + 1);
}

static float *floats(size_t count, float factor) {
    float *made = malloc(count * sizeof *made);
    for (size_t i = 0; i < count; i++)
        made[i] = next_float(&seed) * factor;
    return made;
}

typedef struct random_network {
    mrn_network network;
    mrn_layer layers[LAYERS];
} random_network;

static void make(random_network *r, size_t first_width) {
    memset(r, 0, sizeof *r);
    mrn_network *n = &r->network;
    n->layers = r->layers;
    n->layer_count = pick(1, LAYERS);
    n->columns = first_width;
    size_t width = first_width;
    const int narrow = first_width <= 28 && pick(0, 3); /* rows may share vectors then */
    if (pick(0, 3) == 0) {                              /* one column becomes a few */
        uint32_t *categories = calloc(n->columns, sizeof *categories);
        categories[0] = (uint32_t)pick(1, 5);
        width += categories[0] - 1;
        n->categories = categories;
    }
    if (pick(0, 2) == 0) {
        uint32_t *copies = calloc(n->columns, sizeof *copies);
        const size_t last = n->columns - 1;
        for (size_t c = 0; c < n->columns; c++)
            copies[c] = 1;
        copies[last] = (uint32_t)pick(1, 6);
        if (!n->categories || !n->categories[last])
            width += copies[last] - 1;
        n->copies = copies;
    }
    if (pick(0, 2) == 0) {
        uint32_t *forms = calloc(width, sizeof *forms);
        for (size_t e = 0; e < width; e++)
            forms[e] = (uint32_t)pick(0, MRN_FORM_COUNT - 1);
        n->forms = forms;
    }
    n->fill = pick(0, 1) ? floats(n->columns, 1) : NULL;
    n->shift = pick(0, 1) ? floats(width, 1) : NULL;
    n->scale = pick(0, 1) ? floats(width, 2) : NULL;
    for (size_t i = 0; i < n->layer_count; i++) {
        const size_t units = narrow ? pick(1, 32) : pick(0, 3) ? pick(1, 40) : pick(1, WIDEST);
        const int last = i + 1 == n->layer_count;
        r->layers[i] = (mrn_layer){
            .weight = floats(width * units, 2 / sqrtf((float)width)),
            .bias = pick(0, 3) ? floats(units, 1) : NULL,
            .inputs = (uint32_t)width,
            .units = (uint32_t)units,
            .activation = (uint32_t)pick(0, mrn_activation_count() - 1),
        };
        if (!last && r->layers[i].activation == MRN_ACTIVATION_softmax)
            r->layers[i].activation = MRN_ACTIVATION_relu;
        if (mrn_activation_sloped(r->layers[i].activation))
            r->layers[i].slope = floats(units, 1);
        width = units;
    }
    n->target_shift = pick(0, 3) ? NULL : floats(width, 3);
    n->target_scale = pick(0, 3) ? NULL : floats(width, 3);
}

static void destroy(random_network *r) {
    for (size_t i = 0; i < r->network.layer_count; i++) {
        free((void *)r->layers[i].weight);
        free((void *)r->layers[i].bias);
        free((void *)r->layers[i].slope);
    }
    const void *tables[] = {r->network.copies,       r->network.forms,       r->network.categories,
                            r->network.fill,         r->network.shift,       r->network.scale,
                            r->network.target_shift, r->network.target_scale};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        free((void *)tables[i]);
}

/* ---- Tests
 * ------------------------------------------------------------------------------------------------------------
 */

static void check_one(const random_network *r, size_t isa, size_t rows, int at_end) {
    const mrn_network *network = &r->network;
    const size_t outputs = r->layers[network->layer_count - 1].units;
    mrn_plan plan;
    CHECK(mrn_model_plan(network, isa, &plan) == MRN_OK, "plan");
    const guarded block = guard(plan.model_bytes, at_end, plan.alignment);
    const guarded scratch = guard(plan.scratch_bytes, at_end, plan.alignment);
    const guarded x = guard(rows * network->columns * sizeof(float), at_end, sizeof(float));
    const guarded y = guard(rows * outputs * sizeof(float), at_end, sizeof(float));
    const guarded one = guard(outputs * sizeof(float), at_end, sizeof(float));
    float *in = (float *)(void *)x.block, *out = (float *)(void *)y.block,
          *single = (float *)(void *)one.block;
    for (size_t i = 0; i < rows * network->columns; i++)
        in[i] = next_float(&seed) * 2;
    for (size_t i = 0; i < rows && network->categories; i++) {
        in[i * network->columns] = (float)pick(0, 6); /* sometimes no category at all */
        if (network->fill && pick(0, 3) == 0)
            in[i * network->columns] = NAN;
    }
    mrn_model *model;
    CHECK(mrn_model_open(network, isa, block.block, plan.model_bytes, &model) == MRN_OK, "open");
    CHECK(mrn_model_predict(model, in, rows, out, scratch.block) == MRN_OK, "predict");
    for (size_t row = 0; row < rows; row++) {
        double wanted[WIDEST];
        twin(network, in + row * network->columns, wanted);
        memset(scratch.block, 0xff, plan.scratch_bytes); /* nothing is carried over: NaN would show */
        CHECK(mrn_model_predict(model, in + row * network->columns, 1, single, scratch.block) == MRN_OK,
              "one row");
        for (size_t o = 0; o < outputs; o++) {
            const double found = out[row * outputs + o];
            CHECK(fabs(found - wanted[o]) <= 2e-5 * (1 + fabs(wanted[o])),
                  "%s, row %zu of %zu: %.9g, wanted %.9g", mrn_isa_name(isa), row, rows, found, wanted[o]);
            CHECK(memcmp(&single[o], &out[row * outputs + o], sizeof(float)) == 0,
                  "%s: row %zu has other bits in a batch of %zu", mrn_isa_name(isa), row, rows);
        }
    }
    unguard(block), unguard(scratch), unguard(x), unguard(y), unguard(one);
}

static void test_random_networks(void) {
    const size_t row_counts[] = {1, 2, 3, 4, 5, 7, 12, 13, 47, 48, 49, ROWS};
    for (size_t i = 0; i < 150; i++) {
        random_network r;
        make(&r, i < 2 * MRN_STRIP + 2 ? i + 1 : pick(1, 130));
        for (size_t isa = 0; isa < mrn_isa_count(); isa++)
            if (mrn_isa_usable(isa))
                check_one(&r, isa, row_counts[i % (sizeof row_counts / sizeof *row_counts)], (int)i % 2);
        destroy(&r);
    }
}

/* One unit of weight 1: the output is the activation of the input. */
typedef struct single {
    unsigned char block[4096], scratch[1 << 16]; /* first: they need the alignment */
    mrn_layer layer;
    mrn_network network;
} single;

static const float weight_of_one = 1, slope_of_one = 0.2F;

static mrn_model *open_single(single *s, uint32_t activation, size_t isa) {
    mrn_model *model;
    mrn_plan plan;
    s->layer = (mrn_layer){.weight = &weight_of_one, .inputs = 1, .units = 1, .activation = activation};
    s->layer.slope = mrn_activation_sloped(activation) ? &slope_of_one : NULL;
    s->network = (mrn_network){.layers = &s->layer, .layer_count = 1, .columns = 1};
    CHECK(mrn_model_plan(&s->network, isa, &plan) == MRN_OK, "plan");
    CHECK(plan.model_bytes <= sizeof s->block && plan.scratch_bytes <= sizeof s->scratch, "room");
    CHECK(mrn_model_open(&s->network, isa, s->block, sizeof s->block, &model) == MRN_OK, "open");
    return model;
}

/* How many float32 values lie between a result and the truth. */
static double ulps(float found, double wanted) {
    const float near = (float)wanted;
    const double unit = (double)nextafterf(fabsf(near), INFINITY) - fabs((double)near);
    return fabs(found - wanted) / unit;
}

/* What activation_template.h states: in ulp, or an absolute error where the result is tiny. */
static int within_bound(uint32_t activation, float x, float found, double wanted, double *worst) {
    static const struct {
        double ulps, tiny, absolute;
    } bounds[] = {
        [MRN_ACTIVATION_linear] = {0, 0, 0},
        [MRN_ACTIVATION_relu] = {0, 0, 0},
        [MRN_ACTIVATION_sigmoid] = {3, 1e-38, 1e-38},
        [MRN_ACTIVATION_tanh] = {2, 0, 0},
        [MRN_ACTIVATION_leaky_relu] = {0.5, 0, 0},
        [MRN_ACTIVATION_elu] = {3, 0, 0},
        [MRN_ACTIVATION_selu] = {3, 0, 0},
        [MRN_ACTIVATION_gelu] = {4, 1e-36, 1e-43},
        [MRN_ACTIVATION_gelu_tanh] = {4, 1e-36, 1e-43},
        [MRN_ACTIVATION_silu] = {3, 1e-36, 1e-43},
        [MRN_ACTIVATION_softplus] = {3, 1e-36, 1e-43},
        [MRN_ACTIVATION_prelu] = {0.5, 0, 0},
    };
    double more = 0;
    if (activation == MRN_ACTIVATION_gelu_tanh && x < 0)
        more = 3 * 1.6 * -x * (1 + 0.044715 * (double)x * x);
    if (fabs(wanted) <= bounds[activation].tiny && fabs(found - wanted) <= bounds[activation].absolute)
        return 1;
    if (found == (float)wanted) /* also infinities */
        return 1;
    const double off = ulps(found, wanted) - more;
    *worst = fmax(*worst, off);
    return off <= bounds[activation].ulps;
}

/* Every STEPth float32 there is, and all specials, against double precision. -DSTEP=1 takes an hour. */
#ifndef STEP
#define STEP 4999
#endif
static void test_activation_bounds(void) {
    enum { COUNT = 4096 };
    static single s __attribute__((aligned(64)));
    static float x[COUNT], y[COUNT];
    static double wanted[COUNT];
    for (uint32_t activation = 0; activation < mrn_activation_count(); activation++) {
        double worst = 0;
        if (activation == MRN_ACTIVATION_softmax)
            continue;
        for (uint64_t bits = 0; bits <= UINT32_MAX; bits += (uint64_t)COUNT * STEP) {
            size_t count = 0;
            for (uint64_t i = bits; count < COUNT && i <= UINT32_MAX; i += STEP, count++) {
                const uint32_t low = (uint32_t)i;
                memcpy(&x[count], &low, sizeof low);
                wanted[count] = activate(activation, (double)slope_of_one, x[count]);
            }
            for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
                if (!mrn_isa_usable(isa))
                    continue;
                const mrn_model *model = open_single(&s, activation, isa);
                CHECK(mrn_model_predict(model, x, count, y, s.scratch) == MRN_OK, "predict");
                for (size_t i = 0; i < count; i++) {
                    CHECK(isnan(x[i]) == isnan(y[i]), "%s(%g) = %g on %s", mrn_activation_name(activation),
                          x[i], y[i], mrn_isa_name(isa));
                    CHECK(isnan(x[i]) || within_bound(activation, x[i], y[i], wanted[i], &worst),
                          "%s(%.9g) = %.9g on %s, wanted %.9g: %g", mrn_activation_name(activation), x[i],
                          y[i], mrn_isa_name(isa), wanted[i], worst);
                }
            }
        }
        printf("  %s: %.2f ulp\n", mrn_activation_name(activation), worst);
    }
}

/* Softmax over 1 to 100 units: the bound of activation_template.h; the far ones underflow to 0 as in double
 * precision. */
static void test_softmax_bounds(void) {
    enum { UNITS = 100 };
    static float weight[UNITS * UNITS], x[UNITS], y[UNITS];
    static unsigned char block[1 << 17] __attribute__((aligned(64))),
        scratch[1 << 18] __attribute__((aligned(64)));
    for (size_t units = 1; units <= UNITS; units++) {
        memset(weight, 0, sizeof weight);
        for (size_t u = 0; u < units; u++)
            weight[u * units + u] = 1;
        const mrn_layer layer = {.weight = weight,
                                 .inputs = (uint32_t)units,
                                 .units = (uint32_t)units,
                                 .activation = MRN_ACTIVATION_softmax};
        const mrn_network network = {.layers = &layer, .layer_count = 1, .columns = units};
        for (size_t isa = 0; isa < mrn_isa_count(); isa++)
            for (size_t round = 0; mrn_isa_usable(isa) && round < 20; round++) {
                mrn_model *model;
                double wanted[WIDEST];
                for (size_t u = 0; u < units; u++)
                    x[u] = next_float(&seed) * (round % 2 ? 5 : 200);
                CHECK(mrn_model_open(&network, isa, block, sizeof block, &model) == MRN_OK, "open");
                CHECK(mrn_model_predict(model, x, 1, y, scratch) == MRN_OK, "predict");
                twin(&network, x, wanted);
                for (size_t u = 0; u < units; u++) {
                    /* the difference to the maximum is rounded to float32 before exp sees it */
                    const double bound = 6 + (double)units / 16 + fabs(log(wanted[u] + 1e-300));
                    CHECK(wanted[u] < 1.2e-38 ? y[u] < 1.3e-38F : ulps(y[u], wanted[u]) <= bound,
                          "%s: %.9g of %zu, wanted %.9g", mrn_isa_name(isa), y[u], units, wanted[u]);
                }
            }
    }
}

/* NaN stays NaN, infinities saturate, as float32 arithmetic has it; the neighbours in the batch notice
 * nothing. */
static void test_special_values(void) {
    enum { CASES = 7 };
    const float cases[CASES] = {NAN, INFINITY, -INFINITY, 1e-45F, 3e38F, -3e38F, 0};
    static single s __attribute__((aligned(64)));
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        for (uint32_t activation = 0; mrn_isa_usable(isa) && activation < mrn_activation_count();
             activation++) {
            if (activation == MRN_ACTIVATION_softmax)
                continue;
            const mrn_model *model = open_single(&s, activation, isa);
            float y[CASES];
            double worst = 0;
            CHECK(mrn_model_predict(model, cases, CASES, y, s.scratch) == MRN_OK, "predict");
            CHECK(isnan(y[0]), "%s(NaN) = %g", mrn_activation_name(activation), y[0]);
            for (size_t i = 1; i < CASES; i++)
                CHECK(within_bound(activation, cases[i], y[i],
                                   activate(activation, (double)slope_of_one, cases[i]), &worst),
                      "%s(%g) = %g on %s", mrn_activation_name(activation), cases[i], y[i],
                      mrn_isa_name(isa));
        }
}

/* Softmax as NumPy does it: NaN or an infinite maximum spoils its row and no other; -infinity is probability
 * 0. */
static void test_special_rows(void) {
    const float identity[4] = {1, 0, 0, 1}, x[] = {1, 2, NAN, 0, 3e38F, -3e38F, -1e30F, 1},
                nothing[2] = {0, 0};
    static unsigned char block[4096] __attribute__((aligned(64))),
        scratch[1 << 16] __attribute__((aligned(64)));
    const mrn_layer layers[] = {{identity, nothing, 2, 2, MRN_ACTIVATION_linear, NULL, NULL},
                                {identity, NULL, 2, 2, MRN_ACTIVATION_softmax, NULL, NULL}};
    const mrn_network network = {.layers = layers, .layer_count = 2, .columns = 2};
    for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
        mrn_model *model;
        float y[8];
        if (!mrn_isa_usable(isa))
            continue;
        CHECK(mrn_model_open(&network, isa, block, sizeof block, &model) == MRN_OK, "open");
        CHECK(mrn_model_predict(model, x, 4, y, scratch) == MRN_OK, "predict");
        CHECK(fabsf(y[1] - 0.73105858F) < 1e-6F && fabsf(y[0] + y[1] - 1) < 1e-6F, "%g %g", y[0], y[1]);
        CHECK(isnan(y[2]) && isnan(y[3]), "%g %g", y[2], y[3]);
        CHECK(y[4] == 1 && y[5] == 0 && y[6] == 0 && y[7] == 1, "%g %g %g %g", y[4], y[5], y[6], y[7]);
    }
}

/* avx2 and avx512 promise the same bits as each other. */
static void test_equal_bits(void) {
    enum { COUNT = 31 };
    size_t first, second;
    if (mrn_isa_choose("avx2", &first) || mrn_isa_choose("avx512", &second) || first == 0 || second == first)
        return;
    for (size_t round = 0; round < 40; round++) {
        random_network r;
        make(&r, pick(1, 130));
        const size_t columns = r.network.columns, outputs = r.layers[r.network.layer_count - 1].units;
        float *x = floats(COUNT * columns, 2), *y[2];
        for (size_t i = 0; i < 2; i++) {
            mrn_plan plan;
            mrn_model *model;
            CHECK(mrn_model_plan(&r.network, i ? second : first, &plan) == MRN_OK, "plan");
            void *block = aligned_alloc(64, plan.model_bytes),
                 *scratch = aligned_alloc(64, plan.scratch_bytes);
            CHECK(mrn_model_open(&r.network, i ? second : first, block, plan.model_bytes, &model) == MRN_OK,
                  "open");
            y[i] = malloc(COUNT * outputs * sizeof(float));
            CHECK(mrn_model_predict(model, x, COUNT, y[i], scratch) == MRN_OK, "predict");
            free(block), free(scratch);
        }
        CHECK(memcmp(y[0], y[1], COUNT * outputs * sizeof(float)) == 0, "%zu-%zu", columns, outputs);
        free(x), free(y[0]), free(y[1]);
        destroy(&r);
    }
}

/* What mrn_model_predict promises beyond one machine: generic gives the same bits everywhere, big-endian
 * machines too, and so does whatever fuses multiply-add. There is no NaN here: its bits differ. */
static void test_known_bits(void) {
    enum { WIDTHS = 8, COUNT = 19 };
    static const size_t widths[WIDTHS] = {1, 3, 8, 16, 17, 40, 64, 130};
    static float weight[130 * 130], bias[130], slope[130], x[COUNT * 130], y[COUNT * 130];
    for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
        uint64_t state = 1, hash = 0xcbf29ce484222325U; /* FNV-1a */
        if (!mrn_isa_usable(isa))
            continue;
        for (uint32_t activation = 0; activation < mrn_activation_count(); activation++)
            for (size_t w = 0; w < WIDTHS; w++) {
                const size_t inputs = widths[WIDTHS - 1 - w], units = widths[w];
                mrn_plan plan;
                mrn_model *model;
                for (size_t i = 0; i < inputs * units; i++)
                    weight[i] = next_float(&state);
                for (size_t u = 0; u < units; u++)
                    bias[u] = next_float(&state), slope[u] = next_float(&state);
                for (size_t i = 0; i < COUNT * inputs; i++)
                    x[i] = 2 * next_float(&state);
                const mrn_layer layer = {.weight = weight,
                                         .bias = bias,
                                         .inputs = (uint32_t)inputs,
                                         .units = (uint32_t)units,
                                         .activation = activation,
                                         .slope = mrn_activation_sloped(activation) ? slope : NULL};
                const mrn_network network = {.layers = &layer, .layer_count = 1, .columns = inputs};
                CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
                void *block = aligned_alloc(64, plan.model_bytes),
                     *scratch = aligned_alloc(64, plan.scratch_bytes);
                CHECK(mrn_model_open(&network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
                CHECK(mrn_model_predict(model, x, COUNT, y, scratch) == MRN_OK, "predict");
                free(block), free(scratch);
                for (size_t i = 0; i < COUNT * units; i++) {
                    uint32_t bits;
                    memcpy(&bits, &y[i], sizeof bits);
                    hash = (hash ^ bits) * 0x100000001b3U;
                }
            }
        const uint64_t known = isa == 0 ? 0x54d75afec4fd7c46U : 0x3bf7a5ec34ff339cU;
        CHECK(hash == known, "%s: 0x%016llx", mrn_isa_name(isa), (unsigned long long)hash);
    }
}

/* Scratch does not grow with the rows: a million of them, with an untouchable page behind it. */
static void test_a_million_rows(void) {
    enum { ROWS_MANY = 1000000, FIRST = 512 };
    const float weight[4] = {1, -2, 3, 0.5F};
    const mrn_layer layers[] = {
        {.weight = weight, .inputs = 1, .units = 2, .activation = MRN_ACTIVATION_tanh},
        {.weight = weight, .inputs = 2, .units = 2}};
    const mrn_network network = {.layers = layers, .layer_count = 2, .columns = 1};
    float *x = malloc(ROWS_MANY * sizeof *x), *y = malloc(2 * ROWS_MANY * sizeof *y);
    static float first[2 * FIRST];
    for (size_t i = 0; i < ROWS_MANY; i++)
        x[i] = i < FIRST ? next_float(&seed) : x[i - FIRST];
    for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
        mrn_plan plan;
        mrn_model *model;
        if (!mrn_isa_usable(isa))
            continue;
        CHECK(mrn_model_plan(&network, isa, &plan) == MRN_OK, "plan");
        const guarded block = guard(plan.model_bytes, 1, plan.alignment);
        const guarded scratch = guard(plan.scratch_bytes, 1, plan.alignment);
        CHECK(mrn_model_open(&network, isa, block.block, plan.model_bytes, &model) == MRN_OK, "open");
        CHECK(mrn_model_predict(model, x, FIRST, first, scratch.block) == MRN_OK, "512 rows");
        CHECK(mrn_model_predict(model, x, ROWS_MANY, y, scratch.block) == MRN_OK, "a million rows");
        for (size_t i = 0; i < ROWS_MANY; i++)
            CHECK(memcmp(&y[2 * i], &first[i % FIRST * 2], 2 * sizeof *y) == 0, "%s: row %zu",
                  mrn_isa_name(isa), i);
        unguard(block), unguard(scratch);
    }
    free(x), free(y);
}

static void test_refusals(void) {
    const float weights[4] = {1, 2, 3, 4}, bad[4] = {1, NAN, 3, 4};
    static unsigned char block[4096] __attribute__((aligned(64)));
    mrn_layer layer = {.weight = weights, .inputs = 2, .units = 2};
    mrn_network network = {.layers = &layer, .layer_count = 1, .columns = 2};
    mrn_model *model;
    mrn_plan plan;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_OK, "good");
    CHECK(mrn_model_plan(NULL, 0, &plan) == MRN_E_ARGUMENT &&
              mrn_model_plan(&network, 0, NULL) == MRN_E_ARGUMENT,
          "NULL");
    CHECK(mrn_model_plan(&network, 99, &plan) == MRN_E_ISA, "isa");
    CHECK(mrn_model_open(&network, 0, block + 1, sizeof block - 1, &model) == MRN_E_MEMORY, "alignment");
    CHECK(mrn_model_open(&network, 0, block, plan.model_bytes - 1, &model) == MRN_E_MEMORY, "size");
    network.columns = 3;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_SHAPE, "columns");
    network.columns = SIZE_MAX;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_TOO_LARGE, "too many columns");
    const uint32_t huge[2] = {UINT32_MAX, UINT32_MAX};
    network.columns = 2;
    network.categories = huge;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_TOO_LARGE, "categories");
    network.categories = NULL;
    layer.units = 0;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_SHAPE, "no units");
    layer.units = UINT32_MAX;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_TOO_LARGE, "too many units");
    layer.units = 2;
    layer.activation = (uint32_t)mrn_activation_count();
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "activation");
    layer.activation = MRN_ACTIVATION_prelu;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "no slopes");
    layer.slope = bad;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_RANGE, "a slope is NaN");
    layer.slope = weights;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_OK, "slopes");
    layer.activation = 0;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "slopes for linear");
    layer.slope = NULL;
    layer.weight = bad;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_RANGE, "NaN");
    layer.weight = NULL;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "no weight");
    size_t isa;
    CHECK(mrn_isa_choose("magic", &isa) == MRN_E_ISA && mrn_isa_choose("generic", &isa) == MRN_OK && isa == 0,
          "choose");
    CHECK(mrn_isa_name(99) == NULL && mrn_isa_usable(99) == 0 && mrn_activation_name(99) == NULL,
          "unknown numbers");
}

int main(void) {
    test_random_networks();
    test_activation_bounds();
    test_softmax_bounds();
    test_special_values();
    test_special_rows();
    test_equal_bits();
    test_known_bits();
    test_a_million_rows();
    test_refusals();
    return 0;
}
