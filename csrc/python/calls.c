/* The extension module mariana._calls: calls of a microsecond without the price of cffi; docs/adr/0012.
 *
 * It takes ordinary calls and nothing else. To whatever is unusual, a wrong argument above all, it answers
 * None, and the caller goes the way through cffi, where all rules and messages are. It links nothing of the
 * core: functions and handles come as addresses from mariana._binding, with the objects that keep alive
 * what they point to.
 *
 * A call has its object to itself as long as it holds the interpreter's lock. It may lose the lock wherever
 * it calls into Python, for that may run anything, this module too: what is taken before is held by a
 * reference of the call's own.
 */
#include "calls.h"

void calls_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type); /* a type that was made at run time is counted */
}

static int add_types(PyObject *module) {
    PyType_Spec *specs[] = {&calls_network, &calls_reader};
    int status = 0;
    for (size_t i = 0; status == 0 && i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        status = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
        Py_XDECREF(type);
    }
    return status;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_calls",
    .m_doc = "Calls of a microsecond, without the price of cffi; see mariana._binding.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__calls(void) {
    return PyModuleDef_Init(&definition);
}
