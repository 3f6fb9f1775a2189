/* UTF-8 and folding, code point by code point. */
#ifndef MRN_FOLD_H
#define MRN_FOLD_H

#include <stddef.h>
#include <stdint.h>

/* The length of the UTF-8 sequence at `text` (1..4), its code point in *point; 0 when it is not valid. */
size_t utf8_decode(const uint8_t *text, size_t bytes, uint32_t *point);

/* The code points of a text; SIZE_MAX when it is not UTF-8 or holds what no text may hold: a control
 * character (they break lines and logs) or a mark of writing direction (they make a text look like another
 * one). */
size_t text_points(const uint8_t *text, size_t bytes);

/* Whether the bytes are UTF-8, whatever they say. */
int utf8_valid(const uint8_t *text, size_t bytes);

/* Fold a valid text; -1 when the key would be longer than `capacity`, else its length. */
ptrdiff_t fold_text(const uint8_t *text, size_t bytes, uint8_t *key, size_t capacity);

/* How many code points of a valid text the first `key_bytes` bytes of its key come from; marks that follow
 * the last of them belong to it. */
uint32_t fold_span(const uint8_t *text, size_t bytes, size_t key_bytes);

#endif
