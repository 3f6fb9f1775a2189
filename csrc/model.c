/* Checks the description of a network, says what it needs, and packs it into one block. */
#include "dot.h"
#include "mrn.h"
#include "model.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK_ROWS_MAX = 240, /* a multiple of every tile height */
    NARROW = 32,          /* widths up to which rows side by side in the lanes win over units */
    BLOCK_ROWS_MIN = 16,  /* wide layers share each load of weights among the rows of an item (threads.c) */
    DOT_ROWS_MAX = 256    /* as BLOCK_ROWS_MAX, for the precisions of dot.h */
};

/* Sums and products that stick at SIZE_MAX instead of wrapping. */
static size_t add(size_t a, size_t b) {
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}
static size_t multiply(size_t a, size_t b) {
    return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}
static size_t round_up(size_t n, size_t to) {
    return n > SIZE_MAX - (to - 1) ? SIZE_MAX : (n + to - 1) / to * to;
}

static size_t strips_of(size_t units) {
    return (units + MRN_STRIP - 1) / MRN_STRIP;
}

/* Where each part lies in the block, in bytes from its start; sizes of SIZE_MAX mean "too large". */
typedef struct layout {
    size_t encoded;
    size_t layers, categories, copies, forms, fill, shift, scale, target_shift, target_scale;
    size_t numbers; /* bias, slope and weight of each layer, one after the other: all whole cache lines */
    size_t end;
    size_t block_rows, half, stage;
    int narrow;
    const mrn_dots *dots; /* NULL: float32 */
} layout;

static int all_finite(const float *numbers, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(numbers[i]))
            return 0;
    return 1;
}

static int check_layers(const mrn_network *network, size_t encoded) {
    size_t width = encoded;
    for (size_t i = 0; i < network->layer_count; i++) {
        const mrn_layer *layer = &network->layers[i];
        if (!layer->weight || layer->activation >= mrn_activation_count())
            return MRN_E_ARGUMENT;
        if (!layer->slope != !mrn_activation_sloped(layer->activation))
            return MRN_E_ARGUMENT;
        if (layer->inputs != width || layer->units == 0)
            return MRN_E_SHAPE;
        if (layer->activation == MRN_ACTIVATION_softmax && i + 1 != network->layer_count)
            return MRN_E_ARGUMENT;
        if (layer->units > MRN_MAX_WIDTH)
            return MRN_E_TOO_LARGE;
        width = layer->units;
    }
    return MRN_OK;
}

/* The numbers are read only after all sizes are known to fit into memory. */
static int check_numbers(const mrn_network *network, size_t encoded) {
    for (size_t i = 0; i < network->layer_count; i++) {
        const mrn_layer *layer = &network->layers[i];
        if ((layer->bias && !all_finite(layer->bias, layer->units)) ||
            (layer->slope && !all_finite(layer->slope, layer->units)))
            return MRN_E_RANGE;
        if (network->precision != MRN_PRECISION_float32) {
            const int status = mrn_dot_check(layer, network->precision);
            if (status != MRN_OK)
                return status;
        } else if (!all_finite(layer->weight, (size_t)layer->inputs * layer->units))
            return MRN_E_RANGE;
    }
    const size_t outputs = network->layers[network->layer_count - 1].units;
    if ((network->shift && !all_finite(network->shift, encoded)) ||
        (network->scale && !all_finite(network->scale, encoded)) ||
        (network->target_shift && !all_finite(network->target_shift, outputs)) ||
        (network->target_scale && !all_finite(network->target_scale, outputs)))
        return MRN_E_RANGE;
    for (size_t c = 0; network->fill && c < network->columns; c++)
        if (isinf(network->fill[c]))
            return MRN_E_RANGE;
    return MRN_OK;
}

static size_t place(layout *at, size_t bytes) {
    const size_t start = at->end;
    at->end = round_up(add(start, bytes), MRN_BLOCK_ALIGN);
    return start;
}

static size_t place_table(layout *at, const void *table, size_t count) {
    return place(at, table ? multiply(count, sizeof(float)) : 0);
}

/* Bytes of a layer as dot.h packs it: bias, scale, sum, first and perhaps slope, then planes of cells; and of
 * a staged row. */
static size_t dot_bytes(const mrn_layer *layer, size_t precision, const mrn_dots *dots, size_t *stage) {
    const size_t cell = mrn_dot_cell_inputs(precision), planes = mrn_dot_planes(precision);
    const size_t units = strips_of(layer->units) * MRN_STRIP;
    const size_t groups = round_up((layer->inputs + cell - 1) / cell, dots->depth);
    *stage = multiply(groups, dots->staged);
    return add(multiply(units, (layer->slope ? 5 : 4) * sizeof(float)),
               multiply(units, multiply(groups, planes * MRN_CELL)));
}

