/* The limits of this machine that the kernels are measured against: `mariana bench dense`. An extension
 * module of its own (mariana._roofs): nothing of it is in the one that serves. */
#ifndef MRN_ROOFS_H
#define MRN_ROOFS_H

#include <stddef.h>

/* cdef: begin ------------------------------------------------------------------------------------------- */

/* Roofs are numbered from 0 on. The name says the instructions and the numbers they work on ("avx512 fma
 * float32"); NULL for an unknown number. mrn_roof_usable: whether this machine can run it. */
size_t mrn_roof_count(void);
const char *mrn_roof_name(size_t roof);
int mrn_roof_usable(size_t roof);

/* Run a usable roof and return how many operations that were: a multiply-add counts as two. Who calls it
 * measures the time. Everything stays in registers, but the tiles of AMX, which are loaded from the
 * first-level cache. */
double mrn_roof_run(size_t roof, size_t repeats);

/* Read `bytes` of `from`, a multiple of 4096 and aligned to 64, `repeats` times, with the widest loads there
 * are. The sum that is returned keeps the compiler honest. */
double mrn_roof_read(const void *from, size_t bytes, size_t repeats);

/* cdef: end --------------------------------------------------------------------------------------------- */

#endif
