/* An opened model: one block of the caller's, laid out by model.c, read by forward.c. */
#ifndef MRN_MODEL_H
#define MRN_MODEL_H

#include "kernels.h"
#include "mrn.h"

enum { MRN_MAX_LAYERS = 64, MRN_MAX_WIDTH = 1 << 20, MRN_ALIGNMENT = 64 };

struct mrn_model {
    const mrn_kernels *kernels;
    size_t columns;         /* of a raw row */
    size_t encoded;         /* columns that the first layer sees */
    size_t outputs;         /* units of the last layer */
    size_t row_floats;      /* floats of a row in scratch: the widest of encoded row and layers, in whole vectors */
    size_t layer_count;
    const mrn_packed_layer *layers;
    int encodes;                /* whether any of the next four is there */
    const uint32_t *categories; /* each table: NULL skips its step (mrn.h) */
    const float *fill;
    const float *shift;
    const float *scale;
    const float *target_shift;
    const float *target_scale;
};

#endif
