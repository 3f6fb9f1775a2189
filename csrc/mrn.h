/* Mariana's C core: THE public interface.
 *
 * Plain C11, no dependency but libc. Bytes in, bytes out: nothing here knows of Python, files or logs, and
 * only a pool, which a caller has to ask for, knows of threads. Every function returns a status of status.def
 * (0 is success, errors are negative) and gives its results through pointers. Memory belongs to the caller.
 * Nothing is allocated on a request. Nothing is global but constants, so every function may be called from
 * any thread; an object that one call writes (scratch, workspace) belongs to that call alone while it runs.
 *
 * The parts between "cdef: begin" and "cdef: end" are also what csrc/build_ffi.py shows to cffi: keep them
 * free of the preprocessor.
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

/* ---- Precisions --------------------------------------------------------------------------------------- */

/* Precisions are numbered as precisions.def lists them; docs/precision.md says what each computes:
 * float32, float32-split, bfloat16, int8. Name: NULL for an unknown number.
 * mrn_precision_usable: whether this machine runs `precision` on instruction set `isa`; all but float32-split
 * run on every set. */
size_t mrn_precision_count(void);
const char *mrn_precision_name(size_t precision);
int mrn_precision_usable(size_t precision, size_t isa);

/* ---- Dense networks ----------------------------------------------------------------------------------- */

/* Activations are numbered as activations.def lists them. Name: NULL for an unknown number. */
size_t mrn_activation_count(void);
const char *mrn_activation_name(size_t activation);

enum {
    MRN_MAX_LAYERS = 64,
    MRN_MAX_WIDTH = 1048576,  /* columns, encoded columns, units of a layer */
    MRN_INT8_MAX_INPUTS = 65536  /* of an int8 layer: their products still sum up in 32 bits */
};

/* What becomes of an encoded column v once it is shifted and scaled. */
enum mrn_form {
    MRN_FORM_LINEAR = 0,   /* v */
    MRN_FORM_SOFT = 1,     /* v / sqrt(1 + v * v), v first limited to -4096..4096: outliers stay within -1..1 */
    MRN_FORM_RAMP = 2,     /* v, limited to 0..1: with its neighbours a piecewise linear encoding */
    MRN_FORM_MISSING = 3,  /* before it is shifted and scaled: 1 where the raw number is NaN, else 0; then v */
    MRN_FORM_COUNT = 4
};

/* One dense layer: y = activation(x . weight + bias). */
typedef struct mrn_layer {
    const void *weight;   /* (inputs, units), row-major; by the network's precision float, finite; bfloat16 as
                             uint16_t, finite; or int8_t */
    const float *bias;    /* (units), finite; NULL: zeros */
    uint32_t inputs;      /* units of the layer before; of the first layer: encoded columns */
    uint32_t units;       /* 1..MRN_MAX_WIDTH */
    uint32_t activation;  /* a number of activations.def; softmax only in the last layer */
    const float *weight_scale;  /* int8: (units), what 1 stands for, finite and above 0; else not looked at */
    const float *slope;   /* (units), finite: leaky_relu and prelu: slope * z for z < 0; elu: slope * (e^z - 1).
                             NULL for every other activation */
} mrn_layer;

/* A network as plain data; read during mrn_model_plan and mrn_model_open only, not kept.
 *
 * A raw row has `columns` numbers. It is encoded, then runs through the layers, then is scaled back:
 *   1. column c: NaN becomes fill[c].
 *   2. categories[c] == 0: the number is one encoded column, or copies[c] equal ones; categories[c] == n > 0: it
 *      is the number of a category, 0 <= integer < n, and becomes n encoded columns, one-hot; anything else
 *      gives n zeros.
 *   3. encoded column e: (value - shift[e]) * scale[e], then what forms[e] says.
 *   4. the layers; the first has as many inputs as there are encoded columns.
 *   5. output o: value * target_scale[o] + target_shift[o].
 * Each of the eight tables may be NULL: its step is skipped. */
typedef struct mrn_network {
    const mrn_layer *layers;
    size_t layer_count;          /* 1..MRN_MAX_LAYERS */
    size_t columns;              /* raw columns of a row, 1..MRN_MAX_WIDTH */
    const uint32_t *categories;  /* (columns) */
    const uint32_t *copies;      /* (columns), at least 1; not looked at where there are categories */
    const uint32_t *forms;       /* (encoded columns), of enum mrn_form */
    const float *fill;           /* (columns), finite or NaN: stays missing */
    const float *shift;          /* (encoded columns), finite */
    const float *scale;          /* (encoded columns), finite */
    const float *target_shift;   /* (units of the last layer), finite */
    const float *target_scale;   /* (units of the last layer), finite */
    uint32_t precision;          /* a number of precisions.def; 0: float32 */
} mrn_network;

