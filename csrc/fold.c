#include "fold.h"

#include <string.h>

#include "fold_table.h"
#include "mrn.h"
#include "mrn_format.h"
#include "trie_layout.h"

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
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t count = 0, at = 0;
    for (; bytes - at >= 8; at += 8) { /* most texts are ASCII: 8 bytes at a time, then those that are left */
        uint64_t word;
        memcpy(&word, text + at, 8);
        if (((word | (word + ones) | (word - 0x20 * ones)) & 0x80 * ones) != 0)
            break;
    }
    for (; at < bytes && text[at] >= 0x20 && text[at] < 0x7f; at++)
        ;
    for (count = at; at < bytes; count++) {
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
        if (text[at] < 0x80) { /* as below, for most texts */
            uint8_t byte = text[at++];
            int space = byte == ' ';
            if (space && after_space)
                continue;
            after_space = space;
            if (key_bytes == capacity)
                return -1;
            key[key_bytes++] = (uint8_t)(byte + (byte >= 'A' && byte <= 'Z' ? 'a' - 'A' : 0));
            continue;
        }
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

/* 1 to 8 bytes as one number. */
static inline uint64_t load_few(const uint8_t *at, size_t bytes) {
    if (bytes == 8)
        return load64(at);
    if (bytes >= 4)
        return load32(at) | (uint64_t)load32(at + bytes - 4) << (8 * (bytes - 4));
    return at[0] | (uint64_t)at[bytes / 2] << (8 * (bytes / 2)) |
           (uint64_t)at[bytes - 1] << (8 * (bytes - 1));
}

int fold_ascii(const uint8_t *text, size_t bytes, uint8_t *key) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = 0x80 * ones;
    uint64_t wrong = 0;
    for (size_t at = 0; at < bytes; at += 8) { /* eight bytes at a time; none carries into the next */
        size_t count = bytes - at < 8 ? bytes - at : 8;
        uint64_t part = load_few(text + at, count);
        if (count < 8)
            part |= 'a' * ones << (8 * count);
        uint64_t seven = part & ~high,
                 capital = (seven + (0x80 - 'A') * ones) & ~(seven + (0x7f - 'Z') * ones);
        wrong |= part | (seven + ones) | ~(seven + (0x7f - ' ') * ones);
        store64(key + at, part + ((capital & high) >> 2));
    }
    return (wrong & high) == 0;
}

int fold_parts_words(uint32_t point) {
    if (point < 0x80)
        return !((point >= 'a' && point <= 'z') || (point >= '0' && point <= '9'));
    return point <= 0xbf || point == 0xd7 || point == 0xf7 || point == 0x60c || point == 0x61b ||
           point == 0x61f || (point >= 0x66a && point <= 0x66d) || point == 0x6d4 || point == 0x964 ||
           point == 0x965 || (point >= 0x2010 && point <= 0x205e) || (point >= 0x3001 && point <= 0x3003) ||
           (point >= 0x3008 && point <= 0x3020) || point == 0x30fb;
}

static int is_capital(uint8_t byte) {
    return byte >= 'A' && byte <= 'Z';
}

static int is_small(uint8_t byte) {
    return byte >= 'a' && byte <= 'z';
}

/* Whether a word begins at the capital text[at] inside what is otherwise one word. */
static int begins_camel(const uint8_t *text, size_t bytes, size_t at) {
    if (at == 0 || !is_capital(text[at]))
        return 0;
    uint8_t before = text[at - 1];
    return is_small(before) || (before >= '0' && before <= '9') ||
           (is_capital(before) && at + 1 < bytes && is_small(text[at + 1]));
}

ptrdiff_t fold_words(const uint8_t *text, size_t bytes, int camel, uint8_t *key, size_t capacity,
                     uint16_t *starts, size_t *count) {
    size_t key_bytes = 0, further = 0;
    int after_space = 1, after_separator = 1;
    *count = 0;
    for (size_t at = 0; at < bytes;) {
        uint8_t piece[FOLD_POINT_MAX];
        size_t length, piece_bytes = fold_point(text + at, bytes - at, &length, piece);
        piece_bytes = join_spaces(piece, piece_bytes, &after_space);
        if (piece_bytes > capacity - key_bytes)
            return -1;
        after_separator |= camel && begins_camel(text, bytes, at);
        for (size_t from = 0; from < piece_bytes;) {
            uint32_t point = 0;
            size_t step = utf8_decode(piece + from, piece_bytes - from, &point);
            int separator = fold_parts_words(point);
            if (after_separator && !separator && further < MRN_WORDS_MAX) {
                further += key_bytes + from > 0;
                starts[(*count)++] = (uint16_t)(key_bytes + from);
            }
            after_separator = separator;
            from += step;
        }
        memcpy(key + key_bytes, piece, piece_bytes);
        key_bytes += piece_bytes;
        at += length;
    }
    return (ptrdiff_t)key_bytes;
}

