/* Between model.c, which packs, and the kernels, which compute: one packed layer, one function table.
 *
 * Units are grouped into strips of 16, strips into panels of as many as the instruction set's tiles take at
 * once when many rows share them: 4 where there are registers for it, else 1. A panel holds its weights input
 * by input:
 *
 *   panel 0: input 0: unit 0 .. 63 | input 1: unit 0 .. 63 | ...
 *   panel 1: input 0: unit 64 .. 127 | ...
 *   last panel: only as many strips as there are left
 *
 * so that a tile streams through the weights in the order of memory (lines that are skipped would leave sets
 * of the cache empty), many rows share each load, and every load is a whole cache line. Units that fill up
 * the last strip have weight 0 and bias 0; in a softmax layer bias -infinity, so that they end as exact zeros
 * without any tail code.
 *
 * For every row and unit the sum is taken in one fixed order, bias + x[0] w[0] + x[1] w[1] + ..., whatever
 * tile it falls into: that is why a row's bits do not depend on its neighbours.
 */
#ifndef MRN_KERNELS_H
#define MRN_KERNELS_H

#include "mrn.h"

enum {
    MRN_STRIP = 16,       /* units of a strip: one cache line of float32 */
    MRN_PANEL_STRIPS = 4, /* most strips of a panel */
    MRN_LANE_ROWS = 32    /* rows that run one a lane together: all activations of a narrow net stay in L1 */
};

enum mrn_activation {
#define MRN_ACTIVATION(id, name, floor, pass, sloped) MRN_ACTIVATION_##name = (id),
#include "activations.def"
#undef MRN_ACTIVATION
};

/* Whether a layer with this activation has slopes; what no sum may be below before the rest of it. */
int mrn_activation_sloped(uint32_t activation);
float mrn_activation_floor(uint32_t activation);

typedef struct mrn_dense {
    const float *weight; /* panels as above, aligned */
    const float *bias;   /* (strips * 16), aligned */
    const float *slope;  /* the same, for an activation that has slopes; else NULL */
    size_t inputs;
    size_t units;
    size_t strips;
    uint32_t activation;
} mrn_dense;

typedef struct mrn_kernels {
    size_t panel;   /* strips of a panel */
    size_t scratch; /* bytes of a block of rows between the layers: what the second-level cache of a core with
                     * this set holds beside a panel */
    /* y = activation(x . weight + bias) for `rows` rows; x is (rows, inputs) with x_stride floats from row to
     * row, y is (rows, strips * 16), aligned. */
    void (*dense)(const mrn_dense *layer, const float *x, size_t x_stride, size_t rows, float *y);
    /* The activation without its floor, in place: y is (rows, width), aligned, width a multiple of MRN_STRIP;
     * slope as in mrn_dense. */
    void (*activate)(uint32_t activation, const float *slope, float *y, size_t rows, size_t width);
    /* As dense, with the bits that it gives, but turned round, one row a lane: x is (inputs, rows), y is
     * (units, rows), both aligned; rows is a multiple of MRN_STRIP, at most MRN_LANE_ROWS. */
    void (*lanes)(const mrn_dense *layer, const float *x, size_t rows, float *y);
    /* As activate, on what lanes gives. */
    void (*activate_lanes)(uint32_t activation, const float *slope, float *y, size_t units, size_t rows);
} mrn_kernels;

/* The kernels of instruction set `isa` (a number of isa.def, below mrn_isa_count()). */
const mrn_kernels *mrn_kernels_of(size_t isa);

#endif
