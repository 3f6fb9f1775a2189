/* Runs rows through a model: encode, layer by layer, scale back. */
#include "mrn.h"
#include "model.h"

#include <math.h>
#include <string.h>

enum { LANE_ROWS_MIN = 4 }; /* fewer rows are faster with their units side by side */

/* What becomes of a shifted and scaled number; NaN stays NaN. The bound keeps v * v finite: beyond it, the
 * result is 1 to the last bit. */
static float shaped(uint32_t form, float v) {
    if (form == MRN_FORM_RAMP)
        return v < 0 ? 0.0F : v > 1 ? 1.0F : v;
    if (form == MRN_FORM_SOFT) {
        const float bounded = v < -4096 ? -4096.0F : v > 4096 ? 4096.0F : v;
        return bounded / __builtin_sqrtf(1 + bounded * bounded);
    }
    return v;
}

/* One raw row to one encoded row: fill, one-hot or copies, shift, scale and form. */
static void encode_row(const mrn_model *model, const float *x, float *encoded) {
    float *to = encoded;
    for (size_t c = 0; c < model->columns; c++) {
        const float value = model->fill && isnan(x[c]) ? model->fill[c] : x[c];
        const uint32_t categories = model->categories ? model->categories[c] : 0;
        if (categories == 0) {
            const uint32_t copies = model->copies ? model->copies[c] : 1;
            for (uint32_t i = 0; i < copies; i++)
                to[i] = value;
            if (model->forms)
                for (uint32_t i = 0; i < copies; i++)
                    if (model->forms[(size_t)(to - encoded) + i] == MRN_FORM_MISSING)
                        to[i] = isnan(x[c]) ? 1.0F : 0.0F;
            to += copies;
            continue;
        }
        memset(to, 0, categories * sizeof *to);
        if (value >= 0 && value < (float)categories && value == (float)(size_t)value)
            to[(size_t)value] = 1.0F;
        to += categories;
    }
    for (size_t e = 0; model->shift && e < model->encoded; e++)
        encoded[e] -= model->shift[e];
    for (size_t e = 0; model->scale && e < model->encoded; e++)
        encoded[e] *= model->scale[e];
    for (size_t e = 0; model->forms && e < model->encoded; e++)
        encoded[e] = shaped(model->forms[e], encoded[e]);
}

void mrn_encode_rows(const mrn_model *model, const float *x, size_t rows, float *encoded) {
    for (size_t row = 0; row < rows; row++)
        encode_row(model, x + row * model->columns, encoded + row * model->encoded);
}

static void scale_back(const mrn_model *model, float *y) {
    for (size_t o = 0; model->target_scale && o < model->outputs; o++)
        y[o] *= model->target_scale[o];
    for (size_t o = 0; model->target_shift && o < model->outputs; o++)
        y[o] += model->target_shift[o];
}

/* Numbers of a row that a layer puts out, those that fill up the last strip with them. */
static size_t width_of(const mrn_model *model, size_t layer) {
    return (model->dots ? model->dot_layers[layer].strips : model->layers[layer].strips) * MRN_STRIP;
}

/* Whole strips are copied while they fit: what falls behind a row is overwritten by the next one. */
void mrn_finish_rows(const mrn_model *model, const float *from, size_t rows, float *y, size_t room) {
    const size_t outputs = model->outputs, width = width_of(model, model->layer_count - 1);
    for (size_t row = 0; row < rows; row++, from += width, y += outputs, room -= outputs) {
        if (width == MRN_STRIP && room >= MRN_STRIP)
            memcpy(y, from, MRN_STRIP * sizeof *y);
        else
            memcpy(y, from, outputs * sizeof *y);
        scale_back(model, y);
    }
}

static void run_layer(const mrn_model *model, size_t i, const float *in, size_t rows, float *out,
                      void *stage) {
    const size_t stride = i ? width_of(model, i - 1) : model->encoded;
    if (!model->dots) {
        model->kernels->dense(&model->layers[i], in, stride, rows, out);
        return;
    }
    model->dots->dense(&model->dot_layers[i], in, stride, rows, out, stage);
    model->kernels->activate(model->dot_layers[i].activation, model->dot_layers[i].slope, out, rows,
                             width_of(model, i));
}

