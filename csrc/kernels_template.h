/* The dense and softmax kernels, written once. A file of one instruction set defines, then includes this:
 *
 *     ISA            its name              TARGET         function attribute, e.g. __attribute__((target("avx2,fma")))
 *     V              lanes of a vector     TILE           rows of a full tile (TILE x 2 accumulators fit the registers)
 *     vec            type of a vector      VZERO() VSET(f) VLOAD(p) VSTORE(p, v) [64-byte aligned]
 *     VFMA(a, b, c)  a * b + c             VADD VSUB VMUL VDIV VMIN VMAX (a, b): VMIN and VMAX give b if either is NaN
 *     VROUND(a)      to nearest integer    VPOW2(n)       2^n of integral n, -126 <= n <= 127
 *     VABS_LESS(a, limit, x, y)            lane by lane |a| < limit ? x : y
 *
 * Functions are static and carry TARGET themselves: no code of one set can be shared with, or leak into, another.
 */
#include <math.h>

#include "kernels.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16") /* fully: no loop marked so is longer. Sums then live in registers */
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET

/* ---- Activations ---------------------------------------------------------------------------------------------- */

/* e^x. x is clamped to [-87.33, 88.37], where both e^x and 2^n are normal. Range reduction by ln 2 in two parts and the
 * polynomial of Cephes' expf (Moshier, netlib.org/cephes, single/expf.c). Relative error <= 3e-7 on that range,
 * against float64. NaN stays NaN. */
INLINE vec v_exp(vec x) {
    x = VMIN(VSET(88.3762589f), VMAX(VSET(-87.3365402f), x));
    const vec n = VROUND(VMUL(x, VSET(1.44269504f)));
    vec r = VFMA(n, VSET(-0.693359375f), x);
    r = VFMA(n, VSET(2.12194440e-4f), r);
    vec p = VSET(1.9875691500e-4f);
    p = VFMA(p, r, VSET(1.3981999507e-3f));
    p = VFMA(p, r, VSET(8.3334519073e-3f));
    p = VFMA(p, r, VSET(4.1665795894e-2f));
    p = VFMA(p, r, VSET(1.6666665459e-1f));
    p = VFMA(p, r, VSET(5.0000001201e-1f));
    p = VADD(VFMA(p, VMUL(r, r), r), VSET(1.0f));
    return VMUL(p, VPOW2(n));
}

/* 1 / (1 + e^-x); absolute error <= 2e-7, everywhere. */
INLINE vec v_sigmoid(vec x) {
    return VDIV(VSET(1.0f), VADD(VSET(1.0f), v_exp(VSUB(VZERO(), x))));
}

/* tanh; absolute error <= 3e-7 everywhere, relative error <= 5e-7 below 0.625, where an odd polynomial (Cephes, single/
 * tanhf.c) avoids the cancellation of 1 - 2 / (e^2x + 1). */
INLINE vec v_tanh(vec x) {
    const vec z = VMUL(x, x);
    vec p = VSET(-5.70498872745e-3f);
    p = VFMA(p, z, VSET(2.06390887954e-2f));
    p = VFMA(p, z, VSET(-5.37397155531e-2f));
    p = VFMA(p, z, VSET(1.33314422036e-1f));
    p = VFMA(p, z, VSET(-3.33332819422e-1f));
    const vec near = VFMA(VMUL(p, z), x, x);
    const vec e = VADD(v_exp(VADD(x, x)), VSET(1.0f));
    const vec far = VSUB(VSET(1.0f), VDIV(VSET(2.0f), e));
    return VABS_LESS(x, 0.625f, near, far);
}

/* Sigmoid and tanh over some vectors of y, in place: a pass of its own over sums that are still in the L1 cache, so that the
 * loops around the multiply-add stay small enough for the compiler to keep their sums in registers. */
