/* The precisions below float32 on every instruction set of this machine, against twins that share nothing
 * with the kernels: int8 bit by bit, bfloat16 and float32-split against double precision with a bound. Random
 * sizes, guard pages on both sides of every buffer that a call touches. */
#include <math.h>
#include <string.h>

#include "../dot.h"
#include "../mrn.h"
#include "check.h"
#include "guard.h"

#ifndef NETWORKS
#define NETWORKS 120 /* of each precision */
#endif

enum { LAYERS = 3, WIDEST = 200, NARROW = 32, ROWS = 70 };

static uint64_t seed = 88172645463325252ull;

static size_t pick(size_t low, size_t high) {
    return low + next_random(&seed) % (high - low + 1);
}

static float to_float(uint16_t bfloat16) {
    const uint32_t bits = (uint32_t)bfloat16 << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* The nearest bfloat16, found by trying both neighbours. */
static uint16_t nearest(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    const uint16_t below = (uint16_t)(bits >> 16), above = (uint16_t)(below + 1);
    if (isnan(number))
        return below | 0x40;
    if (fabsf(number) < 1.17549435e-38F)
        return below & 0x8000;
    /* beyond the largest one, the next step stands for the infinity */
    const double up = isinf(to_float(above)) ? ldexp(to_float(below) > 0 ? 1 : -1, 128) : to_float(above);
    const double to_below = fabs((double)number - to_float(below)), to_above = fabs((double)number - up);
    if (to_below == to_above)
        return below % 2 ? above : below;
    return to_below < to_above ? below : above;
}

/* ---- A random network, in one precision, and its twin ---- */

typedef struct random_network {
    mrn_network network;
    mrn_layer layers[LAYERS];
    void *weight[LAYERS];
    float *bias[LAYERS], *scale[LAYERS];
} random_network;

static void make(random_network *r, uint32_t precision, size_t columns) {
    memset(r, 0, sizeof *r);
    size_t width = columns;
    const int narrow = columns <= NARROW && pick(0, 1); /* its rows may run in lanes */
    r->network = (mrn_network){
        .layers = r->layers, .layer_count = pick(1, LAYERS), .columns = columns, .precision = precision};
    for (size_t i = 0; i < r->network.layer_count; i++) {
        const size_t units = narrow ? pick(1, NARROW) : pick(0, 3) ? pick(1, 40) : pick(1, WIDEST);
        const size_t count = width * units;
        r->weight[i] = malloc(count * sizeof(float));
        r->bias[i] = malloc(units * sizeof(float));
        r->scale[i] = malloc(units * sizeof(float));
        for (size_t w = 0; w < count; w++) {
            const float value = next_float(&seed) * 2 / sqrtf((float)width);
            const int step = (int)pick(0, 255) - 128;
            if (precision == MRN_PRECISION_int8)
                ((int8_t *)r->weight[i])[w] = (int8_t)step;
            else if (precision == MRN_PRECISION_bfloat16)
                ((uint16_t *)r->weight[i])[w] = nearest(value);
            else
                ((float *)r->weight[i])[w] = value;
        }
        for (size_t u = 0; u < units; u++) {
            r->bias[i][u] = next_float(&seed);
            r->scale[i][u] = (1.5F + next_float(&seed)) * 0.01F;
        }
        r->layers[i] = (mrn_layer){.weight = r->weight[i],
                                   .bias = pick(0, 3) ? r->bias[i] : NULL,
                                   .inputs = (uint32_t)width,
                                   .units = (uint32_t)units,
                                   .activation = pick(0, 1) ? MRN_ACTIVATION_relu : MRN_ACTIVATION_linear,
                                   .weight_scale = precision == MRN_PRECISION_int8 ? r->scale[i] : NULL};
        width = units;
    }
}

static void destroy(random_network *r) {
    for (size_t i = 0; i < LAYERS; i++)
        free(r->weight[i]), free(r->bias[i]), free(r->scale[i]);
}

static size_t outputs_of(const random_network *r) {
    return r->layers[r->network.layer_count - 1].units;
}

/* One layer in int8, as docs/precision.md has it: every step is exact or one IEEE operation. */
static void layer_int8(const mrn_layer *layer, const float *x, float *y) {
    int q[WIDEST];
    float low = 0, high = 0;
    int finite = 1;
    for (size_t k = 0; k < layer->inputs; k++) {
        finite &= isfinite(x[k]) != 0;
        low = fminf(low, x[k]);
        high = fmaxf(high, x[k]);
    }
    const float step = high / 255 - low / 255, scale = fmaxf(step, 1e-37F), inverse = 1 / scale;
    const int zero = (int)fmin(nearbyint((double)(float)(-low * inverse)), 255);
    for (size_t k = 0; k < layer->inputs; k++)
        q[k] = finite ? (int)fmin(fmax(nearbyint((double)(float)(x[k] * inverse)) + zero, 0), 255) : 0;
    for (size_t u = 0; u < layer->units; u++) {
        int64_t sum = 0;
        for (size_t k = 0; k < layer->inputs; k++)
            sum += (int64_t)(q[k] - zero) * ((const int8_t *)layer->weight)[k * layer->units + u];
        const float unit = (finite ? scale : NAN) * layer->weight_scale[u], product = (float)sum * unit;
        y[u] = product + (layer->bias ? layer->bias[u] : 0);
        if (layer->activation == MRN_ACTIVATION_relu)
            y[u] = y[u] < 0 ? 0 : y[u];
    }
}

/* One layer on the weights' and the activations' own values, in double precision; *bound is how far float32
 * sums may be off. */
static void layer_exact(const mrn_layer *layer, uint32_t precision, const float *x, size_t u, double *y,
                        double *bound) {
    double sum = layer->bias ? layer->bias[u] : 0, size = fabs(sum);
    for (size_t k = 0; k < layer->inputs; k++) {
        const size_t at = k * layer->units + u;
        const double product =
            precision == MRN_PRECISION_bfloat16
                ? (double)to_float(nearest(x[k])) * to_float(((const uint16_t *)layer->weight)[at])
                : (double)x[k] * ((const float *)layer->weight)[at];
        sum += product;
        size += fabs(product);
    }
    if (layer->activation == MRN_ACTIVATION_relu && sum < 0)
        sum = 0;
    *y = sum;
    *bound = size * ((double)layer->inputs + 2) * 0x1p-24 + 1e-36;
}

/* ---- Running ---- */

/* Runs a network in guarded memory, and each row alone: the bits must be the same. */
static void run(const mrn_network *network, size_t outputs, size_t isa, const float *x, size_t rows, float *y,
                int at_end) {
    mrn_plan plan;
    mrn_model *model;
    CHECK(mrn_model_plan(network, isa, &plan) == MRN_OK, "plan");
    const guarded block = guard(plan.model_bytes, at_end, plan.alignment);
    const guarded scratch = guard(plan.scratch_bytes, at_end, plan.alignment);
    const guarded in = guard(rows * network->columns * sizeof *x, at_end, sizeof *x);
    const guarded out = guard(rows * outputs * sizeof *y, at_end, sizeof *y);
    const guarded one = guard(outputs * sizeof *y, at_end, sizeof *y);
    CHECK(mrn_model_open(network, isa, block.block, plan.model_bytes, &model) == MRN_OK, "open");
    memcpy(in.block, x, rows * network->columns * sizeof *x);
    memset(scratch.block, 0xff, plan.scratch_bytes);
    CHECK(mrn_model_predict(model, (float *)(void *)in.block, rows, (float *)(void *)out.block,
                            scratch.block) == MRN_OK,
          "predict");
    memcpy(y, out.block, rows * outputs * sizeof *y);
    for (size_t row = 0; row < rows; row++) {
        memset(scratch.block, 0xff, plan.scratch_bytes); /* nothing is carried over: NaN would show */
        CHECK(mrn_model_predict(model, (float *)(void *)in.block + row * network->columns, 1,
                                (float *)(void *)one.block, scratch.block) == MRN_OK,
              "one row");
        CHECK(memcmp(one.block, y + row * outputs, outputs * sizeof *y) == 0,
              "%s, %s: row %zu has other bits in a batch of %zu", mrn_isa_name(isa),
              mrn_precision_name(network->precision), row, rows);
    }
    unguard(block), unguard(scratch), unguard(in), unguard(out), unguard(one);
}

static int same(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)) || (a == 0 && b == 0);
}