/* A block of rows through all layers, units side by side. */
static void run_block(const mrn_model *model, const float *x, size_t rows, float *y, size_t room,
                      void *scratch) {
    char *const halves[2] = {scratch, (char *)scratch + model->half};
    const float *in = x;
    size_t side = 0; /* the half that is written next */
    if (model->encodes) {
        float *encoded = (float *)(void *)halves[0];
        mrn_encode_rows(model, x, rows, encoded);
        in = encoded;
        side = 1;
    }
    for (size_t i = 0; i < model->layer_count; i++, side = 1 - side) {
        float *out = (float *)(void *)halves[side];
        run_layer(model, i, in, rows, out, (char *)scratch + 2 * model->half);
        in = out;
    }
    mrn_finish_rows(model, in, rows, y, room);
}

/* Transposes: to[c * to_stride + r] = from[r * from_stride + c], four rows at a time while there are four. */
static void turn(const float *restrict from, size_t from_stride, size_t rows, size_t columns,
                 float *restrict to, size_t to_stride) {
    size_t r = 0;
    for (; r + 4 <= rows; r += 4, from += 4 * from_stride, to += 4)
        for (size_t c = 0; c < columns; c++) {
            const float a = from[c], b = from[from_stride + c];
            const float d = from[2 * from_stride + c], e = from[3 * from_stride + c];
            float *four = to + c * to_stride;
            four[0] = a, four[1] = b, four[2] = d, four[3] = e;
        }
    for (; r < rows; r++, from += from_stride, to++)
        for (size_t c = 0; c < columns; c++)
            to[c * to_stride] = from[c];
}

static void run_lane_layer(const mrn_model *model, size_t i, const float *in, size_t lanes, float *out,
                           void *stage) {
    if (!model->dots) {
        model->kernels->lanes(&model->layers[i], in, lanes, out);
        return;
    }
    const mrn_dot_layer *layer = &model->dot_layers[i];
    model->dots->lanes(layer, in, lanes, out, stage);
    model->kernels->activate_lanes(layer->activation, layer->slope, out, layer->units, lanes);
}

/* Up to MRN_LANE_ROWS rows through all layers of a narrow net, rows side by side: turned round when they are
 * read and when they are written. The lanes that are left over hold ones: zeros would make denormals of
 * int8's scales, which are slow. */
static void run_lanes(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch) {
    float *in = scratch, *out = (float *)(void *)((char *)scratch + model->half);
    const size_t lanes = (rows + MRN_STRIP - 1) / MRN_STRIP * MRN_STRIP;
    if (model->encodes) {
        mrn_encode_rows(model, x, rows, out);
        x = out;
    }
    for (size_t i = 0; lanes != rows && i < model->encoded * lanes; i++)
        in[i] = 1.0F;
    turn(x, model->encoded, rows, model->encoded, in, lanes);
    for (size_t i = 0; i < model->layer_count; i++) {
        run_lane_layer(model, i, in, lanes, out, (char *)scratch + 2 * model->half);
        float *swap = in;
        in = out;
        out = swap;
    }
    turn(in, lanes, model->outputs, rows, y, model->outputs);
    for (size_t row = 0; model->scales && row < rows; row++)
        scale_back(model, y + row * model->outputs);
}

int mrn_model_predict(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch) {
    if (!model || !x || !y || !scratch)
        return MRN_E_ARGUMENT;
    const size_t most = model->narrow ? MRN_LANE_ROWS : model->block_rows;
    while (rows) {
        const size_t block = rows < most ? rows : most;
        if (model->narrow && block >= LANE_ROWS_MIN)
            run_lanes(model, x, block, y, scratch);
        else
            run_block(model, x, block, y, rows * model->outputs, scratch);
        x += block * model->columns;
        y += block * model->outputs;
        rows -= block;
    }
    return MRN_OK;
}