static int lay_out(const mrn_network *network, size_t isa, layout *at) {
    if (!network || !network->layers || network->layer_count == 0 || network->columns == 0)
        return MRN_E_ARGUMENT;
    if (network->layer_count > MRN_MAX_LAYERS || network->columns > MRN_MAX_WIDTH)
        return MRN_E_TOO_LARGE;
    if (network->precision >= mrn_precision_count())
        return MRN_E_ARGUMENT;
    if (!mrn_precision_usable(network->precision, isa))
        return MRN_E_ISA;
    at->dots = network->precision == MRN_PRECISION_float32 ? NULL : mrn_dots_of(isa, network->precision);

    size_t encoded = network->columns;
    for (size_t c = 0; c < network->columns; c++) {
        uint32_t width = network->categories ? network->categories[c] : 0;
        if (width == 0)
            width = network->copies ? network->copies[c] : 1;
        if (width == 0)
            return MRN_E_ARGUMENT;
        encoded = add(encoded, width - 1U);
    }
    if (encoded > MRN_MAX_WIDTH)
        return MRN_E_TOO_LARGE;
    int status = check_layers(network, encoded);
    if (status != MRN_OK)
        return status;
    for (size_t e = 0; network->forms && e < encoded; e++)
        if (network->forms[e] >= MRN_FORM_COUNT)
            return MRN_E_ARGUMENT;

    const size_t outputs = network->layers[network->layer_count - 1].units;
    at->encoded = encoded;
    at->end = 0;
    (void)place(at, sizeof(mrn_model));
    at->layers = place(at, network->layer_count * (at->dots ? sizeof(mrn_dot_layer) : sizeof(mrn_dense)));
    at->categories = place_table(at, network->categories, network->columns);
    at->copies = place_table(at, network->copies, network->columns);
    at->forms = place_table(at, network->forms, encoded);
    at->fill = place_table(at, network->fill, network->columns);
    at->shift = place_table(at, network->shift, encoded);
    at->scale = place_table(at, network->scale, encoded);
    at->target_shift = place_table(at, network->target_shift, outputs);
    at->target_scale = place_table(at, network->target_scale, outputs);

    at->numbers = at->end;
    at->narrow = (!at->dots || at->dots->lanes) && encoded <= NARROW;
    size_t widest = encoded, staged = 0; /* the widest row, and the bytes of the widest staged one */
    for (size_t i = 0; i < network->layer_count; i++) {
        const size_t width = strips_of(network->layers[i].units) * MRN_STRIP;
        const size_t rows = add(network->layers[i].inputs, network->layers[i].slope ? 2 : 1);
        size_t stage = 0;
        (void)place(at, at->dots ? dot_bytes(&network->layers[i], network->precision, at->dots, &stage)
                                 : multiply(multiply(width, rows), sizeof(float)));
        if (at->dots && at->dots->depth > 1)
            stage = add(stage, 2 * MRN_BLOCK_ALIGN); /* at most what mrn_dot_row_bytes adds */
        staged = stage > staged ? stage : staged;
        at->narrow &= network->layers[i].units <= NARROW;
        widest = width > widest ? width : widest;
    }
    const size_t row_bytes = multiply(round_up(widest, MRN_STRIP), sizeof(float));
    const size_t most = at->dots ? DOT_ROWS_MAX : BLOCK_ROWS_MAX;
    const size_t least = at->dots ? MRN_DOT_ROWS : BLOCK_ROWS_MIN;
    /* the smaller weights of dot.h leave more room */
    const size_t scratch = mrn_kernels_of(isa)->scratch * (at->dots ? 2 : 1);
    size_t rows = scratch / 2 / row_bytes;
    rows = rows > most ? most : rows / least * least;
    at->block_rows = rows < least ? least : rows;
    at->half = multiply(at->block_rows, row_bytes);
    at->stage = at->dots ? add(multiply(at->block_rows, add(staged, MRN_DOT_RECORD)), MRN_BLOCK_ALIGN) : 0;
    at->stage = round_up(at->stage, MRN_BLOCK_ALIGN);
    if (at->end == SIZE_MAX || add(multiply(at->half, 2), at->stage) == SIZE_MAX)
        return MRN_E_TOO_LARGE;
    return check_numbers(network, encoded);
}