/* Blocks that a caller gives begin at a multiple of this: a cache line. */
enum { MRN_BLOCK_ALIGN = 64 };

/* What a network needs. Both blocks must be aligned to `alignment`, which is MRN_BLOCK_ALIGN. */
typedef struct mrn_plan {
    size_t model_bytes;    /* for mrn_model_open: packed weights and tables, read-only afterwards */
    size_t scratch_bytes;  /* for each mrn_model_predict that runs at the same time; independent of the rows */
    size_t alignment;
} mrn_plan;

typedef struct mrn_model mrn_model;

/* Check a description completely and say what it needs on instruction set `isa`. Cost: one look at each number.
 *   MRN_E_ARGUMENT   a pointer is NULL that must not be; no layer or column; an unknown activation, form or
 *                    precision; softmax before the last layer; no copy of a column; slopes missing, or given
 *                    to an activation without
 *   MRN_E_SHAPE      a layer's inputs are not what comes before it, or it has no units
 *   MRN_E_RANGE      a weight, bias, slope or table entry is not finite, or a weight's scale not above 0
 *   MRN_E_TOO_LARGE  more layers or columns than MRN_MAX_*, more inputs of an int8 layer than MRN_INT8_MAX_INPUTS,
 *                    or more bytes than this machine can address
 *   MRN_E_ISA        this machine cannot run `isa`, or the precision on it */
int mrn_model_plan(const mrn_network *network, size_t isa, mrn_plan *plan);

/* Check as above, then pack the weights into `block`; *model points into it. The block must live and stay in
 * place as long as the model; there is nothing to close. MRN_E_MEMORY: block too small or not aligned.
 * *model is where the block begins, and points into it and to constants of this library: a process that has both at the
 * same addresses, as after a fork, may use the model as well. */
int mrn_model_open(const mrn_network *network, size_t isa, void *block, size_t block_bytes, mrn_model **model);

/* Run `rows` raw rows: x is (rows, columns), y is (rows, units of the last layer), both float32, row-major;
 * x and y do not overlap. Rows may be 0. The model is only read; `scratch` (plan's bytes and alignment) is
 * written, and nothing is allocated. NaN, infinities and denormals in x do what IEEE 754 says, as in NumPy.
 * A row's result has the same bits whatever the number of rows and its place among them, on one instruction
 * set. In float32 every set but generic gives the same bits as each other, and generic the same on every
 * machine (but for the bits of a NaN). MRN_E_ARGUMENT: a pointer is NULL. */
int mrn_model_predict(const mrn_model *model, const float *x, size_t rows, float *y, void *scratch);

/* ---- Threads ------------------------------------------------------------------------------------------ */

/* Helper threads for those who ask for them; without a pool everything runs on the caller's thread. An idle pool
 * costs no time: helpers spin for 20 us after their last work, then sleep. */
typedef struct mrn_pool mrn_pool;

enum { MRN_MAX_THREADS = 64 };

/* Start threads - 1 helpers; the caller of a prediction is one of the threads. The block (of mrn_pool_bytes, aligned)
 * holds the pool and must stay in place until mrn_pool_close is back. After a fork, the child's first use
 * starts helpers of its own. MRN_E_ARGUMENT: threads is not in 1..MRN_MAX_THREADS. MRN_E_MEMORY: the block is too
 * small or not aligned. MRN_E_NO_MEMORY: the system starts no more threads. */
size_t mrn_pool_bytes(void);
int mrn_pool_open(size_t threads, void *block, size_t block_bytes, mrn_pool **pool);

/* Stop the helpers and wait for them; nobody may use the pool any more. NULL is fine. */
void mrn_pool_close(mrn_pool *pool);

/* Bytes that each mrn_model_predict_shared that runs at the same time needs; bounded whatever the rows. */
int mrn_model_workspace_bytes(const mrn_model *model, const mrn_pool *pool, size_t *bytes);

/* mrn_model_predict with the pool's help, where the work is worth it: the same bits. The caller never waits for a
 * helper that has not begun, and for one that has begun only about as long as its share takes; then it does the
 * share itself. While another call has the pool, this one runs alone. The workspace is aligned. A late helper
 * may still use model and workspace when the call is back: keep both until mrn_pool_settle. Nothing is allocated
 * (but in the first call after a fork). */
int mrn_model_predict_shared(const mrn_model *model, mrn_pool *pool, const float *x, size_t rows, float *y,
                             void *workspace);