static void fill(float *x, size_t count, float size) {
    for (size_t i = 0; i < count; i++)
        x[i] = next_float(&seed) * size;
}

static const size_t row_counts[] = {1, 2, 3, 5, 6, 7, 13, 16, 17, 31, 33, ROWS};

/* int8: the same bits as the twin, layer by layer, on every set; rows that are not finite are all NaN. */
static void test_int8(void) {
    static float x[ROWS * WIDEST], y[ROWS * WIDEST];
    for (size_t i = 0; i < NETWORKS; i++) {
        const size_t columns = i < 70 ? i + 1 : pick(1, WIDEST);
        const size_t rows = row_counts[i % (sizeof row_counts / sizeof *row_counts)];
        random_network r;
        make(&r, MRN_PRECISION_int8, columns);
        const size_t outputs = outputs_of(&r);
        const float sizes[] = {1, 100, 1e-30F, 1e30F, 1e-44F, 3.4e38F};
        fill(x, rows * columns, i % 5 ? 1 : sizes[i / 5 % 6]);
        if (i % 7 == 0)
            x[pick(0, rows * columns - 1)] = i % 2 ? NAN : -INFINITY;
        if (i % 7 == 1)
            memset(x, 0, columns * sizeof *x);
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            if (!mrn_precision_usable(MRN_PRECISION_int8, isa))
                continue;
            run(&r.network, outputs, isa, x, rows, y, (int)i % 2);
            for (size_t row = 0; row < rows; row++) {
                float a[WIDEST], b[WIDEST], *in = a, *to = b;
                memcpy(a, x + row * columns, columns * sizeof *x);
                for (size_t l = 0; l < r.network.layer_count; l++) {
                    layer_int8(&r.layers[l], in, to);
                    float *swap = in;
                    in = to, to = swap;
                }
                for (size_t u = 0; u < outputs; u++)
                    CHECK(same(in[u], y[row * outputs + u]), "%s, row %zu of %zu: %.9g, wanted %.9g",
                          mrn_isa_name(isa), row, rows, y[row * outputs + u], in[u]);
            }
        }
        destroy(&r);
    }
}

