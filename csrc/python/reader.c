/* Reader.json and Reader.complete: a query that is a string, asked without contexts. */
#include "calls.h"

#include <stdint.h>
#include <stdlib.h>

typedef int json_function(const mrn_reader *, const char *, size_t, const mrn_options *, mrn_workspace *,
                          char *, size_t, size_t *);
typedef int complete_function(const mrn_reader *, const char *, size_t, const mrn_options *, mrn_workspace *,
                              mrn_completion *, size_t *, char *, size_t, int *);
_Static_assert(_Generic(&mrn_reader_complete_json, json_function *: 1, default: 0), "mrn.h has another one");
_Static_assert(_Generic(&mrn_reader_complete, complete_function *: 1, default: 0), "mrn.h has another one");

/* What a call writes; of all readers, so that a new one after an update needs none of its own. */
typedef struct room {
    struct room *next;
    mrn_workspace workspace;
    mrn_completion completions[MRN_LIMIT_MAX];
    size_t capacity;
    char *out; /* never less than what the texts of MRN_LIMIT_MAX answers take */
} room;

static room *spare; /* whoever holds the interpreter's lock has it to himself */

static room *take(void) {
    room *taken = spare;
    if (taken) {
        spare = taken->next;
        return taken;
    }
    taken = malloc(sizeof *taken);
    const size_t capacity = MRN_LIMIT_MAX * MRN_TEXT_MAX;
    char *out = taken ? malloc(capacity) : NULL;
    if (!out) {
        free(taken);
        PyErr_NoMemory();
        return NULL;
    }
    taken->out = out;
    taken->capacity = capacity;
    return taken;
}

static void give(room *taken) {
    taken->next = spare;
    spare = taken;
}

/* -1 with MemoryError. */
static int grow(room *taken) {
    char *out = realloc(taken->out, 4 * taken->capacity);
    if (!out) {
        PyErr_NoMemory();
        return -1;
    }
    taken->out = out;
    taken->capacity *= 4;
    return 0;
}

typedef struct {
    PyObject_HEAD json_function *json;
    complete_function *complete;
    const mrn_reader *reader;
    PyObject *alive; /* what the reader is in, and stands on */
    PyObject *files; /* the bytes of each segment */
    PyObject *edits; /* what is said of errors -> how many to forgive */
} reader;

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"json", "complete", "reader", "alive", "files", "edits", NULL};
    unsigned long long json, complete, handle;
    PyObject *alive, *files, *edits;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KKKOO!O!:Reader", names, &json, &complete, &handle,
                                     &alive, &PyTuple_Type, &files, &PyDict_Type, &edits))
        return NULL;
    reader *self = (reader *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->json = (json_function *)(uintptr_t)json;
    self->complete = (complete_function *)(uintptr_t)complete;
    self->reader = (const mrn_reader *)(uintptr_t)handle;
    self->alive = Py_NewRef(alive);
    self->files = Py_NewRef(files);
    self->edits = Py_NewRef(edits);
    return (PyObject *)self;
}

/* A segment may hold a reader of itself. Nothing is cleared: the segment's own references can be, and a call
 * never finds a reader without its files. */
static int visit_all(PyObject *object, visitproc visit, void *arg) {
    reader *self = (reader *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->alive);
    Py_VISIT(self->files);
    Py_VISIT(self->edits);
    return 0;
}

static void drop(PyObject *object) {
    reader *self = (reader *)object;
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->alive);
    Py_XDECREF(self->files);
    Py_XDECREF(self->edits);
    calls_free(object);
}

/* ---- What is asked ------------------------------------------------------------------------------------ */

typedef struct {
    const char *text; /* in the string that was given */
    size_t bytes;
    mrn_options options;
} query;

/* Whether the arguments are a string, an integer and what is said of errors, in the ordinary form; the core
 * looks at their values. */
static int read_query(const reader *self, PyObject *const *args, query *asked) {
    PyObject *prefix = args[0], *limit = args[1], *fuzzy = args[2];
    if (!PyUnicode_CheckExact(prefix) || PyUnicode_GetLength(prefix) > MRN_QUERY_MAX ||
        !PyLong_CheckExact(limit) || !(PyUnicode_CheckExact(fuzzy) || PyLong_CheckExact(fuzzy)))
        return 0;
    PyObject *edits = PyDict_GetItemWithError(self->edits, fuzzy);
    Py_ssize_t bytes = 0;
    const unsigned long most = edits ? PyLong_AsUnsignedLong(limit) : 0;
    asked->text = most && most < UINT32_MAX ? PyUnicode_AsUTF8AndSize(prefix, &bytes) : NULL;
    if (!asked->text) {
        PyErr_Clear(); /* a negative or huge limit, or half of a surrogate pair */
        return 0;
    }
    asked->bytes = (size_t)bytes;
    asked->options = (mrn_options){.limit = (uint32_t)most, .edits = (int32_t)PyLong_AsLong(edits)};
    return 1;
}