/* Wait until no helper uses anything that was given to the pool. NULL is fine. */
void mrn_pool_settle(mrn_pool *pool);

/* ---- Training ----------------------------------------------------------------------------------------- */

/* The parts of a step of training beside the matrix products, which are the caller's: each is one pass over its arrays, all
 * float32, row-major, of any alignment. A description is filled once and used in every step; nothing is allocated. Arrays of one
 * description do not overlap unless it is said. The same numbers give the same bits on one instruction set. Every function gives
 * MRN_E_ARGUMENT for a NULL that must not be, an unknown number of a list, or no units. */
typedef struct mrn_trainer mrn_trainer;

/* The kernels of instruction set `isa`: constant, nothing to close. MRN_E_ISA: there is none, or this machine cannot run it. */
int mrn_trainer_open(size_t isa, const mrn_trainer **trainer);

/* Copy `count` rows of a table of `table_rows` rows, `row_bytes` each: out[i] = table[rows[i]].
 * MRN_E_RANGE: a number of a row is out of the table; out is undefined then. */
int mrn_train_gather(const void *table, size_t table_rows, size_t row_bytes, const int64_t *rows, size_t count, void *out);

/* Gather rows of bytes or of floats, and rescale them on the way: y = x * scale + offset. A table of bytes takes a quarter of the
 * memory that it takes as floats. */
typedef struct mrn_rescaling_pass {
    size_t rows, units;
    size_t table_rows;
    const uint8_t *bytes;     /* (table_rows, units), or NULL: the table holds floats */
    const float *floats;      /* (table_rows, units), or NULL: the table holds bytes */
    const int64_t *numbers;   /* (rows): which rows of the table; or NULL: its first ones */
    float *y;                 /* (rows, units) */
    float scale, offset;
} mrn_rescaling_pass;

/* All instruction sets give the same bits. MRN_E_RANGE: a number of a row is out of the table; y is undefined then. */
int mrn_train_rescale(const mrn_trainer *trainer, const mrn_rescaling_pass *pass);

/* Bias and activation of a layer, forward and back. */
typedef struct mrn_activation_pass {
    uint32_t activation;   /* a number of mrn_activation_name; softmax, which works on rows, is none of them */
    size_t rows, units;
    const float *x;        /* (rows, units): what a product gave; may be y */
    float *y;              /* (rows, units) gets the outputs */
    const float *bias;     /* (units) or NULL */
    const float *slope;    /* (units) for leaky_relu, elu, prelu; else NULL */
    float *kept;           /* (rows, units) for prelu, gelu, gelu_tanh, silu: what backward needs beside y; else NULL */
    const float *dy;       /* (rows, units): the gradient of the outputs */
    float *dx;             /* (rows, units) gets that of what went into the activation; may be dy */
    float *dbias;          /* (units) gets the sums of the columns of that; or NULL */
    float *dslope;         /* (units) gets the gradient of prelu's slopes; or NULL */
} mrn_activation_pass;

/* y = activation(x + bias); derivatives with an error of at most 2e-6 (1e-6 of those of at least 1). */
int mrn_train_forward(const mrn_trainer *trainer, const mrn_activation_pass *pass);
/* dx = dy * activation'; it takes the y that forward left. */
int mrn_train_backward(const mrn_trainer *trainer, const mrn_activation_pass *pass);

/* Batch normalisation (Ioffe and Szegedy, 2015) with the mean and the biased variance of the batch. */
typedef struct mrn_normalization_pass {
    size_t rows, units;           /* no rows: nothing is done */
    const float *x;               /* (rows, units); backward wants it as forward found it */
    float *y;                     /* (rows, units) gets gamma * (x - mean) / sqrt(variance + epsilon) + beta */
    const float *gamma, *beta;    /* (units) each, or NULL: 1 and 0 */
    float *mean, *inverse;        /* (units) each: from forward to backward, mean and 1 / sqrt(variance + epsilon) */
    float *moving_mean, *moving_variance;  /* (units) each: moved by `share` of the way to those of the batch */
    float share, epsilon;
    const float *dy;              /* (rows, units) */
    float *dx;                    /* (rows, units) gets the gradient of x; or NULL */
    float *dgamma, *dbeta;        /* (units) each, or NULL */
} mrn_normalization_pass;

int mrn_train_normalize(const mrn_trainer *trainer, const mrn_normalization_pass *pass);
/* y as a prediction has it: with the `mean` and the `inverse` that are given, which stay as they are. It takes no moving ones. */
int mrn_train_standardize(const mrn_trainer *trainer, const mrn_normalization_pass *pass);
int mrn_train_normalize_back(const mrn_trainer *trainer, const mrn_normalization_pass *pass);

