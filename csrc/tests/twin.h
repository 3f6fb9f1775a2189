/* A plain forward pass in double precision: what the kernels are compared with. */
#ifndef MRN_TESTS_TWIN_H
#define MRN_TESTS_TWIN_H

#include <math.h>

#include "../kernels.h"
#include "../mrn.h"

enum { TWIN_WIDEST = 160 }; /* no layer may be wider, encoded columns included */

static inline double activate(uint32_t activation, double slope, double x) {
    const double size = fabs(x);
    switch (activation) {
    case MRN_ACTIVATION_relu:
        return x > 0 ? x : 0;
    case MRN_ACTIVATION_sigmoid:
        return 1 / (1 + exp(-x));
    case MRN_ACTIVATION_tanh:
        return tanh(x);
    case MRN_ACTIVATION_leaky_relu:
    case MRN_ACTIVATION_prelu:
        return x < 0 ? slope * x : x;
    case MRN_ACTIVATION_elu:
        return x < 0 ? slope * expm1(x) : x;
    case MRN_ACTIVATION_selu:
        return 1.0507009873554804934193349852946 * (x < 0 ? 1.6732632423543772848170429916717 * expm1(x) : x);
    case MRN_ACTIVATION_gelu:
        return x < -40 ? 0 : x * 0.5 * erfc(-x / sqrt(2));
    case MRN_ACTIVATION_gelu_tanh:
        return x < -40 ? 0 : x / (1 + exp(-x * (1 + 0.044715 * x * x) * sqrt(8 / acos(-1))));
    case MRN_ACTIVATION_silu:
        return x < -700 ? 0 : x / (1 + exp(-x));
    case MRN_ACTIVATION_softplus:
        return (x > 0 ? x : 0) + (isnan(x) ? x : log1p(exp(-size)));
    default:
        return x;
    }
}

static inline void twin(const mrn_network *network, const float *x, double *out) {
    static double a[TWIN_WIDEST], b[TWIN_WIDEST];
    const uint32_t *forms = network->forms;
    size_t encoded = 0;
    for (size_t c = 0; c < network->columns; c++) {
        const double value = isnan(x[c]) && network->fill ? network->fill[c] : x[c];
        const uint32_t n = network->categories ? network->categories[c] : 0;
        for (uint32_t i = 0; n == 0 && i < (network->copies ? network->copies[c] : 1); i++, encoded++)
            a[encoded] = forms && forms[encoded] == MRN_FORM_MISSING ? isnan(x[c]) : value;
        for (uint32_t i = 0; i < n; i++)
            a[encoded++] = value == i;
    }
    for (size_t e = 0; e < encoded; e++) {
        a[e] = (a[e] - (network->shift ? network->shift[e] : 0)) * (network->scale ? network->scale[e] : 1);
        if (forms && forms[e] == MRN_FORM_SOFT)
            a[e] = a[e] / sqrt(1 + a[e] * a[e]);
        if (forms && forms[e] == MRN_FORM_RAMP && !isnan(a[e]))
            a[e] = fmin(fmax(a[e], 0), 1);
    }
    double *in = a, *to = b;
    for (size_t i = 0; i < network->layer_count; i++) {
        const mrn_layer *layer = &network->layers[i];
        double most = -INFINITY, total = 0;
        for (size_t u = 0; u < layer->units; u++) {
            double sum = layer->bias ? layer->bias[u] : 0;
            for (size_t k = 0; k < layer->inputs; k++)
                sum += in[k] * ((const float *)layer->weight)[k * layer->units + u];
            to[u] = activate(layer->activation, layer->slope ? layer->slope[u] : 0, sum);
            most = to[u] > most ? to[u] : most;
        }
        if (layer->activation == MRN_ACTIVATION_softmax) {
            for (size_t u = 0; u < layer->units; u++)
                total += to[u] = exp(to[u] - most);
            for (size_t u = 0; u < layer->units; u++)
                to[u] /= total;
        }
        double *swap = in;
        in = to;
        to = swap;
    }
    const size_t outputs = network->layers[network->layer_count - 1].units;
    for (size_t o = 0; o < outputs; o++)
        out[o] = in[o] * (network->target_scale ? network->target_scale[o] : 1) +
                 (network->target_shift ? network->target_shift[o] : 0);
}

#endif