int mrn_model_plan(const mrn_network *network, size_t isa, mrn_plan *plan) {
    layout at;
    if (!plan)
        return MRN_E_ARGUMENT;
    int status = lay_out(network, isa, &at);
    if (status != MRN_OK)
        return status;
    plan->model_bytes = at.end;
    plan->scratch_bytes = at.half * 2 + at.stage;
    plan->alignment = MRN_BLOCK_ALIGN;
    return MRN_OK;
}

/* Packs one layer from `to` on, as kernels.h draws it, and returns where the next one begins. */
static float *pack_layer(const mrn_layer *layer, size_t panel, float *to, mrn_dense *packed) {
    const size_t inputs = layer->inputs, units = layer->units, strips = strips_of(units);
    const float absent = layer->activation == MRN_ACTIVATION_softmax ? -INFINITY : 0.0F;
    float *bias = to, *slope = layer->slope ? bias + strips * MRN_STRIP : NULL;
    float *weight = (slope ? slope : bias) + strips * MRN_STRIP;

    for (size_t u = 0; u < strips * MRN_STRIP; u++)
        bias[u] = u >= units ? absent : layer->bias ? layer->bias[u] : 0.0F;
    for (size_t u = 0; slope && u < strips * MRN_STRIP; u++)
        slope[u] = u >= units ? 0.0F : layer->slope[u];
    *packed = (mrn_dense){weight, bias, slope, inputs, units, strips, layer->activation};
    for (size_t first = 0; first < strips; first += panel) {
        const size_t left = strips - first;
        const size_t width = (left < panel ? left : panel) * MRN_STRIP;
        const size_t start = first * MRN_STRIP;
        const size_t count = units - start < width ? units - start : width;
        for (size_t k = 0; k < inputs; k++, weight += width) {
            memcpy(weight, (const float *)layer->weight + k * units + start, count * sizeof(float));
            memset(weight + count, 0, (width - count) * sizeof(float));
        }
    }
    return weight;
}

/* Copies a table of 32-bit numbers to its place; NULL stays NULL. */
static void *copy_table(char *block, size_t offset, const void *table, size_t count) {
    return table ? memcpy(block + offset, table, count * 4) : NULL;
}

int mrn_model_open(const mrn_network *network, size_t isa, void *block, size_t block_bytes,
                   mrn_model **model) {
    layout at;
    if (!block || !model)
        return MRN_E_ARGUMENT;
    int status = lay_out(network, isa, &at);
    if (status != MRN_OK)
        return status;
    if (block_bytes < at.end || (uintptr_t)block % MRN_BLOCK_ALIGN != 0)
        return MRN_E_MEMORY;

    char *base = block;
    const size_t outputs = network->layers[network->layer_count - 1].units;
    mrn_dense *layers = at.dots ? NULL : (mrn_dense *)(void *)(base + at.layers);
    mrn_dot_layer *dot_layers = at.dots ? (mrn_dot_layer *)(void *)(base + at.layers) : NULL;
    char *next = base + at.numbers;
    size_t weights = 0;
    for (size_t i = 0; i < network->layer_count; i++) {
        weights += (size_t)network->layers[i].inputs * network->layers[i].units;
        next = at.dots ? (char *)mrn_dot_pack(&network->layers[i], network->precision, at.dots,
                                              (unsigned char *)next, &dot_layers[i])
                       : (char *)pack_layer(&network->layers[i], mrn_kernels_of(isa)->panel,
                                            (float *)(void *)next, &layers[i]);
    }

    mrn_model *opened = block;
    *opened = (mrn_model){
        .kernels = mrn_kernels_of(isa),
        .layer_count = network->layer_count,
        .columns = network->columns,
        .encoded = at.encoded,
        .outputs = outputs,
        .block_rows = at.block_rows,
        .half = at.half,
        .narrow = at.narrow,
        .scales = network->target_shift || network->target_scale,
        .scratch = at.half * 2 + at.stage,
        .weights = weights,
        .encodes = network->categories || network->copies || network->forms || network->fill ||
                   network->shift || network->scale,
        .categories = copy_table(base, at.categories, network->categories, network->columns),
        .copies = copy_table(base, at.copies, network->copies, network->columns),
        .forms = copy_table(base, at.forms, network->forms, at.encoded),
        .fill = copy_table(base, at.fill, network->fill, network->columns),
        .shift = copy_table(base, at.shift, network->shift, at.encoded),
        .scale = copy_table(base, at.scale, network->scale, at.encoded),
        .target_shift = copy_table(base, at.target_shift, network->target_shift, outputs),
        .target_scale = copy_table(base, at.target_scale, network->target_scale, outputs),
        .layers = layers,
        .dot_layers = dot_layers,
        .dots = at.dots,
    };
    *model = opened;
    return MRN_OK;
}