/* to[i] = 0 with a chance of threshold / 2^32, else from[i] * scale. What is dropped depends on *seed and i alone, so the way back is
 * the same pass over the gradients, with the same seed. */
typedef struct mrn_dropout_pass {
    const uint64_t *seed;
    size_t count;
    const float *from;
    float *to;
    uint32_t threshold;
    float scale;
} mrn_dropout_pass;

int mrn_train_drop(const mrn_trainer *trainer, const mrn_dropout_pass *pass);

/* The loss of a batch and its gradient. */
typedef struct mrn_loss_pass {
    uint32_t loss;           /* a number of mrn_loss_name */
    float smoothing;         /* of the labels, of the cross-entropies */
    float delta;             /* of huber */
    size_t rows, units;
    float *outputs;          /* (rows, units); of a cross-entropy the logits, which become probabilities */
    const int64_t *classes;  /* (rows), from 0 to below units: of sparse_categorical_crossentropy; else NULL */
    const float *targets;    /* (rows, units): of the others */
    const float *weights;    /* (rows) or NULL: all are 1 */
    float *losses;           /* (rows) gets the weighted loss of each row */
    float *gradient;         /* (rows, units) gets the gradient of the mean of those; or NULL */
    double *sum;             /* gets the sum of those, summed in double */
} mrn_loss_pass;

size_t mrn_loss_count(void);
const char *mrn_loss_name(size_t loss);

/* MRN_E_RANGE: a class is out of range. */
int mrn_train_loss(const mrn_trainer *trainer, const mrn_loss_pass *pass);

/* One step of an optimizer over a vector of parameters, with what goes before and after it:
 *   g = gradients * scale, cut to -limit..limit;  p -= p * decay;  the step;  average += (p - average) * share
 * Memories are given as what is forgotten in a step: 0.999 is no float32, and its error would add up over a thousand steps. */
typedef struct mrn_update {
    uint32_t optimizer;       /* a number of mrn_optimizer_name */
    float rate;               /* length of the step, corrections of bias included */
    size_t count;
    float *parameters;
    const float *gradients;
    float *slots[3];          /* as many as the optimizer keeps, each (count); trainer/optimizers.py names them, in this order */
    float *average;           /* (count) or NULL */
    float scale, limit, decay, share;
    float share_1, share_2;   /* 1 - beta_1, 1 - beta_2: of the mean gradient, of its square; 1 - RMSprop's rho */
    float momentum, epsilon;
    float ahead;              /* nadam: length of the step along the new mean gradient; `rate` is that along the gradient */
    float correction;         /* nadam: 1 / (1 - beta_2^t) */
} mrn_update;

size_t mrn_optimizer_count(void);
const char *mrn_optimizer_name(size_t optimizer);

int mrn_train_update(const mrn_trainer *trainer, const mrn_update *update);

/* *sum becomes the sum of the squares, summed in double. */
int mrn_train_squares(const mrn_trainer *trainer, const float *values, size_t count, double *sum);

/* ---- The head of a request ---------------------------------------------------------------------------- */

enum {
    MRN_HTTP_HEAD_MAX = 16384,  /* bytes of a request's line and headers */
    MRN_HTTP_HEADERS_MAX = 64
};

/* What a body is, by Content-Type. */
enum mrn_http_kind { MRN_HTTP_UNTOLD = 0, MRN_HTTP_JSON = 1, MRN_HTTP_OCTETS = 2 };

/* Headers whose values are told: Accept-Encoding, If-None-Match, X-Request-Id, traceparent, X-Server-Timing. */
enum mrn_http_field {
    MRN_HTTP_ACCEPT = 0,
    MRN_HTTP_ETAG = 1,
    MRN_HTTP_ID = 2,
    MRN_HTTP_TRACE = 3,
    MRN_HTTP_TIMING = 4,
    MRN_HTTP_FIELDS = 5
};

/* A request, by places in its bytes. */
typedef struct mrn_http_request {
    uint32_t route;         /* where "METHOD /path" ends; it begins at 0 */
    uint32_t target;        /* where the target ends; unless it is `route`, a query begins behind the '?' there */
    uint32_t body;          /* where the body begins; it goes to the end */
    uint32_t kind;          /* an mrn_http_kind */
    uint32_t fields;        /* how many of the fields, and of header_length, are there */
    uint32_t present;       /* a bit a field that is there */
    int64_t header_length;  /* Inference-Header-Content-Length; -1: it is not there */
    uint32_t field[5];      /* (MRN_HTTP_FIELDS), where its value begins */
    uint32_t field_bytes[5];
} mrn_http_request;