INLINE void activate(uint32_t activation, const size_t vectors, size_t rows, float *y, size_t y_stride) {
    if (activation == MRN_ACTIVATION_sigmoid)
        for (size_t r = 0; r < rows; r++)
            for (size_t v = 0; v < vectors; v++)
                VSTORE(y + r * y_stride + v * V, v_sigmoid(VLOAD(y + r * y_stride + v * V)));
    if (activation == MRN_ACTIVATION_tanh)
        for (size_t r = 0; r < rows; r++)
            for (size_t v = 0; v < vectors; v++)
                VSTORE(y + r * y_stride + v * V, v_tanh(VLOAD(y + r * y_stride + v * V)));
}

/* What the sums are raised to as they are stored: ReLU is max(0, x); every other activation starts from x itself. */
INLINE vec lowest(uint32_t activation) { return VSET(activation == MRN_ACTIVATION_relu ? 0.0f : -INFINITY); }

/* ---- Dense ---------------------------------------------------------------------------------------------------- */

/* One row, one panel of `vectors` vectors: the segments side by side. */
INLINE void dense_row(const float *panel, const size_t vectors, size_t inputs, uint32_t activation, const float *x,
                      float *y) {
    const size_t width = vectors * V;
    const float *weight = panel + width;
    vec sum[MRN_SEGMENTS][2];
    UNROLL for (size_t v = 0; v < vectors; v++) {
        sum[0][v] = VLOAD(panel + v * V);
        UNROLL for (size_t s = 1; s < MRN_SEGMENTS; s++)
            sum[s][v] = VZERO();
    }
    const size_t first = mrn_segment(inputs, 1);
    if (first == inputs) {
        for (size_t k = 0; k < inputs; k++)
            UNROLL for (size_t v = 0; v < vectors; v++)
                sum[0][v] = VFMA(VSET(x[k]), VLOAD(weight + k * width + v * V), sum[0][v]);
    } else {
        /* All segments have `first` inputs; the last one has the rest (fewer than MRN_SEGMENTS) besides. */
        for (size_t k = 0; k < first; k++)
            UNROLL for (size_t s = 0; s < MRN_SEGMENTS; s++)
                UNROLL for (size_t v = 0; v < vectors; v++)
                    sum[s][v] =
                        VFMA(VSET(x[s * first + k]), VLOAD(weight + (s * first + k) * width + v * V), sum[s][v]);
        for (size_t k = MRN_SEGMENTS * first; k < inputs; k++)
            UNROLL for (size_t v = 0; v < vectors; v++)
                sum[MRN_SEGMENTS - 1][v] =
                    VFMA(VSET(x[k]), VLOAD(weight + k * width + v * V), sum[MRN_SEGMENTS - 1][v]);
        UNROLL for (size_t s = 1; s < MRN_SEGMENTS; s++)
            UNROLL for (size_t v = 0; v < vectors; v++)
                sum[0][v] = VADD(sum[0][v], sum[s][v]);
    }
    UNROLL for (size_t v = 0; v < vectors; v++)
        VSTORE(y + v * V, VMAX(lowest(activation), sum[0][v]));
    activate(activation, vectors, 1, y, V);
}

/* `rows` rows (a constant at each call), one panel: the segments one after the other, running totals in y. */
INLINE void dense_tile(const float *panel, const size_t vectors, size_t inputs, uint32_t activation, const float *x,
                       size_t x_stride, const size_t rows, float *y, size_t y_stride) {
    const size_t width = vectors * V;
    const float *weight = panel + width;
    for (size_t s = 0, k = 0; k < inputs || s == 0; s++) {
        const size_t end = mrn_segment(inputs, s + 1);
        const vec low = lowest(end == inputs ? activation : MRN_ACTIVATION_linear);
        vec sum[TILE][2];
        UNROLL for (size_t r = 0; r < rows; r++)
            UNROLL for (size_t v = 0; v < vectors; v++)
                sum[r][v] = s == 0 ? VLOAD(panel + v * V) : VZERO();
        for (; k < end; k++) {
            vec w[2];
            UNROLL for (size_t v = 0; v < vectors; v++)
                w[v] = VLOAD(weight + k * width + v * V);
            UNROLL for (size_t r = 0; r < rows; r++) {
                const vec value = VSET(x[r * x_stride + k]);
                UNROLL for (size_t v = 0; v < vectors; v++)
                    sum[r][v] = VFMA(value, w[v], sum[r][v]);
            }
        }
        UNROLL for (size_t r = 0; r < rows; r++)
            UNROLL for (size_t v = 0; v < vectors; v++) {
                float *out = y + r * y_stride + v * V;
                VSTORE(out, VMAX(low, s == 0 ? sum[r][v] : VADD(VLOAD(out), sum[r][v])));
            }
    }
    activate(activation, vectors, rows, y, y_stride);
}

