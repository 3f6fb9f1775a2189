/* libFuzzer: any network in bfloat16 or int8, any rows, on every instruction set of this machine. The first
 * bytes choose sizes and activations, the rest seeds the numbers. What must hold:
 *   - each set has the bits that generic has, but for what docs/precision.md leaves open: sums of bfloat16
 *     that are nearly denormal, and the order of sums of a set that has tiles;
 *   - a row alone has the bits that it has in the batch;
 *   - nothing is read or written beyond the blocks (they have their exact sizes: the address sanitizer sees
 *     it). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../dot.h"
#include "../tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS = 3, WIDEST = 150, NARROW = 32, ROWS = 40 };

static const float specials[] = {0.0F, -0.0F, 1e-45F, -1e-39F, 1e30F, -1e30F, NAN, INFINITY, -INFINITY};
static uint16_t weights[LAYERS][WIDEST * WIDEST]; /* or as many bytes */
static float biases[LAYERS][WIDEST], scales[LAYERS][WIDEST];
static float x[ROWS * WIDEST], y[ROWS * WIDEST], first[ROWS * WIDEST], alone[WIDEST];

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

static size_t next_byte(bytes *from, size_t low, size_t high) {
    return low + (from->at == from->end ? 0U : *from->at++) % (high - low + 1);
}

static void *exactly(size_t size, size_t alignment) {
    void *block = aligned_alloc(alignment, size);
    CHECK(block, "memory");
    return block;
}

static int same(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)) || (a == 0 && b == 0);
}

static void check_isa(const mrn_network *network, size_t isa, size_t rows) {
    const size_t columns = network->columns, outputs = network->layers[network->layer_count - 1].units;
    mrn_plan plan;
    mrn_model *model;
    CHECK(mrn_model_plan(network, isa, &plan) == MRN_OK, "plan");
    void *block = exactly(plan.model_bytes, plan.alignment);
    void *scratch = exactly(plan.scratch_bytes, plan.alignment);
    float *in = malloc(rows * columns * sizeof *in), *out = malloc(rows * outputs * sizeof *out);
    CHECK(in && out, "memory");
    memcpy(in, x, rows * columns * sizeof *in);
    memset(scratch, 0xff, plan.scratch_bytes);
    CHECK(mrn_model_open(network, isa, block, plan.model_bytes, &model) == MRN_OK, "open");
    CHECK(mrn_model_predict(model, in, rows, out, scratch) == MRN_OK, "predict");
    memcpy(y, out, rows * outputs * sizeof *y);
    if (isa == 0)
        memcpy(first, y, sizeof y);
    for (size_t i = 0; mrn_dots_of(isa, network->precision)->depth == 1 && i < rows * outputs; i++)
        CHECK(same(y[i], first[i]) ||
                  (network->precision == MRN_PRECISION_bfloat16 && fabsf(y[i] - first[i]) < 1e-33F),
              "%s, %s: output %zu is %.9g, generic has %.9g", mrn_isa_name(isa),
              mrn_precision_name(network->precision), i, (double)y[i], (double)first[i]);
    for (size_t row = 0; row < rows; row++) {
        CHECK(mrn_model_predict(model, in + row * columns, 1, alone, scratch) == MRN_OK, "one row");
        for (size_t o = 0; o < outputs; o++)
            CHECK(same(alone[o], y[row * outputs + o]), "%s: row %zu has other bits in a batch of %zu",
                  mrn_isa_name(isa), row, rows);
    }
    free(block), free(scratch), free(in), free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bytes from = {data, data + size};
    mrn_layer layers[LAYERS] = {{.weight = NULL}};
    mrn_network network = {.layers = layers, .layer_count = next_byte(&from, 1, LAYERS)};
    network.precision = next_byte(&from, 0, 1) ? MRN_PRECISION_bfloat16 : MRN_PRECISION_int8;
    const size_t rows = next_byte(&from, 1, ROWS), odd = next_byte(&from, 0, 3);
    const size_t widest = next_byte(&from, 0, 1) ? NARROW : WIDEST; /* rows of narrow networks run in lanes */
    size_t width = next_byte(&from, 1, widest);
    network.columns = width;
    for (size_t i = 0; i < network.layer_count; i++) {
        const size_t units = next_byte(&from, 1, widest), kind = next_byte(&from, 0, 3);
        layers[i] = (mrn_layer){.weight = weights[i],
                                .bias = kind & 2 ? NULL : biases[i],
                                .inputs = (uint32_t)width,
                                .units = (uint32_t)units,
                                .activation = kind & 1 ? MRN_ACTIVATION_relu : MRN_ACTIVATION_linear,
                                .weight_scale = scales[i]};
        width = units;
    }
    uint64_t state = 0x9e3779b97f4a7c15U;
    for (; from.at != from.end; from.at++)
        state = (state ^ *from.at) * 0x100000001b3U | 1;
    for (size_t i = 0; i < network.layer_count; i++) {
        for (size_t w = 0; w < (size_t)layers[i].inputs * layers[i].units; w++) {
            const float value = next_float(&state);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            if (network.precision == MRN_PRECISION_int8)
                ((uint8_t *)weights[i])[w] = (uint8_t)bits; /* any of -128 to 127 */
            else
                weights[i][w] = (uint16_t)(bits >> 16);
        }
        for (size_t u = 0; u < layers[i].units; u++) {
            biases[i][u] = next_float(&state);
            scales[i][u] = 1e-3F * (1.5F + next_float(&state));
        }
    }
    for (size_t i = 0; i < rows * network.columns; i++) {
        x[i] = next_float(&state) * (odd == 1 ? 1e-36F : 4.0F);
        if (odd > 1 && next_random(&state) >> 59 == 0) /* one in 32 */
            x[i] = specials[next_random(&state) % (odd == 2 ? 6 : sizeof specials / sizeof *specials)];
    }
    for (size_t isa = 0; isa < mrn_isa_count(); isa++)
        if (mrn_precision_usable(network.precision, isa))
            check_isa(&network, isa, rows);
    return 0;
}
