/* What the files of mariana._calls share; calls.c says what it is for. */
#ifndef MRN_CALLS_H
#define MRN_CALLS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* CPython 3.11 and all later ones */
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "mariana._calls leans on the interpreter's lock; without it build without this module"
#endif

#include "mrn.h"
#include "mrn_format.h"

#define NOT_HERE Py_NewRef(Py_None) /* the caller asks the binding by cffi */

extern PyType_Spec calls_network, calls_reader;

/* Gives an object of a type made here back; what it refers to is already gone. */
void calls_free(PyObject *object);

#endif
