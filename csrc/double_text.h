/* Numbers as decimal text. */
#ifndef MRN_DOUBLE_TEXT_H
#define MRN_DOUBLE_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum { NUMBER_TEXT_MAX = 32 };

/* Write an integer; returns how many characters. */
size_t integer_text(uint64_t value, char *text);

/* Write a finite number >= 0 with the fewest digits that read back as it, and of those the nearest to
 * it: 9.0, 0.25, 0.00001, 1e-6, 1e+16, as pydantic writes JSON. Returns how many characters, at most
 * NUMBER_TEXT_MAX. */
size_t double_text(double value, char *text);

#endif