/* Read a request of HTTP/1.1 (RFC 9112): GET or POST, its head, and a body that is exactly as long as
 * Content-Length says. Nothing outside the `bytes` of `data` is read.
 * MRN_E_ARGUMENT: a pointer is NULL. MRN_E_DECLINED: anything else, right or wrong: a part of a request, more than one,
 * a header twice that is told here, one that changes the framing or the answer (Transfer-Encoding, Content-Encoding,
 * Expect, Upgrade, Origin, a Connection that is not keep-alive), a Content-Type that is none of the kinds, a head
 * beyond the limits; *request is undefined then, a full parser decides. */
int mrn_http_read(const void *data, size_t bytes, mrn_http_request *request);

/* ---- Rows out of JSON --------------------------------------------------------------------------------- */

/* Read {"instances": [[number, ...], ...]}: one member, one row or more of `columns` numbers each, any JSON space.
 * x takes up to `capacity` floats, row-major; *rows becomes the number of rows. A number becomes the float32 nearest
 * to the double nearest to it. Nothing outside the `bytes` of `json` is read.
 * MRN_E_ARGUMENT: a pointer is NULL or columns is 0. MRN_E_DECLINED: anything else, right or wrong (other members,
 * null, more rows than fit, a number beyond float32, broken JSON): x is undefined then, the full parser decides. */
int mrn_json_rows(const void *json, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows);

/* What mrn_json_tensor found beside the numbers. */
typedef struct mrn_json_request {
    size_t rows;
    size_t id;        /* where in `json` the text of the member "id" begins; its bytes need no escaping */
    size_t id_bytes;  /* 0: there is none, or it is empty */
    int has_id;
} mrn_json_request;

/* Read an inference request of the Open Inference Protocol with one tensor of numbers:
 *   {"id": "a", "inputs": [{"name": "input", "shape": [rows, columns], "datatype": "FP32", "data": [number, ...]}]}
 * Members may come in any order, "id" may be left out, data may be nested as rows. The rest is as for mrn_json_rows. */
int mrn_json_tensor(const void *json, size_t bytes, size_t columns, float *x, size_t capacity,
                    mrn_json_request *request);

/* Read rows of float32, little-endian: one row or more of `columns` finite numbers each, and nothing else.
 * x takes up to `capacity` floats; *rows becomes the number of rows. `raw` need not be aligned; x does not overlap it.
 * MRN_E_ARGUMENT: a pointer is NULL or columns is 0. MRN_E_DECLINED: anything else; x is undefined then. */
int mrn_raw_rows(const void *raw, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows);

/* ---- Answers in JSON ---------------------------------------------------------------------------------- */

enum { MRN_JSON_FLOAT = 16 };  /* most bytes of a number with the comma after it */

/* Write numbers with commas between them, each as the shortest decimal that reads back as the same float32
 * (through a double, as parsers do); always with a point or an exponent. *bytes becomes what was written.
 * MRN_E_ARGUMENT: a pointer is NULL. MRN_E_MEMORY: capacity is below count * MRN_JSON_FLOAT.
 * MRN_E_RANGE: a number is not finite. */
int mrn_json_floats(const float *values, size_t count, char *out, size_t capacity, size_t *bytes);

/* Whether all of some numbers are finite; 1 or 0. */
int mrn_all_finite(const float *values, size_t count);

/* How the outputs of a network are told. */
typedef struct mrn_json_form {
    size_t outputs;              /* of a row, 1 or more */
    size_t label_count;          /* 0: values; outputs: classes; 2 with one output: its probability is the second's */
    const char *labels;          /* JSON texts, one after the other */
    const uint64_t *label_ends;  /* (label_count), not decreasing: where each ends */
} mrn_json_form;

/* Bytes that mrn_json_predictions needs at most for `rows` rows. */
size_t mrn_json_predictions_bytes(const mrn_json_form *form, size_t rows);

/* Write one object a row, in an array: {"label": l, "probability": p, "probabilities": [...]}, or {"value": v}, or
 * {"value": [...]} when there are several outputs. The label is that of the greatest probability, of equal ones the
 * first. Statuses as for mrn_json_floats; MRN_E_ARGUMENT also: the form is not consistent. */
int mrn_json_predictions(const mrn_json_form *form, const float *y, size_t rows, char *out, size_t capacity,
                         size_t *bytes);

/* ---- Autocomplete indexes ----------------------------------------------------------------------------- */

/* What a text is compared by: case, accents and compatibility forms folded away, white space at the start
 * dropped and runs of it made one space (docs/format.md has the rule). `key` gets at most `capacity` bytes.
 * MRN_E_TEXT: not UTF-8, or a control character or a mark of writing direction is in it.
 * MRN_E_TOO_LARGE: the key is longer than `capacity`. */
