/* The index segment file (*.mrx): layout, constants, id numbers. docs/format.md explains it byte by byte. */
#ifndef MRN_FORMAT_H
#define MRN_FORMAT_H

#include <stdint.h>

#endif
