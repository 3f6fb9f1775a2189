/* The precisions below float32, between model.c, dot_pack.c, which packs, and the kernels, which compute.
 *
 * A *cell* is 4 bytes: 4 int8 weights of one unit, or 2 bfloat16 ones, for as many inputs in a row; that is
 * what one lane of a dot-product instruction takes. 16 units make a strip, whose cells of one group of inputs
 * are a cache line; one strip or 4 make a panel, as the kernels want it (mrn_dots); here 4:
 *
 *   panel 0: group 0: unit 0 .. 63 | group 1: unit 0 .. 63 | ...
 *   panel 1: group 0: unit 64 .. 127 | ...
 *   last panel: only as many strips as there are left
 *
 * 16 groups of a strip are an AMX tile, rows one panel line apart. Inputs and units that fill up the last
 * group and strip have weight 0. float32-split has three planes of bfloat16 cells, one after the other in a
 * panel.
 *
 * The activations of a row are *staged* too, before any weight is looked at:
 *   bfloat16  rounded to nearest even, denormals to zero
 *   int8      unsigned, x = (q - zero) * scale: see mrn_dot_rows
 *   split     scaled by a power of two, then the sum of three bfloat16
 * as cells, or taken apart already, as the kernels multiply them.
 */
#ifndef MRN_DOT_H
#define MRN_DOT_H

#include "kernels.h"

struct mrn_layer;

enum mrn_precision {
#define MRN_PRECISION(id, name, text, inputs, planes) MRN_PRECISION_##name = (id),
#include "precisions.def"
#undef MRN_PRECISION
};

enum {
    MRN_CELL = 4,       /* bytes */
    MRN_DOT_STAGED = 4, /* rows staged together; those of a wide layer stay in the first-level cache */
    MRN_DOT_ROWS = 32   /* a block of rows is a multiple of this: two tiles */
};

typedef struct mrn_dot_layer {
    const unsigned char *weight; /* panels as above, aligned */
    const float *bias;           /* (strips * 16), aligned, as the next three */
    const float *scale;          /* int8: what 1 stands for; split: log2 of what 1 stands for; else NULL */
    const int32_t *sum;          /* int8: sum of the unit's weights; else NULL */
    const int32_t *first;        /* int8: what sums begin with: see mrn_dots */
    const float *slope;          /* for an activation that has slopes; else NULL */
    size_t inputs;
    size_t groups; /* of a plane */
    size_t units;
    size_t strips;
    float floor;         /* of the activation: no result is below it */
    uint32_t activation; /* what follows on the floor is for whoever calls the kernel */
} mrn_dot_layer;

/* What staging finds out of each row. int8: x = (q - zero) * scale, and inverse is 1 / scale. Split: x =
 * staged * 2^scale. scale is NaN for a row that is not finite. */
typedef struct mrn_dot_rows {
    float *scale, *inverse;
    int32_t *zero;
    int32_t *first; /* as in mrn_dot_layer, of the row */
} mrn_dot_rows;

typedef struct mrn_dots {
    size_t depth;  /* groups are a multiple of this */
    size_t panel;  /* strips of a panel: 1, or MRN_PANEL_STRIPS */
    size_t staged; /* bytes of a group of a staged row */
    /* int8: two inputs take one multiplication, as dot_avx2.c explains: the weights of every other input are
     * packed with 128 on top, and `first` is less than 0 by what such products have too much. */
    int paired;
    /* y = max(floor, x . weight + bias) for `rows` rows; x is (rows, inputs) with x_stride floats from row to
     * row, y (rows, strips * 16), aligned, with room for a multiple of MRN_DOT_ROWS rows; `stage`, aligned,
     * has room for the records and the staged groups of as many, and MRN_BLOCK_ALIGN bytes more. */
    void (*dense)(const mrn_dot_layer *layer, const float *x, size_t x_stride, size_t rows, float *y,
                  void *stage);
    /* The same, with the same bits, turned round as in kernels.h: x is (inputs, rows), y (units, rows); rows
     * is a multiple of MRN_STRIP, at most MRN_LANE_ROWS. NULL: rows of this set always run side by side. */
    void (*lanes)(const mrn_dot_layer *layer, const float *x, size_t rows, float *y, void *stage);
} mrn_dots;

/* The kernels of a set for a precision; NULL where it has none, and for float32. */
const mrn_dots *mrn_dots_of(size_t isa, size_t precision);

/* Inputs of a cell, and planes. */
size_t mrn_dot_cell_inputs(size_t precision);
size_t mrn_dot_planes(size_t precision);

/* Whether the numbers of a layer, whose sizes are known to be sane, can be packed: a status. */
int mrn_dot_check(const struct mrn_layer *layer, size_t precision);

/* Pack a layer from `to` on, as drawn above; returns where the next one begins. */
unsigned char *mrn_dot_pack(const struct mrn_layer *layer, size_t precision, const mrn_dots *dots,
                            unsigned char *to, mrn_dot_layer *packed);

/* Bytes from one staged row to the next where a kernel takes tiles: an odd number of cache lines, so that the
 * rows of a tile do not share a set of the cache. No row has more. */
static inline size_t mrn_dot_row_bytes(size_t groups, size_t planes) {
    const size_t lines = (groups * planes * MRN_CELL + MRN_BLOCK_ALIGN - 1) / MRN_BLOCK_ALIGN;
    return (lines | 1) * MRN_BLOCK_ALIGN;
}

/* A cell as four bytes of the machine. */
static inline int32_t mrn_dot_cell(const void *at) {
    int32_t cell;
    __builtin_memcpy(&cell, at, sizeof cell);
    return cell;
}

/* Where a stage has what is known of its rows, and their cells. The rows are filled up, so that
 * MRN_DOT_STAGED of them may be written at once. */
enum { MRN_DOT_RECORD = 4 * 4 }; /* bytes a row */
static inline mrn_dot_rows mrn_dot_records(void *stage, size_t rows) {
    const size_t filled = (rows + MRN_DOT_STAGED - 1) / MRN_DOT_STAGED * MRN_DOT_STAGED;
    float *scale = (float *)stage, *inverse = scale + filled;
    int32_t *zero = (int32_t *)(void *)(inverse + filled);
    return (mrn_dot_rows){scale, inverse, zero, zero + filled};
}
static inline unsigned char *mrn_dot_cells(void *stage, size_t rows) {
    const size_t filled = (rows + MRN_DOT_STAGED - 1) / MRN_DOT_STAGED * MRN_DOT_STAGED;
    const size_t bytes = filled * MRN_DOT_RECORD;
    return (unsigned char *)stage + (bytes + MRN_BLOCK_ALIGN - 1) / MRN_BLOCK_ALIGN * MRN_BLOCK_ALIGN;
}

#endif
