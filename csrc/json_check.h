/* Whether bytes are JSON. */
#ifndef MRN_JSON_CHECK_H
#define MRN_JSON_CHECK_H

#include <stddef.h>
#include <stdint.h>

/* Whether the bytes are one JSON value (RFC 8259) in UTF-8 that nests at most MRN_JSON_DEPTH_MAX deep, with
 * no half of a surrogate pair escaped alone. */
int json_valid(const uint8_t *text, size_t bytes);

#endif
