/* Check a network's description, plan its memory, pack its weights. Nothing here is called on a request. */
#include "model.h"

#include <math.h>
#include <string.h>

#include "dispatch.h"

/* Sizes are counted in 64 bits; MRN_MAX_WIDTH and MRN_MAX_LAYERS keep every sum below 2^52. */
typedef struct layout {
    const mrn_kernels *kernels;
    uint64_t encoded;
    uint64_t widest;      /* floats */
    uint64_t tables;      /* offset of the tables: after the handle and the layers */
    uint64_t model_bytes; /* offset past the last panel */
    uint64_t scratch_bytes;
} layout;

static uint64_t round_up(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static int all_finite(const float *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return 0;
    return 1;
}

/* Bytes of one table in the block; absent tables take none. */
static uint64_t table_bytes(const void *table, uint64_t count) {
    return table == NULL ? 0 : round_up(count * sizeof(float), MRN_ALIGNMENT);
}

static uint64_t panel_bytes(const mrn_layer *layer, uint32_t lanes) {
    return ((uint64_t)layer->inputs + 1) * round_up(layer->units, lanes) * sizeof(float);
}

static int check_layer(const mrn_layer *layer, uint64_t inputs, int last) {
    if (layer->weight == NULL)
        return MRN_E_ARGUMENT;
    if (layer->inputs != inputs || layer->inputs == 0 || layer->units == 0)
        return MRN_E_SHAPE;
    if (layer->inputs > MRN_MAX_WIDTH || layer->units > MRN_MAX_WIDTH)
        return MRN_E_TOO_LARGE;
    if (layer->activation >= mrn_activation_count() || (layer->activation == MRN_ACTIVATION_softmax && !last))
        return MRN_E_ARGUMENT;
    if (!all_finite(layer->weight, (uint64_t)layer->inputs * layer->units) ||
        (layer->bias != NULL && !all_finite(layer->bias, layer->units)))
        return MRN_E_RANGE;
    return MRN_OK;
}

/* The whole check of a description; on success everything that open and the hot path rely on holds. */
static int check(const mrn_network *network, size_t isa, layout *out) {
    if (network == NULL || network->layers == NULL || network->layer_count == 0 || network->columns == 0)
        return MRN_E_ARGUMENT;
    if (network->layer_count > MRN_MAX_LAYERS || network->columns > MRN_MAX_WIDTH)
        return MRN_E_TOO_LARGE;
    if ((out->kernels = mrn_kernels_of(isa)) == NULL)
        return MRN_E_ISA;

    out->encoded = network->columns;
    if (network->categories != NULL) {
        out->encoded = 0;
        for (size_t c = 0; c < network->columns; c++) {
            out->encoded += network->categories[c] == 0 ? 1 : network->categories[c];
            if (out->encoded > MRN_MAX_WIDTH)
                return MRN_E_TOO_LARGE;
        }
    }
    for (size_t c = 0; network->fill != NULL && c < network->columns; c++)
        if (isinf(network->fill[c]))
            return MRN_E_RANGE;
    if ((network->shift != NULL && !all_finite(network->shift, out->encoded)) ||
        (network->scale != NULL && !all_finite(network->scale, out->encoded)))
        return MRN_E_RANGE;

    uint64_t width = out->encoded, widest = out->encoded;
    uint64_t packed = 0;
    for (size_t i = 0; i < network->layer_count; i++) {
        const int status = check_layer(&network->layers[i], width, i + 1 == network->layer_count);
        if (status != MRN_OK)
            return status;
        width = network->layers[i].units;
        widest = width > widest ? width : widest;
        packed += round_up(panel_bytes(&network->layers[i], out->kernels->lanes), MRN_ALIGNMENT);
    }
    if ((network->target_shift != NULL && !all_finite(network->target_shift, width)) ||
        (network->target_scale != NULL && !all_finite(network->target_scale, width)))
        return MRN_E_RANGE;

    out->widest = round_up(widest, MRN_LANES_MAX);
    out->tables = round_up(sizeof(mrn_model) + network->layer_count * sizeof(mrn_packed_layer), MRN_ALIGNMENT);
    out->model_bytes = out->tables + packed + table_bytes(network->categories, network->columns) +
                       table_bytes(network->fill, network->columns) + table_bytes(network->shift, out->encoded) +
                       table_bytes(network->scale, out->encoded) + table_bytes(network->target_shift, width) +
                       table_bytes(network->target_scale, width);
    out->scratch_bytes = 2 * MRN_ROW_BLOCK * out->widest * sizeof(float); /* a layer reads one half, writes the other */
    if (out->model_bytes > SIZE_MAX || out->scratch_bytes > SIZE_MAX)
        return MRN_E_TOO_LARGE;
    return MRN_OK;
}

int mrn_model_plan(const mrn_network *network, size_t isa, mrn_plan *plan) {
    layout made;
    if (plan == NULL)
        return MRN_E_ARGUMENT;
    const int status = check(network, isa, &made);
    if (status == MRN_OK) {
        plan->model_bytes = (size_t)made.model_bytes;
        plan->scratch_bytes = (size_t)made.scratch_bytes;
        plan->alignment = MRN_ALIGNMENT;
    }
    return status;
}

/* Copy a table to *next and move *next on; an absent table stays absent. */
static const void *place_table(const void *table, uint64_t count, unsigned char **next) {
    if (table == NULL)
        return NULL;
    void *placed = *next;
    memcpy(placed, table, (size_t)(count * sizeof(float)));
    *next += table_bytes(table, count);
    return placed;
}

/* Pack one layer into the panels that kernels.h draws. */
static void pack(const mrn_layer *layer, uint32_t lanes, float *out) {
    const size_t units = layer->units, padded = mrn_round_up(units, lanes);
    for (size_t column = 0; column < padded;) {
        const size_t width = padded - column >= 2 * (size_t)lanes ? 2 * (size_t)lanes : lanes;
        const size_t used = units - column < width ? units - column : width;
        memset(out, 0, width * sizeof *out);
        if (layer->bias != NULL)
            memcpy(out, layer->bias + column, used * sizeof *out);
        out += width;
        for (size_t k = 0; k < layer->inputs; k++, out += width) {
            memset(out, 0, width * sizeof *out);
            memcpy(out, layer->weight + k * units + column, used * sizeof *out);
        }
        column += width;
    }
}

int mrn_model_open(const mrn_network *network, size_t isa, void *block, size_t block_bytes, mrn_model **model) {
    layout made;
    if (block == NULL || model == NULL)
        return MRN_E_ARGUMENT;
    const int status = check(network, isa, &made);
    if (status != MRN_OK)
        return status;
    if ((uintptr_t)block % MRN_ALIGNMENT != 0 || block_bytes < made.model_bytes)
        return MRN_E_MEMORY;

    mrn_model *opened = block;
    mrn_packed_layer *layers = (mrn_packed_layer *)(opened + 1);
    unsigned char *next = (unsigned char *)block + made.tables;
    const mrn_layer *last = &network->layers[network->layer_count - 1];
    *opened = (mrn_model){
        .kernels = made.kernels,
        .columns = network->columns,
        .encoded = (size_t)made.encoded,
        .outputs = last->units,
        .row_floats = (size_t)made.widest,
        .layer_count = network->layer_count,
        .layers = layers,
        .encodes = network->categories || network->fill || network->shift || network->scale,
        .categories = place_table(network->categories, network->columns, &next),
        .fill = place_table(network->fill, network->columns, &next),
        .shift = place_table(network->shift, made.encoded, &next),
        .scale = place_table(network->scale, made.encoded, &next),
        .target_shift = place_table(network->target_shift, last->units, &next),
        .target_scale = place_table(network->target_scale, last->units, &next),
    };
    for (size_t i = 0; i < network->layer_count; i++) {
        const mrn_layer *layer = &network->layers[i];
        const uint32_t lanes = made.kernels->lanes;
        pack(layer, lanes, (float *)(void *)next);
        layers[i] = (mrn_packed_layer){
            .panels = (const float *)(const void *)next,
            .inputs = layer->inputs,
            .units = layer->units,
            .padded = (uint32_t)round_up(layer->units, lanes),
            .activation = layer->activation,
        };
        next += round_up(panel_bytes(layer, lanes), MRN_ALIGNMENT);
    }
    *model = opened;
    return MRN_OK;
}
