/* Packs layers as dot.h draws them, once, when a model is opened. */
#include "dot.h"
#include "mrn.h"

#include <math.h>
#include <string.h>

#define MRN_PRECISION(id, name, text, inputs, planes) {(text), (inputs), (planes)},
static const struct {
    const char *name;
    unsigned char cell_inputs, planes;
} precisions[] = {
#include "precisions.def"
};
#undef MRN_PRECISION

size_t mrn_precision_count(void) {
    return sizeof precisions / sizeof *precisions;
}

const char *mrn_precision_name(size_t precision) {
    return precision < mrn_precision_count() ? precisions[precision].name : NULL;
}

size_t mrn_dot_cell_inputs(size_t precision) {
    return precisions[precision].cell_inputs;
}

size_t mrn_dot_planes(size_t precision) {
    return precisions[precision].planes;
}

static uint32_t bits_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* 2^exponent, -126 <= exponent <= 127. */
static float power_of_two(int exponent) {
    return float_of((uint32_t)(exponent + 127) << 23);
}

/* number * 2^exponent for -150 <= exponent <= 150; exact unless it becomes a denormal. */
static float scaled(float number, int exponent) {
    const int half = exponent / 2;
    return number * power_of_two(half) * power_of_two(exponent - half);
}

/* e with 2^e <= |number| < 2^(e + 1); 0 for zero. */
static int exponent_of(float number) {
    const uint32_t size = bits_of(number) & 0x7fffffffU;
    if (size == 0)
        return 0;
    if (size >= 0x00800000U)
        return (int)(size >> 23) - 127;
    return (int)(bits_of(float_of(size) * power_of_two(64)) >> 23) - 127 - 64; /* a denormal */
}

/* A finite bfloat16, nearest to a finite float32, ties to even; float32-split keeps far from the largest one.
 */
