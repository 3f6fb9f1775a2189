/* Building an index segment. Runs off the request path, so it may allocate; every step is n log n at worst.
 *
 *   1. check and fold each entry                     keys in one arena
 *   2. sort by key and text; drop texts seen twice   equal keys end up side by side
 *   3. sort by rank                                  from here on an entry is its rank: 0 is the best
 *   4. sweep the sorted keys with a stack            each rank gets its parent and the depth where it parts
 *   5. lay out and write the records in rank order
 */

#include "crc32c.h"
#include "fold.h"
#include "mrn.h"
#include "trie_record.h"

#include <math.h>
#include <stdlib.h>

static const uint32_t NONE = UINT32_MAX; /* no child */

typedef struct item {
    uint64_t first; /* compared first; equal ones go to the tie function */
    uint32_t entry;
} item;

typedef struct builder {
    const mrn_entries *in;
    /* By entry. */
    uint8_t *keys;
    size_t keys_room, keys_used;
    size_t *key_start;
    uint16_t *key_bytes, *points;
    uint32_t *rank;
    /* Kept entries: by key, and by rank. */
    item *by_key, *by_rank, *spare;
    size_t count;
    /* By rank. */
    uint32_t *parent, *first_child, *next_child, *branches, *place;
    uint16_t *depth;
    struct open_subtree *stack;
} builder;

static const uint8_t *entry_text(const builder *b, size_t entry, size_t *bytes) {
    uint64_t start = entry == 0 ? 0 : b->in->text_ends[entry - 1];
    *bytes = (size_t)(b->in->text_ends[entry] - start);
    return (const uint8_t *)b->in->texts + start;
}

static const uint8_t *entry_payload(const builder *b, size_t entry, size_t *bytes) {
    *bytes = 0;
    if (b->in->payload_ends == NULL)
        return NULL;
    uint64_t start = entry == 0 ? 0 : b->in->payload_ends[entry - 1];
    *bytes = (size_t)(b->in->payload_ends[entry] - start);
    return (const uint8_t *)b->in->payloads + start;
}

static double entry_score(const builder *b, size_t entry) {
    return b->in->scores[entry] + 0.0; /* -0 becomes 0 */
}

/* ---- Sorting ------------------------------------------------------------------------------------------ */

typedef int tie_function(const builder *b, uint32_t left, uint32_t right);