/* int8 at its ends: steps 0 and 255 and weights of either sign, wherever a row ends; the same bits as the
 * twin, for rows side by side and in lanes. */
static void test_int8_ends(void) {
    enum { UNITS = 19, MOST = 80 };
    static const int8_t ends[] = {-128, -127, 127, 127, 0, -1};
    static int8_t weight[MOST * UNITS];
    static float x[16 * MOST], y[16 * UNITS], wanted[UNITS], scale[UNITS];
    for (size_t u = 0; u < UNITS; u++)
        scale[u] = 0.5F + (float)u;
    for (size_t columns = 1; columns <= MOST; columns++) {
        const mrn_layer layer = {weight, NULL, (uint32_t)columns, UNITS, MRN_ACTIVATION_linear, scale, NULL};
        const mrn_network network = {
            .layers = &layer, .layer_count = 1, .columns = columns, .precision = MRN_PRECISION_int8};
        const size_t rows = pick(1, 16), kinds = pick(1, 6);
        for (size_t w = 0; w < columns * UNITS; w++)
            weight[w] = ends[pick(0, kinds - 1)];
        for (size_t i = 0; i < rows * columns; i++)
            x[i] = i / columns % 3 == 0 ? 1.0F : (float)pick(0, 1) - (float)(i / columns % 3 - 1);
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            if (!mrn_isa_usable(isa))
                continue;
            run(&network, UNITS, isa, x, rows, y, (int)columns % 2);
            for (size_t row = 0; row < rows; row++) {
                layer_int8(&layer, x + row * columns, wanted);
                for (size_t u = 0; u < UNITS; u++)
                    CHECK(same(wanted[u], y[row * UNITS + u]), "%s, %zu columns: %.9g, wanted %.9g",
                          mrn_isa_name(isa), columns, y[row * UNITS + u], wanted[u]);
            }
        }
    }
}

