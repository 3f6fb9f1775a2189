/* libFuzzer: any network of dense layers, any rows, on every instruction set of this machine. The first bytes
 * choose sizes and activations, the rest seeds the numbers. What must hold:
 *   - finite rows: each set is within a running error bound of a forward pass in double precision (so any two
 *     sets are within twice that of each other);
 *   - rows with NaN or infinities: each set has NaN and infinities where generic has them;
 *   - a row alone has the bits that it has in the batch, and all sets but generic have the same bits (of a
 * NaN: that it is one). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../mrn.h"
#include "../tests/check.h"
#include "../tests/twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS = 4, WIDEST = 70, ROWS = 40 };

static const float specials[] = {0.0F, -0.0F, 1e-45F, -1e-39F, 1e20F, -1e20F, NAN, INFINITY, -INFINITY};
static float weights[LAYERS][WIDEST * WIDEST], biases[LAYERS][WIDEST], slopes[LAYERS][WIDEST];
static float x[ROWS * WIDEST], y[ROWS * WIDEST], first[ROWS * WIDEST], fused[ROWS * WIDEST], alone[WIDEST];

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

static size_t next_byte(bytes *from, size_t low, size_t high) {
    return low + (from->at == from->end ? 0U : *from->at++) % (high - low + 1);
}

static void fill_floats(float *to, size_t count, float factor, uint64_t *state) {
    for (size_t i = 0; i < count; i++)
        to[i] = next_float(state) * factor;
}

/* How far any float32 run may be from the truth, by output: each sum is off by rounding, relative to the sum
 * of sizes, and by what its inputs are off; no activation here is steeper than 1.8 nor off by more than 16
 * ulp but for softmax, and gelu_tanh far below 0, where it is below 1e-6. */
static void bound_of(const mrn_network *network, const float *row, double *bound) {
    double in[WIDEST], off[WIDEST] = {0}, out[WIDEST], next[WIDEST];
    for (size_t k = 0; k < network->columns; k++)
        in[k] = row[k];
    for (size_t i = 0; i < network->layer_count; i++) {
        const mrn_layer *layer = &network->layers[i];
        const float *weight = layer->weight;
        double most = -INFINITY, total = 0, worst = 0;
        for (size_t u = 0; u < layer->units; u++) {
            double sum = layer->bias ? layer->bias[u] : 0, scale = fabs(sum), error = 0;
            for (size_t k = 0; k < layer->inputs; k++) {
                const double w = weight[k * layer->units + u];
                sum += in[k] * w;
                scale += fabs(in[k] * w);
                error += off[k] * fabs(w);
            }
            error += 0x1p-23 * (double)(layer->inputs + 2) * scale;
            out[u] = activate(layer->activation, layer->slope ? layer->slope[u] : 0, sum);
            next[u] = 1.8 * error + 0x1p-19 * fabs(out[u]) + 1e-37;
            if (layer->activation == MRN_ACTIVATION_gelu_tanh)
                next[u] += 1e-6;
            most = fmax(most, out[u]);
            worst = fmax(worst, error);
        }
        if (layer->activation == MRN_ACTIVATION_softmax) {
            for (size_t u = 0; u < layer->units; u++)
                total += out[u] = exp(out[u] - most);
            for (size_t u = 0; u < layer->units; u++) {
                out[u] /= total;
                next[u] = fmin(1, 4 * worst) + 1e-4 * out[u] + 1e-37;
            }
        }
        memcpy(in, out, sizeof in);
        memcpy(off, next, sizeof off);
    }
    memcpy(bound, off, sizeof off);
}

static int same(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            return 0;
    return 1;
}

