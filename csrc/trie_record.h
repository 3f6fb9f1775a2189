/* One record of an index segment: reading it, trusted or not. docs/format.md, "Records", draws it.
 *
 *   flags u8 | suffix length u8/u16 | suffix | [branch count | positions | bytes | places] | score |
 *   text length | text | [payload length | payload]
 */
#ifndef MRN_TRIE_RECORD_H
#define MRN_TRIE_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "mrn_format.h"

enum {
    RECORD_FLAGS = MRN_RECORD_BRANCHES | MRN_RECORD_WIDE | MRN_RECORD_FLOAT | MRN_RECORD_PAYLOAD,
    RECORD_BYTES_MIN = 5, /* flags, suffix length, score, text length, text */
    BRANCHES_MAX = (MRN_KEY_MAX + 1) * 256,
    VARINT_BYTES_MAX = 8 /* holds 2^53 */
};

#define SCORE_INTEGER_MAX ((uint64_t)1 << 53) /* up to here every integer is a float64 */

static const uint8_t index_magic[8] = {0x89, 'M', 'R', 'X', '\r', '\n', 0x1a, '\n'};

typedef struct record {
    unsigned flags;
    size_t suffix_bytes;
    const uint8_t *suffix;
    size_t branches;
    size_t position_width;
    const uint8_t *positions, *bytes, *places; /* branch tables: (branches) each */
    const uint8_t *tail;                       /* score, text, payload */
} record;

typedef struct document {
    double score;
    const uint8_t *text, *payload;
    size_t text_bytes, payload_bytes;
    const uint8_t *end;
} document;

/* Whether a score >= 0 is stored as an integer. */
static inline int score_is_integer(double score) {
    return score <= (double)SCORE_INTEGER_MAX && (double)(uint64_t)score == score;
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE uint64_t load_le(const uint8_t *at, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

ALWAYS_INLINE uint32_t load_place(const uint8_t *at, size_t width) {
    uint32_t value = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    return width == 4 ? value | (uint32_t)at[3] << 24 : value;
}

/* Read a variable-length number (7 bits a byte, lowest first, the top bit says that more follow) and move *at
 * behind it. With `check`: 0 when it runs over `end`, is too long, or has needless bytes. */
ALWAYS_INLINE int read_varint(const uint8_t **at, const uint8_t *end, int check, uint64_t *value) {
    const uint8_t *from = *at;
    uint64_t sum = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (check && (from == end || shift == 7 * VARINT_BYTES_MAX))
            return 0;
        uint8_t byte = *from++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (check && byte == 0 && shift > 0)
                return 0;
            break;
        }
    }
    *at = from;
    *value = sum;
    return 1;
}

/* Take `bytes` bytes and move *at behind them. With `check`: 0 when they run over `end`. */
ALWAYS_INLINE int take(const uint8_t **at, const uint8_t *end, int check, uint64_t bytes,
                       const uint8_t **taken) {
    if (check && bytes > (uint64_t)(end - *at))
        return 0;
    *taken = *at;
    *at += bytes;
    return 1;
}

/* Read a record up to its score. With `check`: 0 when it does not fit before `end` or breaks a rule that can
 * be seen without its neighbours; without, `end` is not looked at. */
ALWAYS_INLINE int read_record(const uint8_t *at, const uint8_t *end, size_t width, int check, record *r) {
    const uint8_t *field;
    if (!take(&at, end, check, 2, &field))
        return 0;
    r->flags = field[0];
    r->suffix_bytes = field[1];
    r->position_width = 1;
    if (r->flags & MRN_RECORD_WIDE) {
        if (!take(&at, end, check, 1, &field))
            return 0;
        r->suffix_bytes |= (size_t)field[0] << 8;
        r->position_width = 2;
        if (check && (r->suffix_bytes <= 255 || r->suffix_bytes > MRN_KEY_MAX))
            return 0;
    }
    if (check && (r->flags & ~(unsigned)RECORD_FLAGS))
        return 0;
    if (!take(&at, end, check, r->suffix_bytes, &r->suffix))
        return 0;
    r->branches = 0;
    r->positions = r->bytes = r->places = at;
    if (r->flags & MRN_RECORD_BRANCHES) {
        uint64_t count;
        if (!read_varint(&at, end, check, &count))
            return 0;
        if (check && (count == 0 || count > BRANCHES_MAX))
            return 0;
        r->branches = (size_t)count;
        if (!take(&at, end, check, count * r->position_width, &r->positions) ||
            !take(&at, end, check, count, &r->bytes) || !take(&at, end, check, count * width, &r->places))
            return 0;
    }
    r->tail = at;
    return 1;
}

ALWAYS_INLINE size_t branch_position(const record *r, size_t branch) {
    return r->position_width == 1 ? r->positions[branch]
                                  : r->positions[2 * branch] | (size_t)r->positions[2 * branch + 1] << 8;
}

/* Read the rest of a record, likewise. */
ALWAYS_INLINE int read_document(const record *r, const uint8_t *end, int check, document *d) {
    const uint8_t *at = r->tail;
    uint64_t number;
    if (r->flags & MRN_RECORD_FLOAT) {
        const uint8_t *bits;
        if (!take(&at, end, check, 8, &bits))
            return 0;
        number = load_le(bits, 8);
        memcpy(&d->score, &number, sizeof d->score);
    } else {
        if (!read_varint(&at, end, check, &number))
            return 0;
        if (check && number > SCORE_INTEGER_MAX)
            return 0;
        d->score = (double)number;
    }
    if (!read_varint(&at, end, check, &number))
        return 0;
    if (check && (number == 0 || number > MRN_TEXT_MAX))
        return 0;
    d->text_bytes = (size_t)number;
    if (!take(&at, end, check, number, &d->text))
        return 0;
    d->payload = at;
    d->payload_bytes = 0;
    if (r->flags & MRN_RECORD_PAYLOAD) {
        if (!read_varint(&at, end, check, &number))
            return 0;
        if (check && (number == 0 || number > MRN_PAYLOAD_MAX))
            return 0;
        d->payload_bytes = (size_t)number;
        if (!take(&at, end, check, number, &d->payload))
            return 0;
    }
    d->end = at;
    return 1;
}

#endif
