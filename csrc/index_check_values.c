/* Checking numbers, ties, scores, texts, payloads, ids and contexts of an index segment. */

#include "fold.h"
#include "index_check.h"
#include "json_check.h"

#include <math.h>

/* ---- Numbers, ties and scores ------------------------------------------------------------------------- */

/* Check the groups of a section of numbers; then read_number may read each. */
static int check_numbers(const opening *o, unsigned id) {
    const extent section = o->sections[id];
    uint32_t count = o->index.items[id];
    size_t groups = ((size_t)count + MRN_NUMBER_GROUP - 1) / MRN_NUMBER_GROUP;
    if ((size_t)(section.to - section.from) / (4 + 9) < groups)
        return refuse(o, "it has more numbers than it can hold", section.from);
    const uint8_t *at = section.from + 4 * groups;
    for (size_t g = 0; g < groups; g++) {
        size_t here = count - g * MRN_NUMBER_GROUP;
        here = here < MRN_NUMBER_GROUP ? here : MRN_NUMBER_GROUP;
        if (load32(section.from + 4 * g) != (size_t)(at - section.from) || section.to - at < 9)
            return refuse(o, "a group of numbers is not where it should be", at);
        unsigned bits = at[8];
        size_t bytes = 9 + packed_bytes(here, bits);
        if ((bits > 57 && bits != 64) || (size_t)(section.to - at) < bytes)
            return refuse(o, "a group of numbers breaks the format", at);
        at += bytes;
    }
    return at == section.to ? MRN_OK : refuse(o, "something follows its numbers", at);
}

int check_scores(const opening *o) {
    const mrn_index *index = &o->index;
    const extent ties = o->sections[MRN_SECTION_TIES], scores = o->sections[MRN_SECTION_SCORES];
    size_t blocks = ((size_t)index->entries + 63) / 64;
    if ((size_t)(ties.to - ties.from) != blocks * TIES_BYTES)
        return refuse(o, "its ties have not the length that its entries take", ties.from);
    uint32_t tie = 0, classes = 0;
    for (size_t i = 0; i < blocks; i++) {
        const uint8_t *block = ties.from + TIES_BYTES * i;
        uint64_t bits = load64(block);
        unsigned here = index->entries - 64 * i < 64 ? (unsigned)(index->entries - 64 * i) : 64;
        if (load32(block + 8) != tie || load32(block + 12) != classes || (i == 0 && !(bits & 1)) ||
            (here < 64 && bits >> here != 0))
            return refuse(o, "its ties are not consistent", block);
        classes += count_bits(bits);
        if (bits != 0)
            tie = (uint32_t)(64 * i) + bit_length(bits) - 1;
    }
    if (classes != index->items[MRN_SECTION_SCORES])
        return refuse(o, "the number of different scores is wrong", ties.from);
    int status = check_numbers(o, MRN_SECTION_SCORES);
    int whole = index->flags & MRN_INDEX_FLOAT ? 0 : 1, fractions = 0;
    uint64_t before = 0;
    for (uint32_t i = 0; status == MRN_OK && i < classes; i++) {
        uint64_t value = read_number(scores.from, i);
        double score = (double)value;
        if (!whole)
            memcpy(&score, &value, sizeof score);
        if (i > 0 && value >= before)
            status = refuse(o, "a score is not below the one before it", scores.from);
        else if (whole ? value > SCORE_INTEGER_MAX : value >> 63 != 0 || !isfinite(score))
            status = refuse(o, "a score is not what the format allows", scores.from);
        if (status == MRN_OK)
            fractions |= !score_is_integer(score);
        before = value;
    }
    if (status == MRN_OK && !whole && !fractions)
        status = refuse(o, "its scores are integers, and are not stored as such", scores.from);
    return status;
}

int check_word_entries(const opening *o) {
    const uint8_t *base = o->sections[MRN_SECTION_WORD_ENTRIES].from;
    int status = check_numbers(o, MRN_SECTION_WORD_ENTRIES);
    uint64_t before = 0;
    uint32_t same = 0;
    for (uint32_t i = 0; status == MRN_OK && i < o->index.items[MRN_SECTION_WORD_ENTRIES]; i++) {
        uint64_t entry = read_number(base, i);
        same = i > 0 && entry == before ? same + 1 : 0;
        if (entry < before || entry >= o->index.entries || same >= MRN_WORDS_MAX)
            status = refuse(o, "the entries of its words are not in order", base);
        before = entry;
    }
    return status;
}

/* ---- Texts, payloads, ids, contexts
 * ------------------------------------------------------------------------ */

typedef struct shown {
    const uint8_t *text; /* NULL: it is not stored */
    size_t bytes, points;
} shown;