static void check_isa(const mrn_network *network, size_t isa, size_t rows) {
    const size_t columns = network->columns, outputs = network->layers[network->layer_count - 1].units;
    mrn_plan plan;
    mrn_model *model;
    CHECK(mrn_model_plan(network, isa, &plan) == MRN_OK, "plan");
    void *block = aligned_alloc(plan.alignment, plan.model_bytes);
    void *scratch = aligned_alloc(plan.alignment, plan.scratch_bytes);
    CHECK(block && scratch, "memory");
    memset(scratch, 0xff, plan.scratch_bytes);
    CHECK(mrn_model_open(network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
    CHECK(mrn_model_predict(model, x, rows, y, scratch) == MRN_OK, "predict");
    if (isa == 0)
        memcpy(first, y, sizeof y);
    if (isa == 1)
        memcpy(fused, y, sizeof y);
    CHECK(isa == 0 || same(y, fused, rows * outputs), "%s has bits of its own", mrn_isa_name(isa));
    for (size_t row = 0; row < rows; row++) {
        const float *in = x + row * columns, *out = y + row * outputs;
        double wanted[TWIN_WIDEST], bound[WIDEST];
        int finite = 1;
        CHECK(mrn_model_predict(model, in, 1, alone, scratch) == MRN_OK, "one row");
        CHECK(same(alone, out, outputs), "%s: row %zu has other bits in a batch of %zu", mrn_isa_name(isa),
              row, rows);
        for (size_t c = 0; c < columns; c++)
            finite &= isfinite(in[c]) != 0;
        twin(network, in, wanted);
        bound_of(network, in, bound);
        for (size_t o = 0; o < outputs; o++) {
            const float generic = first[row * outputs + o];
            CHECK(isnan(out[o]) == isnan(generic) && isinf(out[o]) == isinf(generic), "%s: %g, generic %g",
                  mrn_isa_name(isa), (double)out[o], (double)generic);
            CHECK(!finite || fabs(out[o] - wanted[o]) <= bound[o],
                  "%s: row %zu, output %zu: %.9g, wanted %.9g +- %g", mrn_isa_name(isa), row, o,
                  (double)out[o], wanted[o], bound[o]);
        }
    }
    free(block), free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, data + size};
    mrn_layer layers[LAYERS] = {{.weight = NULL}};
    mrn_network network = {.layers = layers, .layer_count = next_byte(&from, 1, LAYERS)};
    const size_t widest = next_byte(&from, 0, 1) ? WIDEST : 32; /* as narrow as rows in lanes need */
    const size_t rows = next_byte(&from, 1, ROWS), odd = next_byte(&from, 0, 3);
    size_t width = next_byte(&from, 1, widest);
    network.columns = width;
    uint64_t state = 0x9e3779b97f4a7c15U;
    for (size_t i = 0; i < network.layer_count; i++) {
        const size_t units = next_byte(&from, 1, widest), kind = next_byte(&from, 0, 255);
        uint32_t activation = (uint32_t)(kind % mrn_activation_count());
        if (activation == MRN_ACTIVATION_softmax && i + 1 != network.layer_count)
            activation = MRN_ACTIVATION_relu;
        layers[i] = (mrn_layer){.weight = weights[i],
                                .bias = kind & 0x80 ? NULL : biases[i],
                                .inputs = (uint32_t)width,
                                .units = (uint32_t)units,
                                .activation = activation,
                                .slope = mrn_activation_sloped(activation) ? slopes[i] : NULL};
        width = units;
    }
    for (; from.at != from.end; from.at++)
        state = (state ^ *from.at) * 0x100000001b3U | 1;
    for (size_t i = 0; i < network.layer_count; i++) {
        const size_t inputs = layers[i].inputs, units = layers[i].units;
        fill_floats(weights[i], inputs * units, 2 / sqrtf((float)inputs), &state);
        fill_floats(biases[i], units, 1, &state);
        fill_floats(slopes[i], units, 1, &state);
    }
    fill_floats(x, rows * network.columns, 4, &state);
    for (size_t i = 0; odd && i < rows * network.columns; i++)
        if (next_random(&state) >> 59 == 0) /* one in 32 */
            x[i] = specials[next_random(&state) % (odd == 1   ? 4
                                                   : odd == 2 ? 6
                                                              : sizeof specials / sizeof *specials)];
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        if (mrn_isa_usable(isa))
            check_isa(&network, isa, rows);
    return 0;
}
