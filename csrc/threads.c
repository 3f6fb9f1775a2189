/* A forward pass shared with the helpers of a pool.
 *
 * Many rows: an item is a block of rows and runs through all layers. Few rows and wide layers: layer by
 * layer, an item is a panel of units, so that each core streams its part of the weights. Both take every sum
 * in the same order as one thread does: the bits are the same.
 */
#include "mrn.h"
#include "model.h"
#include "pool.h"

#include <string.h>

enum {
    ITEMS_A_THREAD = 8,     /* so that waiting for the last one costs little */
    ITEM_ROWS = 16,         /* rows of an item are a multiple of this */
    FEW_ROWS = 16,          /* up to so many rows are shared by panels */
    SHARED_LEAST = 1 << 19, /* multiplications that are worth waking a helper for; about 10 us */
    PANEL = MRN_PANEL_STRIPS * MRN_STRIP
};

/* What the caller and the helpers share; lives in the workspace, because a late helper may read it. */
typedef struct shared {
    const mrn_model *model;
    const mrn_dense *layer;
    const float *in;   /* the rows of this job, copied */
    char *scratch;     /* of each thread */
    size_t rows, step; /* rows of the job; rows of an item */
    size_t stride;
    size_t scratch_bytes;
    float *y; /* the rest is the caller's alone */
    size_t room;
} shared;

/* The workspace of mrn_model_predict_shared, in bytes from its start. */
typedef struct workspace {
    size_t scratch_bytes, items, step;
    size_t in, slots, slot_bytes, scratch, sides, end;
} workspace;

static size_t add(size_t a, size_t b) {
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}
static size_t multiply(size_t a, size_t b) {
    return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}
static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static size_t place(workspace *at, size_t bytes) {
    const size_t start = at->end;
    at->end = add(start, bytes);
    at->end = at->end > SIZE_MAX - MRN_BLOCK_ALIGN
                  ? SIZE_MAX
                  : (at->end + MRN_BLOCK_ALIGN - 1) / MRN_BLOCK_ALIGN * MRN_BLOCK_ALIGN;
    return start;
}

static workspace lay_out(const mrn_model *model, size_t threads) {
    workspace at = {.scratch_bytes = model->scratch, .items = threads * ITEMS_A_THREAD};
    size_t panels = 1, widest = model->encoded;
    at.items = at.items > MRN_POOL_ITEMS ? MRN_POOL_ITEMS : at.items;
    at.step = larger(model->block_rows / 2 / ITEM_ROWS, 1) * ITEM_ROWS;
    for (size_t i = 0; !model->dots && i < model->layer_count; i++) {
        panels = larger(panels, (model->layers[i].strips + MRN_PANEL_STRIPS - 1) / MRN_PANEL_STRIPS);
        widest = larger(widest, model->layers[i].strips * MRN_STRIP);
    }
    at.slot_bytes = larger(multiply(at.step, model->outputs), FEW_ROWS * PANEL) * sizeof(float);
    at.slot_bytes = (at.slot_bytes + 63) / 64 * 64;
    (void)place(&at, sizeof(shared));
    at.in = place(&at, multiply(larger(multiply(at.items * at.step, model->columns), FEW_ROWS * widest),
                                sizeof(float)));
    at.slots = place(&at, multiply(larger(at.items, panels) + 1, at.slot_bytes));
    at.scratch = place(&at, multiply(threads, at.scratch_bytes));
    at.sides = place(&at, 2 * FEW_ROWS * widest * sizeof(float));
    return at;
}

int mrn_model_workspace_bytes(const mrn_model *model, const mrn_pool *pool, size_t *bytes) {
    if (!model || !pool || !bytes)
        return MRN_E_ARGUMENT;
    *bytes = lay_out(model, mrn_pool_threads(pool)).end;
    return *bytes == SIZE_MAX ? MRN_E_TOO_LARGE : MRN_OK;
}

/* ---- By rows --------------------------------------------------------------------------------------------
 */

static size_t rows_of(const shared *job, size_t item) {
    const size_t left = job->rows - item * job->step;
    return left < job->step ? left : job->step;
}

static void compute_rows(const void *context, size_t item, size_t thread, void *out) {
    const shared *job = context;
    (void)mrn_model_predict(job->model, job->in + item * job->step * job->model->columns, rows_of(job, item),
                            out, job->scratch + thread * job->scratch_bytes);
}

static void take_rows(const void *context, size_t item, const void *out) {
    const shared *job = context;
    const size_t outputs = job->model->outputs;
    memcpy(job->y + item * job->step * outputs, out, rows_of(job, item) * outputs * sizeof *job->y);
}

/* ---- By panels ------------------------------------------------------------------------------------------
 */