size_t key_words(const uint8_t *key, size_t bytes, uint16_t *starts) {
    size_t count = 0, further = 0;
    int after_separator = 1;
    for (size_t at = 0; at < bytes && further < MRN_WORDS_MAX;) {
        uint32_t point = key[at];
        size_t step = point < 0x80 ? 1 : utf8_decode(key + at, bytes - at, &point);
        int separator = fold_parts_words(point);
        if (after_separator && !separator) {
            further += at > 0;
            starts[count++] = (uint16_t)at;
        }
        after_separator = separator;
        at += step;
    }
    return count;
}

/* Walks a text code point by code point, and counts the bytes of the key. */
typedef struct walk {
    const uint8_t *text;
    size_t bytes, at, done;
    int after_space;
} walk;

/* Step over a code point: the bytes that it becomes, and those of them that the key gets. */
static inline void walk_step(walk *w, size_t *piece_bytes, size_t *kept) {
    uint8_t piece[FOLD_POINT_MAX];
    size_t length;
    *piece_bytes = fold_point(w->text + w->at, w->bytes - w->at, &length, piece);
    *kept = join_spaces(piece, *piece_bytes, &w->after_space);
    w->done += *kept;
    w->at += length;
}

uint32_t fold_span(const uint8_t *text, size_t bytes, size_t key_bytes) {
    walk w = {text, bytes, 0, 0, 1};
    uint32_t points = 0;
    /* ASCII gives a byte a byte, but for spaces in a row; a mark may follow, so that the last one is left to
     * below. */
    while (w.at < bytes && w.done + 1 < key_bytes && text[w.at] < 0x80 &&
           !(text[w.at] == ' ' && w.after_space)) {
        w.after_space = text[w.at++] == ' ';
        w.done++;
        points++;
    }
    for (; w.at < bytes; points++) {
        walk before = w;
        size_t piece_bytes, kept;
        walk_step(&w, &piece_bytes, &kept);
        if (before.done >= key_bytes && piece_bytes > 0)
            break;
    }
    return points;
}

uint32_t fold_before(const uint8_t *text, size_t bytes, size_t key_byte) {
    walk w = {text, bytes, 0, 0, 1};
    for (uint32_t points = 0;; points++) {
        size_t piece_bytes, kept;
        if (w.at == bytes)
            return points;
        walk_step(&w, &piece_bytes, &kept);
        if (w.done > key_byte)
            return points;
    }
}

/* The small letter of one that loses something by folding, or a mark itself; 0 for anything else. */
static uint32_t find_mark(uint32_t point, size_t piece_bytes) {
    if (point < 0x80)
        return 0;
    if (piece_bytes == 0)
        return point;
    size_t low = 0, high = sizeof fold_marked / sizeof *fold_marked;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (fold_marked[middle] < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof fold_marked / sizeof *fold_marked && fold_marked[low] == point ? fold_small[low] : 0;
}

/* The next mark, and the byte of the key that it stands on; 0 at the end. A mark alone stands on what is
 * before it. */
static uint32_t next_mark(walk *w, size_t *stands) {
    while (w->at < w->bytes) {
        uint32_t point;
        size_t piece_bytes, kept, from = w->done;
        utf8_decode(w->text + w->at, w->bytes - w->at, &point);
        walk_step(w, &piece_bytes, &kept);
        uint32_t mark = find_mark(point, piece_bytes);
        *stands = piece_bytes == 0 && from > 0 ? from - 1 : from;
        if (mark != 0)
            return mark;
    }
    return 0;
}

int fold_has_marks(const uint8_t *text, size_t bytes) {
    walk w = {text, bytes, 0, 0, 1};
    size_t stands;
    for (size_t i = 0;; i++) {
        if (i == bytes)
            return 0;
        if (text[i] >= 0x80)
            return next_mark(&w, &stands) != 0;
    }
}

int fold_same_marks(const uint8_t *typed, size_t typed_bytes, const uint8_t *text, size_t text_bytes,
                    size_t from, size_t key_bytes) {
    walk a = {typed, typed_bytes, 0, 0, 1}, b = {text, text_bytes, 0, 0, 1};
    for (;;) {
        size_t a_stands = 0, b_stands = 0;
        uint32_t x = next_mark(&a, &a_stands), y;
        do
            y = next_mark(&b, &b_stands);
        while (y != 0 && b_stands < from);
        if (x != 0 && a_stands >= key_bytes)
            x = 0;
        if (y != 0 && b_stands - from >= key_bytes)
            y = 0;
        if (x != y || (x != 0 && a_stands != b_stands - from))
            return 0;
        if (x == 0)
            return 1;
    }
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
