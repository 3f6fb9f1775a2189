/* Mariana's C core: THE public interface.
 *
 * Plain C11, no dependency but libc. Bytes in, bytes out: nothing here knows of Python, threads, files or logs.
 * Every function returns a status of status.def (0 is success, errors are negative) and gives its results
 * through pointers. Memory belongs to the caller. Nothing is allocated on a request. Nothing is global but
 * constants, so every function may be called from any thread; an object that one call writes (scratch,
 * workspace) belongs to that call alone while it runs.
 *
 * The parts between "cdef: begin" and "cdef: end" are also what csrc/build_ffi.py shows to cffi: keep them free
 * of the preprocessor.
 */
#ifndef MRN_H
#define MRN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */

enum mrn_status {
#define MRN_STATUS(name, code, message) MRN_##name = (code),
#include "status.def"
#undef MRN_STATUS
};

/* cdef: begin ------------------------------------------------------------------------------------------- */

/* ---- Status ------------------------------------------------------------------------------------------- */

/* The name ("E_SHAPE") and the sentence of a status; for an unknown one "E_UNKNOWN" and a sentence that says so.
 * The strings are constants. */
const char *mrn_status_name(int status);
const char *mrn_status_message(int status);

/* ---- Instruction sets --------------------------------------------------------------------------------- */

/* Instruction sets are numbered from 0 (generic) upwards, weakest first, as isa.def lists them.
 * mrn_isa_name gives NULL and mrn_isa_usable 0 for a number that is not below mrn_isa_count.
 * mrn_isa_usable asks both the CPU and the operating system (CPUID and XGETBV). */
size_t mrn_isa_count(void);
const char *mrn_isa_name(size_t isa);
int mrn_isa_usable(size_t isa);

/* The best usable instruction set that is not above `highest` (a name; NULL sets no bound).
 * MRN_E_ISA: the name is unknown. */
int mrn_isa_choose(const char *highest, size_t *isa);

/* ---- Dense networks ----------------------------------------------------------------------------------- */

/* Activations are numbered as activations.def lists them. Name: NULL for an unknown number. */
size_t mrn_activation_count(void);
const char *mrn_activation_name(size_t activation);

/* One dense layer: y = activation(x . weight + bias). */
typedef struct mrn_layer {
    const float *weight;  /* (inputs, units), row-major, finite */
    const float *bias;    /* (units), finite; NULL: zeros */
    uint32_t inputs;      /* >= 1; equals the units of the layer before */
    uint32_t units;       /* >= 1 */
    uint32_t activation;  /* a number of activations.def; softmax only in the last layer */
} mrn_layer;

/* A network as plain data; read during mrn_model_plan and mrn_model_open only, not kept.
 *
 * A raw row has `columns` numbers. It is encoded, then runs through the layers, then is scaled back:
 *   1. column c: NaN becomes fill[c].
 *   2. categories[c] == 0: the number is one encoded column; categories[c] == n > 0: it is the number of a
 *      category, 0 <= integer < n, and becomes n encoded columns, one-hot; anything else gives n zeros.
 *   3. encoded column e: (value - shift[e]) * scale[e].
 *   4. the layers; the first has as many inputs as there are encoded columns.
 *   5. output o: value * target_scale[o] + target_shift[o].
 * Each of the six tables may be NULL: its step is skipped. */
typedef struct mrn_network {
    const mrn_layer *layers;
    size_t layer_count;          /* 1..MRN_MAX_LAYERS (64) */
    size_t columns;              /* raw columns of a row, >= 1 */
    const uint32_t *categories;  /* (columns) */
    const float *fill;           /* (columns), NaN: stays NaN */
    const float *shift;          /* (encoded columns) */
    const float *scale;          /* (encoded columns) */
    const float *target_shift;   /* (units of the last layer) */
    const float *target_scale;   /* (units of the last layer) */
} mrn_network;

/* What a network needs. Both blocks must be aligned to `alignment`. */
typedef struct mrn_plan {
    size_t model_bytes;    /* for mrn_model_open: packed weights and tables, read-only afterwards */
    size_t scratch_bytes;  /* for each mrn_model_predict that runs at the same time; independent of the rows */
    size_t alignment;
} mrn_plan;

typedef struct mrn_model mrn_model;

/* Check a description completely and say what it needs on instruction set `isa`.
 * MRN_E_ARGUMENT, MRN_E_SHAPE, MRN_E_RANGE (a weight is not finite), MRN_E_TOO_LARGE, MRN_E_ISA. */
int mrn_model_plan(const mrn_network *network, size_t isa, mrn_plan *plan);

/* Check as above, then pack the weights into `block`; *model points into it. The block must live and stay in
 * place as long as the model; there is nothing to close. MRN_E_MEMORY: block too small or not aligned. */
int mrn_model_open(const mrn_network *network, size_t isa, void *block, size_t block_bytes, mrn_model **model);

/* Run `rows` raw rows: x is (rows, columns), y is (rows, units of the last layer), both float32, row-major,
 * any alignment; x and y do not overlap. Rows may be 0. The model is only read; `scratch` (plan's bytes and
 * alignment) is written. On one instruction set a row's result has the same bits whatever the number of rows
 * and its place among them. No status but 0 for a model that was opened and pointers that are not NULL. */
int mrn_model_predict(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch);

/* ---- Rows out of JSON --------------------------------------------------------------------------------- */

/* Read {"instances": [[number, ...], ...]}: one member, one row or more of `columns` numbers each, any JSON space.
 * x takes up to `capacity` floats, row-major; *rows becomes the number of rows. A number becomes the float32 nearest
 * to the double nearest to it. Nothing outside the `bytes` of `json` is read.
 * MRN_E_ARGUMENT: a pointer is NULL or columns is 0. MRN_E_DECLINED: anything else, right or wrong (other members,
 * null, more rows than fit, a number beyond float32, broken JSON): x is undefined then, the full parser decides. */
int mrn_json_rows(const void *json, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows);

/* cdef: end --------------------------------------------------------------------------------------------- */

/* clang-format on */

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