static int enough(const char *name, Py_ssize_t count, Py_ssize_t wanted) {
    if (count != wanted)
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, count);
    return count == wanted;
}

/* Lets other threads run, but for a query that forgives nothing: it takes a microsecond or two. */
static PyThreadState *let_go(const query *asked) {
    return asked->options.edits == 0 ? NULL : PyEval_SaveThread();
}

static void come_back(PyThreadState *thread) {
    if (thread)
        PyEval_RestoreThread(thread);
}

/* ---- JSON --------------------------------------------------------------------------------------------- */

static PyObject *write_json(const reader *self, const query *asked, room *taken) {
    for (;;) {
        size_t bytes = 0;
        PyThreadState *thread = let_go(asked);
        const int status = self->json(self->reader, asked->text, asked->bytes, &asked->options,
                                      &taken->workspace, taken->out, taken->capacity, &bytes);
        come_back(thread);
        if (status == MRN_OK)
            return PyBytes_FromStringAndSize(taken->out, (Py_ssize_t)bytes);
        if (status != MRN_E_MEMORY)
            return NOT_HERE;
        if (grow(taken) < 0)
            return NULL;
    }
}

static PyObject *json(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const reader *self = (const reader *)object;
    query asked;
    if (!enough("json", count, 3))
        return NULL;
    if (!read_query(self, args, &asked))
        return NOT_HERE;
    room *taken = take();
    if (!taken)
        return NULL;
    PyObject *body = write_json(self, &asked, taken);
    give(taken);
    return body;
}

/* ---- Objects ------------------------------------------------------------------------------------------ */

/* A tuple of values, which become its own; NULL when the last one, or the tuple, could not be made. All
 * values are there first: no code of Python, which the collector shows every tuple, sees one with holes. */
static PyObject *pack(PyObject *const *values, Py_ssize_t count) {
    PyObject *tuple = count == 0 || values[count - 1] ? PyTuple_New(count) : NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        if (tuple)
            PyTuple_SetItem(tuple, i, values[i]);
        else
            Py_XDECREF(values[i]);
    return tuple;
}

static PyObject *highlights_of(const mrn_completion *found) {
    enum { MOST = sizeof found->highlight / sizeof *found->highlight / 2 };
    PyObject *ranges[MOST] = {NULL};
    const uint32_t count = found->highlights;
    for (uint32_t i = 0; i < count && (i == 0 || ranges[i - 1]); i++)
        ranges[i] = Py_BuildValue("(ii)", found->highlight[2 * i], found->highlight[2 * i + 1]);
    return pack(ranges, count);
}

/* Bytes of a segment's file, and what `read` makes of them; None where there are none. */
static PyObject *from_file(const reader *self, const mrn_completion *found, uint64_t at, uint32_t bytes,
                           PyObject *read) {
    if (bytes == 0)
        return Py_NewRef(Py_None);
    PyObject *file = PyTuple_GetItem(self->files, (Py_ssize_t)found->segment);
    PyObject *raw =
        file ? PySequence_GetSlice(file, (Py_ssize_t)at, (Py_ssize_t)at + (Py_ssize_t)bytes) : NULL;
    PyObject *value = NULL;
    if (raw && read)
        value = PyObject_CallFunctionObjArgs(read, raw, NULL);
    else if (raw)
        value = PyUnicode_FromEncodedObject(raw, "utf-8", NULL);
    Py_XDECREF(raw);
    return value;
}

/* What two answers have in common is made once. */
typedef struct {
    PyObject *highlights;
    uint16_t start, end; /* of them, if they are one range */
} common;

static PyObject *ranges_of(const mrn_completion *found, common *last) {
    const int one = found->highlights == 1;
    if (one && last->highlights && found->highlight[0] == last->start && found->highlight[1] == last->end)
        return Py_NewRef(last->highlights);
    PyObject *ranges = highlights_of(found);
    if (one && ranges) {
        Py_XDECREF(last->highlights);
        *last = (common){Py_NewRef(ranges), found->highlight[0], found->highlight[1]};
    }
    return ranges;
}