static uint16_t to_bfloat16(float number) {
    const uint32_t bits = bits_of(number);
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

int mrn_dot_check(const mrn_layer *layer, size_t precision) {
    const size_t weights = (size_t)layer->inputs * layer->units;
    if (precision == MRN_PRECISION_bfloat16) {
        const uint16_t *weight = layer->weight;
        for (size_t i = 0; i < weights; i++)
            if ((weight[i] & 0x7f80U) == 0x7f80U) /* infinity or NaN */
                return MRN_E_RANGE;
    } else if (precision == MRN_PRECISION_float32_split) {
        const float *weight = layer->weight;
        for (size_t i = 0; i < weights; i++)
            if (!isfinite(weight[i]))
                return MRN_E_RANGE;
    } else {
        if (!layer->weight_scale)
            return MRN_E_ARGUMENT;
        if (layer->inputs > MRN_INT8_MAX_INPUTS)
            return MRN_E_TOO_LARGE;
        for (size_t u = 0; u < layer->units; u++)
            if (!isfinite(layer->weight_scale[u]) || !(layer->weight_scale[u] > 0))
                return MRN_E_RANGE;
    }
    return MRN_OK;
}

/* The weight of a unit for an input in one plane, as the bytes of a cell. */
static void put_int8(const mrn_layer *layer, size_t k, size_t unit, unsigned char *cell, int paired) {
    const int8_t weight = ((const int8_t *)layer->weight)[k * layer->units + unit];
    cell[k % 4] = (unsigned char)(weight + (paired && k % 2 == 0 ? 128 : 0));
}

/* Where sums of paired int8 begin: below 0 by the products of the unit's own weights, modulo 2^32. */
static int32_t first_of(const mrn_layer *layer, size_t unit) {
    const int8_t *weight = (const int8_t *)layer->weight + unit;
    uint32_t first = 0;
    int32_t result;
    for (size_t k = 0; k + 1 < layer->inputs; k += 2)
        first -= (uint32_t)(weight[k * layer->units] * weight[(k + 1) * layer->units]);
    memcpy(&result, &first, sizeof result);
    return result;
}

/* A denormal becomes zero: some instructions would take it for one. */
static void put_bfloat16(const mrn_layer *layer, size_t k, size_t unit, unsigned char *cell) {
    uint16_t weight = ((const uint16_t *)layer->weight)[k * layer->units + unit];
    if ((weight & 0x7f80U) == 0)
        weight &= 0x8000U;
    memcpy(cell + k % 2 * sizeof weight, &weight, sizeof weight);
}

/* The three terms of a weight, scaled so that the unit's largest is in [1, 2): each the bfloat16 next to what
 * the ones before it leave. They sum up to the weight but for what is below 2^-126 of the largest. */
static void put_split(const mrn_layer *layer, size_t k, size_t unit, unsigned char *cell, size_t plane,
                      int exponent) {
    float rest = scaled(((const float *)layer->weight)[k * layer->units + unit], -exponent);
    for (size_t term = 0; term < 3; term++) {
        const uint16_t part = to_bfloat16(rest);
        memcpy(cell + term * plane + k % 2 * sizeof part, &part, sizeof part);
        rest -= float_of((uint32_t)part << 16);
    }
}

/* e with 2^e <= the largest weight of a unit < 2^(e + 1); 0 for a unit of zeros. */
static int largest_exponent(const mrn_layer *layer, size_t unit) {
    uint32_t largest = 0;
    for (size_t k = 0; k < layer->inputs; k++) {
        const uint32_t size = bits_of(((const float *)layer->weight)[k * layer->units + unit]) & 0x7fffffffU;
        largest = size > largest ? size : largest;
    }
    return exponent_of(float_of(largest));
}

unsigned char *mrn_dot_pack(const mrn_layer *layer, size_t precision, const mrn_dots *dots, unsigned char *to,
                            mrn_dot_layer *packed) {
    const size_t inputs = layer->inputs, units = layer->units, of_cell = precisions[precision].cell_inputs;
    const size_t planes = precisions[precision].planes;
    const size_t strips = (units + MRN_STRIP - 1) / MRN_STRIP, padded = strips * MRN_STRIP;
    const size_t groups = ((inputs + of_cell - 1) / of_cell + dots->depth - 1) / dots->depth * dots->depth;
    const float absent = layer->activation == MRN_ACTIVATION_softmax ? -INFINITY : 0.0F;
    float *bias = (float *)(void *)to, *scale = bias + padded;
    int32_t *sum = (int32_t *)(void *)(scale + padded), *first = sum + padded;
    float *slope = layer->slope ? (float *)(void *)(first + padded) : NULL;
    unsigned char *weight = (unsigned char *)(first + padded * (slope ? 2 : 1));
    const size_t bytes = padded * groups * planes * MRN_CELL;

    memset(weight, 0, bytes);
    for (size_t byte = 0; dots->paired && byte < bytes; byte += 2)
        weight[byte] = 128;
    for (size_t u = 0; u < padded; u++) {
        bias[u] = u >= units ? absent : layer->bias ? layer->bias[u] : 0.0F;
        scale[u] = 0;
        sum[u] = first[u] = 0;
        if (slope)
            slope[u] = u >= units ? 0.0F : layer->slope[u];
    }
    *packed = (mrn_dot_layer){weight,
                              bias,
                              scale,
                              sum,
                              first,
                              slope,
                              inputs,
                              groups,
                              units,
                              strips,
                              mrn_activation_floor(layer->activation),
                              layer->activation};
    for (size_t u = 0; u < units; u++) {
        const size_t panel = u / MRN_STRIP / dots->panel * dots->panel; /* its first strip */
        const size_t left = strips - panel;
        const size_t width = (left < dots->panel ? left : dots->panel) * MRN_STRIP;
        const size_t plane = groups * width * MRN_CELL;
        unsigned char *at =
            weight + (panel * MRN_STRIP * groups * planes + (u - panel * MRN_STRIP)) * MRN_CELL;
        const int exponent = precision == MRN_PRECISION_float32_split ? largest_exponent(layer, u) : 0;
        for (size_t k = 0; k < inputs; k++) {
            unsigned char *cell = at + k / of_cell * width * MRN_CELL;
            if (precision == MRN_PRECISION_int8) {
                put_int8(layer, k, u, cell, dots->paired);
                sum[u] += ((const int8_t *)layer->weight)[k * units + u];
            } else if (precision == MRN_PRECISION_bfloat16)
                put_bfloat16(layer, k, u, cell);
            else
                put_split(layer, k, u, cell, plane, exponent);
        }
        if (precision == MRN_PRECISION_int8)
            scale[u] = layer->weight_scale[u];
        else
            scale[u] = (float)exponent;
        if (dots->paired)
            first[u] = first_of(layer, u);
    }
    return weight + bytes;
}