int mrn_fold(const char *text, size_t bytes, char *key, size_t capacity, size_t *key_bytes);

/* The entries to build a segment from, in any order. Text i is texts[text_ends[i - 1] .. text_ends[i]), from 0
 * for the first one; payloads, tags and ids likewise, an empty payload or id meaning none. */
typedef struct mrn_entries {
    size_t count;
    const char *texts;             /* UTF-8 */
    const uint64_t *text_ends;     /* (count), not decreasing */
    const double *scores;          /* (count), finite, >= 0 */
    const char *payloads;          /* JSON in UTF-8; may be NULL when payload_ends is */
    const uint64_t *payload_ends;  /* (count); NULL: no payloads */
    const uint64_t *contexts;      /* (count): bit t says that the entry has tag t; NULL: no contexts */
    const char *tags;              /* their names, UTF-8 */
    const uint64_t *tag_ends;      /* (tag_count) */
    size_t tag_count;              /* at most MRN_TAGS_MAX; names have 1 to MRN_TAG_MAX bytes, none comes twice */
    const char *ids;               /* of the documents that the entries are names of; likewise */
    const uint64_t *id_ends;       /* (count); NULL: no ids */
    uint32_t flags;                /* MRN_INDEX_WORDS, MRN_INDEX_CAMEL (only with words) */
} mrn_entries;

/* Build a segment file in memory; the same entries give the same bytes, whatever their order. *file comes from
 * malloc: give it to mrn_free. verdicts[i] says what became of entry i:
 *   MRN_OK           it is in the file
 *   MRN_MERGED       another entry with the same text has a higher score (or the same one, and comes first)
 *   MRN_E_TEXT       the text is empty, folds to nothing, is not UTF-8, or holds a control character or a mark of
 *                    writing direction
 *   MRN_E_PAYLOAD    the payload is not JSON in UTF-8, or nests more than MRN_JSON_DEPTH_MAX deep
 *   MRN_E_RANGE      the score is negative or not finite, or the contexts are none of the tags
 *   MRN_E_ID         the id is longer than MRN_ID_MAX, not UTF-8, or holds what no text may hold
 *   MRN_E_TOO_LARGE  text, key or payload is longer than the format takes
 * The file holds the entries with MRN_OK. MRN_E_TOO_LARGE: a section would be 4 GiB or more. MRN_E_NO_MEMORY. */
enum { MRN_MERGED = 1 };
int mrn_index_build(const mrn_entries *entries, signed char *verdicts, char **file, size_t *file_bytes);
void mrn_free(void *memory);

/* A segment that has been checked; points into the file, which must stay and stay unchanged. Read-only: any
 * number of calls may use it at a time. */
typedef struct mrn_index {
    const char *file;
    uint32_t entries;
    uint32_t flags;        /* enum mrn_index_flag */
    uint64_t place[13];    /* of each section, by id: MRN_SECTION_ID_END */
    uint32_t items[13];    /* in it; 0 when it is not there */
} mrn_index;

/* What is wrong with a file, and where: a constant sentence and a place counted from the start of the file. */
typedef struct mrn_fault {
    const char *what;
    uint64_t at;
} mrn_fault;

/* Scratch that mrn_index_open needs for a file of this size: about its size and 40 kB. Aligned to 8 bytes. */
size_t mrn_index_scratch_bytes(size_t file_bytes);

/* Check a whole segment file, in time proportional to its size: checksums first, then every place, order, bound,
 * count and character, so that no look-up needs to check anything and each one ends, whatever the bytes are.
 * On MRN_E_FORMAT, MRN_E_VERSION, MRN_E_CHECKSUM and MRN_E_TOO_LARGE, *fault says what was found first.
 * MRN_E_MEMORY: the scratch is too small or not aligned. */
int mrn_index_open(const char *file, size_t file_bytes, void *scratch, size_t scratch_bytes, mrn_index *index,
                   mrn_fault *fault);

/* ---- Readers: several segments as one ----------------------------------------------------------------- */

enum { MRN_SEGMENTS_MAX = 16 };

typedef struct mrn_reader mrn_reader;

/* Segments, newest last, and for each the ranks of the entries that count no more, in any order. */
typedef struct mrn_segments {
    size_t count;                  /* 0..MRN_SEGMENTS_MAX */
    const mrn_index *const *indexes;
    const uint32_t *const *dead;   /* NULL: none in any */
    const size_t *dead_counts;
    const mrn_reader *settled;     /* a reader of the first of these segments, of which the same entries are dead, and
                                      perhaps more; it must live as long as the new one, and not stand on a third. Costs
                                      little where little came since. NULL: none */
} mrn_segments;