static int takes_tiles(size_t isa, uint32_t precision) {
    return mrn_dots_of(isa, precision)->depth > 1;
}

/* bfloat16 and float32-split: within the bound of float32 sums, one layer at a time; bfloat16 has the same
 * bits on every set but the one with tiles. */
static void test_against_double(uint32_t precision) {
    static float x[ROWS * WIDEST], y[ROWS * WIDEST], first[ROWS * WIDEST];
    for (size_t i = 0; i < NETWORKS; i++) {
        const size_t columns = i < 70 ? i + 1 : pick(1, WIDEST);
        const size_t rows = row_counts[i % (sizeof row_counts / sizeof *row_counts)];
        random_network r;
        make(&r, precision, columns);
        r.network.layer_count = 1;
        const size_t outputs = outputs_of(&r);
        const float sizes[] = {1, 100, 1e-30F, 1e30F, 1e-36F, 1e37F};
        fill(x, rows * columns, i % 5 ? 1 : sizes[i / 5 % 6]);
        int seen = 0;
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            if (!mrn_precision_usable(precision, isa))
                continue;
            run(&r.network, outputs, isa, x, rows, y, (int)i % 2);
            for (size_t row = 0; row < rows; row++)
                for (size_t u = 0; u < outputs; u++) {
                    double wanted, bound;
                    layer_exact(r.layers, precision, x + row * columns, u, &wanted, &bound);
                    CHECK(fabs(y[row * outputs + u] - wanted) <= bound, "%s on %s: %.9g, wanted %.9g +- %.2g",
                          mrn_precision_name(precision), mrn_isa_name(isa), y[row * outputs + u], wanted,
                          bound);
                }
            if (takes_tiles(isa, precision))
                continue;
            for (size_t n = 0; seen && n < rows * outputs; n++)
                CHECK(same(y[n], first[n]) || fabsf(y[n] - first[n]) < 1e-36F, "%s: other bits than generic",
                      mrn_isa_name(isa));
            memcpy(first, y, rows * outputs * sizeof *y);
            seen = 1;
        }
        destroy(&r);
    }
}

/* Every activation ends a layer as it does in float32, the padding of softmax included, for rows side by side
 * and in lanes. */
static void test_activations(void) {
    enum { UNITS = 21, MOST = 37 };
    static uint16_t weight[UNITS * UNITS];
    static float plain[UNITS * UNITS], x[MOST * UNITS], narrow[MOST * UNITS], wide[MOST * UNITS],
        slopes[UNITS];
    static const size_t counts[] = {1, 5, 16, MOST};
    for (size_t k = 0; k < UNITS; k++)
        slopes[k] = next_float(&seed);
    for (size_t k = 0; k < UNITS; k++)
        plain[k * UNITS + k] = to_float(weight[k * UNITS + k] = nearest(1));
    for (uint32_t activation = 0; activation < mrn_activation_count(); activation++)
        for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
            if (!mrn_isa_usable(isa))
                continue;
            const float *slope = mrn_activation_sloped(activation) ? slopes : NULL;
            const mrn_layer narrow_layer = {weight, NULL, UNITS, UNITS, activation, NULL, slope};
            const mrn_layer wide_layer = {plain, NULL, UNITS, UNITS, activation, NULL, slope};
            const size_t rows = counts[pick(0, 3)];
            for (size_t k = 0; k < rows * UNITS; k++)
                x[k] = to_float(nearest(next_float(&seed) * 3));
            run(&(mrn_network){.layers = &narrow_layer,
                               .layer_count = 1,
                               .columns = UNITS,
                               .precision = MRN_PRECISION_bfloat16},
                UNITS, isa, x, rows, narrow, 1);
            run(&(mrn_network){.layers = &wide_layer, .layer_count = 1, .columns = UNITS}, UNITS, isa, x,
                rows, wide, 1);
            CHECK(memcmp(narrow, wide, rows * UNITS * sizeof *wide) == 0, "%s on %s",
                  mrn_activation_name(activation), mrn_isa_name(isa));
        }
}

