#ifndef MRN_DISPATCH_H
#define MRN_DISPATCH_H

#include <stddef.h>

#include "kernels.h"

/* The table of an instruction set that this machine can run; NULL otherwise. */
const mrn_kernels *mrn_kernels_of(size_t isa);

#endif