/* The fields of one answer, in the order of Completion. */
static PyObject *fields_of(const reader *self, const room *taken, const mrn_completion *found,
                           PyObject *payload, common *last) {
    PyObject *fields[6] = {NULL};
    (void)((fields[0] =
                PyUnicode_DecodeUTF8(taken->out + found->text, (Py_ssize_t)found->text_bytes, NULL)) &&
           (fields[1] = PyFloat_FromDouble(found->score)) &&
           (fields[2] = PyLong_FromUnsignedLong(found->edits)) && (fields[3] = ranges_of(found, last)) &&
           (fields[4] = from_file(self, found, found->payload, found->payload_bytes, payload)) &&
           (fields[5] = from_file(self, found, found->id, found->id_bytes, NULL)));
    return pack(fields, 6);
}

/* As `kind` of the fields: a subtype of tuple, made as tuple.__new__(kind, fields) makes it. */
static PyObject *as_kind(PyTypeObject *kind, PyObject *fields) {
    static newfunc new_tuple;
    if (!new_tuple)
        new_tuple = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *args = fields ? pack(&fields, 1) : NULL;
    PyObject *made = args ? new_tuple(kind, args, NULL) : NULL;
    Py_XDECREF(args);
    return made;
}

static PyObject *list_of(const reader *self, const room *taken, size_t count, PyTypeObject *kind,
                         PyObject *payload) {
    PyObject *made[MRN_LIMIT_MAX]; /* first, as for a tuple */
    common last = {NULL, 0, 0};
    size_t done = 0;
    while (done < count &&
           (made[done] = as_kind(kind, fields_of(self, taken, &taken->completions[done], payload, &last))))
        done++;
    Py_XDECREF(last.highlights);
    PyObject *list = done == count ? PyList_New((Py_ssize_t)count) : NULL;
    for (size_t i = 0; i < done; i++)
        if (list)
            PyList_SetItem(list, (Py_ssize_t)i, made[i]);
        else
            Py_DECREF(made[i]);
    return list;
}

/* As `answers(list)`, which is told where a better one may be missing; takes over the list. */
static PyObject *as_answers(PyObject *answers, PyObject *list, int partial) {
    PyObject *made = list ? PyObject_CallFunctionObjArgs(answers, list, NULL) : NULL;
    Py_XDECREF(list);
    if (made && partial && PyObject_SetAttrString(made, "partial", Py_True) < 0)
        Py_CLEAR(made);
    return made;
}

static PyObject *complete(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    const reader *self = (const reader *)object;
    query asked;
    if (!enough("complete", count, 6))
        return NULL;
    PyObject *kind = args[3], *payload = args[4];
    if (!PyType_Check(kind) || !PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "complete makes subtypes of tuple only");
        return NULL;
    }
    if (!read_query(self, args, &asked))
        return NOT_HERE;
    room *taken = take();
    if (!taken)
        return NULL;
    size_t found = 0;
    int partial = 0;
    PyThreadState *thread = let_go(&asked);
    const int status =
        self->complete(self->reader, asked.text, asked.bytes, &asked.options, &taken->workspace,
                       taken->completions, &found, taken->out, taken->capacity, &partial);
    come_back(thread);
    PyObject *list = status == MRN_OK ? list_of(self, taken, found, (PyTypeObject *)kind, payload) : NULL;
    give(taken);
    return status == MRN_OK ? as_answers(args[5], list, partial) : NOT_HERE;
}

static PyMethodDef methods[] = {
    {"json", (PyCFunction)(void (*)(void))json, METH_FASTCALL,
     "json(prefix, limit, fuzzy)\n--\n\nThe best entries as the JSON that HTTP answers with; None for an "
     "unusual call."},
    {"complete", (PyCFunction)(void (*)(void))complete, METH_FASTCALL,
     "complete(prefix, limit, fuzzy, kind, payload, answers)\n--\n\n`answers` of a list of `kind`, a named "
     "tuple; "
     "`payload` reads the bytes of one. `partial` becomes True where a bound was hit. None for an unusual "
     "call."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Segments that are completed as one, and often."},
    {Py_tp_new, make},
    {Py_tp_dealloc, drop},
    {Py_tp_traverse, visit_all},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec calls_reader = {
    .name = "mariana._calls.Reader",
    .basicsize = sizeof(reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