/* What a reader needs, aligned to 8 bytes: a bit an entry of each segment with dead ones, and 32 bytes for each entry
 * of all segments but the largest and for each dead one; with a settled reader, for each that came since and each
 * segment. MRN_E_TOO_LARGE: too many segments. MRN_E_ARGUMENT: the settled reader has other segments, or more dead. */
int mrn_reader_plan(const mrn_segments *segments, size_t *bytes);

/* Make a reader in `block`, which must live as long as it, as must the segments and their files; nothing to close.
 * Read-only afterwards: any number of calls may use it at a time. MRN_E_ARGUMENT: a dead entry is not there.
 * Cost: a binary search of each segment for each different score of the smaller ones. MRN_E_MEMORY. */
int mrn_reader_open(const mrn_segments *segments, void *block, size_t block_bytes, mrn_reader **reader);

/* What is asked for, beside the query's text. */
typedef struct mrn_options {
    uint32_t limit;         /* 1..MRN_LIMIT_MAX */
    int32_t edits;          /* typing errors to forgive, 0 to 2, or MRN_EDITS_AUTO */
    const char *contexts;   /* names, each ended by a line feed: only entries with one of them; none: all entries */
    size_t contexts_bytes;
    const char *prefer;     /* likewise: entries with none of them come later, as with a typing error more */
    size_t prefer_bytes;
} mrn_options;

enum {
    MRN_EDITS_AUTO = -1,         /* 0 below 4 characters of the folded query, 1 from 4, 2 from 8 */
    MRN_TYPED_POINTS_MAX = 60,   /* a longer query is taken as typed right */
    MRN_VISITS_MAX = 4096,       /* nodes that one query visits with errors or in any order; also one that is filtered */
    MRN_QUERY_WORDS_MAX = 6,     /* more words are looked for in their order only */
    MRN_HIGHLIGHTS_MAX = 8
};

/* One completion. */
typedef struct mrn_completion {
    double score;
    uint64_t payload;        /* where the payload is, from the start of the segment's file */
    uint64_t id;             /* where the id of its document is, likewise */
    uint32_t payload_bytes;  /* 0: none */
    uint32_t id_bytes;       /* 0: none */
    uint32_t segment;
    uint32_t entry;          /* its rank in the segment */
    uint32_t text;           /* where its text is in `texts` */
    uint32_t text_bytes;
    uint32_t edits;          /* typing errors between the query and the text */
    uint32_t highlights;     /* ranges */
    uint16_t highlight[16];  /* start and end of each, in code points of the text; MRN_HIGHLIGHTS_MAX */
} mrn_completion;

/* Something that a search has to look into. */
typedef struct mrn_todo {
    uint64_t weight;
    uint32_t node;
    uint32_t from;
    uint64_t state;
} mrn_todo;

typedef struct mrn_answer {
    uint64_t weight;
    uint32_t entry;
    uint32_t node;
    uint16_t segment;
    uint16_t path;      /* in the log */
    uint16_t matched;   /* bytes of the node's key */
    uint8_t kind;
    uint8_t edits;
    uint32_t unused;
    uint64_t document;  /* a hash of its id; 0: it has none */
} mrn_answer;

/* The suffix of a node that was visited, where its key is spelled, and the number of its score. */
typedef struct mrn_spelled {
    const unsigned char *suffix;
    uint32_t suffix_bytes;
    uint32_t key_bytes;
    uint32_t key;
    uint32_t score;
} mrn_spelled;

/* What one query writes while it runs; need not be cleared. About 190 kB, of which a plain query touches a few. */
typedef struct mrn_workspace {
    char query[264];           /* folded; MRN_QUERY_MAX and a margin */
    uint64_t pool[100];        /* MRN_LIMIT_MAX */
    mrn_spelled spelled[100];  /* MRN_LIMIT_MAX */
    mrn_answer answers[101];   /* MRN_LIMIT_MAX, and the one that falls out */
    char keys[2][1040];        /* MRN_KEY_MAX and a margin */
    uint16_t words[33];        /* MRN_WORDS_MAX and the first */
    uint64_t match[128];
    uint32_t points[64];
    uint64_t walk[260];
    uint64_t log[8192];
    mrn_todo todo[4096];
    uint16_t next[4096];       /* of each: the one that waits in the same bucket */
    uint16_t first[512];
    uint64_t some[8];          /* which buckets have one */
} mrn_workspace;

/* The entry whose text as shown is exactly this one: its rank in the segment, from 0. MRN_E_NOT_FOUND. */
int mrn_index_find(const mrn_index *index, const char *text, size_t text_bytes, mrn_workspace *workspace,
                   uint32_t *entry);