static size_t strips_from(const mrn_dense *layer, size_t panel) {
    const size_t left = layer->strips - panel * MRN_PANEL_STRIPS;
    return left < MRN_PANEL_STRIPS ? left : MRN_PANEL_STRIPS;
}

static void compute_panel(const void *context, size_t item, size_t thread, void *out) {
    const shared *job = context;
    mrn_dense panel = *job->layer;
    (void)thread;
    panel.weight += item * PANEL * panel.inputs;
    panel.bias += item * PANEL;
    if (panel.slope)
        panel.slope += item * PANEL;
    panel.strips = strips_from(job->layer, item);
    job->model->kernels->dense(&panel, job->in, job->stride, job->rows, out);
}

static void take_panel(const void *context, size_t item, const void *out) {
    const shared *job = context;
    const size_t width = strips_from(job->layer, item) * MRN_STRIP;
    for (size_t row = 0; row < job->rows; row++)
        memcpy(job->y + row * job->layer->strips * MRN_STRIP + item * PANEL, (const float *)out + row * width,
               width * sizeof(float));
}

/* A few rows through all layers; those that are too small to share, and softmax, whose rows are one, alone.
 */
static void predict_few(const mrn_model *model, mrn_pool *pool, const float *x, size_t rows, float *y,
                        shared *job, mrn_job *posted, char *base, const workspace *at) {
    float *const side[2] = {(float *)(void *)(base + at->sides),
                            (float *)(void *)(base + at->sides + (at->end - at->sides) / 128 * 64)};
    const float *in = x;
    size_t stride = model->encoded;
    if (model->encodes) {
        mrn_encode_rows(model, x, rows, side[1]);
        in = side[1];
    }
    for (size_t i = 0; i < model->layer_count; i++) {
        const mrn_dense *layer = &model->layers[i];
        float *out = side[i % 2];
        const size_t panels = (layer->strips + MRN_PANEL_STRIPS - 1) / MRN_PANEL_STRIPS;
        if (layer->activation == MRN_ACTIVATION_softmax || panels < 2 || panels > MRN_POOL_ITEMS ||
            rows * layer->inputs * layer->strips * MRN_STRIP < SHARED_LEAST || !mrn_pool_ready(pool)) {
            model->kernels->dense(layer, in, stride, rows, out);
        } else {
            memcpy(base + at->in, in, ((rows - 1) * stride + layer->inputs) * sizeof *in);
            job->layer = layer;
            job->stride = stride;
            job->y = out;
            posted->items = panels;
            mrn_pool_run(pool, posted);
        }
        in = out;
        stride = layer->strips * MRN_STRIP;
    }
    mrn_finish_rows(model, in, rows, y, rows * model->outputs);
}

int mrn_model_predict_shared(const mrn_model *model, mrn_pool *pool, const float *x, size_t rows, float *y,
                             void *block) {
    if (!model || !pool || !x || !y || !block)
        return MRN_E_ARGUMENT;
    const workspace at = lay_out(model, mrn_pool_threads(pool));
    char *base = block;
    const int by_panels = rows <= FEW_ROWS && !model->dots;
    if (multiply(rows, model->weights) < SHARED_LEAST || (!by_panels && rows <= ITEM_ROWS) ||
        !mrn_pool_begin(pool))
        return mrn_model_predict(model, x, rows, y, base + at.scratch);

    shared *job = block;
    *job = (shared){.model = model,
                    .in = (const float *)(void *)(base + at.in),
                    .scratch = base + at.scratch,
                    .scratch_bytes = at.scratch_bytes};
    mrn_job posted = {.context = job, .slots = base + at.slots, .slot_bytes = at.slot_bytes};
    if (by_panels) {
        posted.compute = compute_panel;
        posted.take = take_panel;
        job->rows = rows;
        predict_few(model, pool, x, rows, y, job, &posted, base, &at);
        rows = 0;
    } else {
        posted.compute = compute_rows;
        posted.take = take_rows;
        while (rows && mrn_pool_ready(pool)) {
            size_t step = (rows + at.items - 1) / at.items;
            step = (step + ITEM_ROWS - 1) / ITEM_ROWS * ITEM_ROWS;
            step = step < at.step ? step : at.step;
            job->step = step;
            job->rows = rows < at.items * step ? rows : at.items * step;
            job->y = y;
            memcpy(base + at.in, x, job->rows * model->columns * sizeof *x);
            posted.items = (job->rows + step - 1) / step;
            mrn_pool_run(pool, &posted);
            x += job->rows * model->columns;
            y += job->rows * model->outputs;
            rows -= job->rows;
        }
    }
    mrn_pool_end(pool);
    return mrn_model_predict(model, x, rows, y, base + at.scratch);
}
