/* The forward pass: encode a block of rows, run the layers, scale back. The hot path: no check but for NULL, no
 * allocation; model.c has seen to the rest. */
#include <string.h>

#include "model.h"

/* Steps 1 to 3 of mrn.h for one row. */
static void encode_row(const mrn_model *model, const float *x, float *out) {
    if (model->categories == NULL) {
        memcpy(out, x, model->columns * sizeof *out);
        if (model->fill != NULL)
            for (size_t c = 0; c < model->columns; c++)
                out[c] = out[c] != out[c] ? model->fill[c] : out[c];
    } else {
        size_t e = 0;
        for (size_t c = 0; c < model->columns; c++) {
            const uint32_t count = model->categories[c];
            float value = x[c];
            if (value != value && model->fill != NULL)
                value = model->fill[c];
            if (count == 0) {
                out[e++] = value;
                continue;
            }
            memset(out + e, 0, count * sizeof *out);
            if (value >= 0.0f && value < (float)count) { /* NaN is neither; count <= 2^20 is exact */
                const uint32_t category = (uint32_t)value;
                if ((float)category == value)
                    out[e + category] = 1.0f;
            }
            e += count;
        }
    }
    if (model->shift != NULL)
        for (size_t e = 0; e < model->encoded; e++)
            out[e] -= model->shift[e];
    if (model->scale != NULL)
        for (size_t e = 0; e < model->encoded; e++)
            out[e] *= model->scale[e];
}

/* Step 5 for one row. */
static void scale_target(const mrn_model *model, float *y) {
    if (model->target_scale != NULL)
        for (size_t o = 0; o < model->outputs; o++)
            y[o] *= model->target_scale[o];
    if (model->target_shift != NULL)
        for (size_t o = 0; o < model->outputs; o++)
            y[o] += model->target_shift[o];
}

static void predict_block(const mrn_model *model, const float *x, size_t rows, float *y, float *scratch) {
    const mrn_kernels *kernels = model->kernels;
    const size_t stride = model->row_floats;
    float *write = scratch, *spare = scratch + MRN_ROW_BLOCK * stride; /* swapped after each layer */
    const float *in = x;
    size_t in_stride = model->columns;
    if (model->encodes) {
        for (size_t r = 0; r < rows; r++)
            encode_row(model, x + r * model->columns, spare + r * stride);
        in = spare;
        in_stride = stride;
    }
    for (size_t i = 0; i < model->layer_count; i++) {
        kernels->dense(&model->layers[i], in, in_stride, rows, write, stride);
        float *written = write;
        in = written;
        in_stride = stride;
        write = spare;
        spare = written;
    }
    float *out = spare; /* where the last layer wrote */
    if (model->layers[model->layer_count - 1].activation == MRN_ACTIVATION_softmax)
        kernels->softmax(out, stride, rows, model->outputs);
    for (size_t r = 0; r < rows; r++) {
        memcpy(y + r * model->outputs, out + r * stride, model->outputs * sizeof *y);
        scale_target(model, y + r * model->outputs);
    }
}

int mrn_model_predict(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch) {
    if (model == NULL || x == NULL || y == NULL || scratch == NULL)
        return MRN_E_ARGUMENT;
    for (size_t done = 0; done < rows; done += MRN_ROW_BLOCK) {
        const size_t block = rows - done < MRN_ROW_BLOCK ? rows - done : MRN_ROW_BLOCK;
        predict_block(model, x + done * model->columns, block, y + done * model->outputs, scratch);
    }
    return MRN_OK;
}
