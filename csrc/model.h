/* A model in memory, between model.c, which lays it out, and forward.c, which runs it. */
#ifndef MRN_MODEL_H
#define MRN_MODEL_H

#include "dot.h"
#include "kernels.h"

/* The block of mrn_model_open: this struct, the tables, the layers' biases and weights, each on a cache line.
 *
 * The scratch of mrn_model_predict: two buffers of `half` bytes. A block of rows is encoded into the first
 * one, and each layer reads one and writes the other; without an encoding step the first layer reads the
 * caller's rows. A precision below float32 has its layers in `dot_layers` instead of `layers`, and a third
 * part of the scratch, where dot.h stages the rows of a layer. */
struct mrn_model {
    const mrn_kernels *kernels;
    size_t layer_count;
    size_t columns;    /* of a raw row */
    size_t encoded;    /* of a row that the first layer reads */
    size_t outputs;    /* units of the last layer */
    size_t block_rows; /* rows that run through all layers together */
    int narrow;        /* whether every layer is so narrow that rows share vectors, not units */
    size_t half;       /* bytes of half the scratch */
    int scales;        /* whether target_shift or target_scale is there */
    size_t scratch;    /* bytes of all of it */
    size_t weights;    /* of all layers: multiplications for a row */
    int encodes;       /* whether any of the next six is there */
    const uint32_t *categories;
    const uint32_t *copies;
    const uint32_t *forms;
    const float *fill;
    const float *shift;
    const float *scale;
    const float *target_shift;
    const float *target_scale;
    const mrn_dense *layers;         /* float32; else NULL */
    const mrn_dot_layer *dot_layers; /* the other precisions; else NULL */
    const mrn_dots *dots;
};

/* The steps around the layers, in forward.c: raw rows to encoded ones; the last layer's rows, with the
 * padding of its strips, to rows of `outputs` values, of which `room` may be written from y on. */
void mrn_encode_rows(const mrn_model *model, const float *x, size_t rows, float *encoded);
void mrn_finish_rows(const mrn_model *model, const float *from, size_t rows, float *y, size_t room);

#endif