/* Sort ascending and stably, by merging runs of doubling length; the result is in items. */
static void sort_items(const builder *b, item *items, size_t count, tie_function *tie) {
    item *from = items, *to = b->spare;
    for (size_t run = 1; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t left = start, middle = count - start < run ? count : start + run;
            size_t right = middle, end = count - middle < run ? count : middle + run;
            for (size_t at = start; at < end; at++) {
                int take_left = left < middle;
                if (take_left && right < end) {
                    const item *l = &from[left], *r = &from[right];
                    take_left = l->first != r->first ? l->first < r->first
                                                     : tie == NULL || tie(b, l->entry, r->entry) <= 0;
                }
                to[at] = take_left ? from[left++] : from[right++];
            }
        }
        item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

static int compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    size_t shared = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = shared > 0 ? memcmp(a, b, shared) : 0;
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_texts(const builder *b, uint32_t left, uint32_t right) {
    size_t left_bytes, right_bytes;
    const uint8_t *l = entry_text(b, left, &left_bytes), *r = entry_text(b, right, &right_bytes);
    return compare_bytes(l, left_bytes, r, right_bytes);
}

/* Key, text, score descending, place in the input. */
static int by_key_tie(const builder *b, uint32_t left, uint32_t right) {
    int order = compare_bytes(b->keys + b->key_start[left], b->key_bytes[left], b->keys + b->key_start[right],
                              b->key_bytes[right]);
    if (order == 0)
        order = compare_texts(b, left, right);
    if (order != 0)
        return order;
    double l = entry_score(b, left), r = entry_score(b, right);
    return l != r ? (l < r) - (l > r) : (left > right) - (left < right);
}

/* Code points ascending, text. */
static int by_rank_tie(const builder *b, uint32_t left, uint32_t right) {
    if (b->points[left] != b->points[right])
        return b->points[left] < b->points[right] ? -1 : 1;
    return compare_texts(b, left, right);
}

/* The first 8 bytes of a key as a number that compares as they do. */
static uint64_t key_head(const uint8_t *key, size_t bytes) {
    uint64_t head = 0;
    for (size_t i = 0; i < 8; i++)
        head = head << 8 | (i < bytes ? key[i] : 0);
    return head;
}

/* ---- 1. Check and fold -------------------------------------------------------------------------------- */

static int grow_keys(builder *b) {
    if (b->keys_room - b->keys_used >= MRN_KEY_MAX)
        return MRN_OK;
    size_t room = 2 * b->keys_room + MRN_KEY_MAX;
    uint8_t *keys = realloc(b->keys, room);
    if (keys == NULL)
        return MRN_E_NO_MEMORY;
    b->keys = keys;
    b->keys_room = room;
    return MRN_OK;
}

/* Check one entry and add its key to the arena; returns its verdict. */
static int fold_entry(builder *b, size_t entry) {
    size_t text_bytes, payload_bytes;
    const uint8_t *text = entry_text(b, entry, &text_bytes),
                  *payload = entry_payload(b, entry, &payload_bytes);
    if (text_bytes == 0)
        return MRN_E_TEXT;
    if (text_bytes > MRN_TEXT_MAX || payload_bytes > MRN_PAYLOAD_MAX)
        return MRN_E_TOO_LARGE;
    double score = b->in->scores[entry];
    if (!isfinite(score) || score < 0)
        return MRN_E_RANGE;
    size_t points = text_points(text, text_bytes);
    if (points == SIZE_MAX || !utf8_valid(payload, payload_bytes))
        return MRN_E_TEXT;
    uint8_t *key = b->keys + b->keys_used;
    ptrdiff_t key_bytes = fold_text(text, text_bytes, key, MRN_KEY_MAX);
    if (key_bytes < 0)
        return MRN_E_TOO_LARGE;
    if (key_bytes > 0 && key[key_bytes - 1] == ' ')
        key_bytes--;
    if (key_bytes == 0)
        return MRN_E_TEXT;
    b->key_start[entry] = b->keys_used;
    b->key_bytes[entry] = (uint16_t)key_bytes;
    b->points[entry] = (uint16_t)points;
    b->keys_used += (size_t)key_bytes;
    return MRN_OK;
}

static int fold_entries(builder *b, signed char *verdicts) {
    for (size_t i = 0; i < b->in->count; i++) {
        int status = grow_keys(b);
        if (status != MRN_OK)
            return status;
        int verdict = fold_entry(b, i);
        verdicts[i] = (signed char)verdict;
        if (verdict == MRN_OK)
            b->by_key[b->count++] = (item){key_head(b->keys + b->key_start[i], b->key_bytes[i]), (uint32_t)i};
    }
    return MRN_OK;
}

/* ---- 2, 3. Sort by key, drop what is there twice, sort by rank ---------------------------------------- */

static void sort_entries(builder *b, signed char *verdicts) {
    sort_items(b, b->by_key, b->count, by_key_tie);
    size_t kept = 0;
    for (size_t i = 0; i < b->count; i++) {
        uint32_t entry = b->by_key[i].entry;
        if (kept > 0 && compare_texts(b, b->by_key[kept - 1].entry, entry) == 0)
            verdicts[entry] = MRN_MERGED;
        else
            b->by_key[kept++] = b->by_key[i];
    }
    b->count = kept;
    for (size_t i = 0; i < kept; i++) {
        double score = entry_score(b, b->by_key[i].entry);
        uint64_t bits; /* those of a float64 >= 0 compare as it does */
        memcpy(&bits, &score, sizeof bits);
        b->by_rank[i] = (item){~bits, b->by_key[i].entry};
    }
    sort_items(b, b->by_rank, kept, by_rank_tie);
    for (size_t r = 0; r < kept; r++)
        b->rank[b->by_rank[r].entry] = (uint32_t)r;
}

/* ---- 4. The tree -------------------------------------------------------------------------------------- */

static const uint8_t *rank_key(const builder *b, uint32_t rank, size_t *bytes) {
    uint32_t entry = b->by_rank[rank].entry;
    *bytes = b->key_bytes[entry];
    return b->keys + b->key_start[entry];
}

/* The sorted keys form a trie whose inner nodes are the lengths at which neighbours part. A subtree is stood
 * for by its best rank. When all children of an inner node are known, the best of them goes on as the node,
 * and the others become its branches at that depth. */
typedef struct open_subtree {
    uint32_t best;
    int32_t shared; /* bytes shared with the subtree to its left; -1 for the first */
} open_subtree;

static void attach(builder *b, uint32_t child, uint32_t parent, size_t depth) {
    b->parent[child] = parent;
    b->depth[child] = (uint16_t)depth;
}

/* Close inner nodes until the top of the stack shares at most `shared` bytes with its left neighbour. */
static void close_nodes(builder *b, open_subtree *stack, size_t *top, int32_t shared) {
    while (stack[*top - 1].shared > shared) {
        int32_t depth = stack[*top - 1].shared;
        size_t first = *top - 1;
        uint32_t best = stack[first].best;
        while (stack[first].shared == depth) {
            first--;
            if (stack[first].best < best)
                best = stack[first].best;
        }
        for (size_t i = first; i < *top; i++)
            if (stack[i].best != best)
                attach(b, stack[i].best, best, (size_t)depth);
        stack[first].best = best;
        *top = first + 1;
    }
}

/* Chain the entries by_key[from..to), which have one key, best first; returns the best. */
static uint32_t chain_equal_keys(builder *b, size_t from, size_t to) {
    item *items = b->by_key + from;
    for (size_t i = 0; i < to - from; i++)
        items[i].first = b->rank[items[i].entry];
    sort_items(b, items, to - from, NULL);
    for (size_t i = 1; i < to - from; i++)
        attach(b, (uint32_t)items[i].first, (uint32_t)items[i - 1].first, b->key_bytes[items[i].entry]);
    return (uint32_t)items[0].first;
}

static void build_tree(builder *b) {
    size_t top = 0;
    const uint8_t *last_key = NULL;
    size_t last_bytes = 0;
    for (size_t from = 0, to; from < b->count; from = to) {
        uint32_t entry = b->by_key[from].entry;
        const uint8_t *key = b->keys + b->key_start[entry];
        size_t key_bytes = b->key_bytes[entry];
        for (to = from + 1; to < b->count; to++) {
            uint32_t other = b->by_key[to].entry;
            if (compare_bytes(key, key_bytes, b->keys + b->key_start[other], b->key_bytes[other]) != 0)
                break;
        }
        int32_t shared = from == 0 ? -1 : 0;
        if (from > 0)
            while ((size_t)shared < key_bytes && (size_t)shared < last_bytes &&
                   key[shared] == last_key[shared])
                shared++;
        if (top > 0)
            close_nodes(b, b->stack, &top, shared);
        b->stack[top++] = (open_subtree){chain_equal_keys(b, from, to), shared};
        last_key = key;
        last_bytes = key_bytes;
    }
    if (top > 0)
        close_nodes(b, b->stack, &top, -1);

    for (size_t r = 0; r < b->count; r++)
        b->first_child[r] = NONE;
    memset(b->branches, 0, b->count * sizeof *b->branches);
    for (size_t r = b->count; r-- > 1;) { /* from the worst up, so that each list is best first */
        uint32_t parent = b->parent[r];
        b->next_child[r] = b->first_child[parent];
        b->first_child[parent] = (uint32_t)r;
        b->branches[parent]++;
    }
}

/* Where the suffix of a rank begins in its key. */
static size_t suffix_start(const builder *b, uint32_t rank, size_t key_bytes) {
    if (rank == 0)
        return 0;
    return b->depth[rank] < key_bytes ? (size_t)b->depth[rank] + 1 : key_bytes;
}

/* ---- 5. The file -------------------------------------------------------------------------------------- */

static size_t varint_bytes(uint64_t value) {
    size_t bytes = 1;
    while (value >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put(uint8_t *at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + width;
}

static uint8_t *put_bytes(uint8_t *at, const uint8_t *from, size_t bytes) {
    if (bytes > 0)
        memcpy(at, from, bytes);
    return at + bytes;
}

/* Everything about a record but the places that its branches lead to. */
typedef struct shape {
    uint32_t entry;
    const uint8_t *suffix, *text, *payload;
    size_t start, suffix_bytes, text_bytes, payload_bytes;
    double score;
    unsigned flags;
} shape;

static shape record_shape(const builder *b, uint32_t rank) {
    shape s;
    size_t key_bytes;
    const uint8_t *key = rank_key(b, rank, &key_bytes);
    s.entry = b->by_rank[rank].entry;
    s.start = suffix_start(b, rank, key_bytes);
    s.suffix = key + s.start;
    s.suffix_bytes = key_bytes - s.start;
    s.text = entry_text(b, s.entry, &s.text_bytes);
    s.payload = entry_payload(b, s.entry, &s.payload_bytes);
    s.score = entry_score(b, s.entry);
    s.flags =
        (b->branches[rank] > 0 ? MRN_RECORD_BRANCHES : 0u) | (s.suffix_bytes > 255 ? MRN_RECORD_WIDE : 0u) |
        (score_is_integer(s.score) ? 0u : MRN_RECORD_FLOAT) | (s.payload_bytes > 0 ? MRN_RECORD_PAYLOAD : 0u);
    return s;
}

static uint64_t record_bytes(const builder *b, uint32_t rank, size_t width) {
    shape s = record_shape(b, rank);
    size_t position_width = s.flags & MRN_RECORD_WIDE ? 2 : 1;
    uint64_t count = b->branches[rank];
    return 1 + position_width + s.suffix_bytes +
           (count > 0 ? varint_bytes(count) + count * (position_width + 1 + width) : 0) +
           (s.flags & MRN_RECORD_FLOAT ? 8 : varint_bytes((uint64_t)s.score)) + varint_bytes(s.text_bytes) +
           s.text_bytes + (s.payload_bytes > 0 ? varint_bytes(s.payload_bytes) + s.payload_bytes : 0);
}

/* Give each record its place; returns their length, or more than places of this width reach. */
static uint64_t lay_out_records(builder *b, size_t width) {
    uint64_t at = 0;
    for (size_t r = 0; r < b->count; r++) {
        b->place[r] = (uint32_t)at;
        at += record_bytes(b, (uint32_t)r, width);
        if (at > (uint64_t)1 << (8 * width))
            break;
    }
    return at;
}

static uint8_t *put_record(const builder *b, uint8_t *at, uint32_t rank, size_t width) {
    shape s = record_shape(b, rank);
    size_t position_width = s.flags & MRN_RECORD_WIDE ? 2 : 1;
    *at++ = (uint8_t)s.flags;
    at = put(at, s.suffix_bytes, position_width);
    at = put_bytes(at, s.suffix, s.suffix_bytes);
    if (s.flags & MRN_RECORD_BRANCHES) {
        size_t count = b->branches[rank];
        uint8_t *positions = put_varint(at, count);
        uint8_t *bytes = positions + count * position_width, *places = bytes + count;
        for (uint32_t child = b->first_child[rank]; child != NONE; child = b->next_child[child]) {
            size_t key_bytes, depth = b->depth[child];
            const uint8_t *key = rank_key(b, child, &key_bytes);
            positions = put(positions, depth - s.start, position_width);
            *bytes++ = depth < key_bytes ? key[depth] : 0;
            places = put(places, b->place[child], width);
        }
        at = places;
    }
    if (s.flags & MRN_RECORD_FLOAT) {
        uint64_t bits;
        memcpy(&bits, &s.score, sizeof bits);
        at = put(at, bits, 8);
    } else {
        at = put_varint(at, (uint64_t)s.score);
    }
    at = put_bytes(put_varint(at, s.text_bytes), s.text, s.text_bytes);
    if (s.flags & MRN_RECORD_PAYLOAD)
        at = put_bytes(put_varint(at, s.payload_bytes), s.payload, s.payload_bytes);
    return at;
}

static int write_file(builder *b, char **file, size_t *file_bytes) {
    size_t width = 3;
    uint64_t length = lay_out_records(b, width);
    if (length > (uint64_t)1 << 24) {
        width = 4;
        length = lay_out_records(b, width);
    }
    const size_t header_bytes = MRN_HEADER_BYTES + MRN_SECTION_BYTES;
    const size_t offset = (header_bytes + MRN_ALIGNMENT - 1) / MRN_ALIGNMENT * MRN_ALIGNMENT;
    if (length > ((uint64_t)1 << 32) || length > SIZE_MAX - offset)
        return MRN_E_TOO_LARGE;
    uint8_t *out = calloc(1, offset + (size_t)length);
    if (out == NULL)
        return MRN_E_NO_MEMORY;
    uint8_t *at = out + offset;
    for (size_t r = 0; r < b->count; r++)
        at = put_record(b, at, (uint32_t)r, width);

    memcpy(out + MRN_HEADER_MAGIC, index_magic, sizeof index_magic);
    put(out + MRN_HEADER_VERSION, MRN_INDEX_VERSION, 4);
    put(out + MRN_HEADER_FOLD_VERSION, MRN_FOLD_VERSION, 4);
    put(out + MRN_HEADER_FILE_BYTES, offset + length, 8);
    put(out + MRN_HEADER_ENTRIES, b->count, 8);
    put(out + MRN_HEADER_SECTIONS, 1, 4);
    uint8_t *section = out + MRN_HEADER_BYTES;
    put(section + MRN_SECTION_ID, MRN_SECTION_RECORDS, 4);
    put(section + MRN_SECTION_OFFSET, offset, 8);
    put(section + MRN_SECTION_LENGTH, length, 8);
    put(section + MRN_SECTION_CHECKSUM, crc32c(0, out + offset, (size_t)length), 4);
    put(section + MRN_SECTION_WIDTH, width, 4);
    put(out + MRN_HEADER_CHECKSUM, crc32c(0, out, header_bytes), 4);
    *file = (char *)out;
    *file_bytes = offset + (size_t)length;
    return MRN_OK;
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

static int check_ends(const uint64_t *ends, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (ends[i] < ends[i - 1])
            return 0;
    return 1;
}

static int allocate(builder *b, size_t n) {
    n += n == 0; /* malloc(0) may be NULL */
    size_t texts = b->in->count == 0 ? 0 : (size_t)b->in->text_ends[b->in->count - 1];
    b->keys_room = texts + 2 * MRN_KEY_MAX; /* folding rarely makes a text longer */
    b->keys = malloc(b->keys_room);
    b->key_start = calloc(n, sizeof *b->key_start);
    b->key_bytes = calloc(n, sizeof *b->key_bytes);
    b->points = calloc(n, sizeof *b->points);
    b->rank = calloc(n, sizeof *b->rank);
    b->by_key = calloc(n, sizeof *b->by_key);
    b->by_rank = calloc(n, sizeof *b->by_rank);
    b->spare = calloc(n, sizeof *b->spare);
    b->parent = calloc(n, sizeof *b->parent);
    b->first_child = calloc(n, sizeof *b->first_child);
    b->next_child = calloc(n, sizeof *b->next_child);
    b->branches = calloc(n, sizeof *b->branches);
    b->place = calloc(n, sizeof *b->place);
    b->depth = calloc(n, sizeof *b->depth);
    b->stack = calloc(n, sizeof *b->stack);
    return b->keys && b->key_start && b->key_bytes && b->points && b->rank && b->by_key && b->by_rank &&
           b->spare && b->parent && b->first_child && b->next_child && b->branches && b->place && b->depth &&
           b->stack;
}

static void release(builder *b) {
    void *blocks[] = {b->keys,       b->key_start, b->key_bytes, b->points, b->rank,
                      b->by_key,     b->by_rank,   b->spare,     b->parent, b->first_child,
                      b->next_child, b->branches,  b->place,     b->depth,  b->stack};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

int mrn_index_build(const mrn_entries *entries, signed char *verdicts, char **file, size_t *file_bytes) {
    if (entries == NULL || file == NULL || file_bytes == NULL)
        return MRN_E_ARGUMENT;
    size_t n = entries->count;
    if (n > 0 && (entries->texts == NULL || entries->text_ends == NULL || entries->scores == NULL ||
                  verdicts == NULL || (entries->payload_ends != NULL && entries->payloads == NULL)))
        return MRN_E_ARGUMENT;
    if (n > 0 && (!check_ends(entries->text_ends, n) ||
                  (entries->payload_ends != NULL && !check_ends(entries->payload_ends, n))))
        return MRN_E_ARGUMENT;
    if (n >= NONE)
        return MRN_E_TOO_LARGE;
    builder b = {.in = entries};
    int status = allocate(&b, n) ? fold_entries(&b, verdicts) : MRN_E_NO_MEMORY;
    if (status == MRN_OK) {
        sort_entries(&b, verdicts);
        build_tree(&b);
        status = write_file(&b, file, file_bytes);
    }
    release(&b);
    return status;
}

void mrn_free(void *memory) {
    free(memory);
}
