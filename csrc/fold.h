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

/* Fold a text that is nothing but letters, digits and punctuation of ASCII; 0 when it is not. `key` has room
 * for `bytes` rounded up to 8. */
int fold_ascii(const uint8_t *text, size_t bytes, uint8_t *key);

/* Fold a valid text and note where its words begin, counted in bytes of the key, the first at 0 or after what
 * is no letter: at most MRN_WORDS_MAX besides one at 0. A word is letters and digits; with `camel`, a new one
 * also begins at a capital that follows a small letter or a digit, or that a small letter follows. As
 * fold_text otherwise. */
ptrdiff_t fold_words(const uint8_t *text, size_t bytes, int camel, uint8_t *key, size_t capacity,
                     uint16_t *starts, size_t *count);

/* The same for a key, whose capitals are gone: where its words begin; room for MRN_WORDS_MAX + 1. Returns how
 * many. */
size_t key_words(const uint8_t *key, size_t bytes, uint16_t *starts);

/* How many code points of a valid text the first `key_bytes` bytes of its key come from; marks that follow
 * the last of them belong to it. */
uint32_t fold_span(const uint8_t *text, size_t bytes, size_t key_bytes);

/* How many code points of a valid text stand before the one that byte `key_byte` of its key comes from. */
uint32_t fold_before(const uint8_t *text, size_t bytes, size_t key_byte);

/* Whether a folded code point parts words. */
int fold_parts_words(uint32_t point);

/* Whether a valid text has letters that folding takes an accent from, or accents alone. */
int fold_has_marks(const uint8_t *text, size_t bytes);

/* Whether the first `key_bytes` bytes of the key of `typed`, and as many from byte `from` on of the key of
 * `text`, come from letters with the same accents. Case does not count. Both valid. */
int fold_same_marks(const uint8_t *typed, size_t typed_bytes, const uint8_t *text, size_t text_bytes,
                    size_t from, size_t key_bytes);

#endif