/* The largest sums that an int8 layer may have do not overflow; one input more is refused. */
static void test_int8_limit(void) {
    enum { INPUTS = MRN_INT8_MAX_INPUTS };
    int8_t *weight = malloc(INPUTS + 1);
    float *x = malloc(2 * INPUTS * sizeof *x), y[2];
    const float scale = 1;
    for (size_t k = 0; k < INPUTS; k++)
        x[k] = 255, x[INPUTS + k] = k ? 255 : -0.0F;
    mrn_layer layer = {weight, NULL, INPUTS, 1, MRN_ACTIVATION_linear, &scale, NULL};
    mrn_network network = {
        .layers = &layer, .layer_count = 1, .columns = INPUTS, .precision = MRN_PRECISION_int8};
    for (int value = -128; value <= 127; value += 255) {
        memset(weight, value, INPUTS + 1);
        for (size_t isa = 0; isa < mrn_isa_count(); isa++)
            if (mrn_isa_usable(isa)) {
                run(&network, 1, isa, x, 2, y, 1);
                CHECK(y[0] == (float)(255.0 * value * INPUTS) &&
                          y[1] == (float)(255.0 * value * (INPUTS - 1)),
                      "%g %g", y[0], y[1]);
            }
    }
    mrn_plan plan;
    layer.inputs = (uint32_t)(network.columns = INPUTS + 1);
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_TOO_LARGE, "too many inputs");
    free(weight), free(x);
}

/* Infinities and NaN in bfloat16 do what IEEE 754 says of the rounded numbers. */
static void test_special_values(void) {
    const uint16_t weight[] = {nearest(2), nearest(-1)};
    const float rows[][2] = {{INFINITY, 1}, {INFINITY, INFINITY}, {NAN, 1}, {3.4e38F, 0}, {1e-45F, 0}};
    const float wanted[] = {INFINITY, NAN, NAN, INFINITY, 0};
    const mrn_layer layer = {weight, NULL, 2, 1, MRN_ACTIVATION_linear, NULL, NULL};
    const mrn_network network = {
        .layers = &layer, .layer_count = 1, .columns = 2, .precision = MRN_PRECISION_bfloat16};
    float y[5];
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        if (mrn_isa_usable(isa)) {
            run(&network, 1, isa, rows[0], 5, y, 1);
            for (size_t i = 0; i < 5; i++)
                CHECK(same(y[i], wanted[i]), "%s: %g, wanted %g", mrn_isa_name(isa), y[i], wanted[i]);
        }
}

static void test_refusals(void) {
    const int8_t weight[2] = {1, 2};
    const uint16_t infinite[2] = {0x3f80, 0x7f80};
    float scale[1] = {1};
    mrn_layer layer = {weight, NULL, 2, 1, MRN_ACTIVATION_linear, scale, NULL};
    mrn_network network = {.layers = &layer, .layer_count = 1, .columns = 2, .precision = MRN_PRECISION_int8};
    mrn_plan plan;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_OK, "good");
    const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        scale[0] = bad[i];
        CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_RANGE, "scale %g", bad[i]);
    }
    layer.weight_scale = NULL;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "no scale");
    layer.weight = infinite;
    network.precision = MRN_PRECISION_bfloat16;
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_RANGE, "infinity");
    network.precision = (uint32_t)mrn_precision_count();
    CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ARGUMENT, "unknown precision");
    CHECK(mrn_precision_name(mrn_precision_count()) == NULL && !mrn_precision_usable(99, 0) &&
              !mrn_precision_usable(0, 99),
          "unknown numbers");
    if (!mrn_precision_usable(MRN_PRECISION_float32_split, 0)) {
        const float plain[2] = {1, 2};
        layer.weight = plain;
        network.precision = MRN_PRECISION_float32_split;
        CHECK(mrn_model_plan(&network, 0, &plan) == MRN_E_ISA, "split on generic");
    }
}

int main(void) {
    test_int8();
    test_int8_ends();
    test_against_double(MRN_PRECISION_bfloat16);
    test_against_double(MRN_PRECISION_float32_split);
    test_activations();
    test_int8_limit();
    test_special_values();
    test_refusals();
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        printf("  %s: %s\n", mrn_isa_name(isa), mrn_isa_usable(isa) ? "tested" : "not on this machine");
    return 0;
}
