/* The function table of one instruction set, and the packed form of a layer that its functions read.
 *
 * Packed weights. A layer's units are cut into panels of 2 vectors (2V lanes; the last panel has 1 vector when that is
 * enough). A panel holds its bias, then one row of lanes for each input:
 *
 *     panel 0: bias[2V] w[0][2V] w[1][2V] ... w[inputs-1][2V]   panel 1: ...
 *
 * Units beyond the layer's are zeros. One layout serves a single row and batches.
 *
 * Summation order. Each output is ((bias + s0) + s1 + s2) + s3, where s0..s3 sum the products of four consecutive
 * segments of the inputs, in order (one segment when there are few inputs). A single row runs the four sums side by side to
 * hide the latency of the multiply-add; a tile of many rows runs them one after the other. The order per output is the
 * same, hence the same bits whatever the batch.
 */
#ifndef MRN_KERNELS_H
#define MRN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { MRN_SEGMENTS = 4, MRN_SEGMENT_MIN = 8 };

/* Rows that run through all layers together, so that their activations stay in cache; a multiple of every tile. */
enum { MRN_ROW_BLOCK = 48 };

/* A row of activations in scratch is padded to whole vectors of the widest set: 64 bytes. */
enum { MRN_LANES_MAX = 16 };

enum mrn_activation {
#define MRN_ACTIVATION(id, name) MRN_ACTIVATION_##name = (id),
#include "activations.def"
#undef MRN_ACTIVATION
};

typedef struct mrn_packed_layer {
    const float *panels; /* 64-byte aligned */
    uint32_t inputs;
    uint32_t units;
    uint32_t padded; /* units rounded up to whole vectors */
    uint32_t activation;
} mrn_packed_layer;

typedef struct mrn_kernels {
    uint32_t lanes; /* V */
    /* y (rows, y_stride) = activation(x (rows, x_stride) . weight + bias), `padded` columns of y written, softmax left
     * to the other function. y is 64-byte aligned and y_stride a multiple of MRN_LANES_MAX; x is of any alignment. */
    void (*dense)(const mrn_packed_layer *layer, const float *x, size_t x_stride, size_t rows, float *y,
                  size_t y_stride);
    /* Each row of y becomes exp(y - max) / sum; columns from `units` to the next whole vector are overwritten. */
    void (*softmax)(float *y, size_t y_stride, size_t rows, size_t units);
} mrn_kernels;

static inline size_t mrn_round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* Where segment `i` of `inputs` begins; i = MRN_SEGMENTS gives `inputs`. Few inputs are one segment. */
static inline size_t mrn_segment(size_t inputs, size_t i) {
    if (inputs < MRN_SEGMENTS * MRN_SEGMENT_MIN)
        return i == 0 ? 0 : inputs;
    return i == MRN_SEGMENTS ? inputs : inputs / MRN_SEGMENTS * i;
}

#define MRN_ISA(name, features) extern const mrn_kernels mrn_kernels_##name;
#include "isa.def"
#undef MRN_ISA

#endif
