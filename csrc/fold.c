#include "fold.h"

#include <string.h>

#include "fold_table.h"
#include "mrn.h"

size_t utf8_decode(const uint8_t *text, size_t bytes, uint32_t *point) {
    uint32_t lead = text[0];
    if (lead < 0x80) {
        *point = lead;
        return 1;
    }
    size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || length > bytes)
        return 0;
    uint32_t value = lead & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text[i] & 0x3fu);
    }
    /* Overlong forms, surrogates, beyond the last code point. */
    if ((length == 3 && (value < 0x800 || (value >= 0xd800 && value <= 0xdfff))) ||
        (length == 4 && (value < 0x10000 || value > 0x10ffff)))
        return 0;
    *point = value;
    return length;
}

static int is_forbidden(uint32_t point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x61c || point == 0x200e ||
           point == 0x200f || (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

size_t text_points(const uint8_t *text, size_t bytes) {
    size_t count = 0;
    for (size_t at = 0; at < bytes; count++) {
        uint32_t point;
        size_t length = utf8_decode(text + at, bytes - at, &point);
        if (length == 0 || is_forbidden(point))
            return SIZE_MAX;
        at += length;
    }
    return count;
}

int utf8_valid(const uint8_t *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        uint32_t point;
        size_t length = utf8_decode(text + at, bytes - at, &point);
        if (length == 0)
            return 0;
        at += length;
    }
    return 1;
}

static size_t utf8_encode3(uint32_t point, uint8_t *out) {
    out[0] = (uint8_t)(0xe0 | point >> 12);
    out[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    out[2] = (uint8_t)(0x80 | (point & 0x3f));
    return 3;
}

/* Hangul syllables are numbered, so that their letters come out by division (Unicode, chapter 3.12). */
static size_t fold_hangul(uint32_t syllable, uint8_t *out) {
    size_t length = utf8_encode3(0x1100 + syllable / 588, out);
    length += utf8_encode3(0x1161 + syllable % 588 / 28, out + length);
    if (syllable % 28 != 0)
        length += utf8_encode3(0x11a7 + syllable % 28, out + length);
    return length;
}

/* Fold the code point at `text`: *length of its UTF-8, and the bytes that it becomes in `out`. */
static inline size_t fold_point(const uint8_t *text, size_t bytes, size_t *length,
                                uint8_t out[FOLD_POINT_MAX]) {
    if (text[0] < 0x80) {
        *length = 1;
        out[0] = (uint8_t)(text[0] + (text[0] >= 'A' && text[0] <= 'Z' ? 'a' - 'A' : 0));
        return 1;
    }
    uint32_t point = 0;
    *length = utf8_decode(text, bytes, &point);
    if (point >= 0xac00 && point <= 0xd7a3)
        return fold_hangul(point - 0xac00, out);
    uint32_t value = fold_blocks[fold_index[point / FOLD_BLOCK]][point % FOLD_BLOCK];
    if (value == FOLD_DROPPED)
        return 0;
    if (value < FOLD_FIRST) {
        memcpy(out, text, *length);
        return *length;
    }
    const uint8_t *piece = fold_pool + (value - FOLD_FIRST);
    memcpy(out, piece + 1, piece[0]);
    return piece[0];
}

/* Drop the spaces of a piece that follow another one or stand at the start of the key. */
static inline size_t join_spaces(uint8_t *piece, size_t count, int *after_space) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        int space = piece[i] == ' ';
        if (!(space && *after_space))
            piece[kept++] = piece[i];
        *after_space = space;
    }
    return kept;
}

ptrdiff_t fold_text(const uint8_t *text, size_t bytes, uint8_t *key, size_t capacity) {
    size_t key_bytes = 0;
    int after_space = 1;
    for (size_t at = 0; at < bytes;) {
        uint8_t piece[FOLD_POINT_MAX];
        size_t length, count = fold_point(text + at, bytes - at, &length, piece);
        count = join_spaces(piece, count, &after_space);
        if (count > capacity - key_bytes)
            return -1;
        memcpy(key + key_bytes, piece, count);
        key_bytes += count;
        at += length;
    }
    return (ptrdiff_t)key_bytes;
}

uint32_t fold_span(const uint8_t *text, size_t bytes, size_t key_bytes) {
    uint32_t points = 0;
    size_t done = 0;
    int after_space = 1;
    for (size_t at = 0; at < bytes; points++) {
        uint8_t piece[FOLD_POINT_MAX];
        size_t length, count = fold_point(text + at, bytes - at, &length, piece);
        if (done >= key_bytes && count > 0)
            break;
        done += join_spaces(piece, count, &after_space);
        at += length;
    }
    return points;
}

int mrn_fold(const char *text, size_t bytes, char *key, size_t capacity, size_t *key_bytes) {
    if ((text == NULL && bytes > 0) || key == NULL || key_bytes == NULL)
        return MRN_E_ARGUMENT;
    if (text_points((const uint8_t *)text, bytes) == SIZE_MAX)
        return MRN_E_TEXT;
    ptrdiff_t folded = fold_text((const uint8_t *)text, bytes, (uint8_t *)key, capacity);
    if (folded < 0)
        return MRN_E_TOO_LARGE;
    *key_bytes = (size_t)folded;
    return MRN_OK;
}