/* Whether a stands before b among entries of one score: code points ascending, bytes ascending. */
static int shown_before(const shown *a, const shown *b) {
    if (a->points != b->points)
        return a->points < b->points;
    size_t shared = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(a->text, b->text, shared);
    return order != 0 ? order < 0 : a->bytes < b->bytes;
}

static int check_blob(const opening *o, unsigned id, uint32_t rank, const uint8_t *at, size_t bytes,
                      shown *before) {
    if (id == MRN_SECTION_PAYLOADS) {
        if (bytes > MRN_PAYLOAD_MAX || (bytes > 0 && !json_valid(at, bytes)))
            return refuse(o, "a payload is not JSON", at);
        return MRN_OK;
    }
    if (id == MRN_SECTION_IDS) {
        if (bytes > MRN_ID_MAX || (bytes > 0 && text_points(at, bytes) == SIZE_MAX))
            return refuse(o, "an id is not UTF-8, holds a control character or is too long", at);
        return MRN_OK;
    }
    if (bytes == 0) {
        *before = (shown){NULL, 0, 0};
        return o->index.flags & MRN_INDEX_WORDS ? refuse(o, "a text is missing", at) : MRN_OK;
    }
    shown here = {at, bytes, bytes > MRN_TEXT_MAX ? SIZE_MAX : text_points(at, bytes)};
    if (here.points == SIZE_MAX)
        return refuse(o, "a text is not UTF-8, holds a control character or is too long", at);
    if (before->text != NULL && tie_start(&o->index, rank) != rank && !shown_before(before, &here))
        return refuse(o, "an entry is not in its place by length and bytes", at);
    *before = here;
    return MRN_OK;
}

int check_blobs(const opening *o, unsigned id) {
    const extent section = o->sections[id];
    uint32_t count = o->index.items[id];
    size_t groups = ((size_t)count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    if (section.from == NULL)
        return id == MRN_SECTION_TEXTS && o->index.flags & MRN_INDEX_WORDS && o->index.entries > 0
                   ? fail(o->fault, MRN_E_FORMAT, "its texts are missing", MRN_HEADER_SECTIONS)
                   : MRN_OK;
    if ((size_t)(section.to - section.from) / (4 + MRN_NODE_GROUP) < groups)
        return refuse(o, "it has more entries than it can hold", section.from);
    const uint8_t *at = section.from + 4 * groups;
    shown before = {NULL, 0, 0};
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *lengths = at;
        if (load32(section.from + 4 * g) != (size_t)(at - section.from) ||
            (size_t)(section.to - at) < MRN_NODE_GROUP)
            return refuse(o, "a group of blobs is not where it should be", at);
        at += MRN_NODE_GROUP;
        for (size_t i = 0; i < MRN_NODE_GROUP; i++) {
            size_t bytes = lengths[i], rank = g * MRN_NODE_GROUP + i;
            if (bytes == BLOB_LONG) {
                if (section.to - at < 4 || load32(at) < BLOB_LONG)
                    return refuse(o, "the length of a blob is wrong", at);
                bytes = load32(at);
                at += 4;
            }
            if ((size_t)(section.to - at) < bytes || (rank >= count && bytes > 0))
                return refuse(o, "a blob does not fit", at);
            if (rank < count) {
                int status = check_blob(o, id, (uint32_t)rank, at, bytes, &before);
                if (status != MRN_OK)
                    return status;
            }
            at += bytes;
        }
    }
    return at == section.to ? MRN_OK : refuse(o, "something follows its blobs", at);
}

int check_masks(const opening *o) {
    const mrn_index *index = &o->index;
    uint32_t tags = index->items[MRN_SECTION_TAGS];
    if (tags == 0)
        return MRN_OK;
    const uint8_t *at = o->sections[MRN_SECTION_TAGS].from, *end = o->sections[MRN_SECTION_TAGS].to;
    for (uint32_t t = 0; t < tags; t++) {
        if (at == end || *at == 0 || *at > MRN_TAG_MAX || end - at <= *at ||
            text_points(at + 1, *at) == SIZE_MAX)
            return refuse(o, "the name of a context breaks the format", at);
        at += 1 + *at;
    }
    if (at != end)
        return refuse(o, "something follows the names of its contexts", at);
    for (unsigned id = MRN_SECTION_MASKS; id <= MRN_SECTION_WORD_MASKS; id++) {
        const extent section = o->sections[id];
        if (section.from == NULL)
            continue;
        if ((size_t)(section.to - section.from) != (size_t)index->items[id] * mask_bytes(tags))
            return refuse(o, "its contexts have not the length that its entries take", section.from);
        for (uint32_t i = 0; tags < 64 && i < index->items[id]; i++)
            if (read_mask(index, id, i) >> tags != 0)
                return refuse(o, "an entry has a context that has no name", section.from);
    }
    return MRN_OK;
}