/* For each entry where its key leaves another one, for mrn_index_entry: (entries). Cost: one look at each node. */
int mrn_index_parents(const mrn_index *index, uint64_t *parents);

/* Entry `rank` as it was given. The text goes to `text` (MRN_TEXT_MAX bytes), the payload is at *payload in the file.
 * Without `parents` (NULL), a text that is its own key, and therefore is not stored, comes out empty.
 * MRN_E_NOT_FOUND: there are not so many entries. */
int mrn_index_entry(const mrn_index *index, const uint64_t *parents, uint32_t rank, char *text, size_t *text_bytes,
                    double *score, uint64_t *payload, size_t *payload_bytes, uint64_t *contexts);

/* The id of the document that entry `rank` is a name of is at *id in the file; 0 bytes when it has none.
 * MRN_E_NOT_FOUND: there are not so many entries. */
int mrn_index_id(const mrn_index *index, uint32_t rank, uint64_t *id, size_t *id_bytes);

/* A hash of an id; 0 for none, which no id has. And those of all entries, by rank: (entries). */
uint64_t mrn_id_hash(const char *id, size_t id_bytes);
int mrn_index_id_hashes(const mrn_index *index, uint64_t *hashes);

/* Room for entries as columns, each as mrn_index_build takes it. */
typedef struct mrn_entry_columns {
    size_t rows;            /* in each column */
    size_t text_bytes;      /* at least MRN_TEXT_MAX */
    size_t payload_bytes;   /* at least MRN_PAYLOAD_MAX */
    size_t id_bytes;        /* at least MRN_ID_MAX */
    char *texts;
    uint64_t *text_ends;
    double *scores;
    char *payloads;
    uint64_t *payload_ends;
    uint64_t *contexts;
    char *ids;
    uint64_t *id_ends;
} mrn_entry_columns;

/* Write entries from rank *next on into columns, until all are there or a column might not take one more; *next
 * becomes the rank to go on with, *rows how many were written. skip[i] != 0 leaves out entry i; NULL: none.
 * MRN_E_FORMAT: a text that is not stored has no room; only a file made by hand has one. */
int mrn_index_columns(const mrn_index *index, const uint64_t *parents, const uint8_t *skip, uint32_t *next,
                      const mrn_entry_columns *columns, size_t *rows);

/* The names of the contexts, in the order of their bits: MRN_E_NOT_FOUND when there are not so many. */
int mrn_index_tag(const mrn_index *index, size_t tag, uint64_t *name, size_t *name_bytes);

/* The best entries that are alive, best first, each once; of those with one id, the names of a document, the best. The rules are in docs/matching.md; in short: an entry's rank
 * is how many living entries of all segments have a higher score; its weight is (rank + 1), * 512 for one edit, * 64 for a further one, times more for a
 * match that begins at a further word, is in another order, has other accents than were typed, or is not preferred.
 * Answers come by weight, ascending; then by score, descending, code points of the text and its bytes, ascending. So
 * several segments answer as one that holds their living entries.
 * `completions` has room for the limit; their texts are written to `texts`, one after the other.
 * *partial becomes 1 when a bound was hit (MRN_VISITS_MAX): the answers are right and in order, but a better one may be
 * missing; never one that begins with the query as typed, unless contexts were asked for, or entries are dead or have ids.
 * MRN_E_ARGUMENT: limit or edits out of range. MRN_E_TEXT as mrn_fold. MRN_E_TOO_LARGE: the query has more than
 * MRN_QUERY_MAX bytes before or after folding. MRN_E_MEMORY: `texts` is too small; limit * MRN_TEXT_MAX never is. */
int mrn_reader_complete(const mrn_reader *reader, const char *query, size_t query_bytes, const mrn_options *options,
                        mrn_workspace *workspace, mrn_completion *completions, size_t *count, char *texts,
                        size_t texts_bytes, int *partial);

/* The same, as the body that HTTP answers with: {"query":...,"completions":[{"text","score","edits","highlights",
 * "payload"}]}, and "partial":true where *partial would be 1. *json_bytes becomes its length. MRN_E_MEMORY: `json` is too small; it may want room for 6 bytes a byte of
 * text and 160 an answer, though the JSON is shorter. */
int mrn_reader_complete_json(const mrn_reader *reader, const char *query, size_t query_bytes,
                             const mrn_options *options, mrn_workspace *workspace, char *json, size_t capacity,
                             size_t *json_bytes);

/* cdef: end --------------------------------------------------------------------------------------------- */

/* clang-format on */

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