/* All rows through one panel. */
INLINE void dense_panel(const float *panel, const size_t vectors, const mrn_packed_layer *layer, const float *x,
                        size_t x_stride, size_t rows, float *y, size_t y_stride) {
    const size_t inputs = layer->inputs;
    const uint32_t activation = layer->activation;
    size_t r = 0;
    for (; r + TILE <= rows; r += TILE)
        dense_tile(panel, vectors, inputs, activation, x + r * x_stride, x_stride, TILE, y + r * y_stride, y_stride);
    for (; r + 4 <= rows; r += 4)
        dense_tile(panel, vectors, inputs, activation, x + r * x_stride, x_stride, 4, y + r * y_stride, y_stride);
    for (; r < rows; r++)
        dense_row(panel, vectors, inputs, activation, x + r * x_stride, y + r * y_stride);
}

TARGET static void JOIN(dense_f32_, ISA)(const mrn_packed_layer *layer, const float *x, size_t x_stride, size_t rows,
                                         float *y, size_t y_stride) {
    const float *panel = layer->panels;
    size_t column = 0;
    for (; column + 2 * V <= layer->padded; column += 2 * V) {
        dense_panel(panel, 2, layer, x, x_stride, rows, y + column, y_stride);
        panel += ((size_t)layer->inputs + 1) * 2 * V;
    }
    if (column < layer->padded)
        dense_panel(panel, 1, layer, x, x_stride, rows, y + column, y_stride);
}

/* ---- Softmax -------------------------------------------------------------------------------------------------- */

TARGET static void JOIN(softmax_f32_, ISA)(float *y, size_t y_stride, size_t rows, size_t units) {
    const size_t padded = mrn_round_up(units, V);
    for (size_t r = 0; r < rows; r++) {
        float *row = y + r * y_stride;
        for (size_t u = units; u < padded; u++)
            row[u] = -INFINITY; /* counts for nothing in the maximum, and e^-87 = 1e-38 in a sum that is >= 1 */
        float lanes[V] __attribute__((aligned(64)));
        vec most = VLOAD(row);
        for (size_t u = V; u < padded; u += V)
            most = VMAX(most, VLOAD(row + u));
        VSTORE(lanes, most);
        float highest = lanes[0];
        for (size_t v = 1; v < V; v++)
            highest = lanes[v] > highest ? lanes[v] : highest;
        vec sum = VZERO();
        for (size_t u = 0; u < padded; u += V) {
            const vec e = v_exp(VSUB(VLOAD(row + u), VSET(highest)));
            VSTORE(row + u, e);
            sum = VADD(sum, e);
        }
        VSTORE(lanes, sum);
        float total = 0.0f;
        for (size_t v = 0; v < V; v++)
            total += lanes[v];
        const vec divisor = VSET(total);
        for (size_t u = 0; u < padded; u += V)
            VSTORE(row + u, VDIV(VLOAD(row + u), divisor));
    }
}

const mrn_kernels JOIN(mrn_kernels_, ISA) = {V, JOIN(dense_f32_, ISA), JOIN(softmax_f32_, ISA)};
