/* Network.predict: rows that lie in an array of NumPy as C reads them. */
#include "calls.h"

#include <stdint.h>
#include <stdlib.h>

typedef int predict_function(const mrn_model *, const float *, size_t, float *, void *);
typedef int share_function(const mrn_model *, mrn_pool *, const float *, size_t, float *, void *);
typedef void settle_function(mrn_pool *);
_Static_assert(_Generic(&mrn_model_predict, predict_function *: 1, default: 0), "mrn.h has another one");
_Static_assert(_Generic(&mrn_model_predict_shared, share_function *: 1, default: 0), "mrn.h has another one");
_Static_assert(_Generic(&mrn_pool_settle, settle_function *: 1, default: 0), "mrn.h has another one");

/* Scratch that no call uses; linked through itself. */
typedef struct scratch {
    struct scratch *next;
} scratch;

typedef struct {
    PyObject_HEAD predict_function *run; /* without a pool */
    share_function *share;               /* with one */
    settle_function *settle;
    const mrn_model *model;
    mrn_pool *pool;  /* NULL: none */
    PyObject *alive; /* what the model is in, and the pool */
    Py_ssize_t columns, outputs, short_rows;
    size_t scratch_bytes;
    scratch *spare;
    PyObject *array, *empty, *dtype; /* numpy.ndarray, numpy.empty, float32 */
    PyObject *shape;                 /* what the last call gave to numpy.empty */
    Py_ssize_t rows;                 /* in it */
} network;

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"run",     "share",         "settle",     "model", "pool",  "alive", "columns",
                            "outputs", "scratch_bytes", "short_rows", "array", "empty", "dtype", NULL};
    unsigned long long run, share, settle, model, pool, scratch_bytes;
    Py_ssize_t columns, outputs, short_rows;
    PyObject *alive, *array, *empty, *dtype;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KKKKKOnnKnOOO:Network", names, &run, &share, &settle,
                                     &model, &pool, &alive, &columns, &outputs, &scratch_bytes, &short_rows,
                                     &array, &empty, &dtype))
        return NULL;
    network *self = (network *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->run = (predict_function *)(uintptr_t)run;
    self->share = (share_function *)(uintptr_t)share;
    self->settle = (settle_function *)(uintptr_t)settle;
    self->model = (const mrn_model *)(uintptr_t)model;
    self->pool = (mrn_pool *)(uintptr_t)pool;
    self->alive = Py_NewRef(alive);
    self->columns = columns;
    self->outputs = outputs;
    self->short_rows = short_rows;
    self->scratch_bytes = (size_t)(scratch_bytes / MRN_BLOCK_ALIGN + 1) * MRN_BLOCK_ALIGN;
    self->array = Py_NewRef(array);
    self->empty = Py_NewRef(empty);
    self->dtype = Py_NewRef(dtype);
    return (PyObject *)self;
}

static void drop(PyObject *object) {
    network *self = (network *)object;
    if (self->pool && self->spare) { /* a late helper may still use it */
        Py_BEGIN_ALLOW_THREADS;
        self->settle(self->pool);
        Py_END_ALLOW_THREADS;
    }
    while (self->spare) {
        scratch *next = self->spare->next;
        free(self->spare);
        self->spare = next;
    }
    Py_XDECREF(self->alive);
    Py_XDECREF(self->array);
    Py_XDECREF(self->empty);
    Py_XDECREF(self->dtype);
    Py_XDECREF(self->shape);
    calls_free(object);
}

/* An array for the outputs of so many rows. numpy.empty takes the same arguments as long as the rows are as
 * many. */
static PyObject *outputs_of(network *self, Py_ssize_t rows) {
    if (!self->shape || rows != self->rows) {
        PyObject *shape = Py_BuildValue("((nn)O)", rows, self->outputs, self->dtype);
        if (!shape)
            return NULL;
        PyObject *last = self->shape;
        self->shape = shape;
        self->rows = rows;
        Py_XDECREF(last);
    }
    PyObject *shape = Py_NewRef(self->shape);
    PyObject *y = PyObject_Call(self->empty, shape, NULL);
    Py_DECREF(shape);
    return y;
}

static void call_core(const network *self, const float *x, Py_ssize_t rows, float *y, void *room) {
    if (self->pool)
        self->share(self->model, self->pool, x, (size_t)rows, y, room);
    else
        self->run(self->model, x, (size_t)rows, y, room);
}

/* Run rows; -1 with MemoryError. */
static int run(network *self, const float *x, Py_ssize_t rows, float *y) {
    scratch *room = self->spare;
    if (room)
        self->spare = room->next;
    else if (!(room = aligned_alloc(MRN_BLOCK_ALIGN, self->scratch_bytes))) {
        PyErr_NoMemory();
        return -1;
    }
    if (rows <= self->short_rows)
        call_core(self, x, rows, y, room);
    else {
        Py_BEGIN_ALLOW_THREADS;
        call_core(self, x, rows, y, room);
        Py_END_ALLOW_THREADS;
    }
    room->next = self->spare;
    self->spare = room;
    return 0;
}

static PyObject *predict_rows(network *self, const Py_buffer *x) {
    if (x->ndim != 2 || x->shape[1] != self->columns || x->format[0] != 'f' || x->format[1])
        return NOT_HERE;
    PyObject *y = outputs_of(self, x->shape[0]);
    Py_buffer to;
    if (!y || PyObject_GetBuffer(y, &to, PyBUF_WRITABLE) < 0) {
        Py_XDECREF(y);
        return NULL;
    }
    const int status = run(self, x->buf, x->shape[0], to.buf);
    PyBuffer_Release(&to);
    if (status < 0)
        Py_CLEAR(y);
    return y;
}

static PyObject *predict(PyObject *object, PyObject *x) {
    network *self = (network *)object;
    if ((PyObject *)Py_TYPE(x) != self->array)
        return NOT_HERE;
    Py_buffer from;
    if (PyObject_GetBuffer(x, &from, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear(); /* it is not contiguous, or its numbers are of a kind that buffers do not know */
        return NOT_HERE;
    }
    PyObject *y = predict_rows(self, &from);
    PyBuffer_Release(&from);
    return y;
}

static PyMethodDef methods[] = {
    {"predict", predict, METH_O,
     "predict(x)\n--\n\nRun rows: a C-contiguous float32 array (batch, columns); None for anything else."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A packed network that is called often."},
    {Py_tp_new, make},
    {Py_tp_dealloc, drop},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec calls_network = {
    .name = "mariana._calls.Network",
    .basicsize = sizeof(network),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
