/* The precisions of dot.h with no instruction beyond the baseline, byte order and all: right first, and what
 * every other instruction set is compared with. */
#include "dot.h"

#include <math.h> /* NAN */
#include <string.h>

#define NAME(x) x##_generic
#define TARGET
#include "dot_stage.h"

/* Strip `strip` of a layer: where its cells begin, and how far it is from one group to the next. */
typedef struct strip_at {
    const unsigned char *cells;
    size_t stride;
} strip_at;

static strip_at find_strip(const mrn_dot_layer *layer, size_t strip) {
    const size_t first = strip / MRN_PANEL_STRIPS * MRN_PANEL_STRIPS, left = layer->strips - first;
    const size_t line = MRN_STRIP * MRN_CELL, width = left < MRN_PANEL_STRIPS ? left : MRN_PANEL_STRIPS;
    return (strip_at){layer->weight + (first * layer->groups + (strip - first)) * line, width * line};
}

static float to_float(uint16_t bfloat16) {
    const uint32_t bits = (uint32_t)bfloat16 << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* For each unit bias + x[1] w[1] + x[0] w[0] + x[3] w[3] + x[2] w[2] + ...: the order of vdpbf16ps. The
 * products are exact, so that fused or not makes no difference. */
static void dense_bf16(const mrn_dot_layer *layer, const float *x, size_t x_stride, size_t rows, float *y,
                       void *stage) {
    unsigned char *cells = mrn_dot_cells(stage, rows);
    for (size_t row = 0; row < rows; row++, x += x_stride) {
        stage_bf16_generic(x, layer->inputs, layer->groups, cells);
        for (size_t strip = 0; strip < layer->strips; strip++, y += MRN_STRIP) {
            const strip_at at = find_strip(layer, strip);
            float sum[MRN_STRIP];
            memcpy(sum, layer->bias + strip * MRN_STRIP, sizeof sum);
            for (size_t g = 0; g < layer->groups; g++) {
                uint16_t weight[MRN_STRIP][2], value[2];
                memcpy(weight, at.cells + g * at.stride, sizeof weight);
                memcpy(value, cells + g * MRN_CELL, sizeof value);
                const float even = to_float(value[0]), odd = to_float(value[1]);
                for (size_t u = 0; u < MRN_STRIP; u++) {
                    sum[u] += odd * to_float(weight[u][1]);
                    sum[u] += even * to_float(weight[u][0]);
                }
            }
            for (size_t u = 0; u < MRN_STRIP; u++)
                y[u] = sum[u] < layer->floor ? layer->floor : sum[u];
        }
    }
}

static void dense_s8(const mrn_dot_layer *layer, const float *x, size_t x_stride, size_t rows, float *y,
                     void *stage) {
    unsigned char *cells = mrn_dot_cells(stage, rows);
    for (size_t row = 0; row < rows; row++, x += x_stride) {
        float scale, inverse;
        int32_t zero;
        ranges_s8_generic(x, 0, 1, layer->inputs, (mrn_dot_rows){&scale, &inverse, &zero, NULL}, 0);
        stage_s8_generic(x, layer->inputs, layer->groups, inverse, zero, cells);
        for (size_t strip = 0; strip < layer->strips; strip++) {
            const strip_at at = find_strip(layer, strip);
            int32_t sum[MRN_STRIP] = {0};
            for (size_t g = 0; g < layer->groups; g++) {
                int8_t weight[MRN_STRIP][MRN_CELL];
                memcpy(weight, at.cells + g * at.stride, sizeof weight);
                for (size_t u = 0; u < MRN_STRIP; u++)
                    for (size_t i = 0; i < MRN_CELL; i++)
                        sum[u] += (int32_t)cells[g * MRN_CELL + i] * weight[u][i];
            }
            for (size_t i = 0, u = strip * MRN_STRIP; i < MRN_STRIP; i++, u++) {
                /* may wrap on the way, but not in the end */
                const uint32_t whole = (uint32_t)sum[i] - (uint32_t)zero * (uint32_t)layer->sum[u];
                int32_t exact;
                memcpy(&exact, &whole, sizeof exact);
                const float result = (float)exact * (scale * layer->scale[u]) + layer->bias[u];
                *y++ = result < layer->floor ? layer->floor : result;
            }
        }
    }
}

const mrn_dots mrn_dots_bf16_generic = {1, MRN_PANEL_STRIPS, MRN_CELL, 0, dense_bf16, NULL};
const mrn_dots mrn_dots_s8_generic = {1, MRN_PANEL_STRIPS, MRN_CELL, 0, dense_s8, NULL};
