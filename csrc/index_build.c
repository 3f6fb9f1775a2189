/* Building an index segment. Runs off the request path, so it may allocate; every step is n log n at worst.
 *
 *   1. check and fold each entry                     keys in one arena
 *   2. sort by key and text; drop texts seen twice   equal keys end up side by side
 *   3. sort by rank                                  from here on an entry is its rank: 0 is the best
 *   4. a trie of the keys, and one of the keys from each further word on, in two steps each:
 *      sweep the sorted keys with a stack            each node gets its parent and the depth where it parts
 *      write the nodes in rank order
 *   5. scores, texts, payloads, contexts
 */

#include "crc32c.h"
#include "fold.h"
#include "json_check.h"
#include "mrn.h"
#include "trie_layout.h"

#include <math.h>
#include <stdlib.h>

static const uint32_t NONE = UINT32_MAX; /* no child */

typedef struct item {
    uint64_t first; /* compared first; equal ones go to the tie function */
    uint32_t id;
} item;

/* The keys of a trie, by node. */
typedef struct keys {
    const uint8_t *bytes;
    size_t count;
    uint64_t *start;
    uint16_t *length;
} keys;

/* The file as it grows. */
typedef struct output {
    uint8_t *bytes;
    size_t used, room;
    int failed;
    uint32_t sections;
} output;

typedef struct builder {
    const mrn_entries *in;
    /* By entry. */
    uint8_t *arena;
    size_t arena_room, arena_used;
    uint64_t *key_start;
    uint16_t *key_bytes, *points;
    uint32_t *rank;
    /* Kept entries: by key, and by rank. */
    item *by_key, *by_rank;
    size_t count;
    /* The trie that is being built, by node. */
    keys keys;
    size_t room; /* nodes that the arrays below hold */
    item *spare;
    uint32_t *parent, *first_child, *next_child, *branches;
    uint16_t *depth;
    struct open_subtree *stack;
    uint64_t *masks;
    output out;
} builder;

static const uint8_t *part(const char *all, const uint64_t *ends, size_t i, size_t *bytes) {
    *bytes = 0;
    if (ends == NULL)
        return NULL;
    uint64_t start = i == 0 ? 0 : ends[i - 1];
    *bytes = (size_t)(ends[i] - start);
    return (const uint8_t *)all + start;
}

static const uint8_t *entry_text(const builder *b, size_t entry, size_t *bytes) {
    return part(b->in->texts, b->in->text_ends, entry, bytes);
}

static double given_score(const builder *b, size_t entry) {
    return b->in->scores[entry] + 0.0; /* -0 becomes 0 */
}

/* ---- Sorting ------------------------------------------------------------------------------------------ */

typedef int tie_function(const builder *b, uint32_t left, uint32_t right);

/* Sort ascending and stably, by merging runs of doubling length; the result is in items. */
static void merge_sort(const builder *b, item *items, item *spare, size_t count, tie_function *tie) {
    item *from = items, *to = spare;
    for (size_t run = 1; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t left = start, middle = count - start < run ? count : start + run;
            size_t right = middle, end = count - middle < run ? count : middle + run;
            for (size_t at = start; at < end; at++) {
                int take_left = left < middle;
                if (take_left && right < end)
                    take_left = tie(b, from[left].id, from[right].id) <= 0;
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

/* Sort ascending and stably: by digits of `first`, lowest digit first, then each run of equal ones by `tie`.
 */
static void sort_items(const builder *b, item *items, item *spare, size_t count, tie_function *tie) {
    enum { DIGIT = 11, DIGITS = 6, VALUES = 1 << DIGIT };
    static const unsigned FEW = 256;
    item *from = items, *to = spare;
    if (count > FEW) {
        uint32_t *starts = calloc((size_t)DIGITS * VALUES, sizeof *starts);
        if (starts != NULL) {
            for (size_t i = 0; i < count; i++)
                for (unsigned d = 0; d < DIGITS; d++)
                    starts[d * VALUES + (items[i].first >> (d * DIGIT) & (VALUES - 1))]++;
            for (unsigned d = 0; d < DIGITS; d++) {
                uint32_t *at = starts + (size_t)d * VALUES, sum = 0;
                if (at[items[0].first >> (d * DIGIT) & (VALUES - 1)] == count)
                    continue; /* all have this digit */
                for (size_t v = 0; v < VALUES; v++) {
                    uint32_t here = at[v];
                    at[v] = sum;
                    sum += here;
                }
                for (size_t i = 0; i < count; i++)
                    to[at[from[i].first >> (d * DIGIT) & (VALUES - 1)]++] = from[i];
                item *swap = from;
                from = to;
                to = swap;
            }
            free(starts);
            if (from != items)
                memcpy(items, from, count * sizeof *items);
            for (size_t at = 0, end; at < count; at = end) {
                for (end = at + 1; end < count && items[end].first == items[at].first; end++)
                    ;
                if (tie != NULL && end - at > 1)
                    merge_sort(b, items + at, spare, end - at, tie);
            }
            return;
        }
    }
    for (size_t run = 1; run < count; run *= 2) { /* few, or no memory for the digits */
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t left = start, middle = count - start < run ? count : start + run;
            size_t right = middle, end = count - middle < run ? count : middle + run;
            for (size_t at = start; at < end; at++) {
                int take_left = left < middle;
                if (take_left && right < end) {
                    const item *l = &from[left], *r = &from[right];
                    take_left =
                        l->first != r->first ? l->first < r->first : tie == NULL || tie(b, l->id, r->id) <= 0;
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

/* Entries: key, text, score descending, place in the input. */
static int by_key_tie(const builder *b, uint32_t left, uint32_t right) {
    int order = compare_bytes(b->arena + b->key_start[left], b->key_bytes[left],
                              b->arena + b->key_start[right], b->key_bytes[right]);
    if (order == 0)
        order = compare_texts(b, left, right);
    if (order != 0)
        return order;
    double l = given_score(b, left), r = given_score(b, right);
    return l != r ? (l < r) - (l > r) : (left > right) - (left < right);
}

/* Entries: code points ascending, text. */
static int by_rank_tie(const builder *b, uint32_t left, uint32_t right) {
    if (b->points[left] != b->points[right])
        return b->points[left] < b->points[right] ? -1 : 1;
    return compare_texts(b, left, right);
}

/* Nodes: key, rank. */
static int by_node_tie(const builder *b, uint32_t left, uint32_t right) {
    const keys *k = &b->keys;
    int order = compare_bytes(k->bytes + k->start[left], k->length[left], k->bytes + k->start[right],
                              k->length[right]);
    return order != 0 ? order : (left > right) - (left < right);
}

/* The first 8 bytes of a key as a number that compares as they do. */
static uint64_t key_head(const uint8_t *key, size_t bytes) {
    uint64_t head = 0;
    if (bytes >= 8)
        return __builtin_bswap64(load64(key));
    for (size_t i = 0; i < 8; i++)
        head = head << 8 | (i < bytes ? key[i] : 0);
    return head;
}

/* ---- 1. Check and fold -------------------------------------------------------------------------------- */

static int grow_arena(builder *b) {
    if (b->arena_room - b->arena_used >= MRN_KEY_MAX)
        return MRN_OK;
    size_t room = 2 * b->arena_room + MRN_KEY_MAX;
    uint8_t *arena = realloc(b->arena, room);
    if (arena == NULL)
        return MRN_E_NO_MEMORY;
    b->arena = arena;
    b->arena_room = room;
    return MRN_OK;
}

/* Check one entry and add its key to the arena; returns its verdict. */
static int fold_entry(builder *b, size_t entry) {
    size_t text_bytes, payload_bytes;
    const uint8_t *text = entry_text(b, entry, &text_bytes),
                  *payload = part(b->in->payloads, b->in->payload_ends, entry, &payload_bytes);
    if (text_bytes == 0)
        return MRN_E_TEXT;
    if (text_bytes > MRN_TEXT_MAX || payload_bytes > MRN_PAYLOAD_MAX)
        return MRN_E_TOO_LARGE;
    double score = b->in->scores[entry];
    if (!isfinite(score) || score < 0)
        return MRN_E_RANGE;
    if (b->in->contexts != NULL && b->in->tag_count < 64 && b->in->contexts[entry] >> b->in->tag_count != 0)
        return MRN_E_RANGE;
    size_t points = text_points(text, text_bytes);
    if (points == SIZE_MAX)
        return MRN_E_TEXT;
    if (payload_bytes > 0 && !json_valid(payload, payload_bytes))
        return MRN_E_PAYLOAD;
    uint8_t *key = b->arena + b->arena_used;
    ptrdiff_t key_bytes = fold_text(text, text_bytes, key, MRN_KEY_MAX);
    if (key_bytes < 0)
        return MRN_E_TOO_LARGE;
    if (key_bytes > 0 && key[key_bytes - 1] == ' ')
        key_bytes--;
    if (key_bytes == 0)
        return MRN_E_TEXT;
    b->key_start[entry] = b->arena_used;
    b->key_bytes[entry] = (uint16_t)key_bytes;
    b->points[entry] = (uint16_t)points;
    b->arena_used += (size_t)key_bytes;
    return MRN_OK;
}

static int fold_entries(builder *b, signed char *verdicts) {
    for (size_t i = 0; i < b->in->count; i++) {
        int status = grow_arena(b);
        if (status != MRN_OK)
            return status;
        int verdict = fold_entry(b, i);
        verdicts[i] = (signed char)verdict;
        if (verdict == MRN_OK)
            b->by_key[b->count++] =
                (item){key_head(b->arena + b->key_start[i], b->key_bytes[i]), (uint32_t)i};
    }
    return MRN_OK;
}

/* ---- 2, 3. Sort by key, drop what is there twice, sort by rank ---------------------------------------- */

static void sort_entries(builder *b, signed char *verdicts) {
    sort_items(b, b->by_key, b->spare, b->count, by_key_tie);
    size_t kept = 0;
    for (size_t i = 0; i < b->count; i++) {
        uint32_t entry = b->by_key[i].id;
        if (kept > 0 && b->by_key[kept - 1].first == b->by_key[i].first &&
            compare_texts(b, b->by_key[kept - 1].id, entry) == 0)
            verdicts[entry] = MRN_MERGED;
        else
            b->by_key[kept++] = b->by_key[i];
    }
    b->count = kept;
    for (size_t i = 0; i < kept; i++) {
        double score = given_score(b, b->by_key[i].id);
        uint64_t bits; /* those of a float64 >= 0 compare as it does */
        memcpy(&bits, &score, sizeof bits);
        b->by_rank[i] = (item){~bits, b->by_key[i].id};
    }
    sort_items(b, b->by_rank, b->spare, kept, by_rank_tie);
    for (size_t r = 0; r < kept; r++)
        b->rank[b->by_rank[r].id] = (uint32_t)r;
}

/* ---- The file ----------------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + width;
}

static size_t align_up(size_t place) {
    return (place + MRN_ALIGNMENT - 1) / MRN_ALIGNMENT * MRN_ALIGNMENT;
}

/* Room for `bytes` more at the end; not counted as used. A failure leaves a place that takes them, and is
 * told at the end. */
static uint8_t *reserve(output *o, size_t bytes) {
    if (!o->failed && o->room - o->used < bytes) {
        size_t room = o->used + bytes > SIZE_MAX / 2 ? 0 : o->room * 3 / 2 + bytes;
        uint8_t *grown = room == 0 ? NULL : realloc(o->bytes, room);
        if (grown == NULL) {
            o->failed = 1;
        } else {
            o->bytes = grown;
            o->room = room;
        }
    }
    return o->failed ? NULL : o->bytes + o->used;
}

static void append(output *o, const void *from, size_t bytes) {
    uint8_t *at = reserve(o, bytes);
    if (at == NULL)
        return;
    if (bytes > 0)
        memcpy(at, from, bytes);
    o->used += bytes;
}

static void append_number(output *o, uint64_t value, size_t width) {
    uint8_t *at = reserve(o, width);
    if (at == NULL)
        return;
    put(at, value, width);
    o->used += width;
}

static void append_zeros(output *o, size_t bytes) {
    uint8_t *at = reserve(o, bytes);
    if (at == NULL)
        return;
    memset(at, 0, bytes);
    o->used += bytes;
}

/* Where the next section begins. */
static size_t open_section(output *o) {
    append_zeros(o, align_up(o->used) - o->used);
    return o->used;
}

static int close_section(output *o, size_t start, unsigned id, uint32_t items) {
    append_zeros(o, MRN_SLACK);
    if (o->failed)
        return MRN_E_NO_MEMORY;
    if (o->used - start > UINT32_MAX)
        return MRN_E_TOO_LARGE;
    uint8_t *entry = o->bytes + MRN_HEADER_BYTES + (size_t)o->sections * MRN_SECTION_BYTES;
    put(entry + MRN_SECTION_ID, id, 4);
    put(entry + MRN_SECTION_FLAGS, 0, 4);
    put(entry + MRN_SECTION_OFFSET, start, 8);
    put(entry + MRN_SECTION_LENGTH, o->used - start, 8);
    put(entry + MRN_SECTION_CHECKSUM, crc32c(0, o->bytes + start, o->used - start), 4);
    put(entry + MRN_SECTION_ITEMS, items, 4);
    o->sections++;
    return MRN_OK;
}

/* ---- 4. Tries ----------------------------------------------------------------------------------------- */

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

/* Find the parent of each node; `sorted` has the nodes by key, then rank. */
static void sweep(builder *b, const item *sorted) {
    const keys *k = &b->keys;
    size_t top = 0;
    const uint8_t *last = NULL;
    size_t last_bytes = 0;
    for (size_t from = 0, to; from < k->count; from = to) {
        uint32_t best = sorted[from].id;
        const uint8_t *key = k->bytes + k->start[best];
        size_t bytes = k->length[best];
        for (to = from + 1; to < k->count && sorted[to].first == sorted[from].first; to++) {
            uint32_t other = sorted[to].id;
            if (compare_bytes(key, bytes, k->bytes + k->start[other], k->length[other]) != 0)
                break;
            attach(b, other, sorted[to - 1].id, bytes); /* equal keys hang below each other, best first */
        }
        int32_t shared = from == 0 ? -1 : 0;
        if (from > 0)
            while ((size_t)shared < bytes && (size_t)shared < last_bytes && key[shared] == last[shared])
                shared++;
        if (top > 0)
            close_nodes(b, b->stack, &top, shared);
        b->stack[top++] = (open_subtree){best, shared};
        last = key;
        last_bytes = bytes;
    }
    if (top > 0)
        close_nodes(b, b->stack, &top, -1);
    for (size_t r = 0; r < k->count; r++)
        b->first_child[r] = NONE;
    memset(b->branches, 0, k->count * sizeof *b->branches);
    for (size_t r = k->count; r-- > 1;) { /* from the worst up, so that each list is best first */
        uint32_t parent = b->parent[r];
        b->next_child[r] = b->first_child[parent];
        b->first_child[parent] = (uint32_t)r;
        b->branches[parent]++;
    }
}

/* Where the suffix of a node begins in its key. */
static size_t suffix_start(const builder *b, uint32_t rank) {
    size_t bytes = b->keys.length[rank];
    if (rank == 0)
        return 0;
    return b->depth[rank] < bytes ? (size_t)b->depth[rank] + 1 : bytes;
}

/* Write a node's branches: their bytes, then positions and ranks side by side in bits. */
static uint8_t *put_branches(const builder *b, uint8_t *at, uint32_t rank, size_t start,
                             unsigned position_bits) {
    const keys *k = &b->keys;
    unsigned bits = position_bits + rank_bits((uint32_t)k->count), filled = 0;
    uint64_t pending = 0;
    uint8_t *packed = at + b->branches[rank];
    for (uint32_t child = b->first_child[rank]; child != NONE; child = b->next_child[child]) {
        size_t depth = b->depth[child];
        *at++ = depth < k->length[child] ? k->bytes[k->start[child] + depth] : 0;
        pending |= ((uint64_t)(depth - start) | (uint64_t)child << position_bits) << filled;
        for (filled += bits; filled >= 8; filled -= 8, pending >>= 8)
            *packed++ = (uint8_t)pending;
    }
    if (filled > 0)
        *packed++ = (uint8_t)pending;
    return packed;
}

/* Write one node; returns its length byte, or -1 when there is no memory. */
static int write_node(builder *b, uint32_t rank, output *far) {
    const keys *k = &b->keys;
    size_t start = suffix_start(b, rank), suffix_bytes = k->length[rank] - start, count = b->branches[rank];
    const uint8_t *suffix = k->bytes + k->start[rank] + start;
    unsigned position_bits = bit_length(suffix_bytes);
    size_t branches = count + packed_bytes(count, position_bits + rank_bits((uint32_t)k->count));
    size_t near = suffix_bytes + (count > 0 ? 1 + branches : 0);
    int is_near = near <= MRN_NODE_BYTES && (count == 0 || (count <= 16 && suffix_bytes <= 15));
    output *o = is_near ? &b->out : far;
    size_t from = o->used;
    uint8_t *at = reserve(o, 6 + suffix_bytes + branches);
    if (at == NULL)
        return -1;
    if (is_near) {
        if (count > 0)
            *at++ = (uint8_t)(suffix_bytes | (count - 1) << 4);
    } else {
        at = put(at, suffix_bytes, 2);
        if (count > 0)
            at = put(at, count, 4);
    }
    if (suffix_bytes > 0)
        memcpy(at, suffix, suffix_bytes);
    at += suffix_bytes;
    if (count > 0)
        at = put_branches(b, at, rank, start, position_bits);
    o->used = (size_t)(at - o->bytes);
    int branching = count > 0 ? MRN_NODE_BRANCHES : 0;
    if (is_near)
        return (int)near | branching;
    append_number(&b->out, from, 4); /* in the far part, for now */
    return 4 | MRN_NODE_FAR | branching;
}

static int write_nodes(builder *b, unsigned id) {
    size_t count = b->keys.count, groups = (count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    output *o = &b->out, far = {0};
    size_t start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups && !o->failed && !far.failed; g++) {
        put(o->bytes + start + 4 * g, o->used - start, 4);
        size_t lengths = o->used;
        append_zeros(o, MRN_NODE_GROUP);
        for (size_t i = 0; i < MRN_NODE_GROUP && g * MRN_NODE_GROUP + i < count; i++) {
            int length = write_node(b, (uint32_t)(g * MRN_NODE_GROUP + i), &far);
            if (length < 0 || o->failed)
                break;
            o->bytes[lengths + i] = (uint8_t)length;
        }
    }
    if (!o->failed && !far.failed && far.used > 0) {
        size_t far_start = o->used - start;
        for (size_t g = 0; g < groups; g++) {
            uint8_t *lengths = o->bytes + start + load32(o->bytes + start + 4 * g);
            uint8_t *at = lengths + MRN_NODE_GROUP;
            for (unsigned i = 0; i < MRN_NODE_GROUP; at += lengths[i++] & MRN_NODE_BYTES)
                if (lengths[i] & MRN_NODE_FAR)
                    put(at, load32(at) + far_start, 4);
        }
        append(o, far.bytes, far.used);
    }
    o->failed |= far.failed;
    free(far.bytes);
    return close_section(o, start, id, (uint32_t)count);
}

/* The trie of the keys: they are sorted already. */
static int write_keys(builder *b) {
    keys *k = &b->keys;
    k->bytes = b->arena;
    k->count = b->count;
    for (size_t r = 0; r < b->count; r++) {
        uint32_t entry = b->by_rank[r].id;
        k->start[r] = b->key_start[entry];
        k->length[r] = b->key_bytes[entry];
    }
    for (size_t i = 0, end; i < b->count; i = end) { /* equal keys by rank, not by text */
        item *same = b->by_key + i;
        same->id = b->rank[same->id];
        for (end = i + 1; end < b->count && b->by_key[end].first == same->first; end++) {
            uint32_t rank = b->rank[b->by_key[end].id];
            if (compare_bytes(k->bytes + k->start[same->id], k->length[same->id], k->bytes + k->start[rank],
                              k->length[rank]) != 0)
                break;
            b->by_key[end].id = rank;
        }
        if (end - i > 1) {
            for (size_t j = i; j < end; j++)
                b->by_key[j].first = b->by_key[j].id;
            sort_items(b, same, b->spare, end - i, NULL);
            for (size_t j = i; j < end; j++)
                b->by_key[j].first =
                    key_head(k->bytes + k->start[b->by_key[j].id], k->length[b->by_key[j].id]);
        }
    }
    sweep(b, b->by_key);
    return write_nodes(b, MRN_SECTION_KEYS);
}

static int make_room(builder *b, size_t nodes);

static int write_numbers(output *o, unsigned id, const uint64_t *values, size_t count) {
    size_t groups = (count + MRN_NUMBER_GROUP - 1) / MRN_NUMBER_GROUP, start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups; g++) {
        const uint64_t *group = values + g * MRN_NUMBER_GROUP;
        size_t here =
            count - g * MRN_NUMBER_GROUP < MRN_NUMBER_GROUP ? count - g * MRN_NUMBER_GROUP : MRN_NUMBER_GROUP;
        uint64_t low = group[0] < group[here - 1] ? group[0] : group[here - 1],
                 high = group[0] < group[here - 1] ? group[here - 1] : group[0];
        unsigned bits = bit_length(high - low);
        bits = bits > 57 ? 64 : bits;
        if (!o->failed)
            put(o->bytes + start + 4 * g, o->used - start, 4);
        append_number(o, low, 8);
        append_number(o, bits, 1);
        uint64_t pending = 0;
        unsigned filled = 0;
        for (size_t i = 0; i < here; i++) {
            if (bits == 64) {
                append_number(o, group[i] - low, 8);
                continue;
            }
            pending |= (group[i] - low) << filled;
            for (filled += bits; filled >= 8; filled -= 8, pending >>= 8)
                append_number(o, pending & 0xff, 1);
        }
        if (filled > 0)
            append_number(o, pending, 1);
    }
    return close_section(o, start, id, (uint32_t)count);
}

/* The trie of the keys from each further word on, and whose they are. */
static int write_words(builder *b) {
    enum { STARTS = MRN_WORDS_MAX + 1 };
    uint8_t key[MRN_KEY_MAX];
    uint16_t starts[STARTS];
    int camel = b->in->flags & MRN_INDEX_CAMEL ? 1 : 0;
    keys words = {b->arena, 0, NULL, NULL};
    uint64_t *entries = NULL;
    int status = MRN_OK;
    for (int counting = 1; counting >= 0; counting--) {
        size_t count = 0;
        for (size_t r = 0; r < b->count; r++) {
            uint32_t entry = b->by_rank[r].id;
            size_t text_bytes, found, key_bytes = b->key_bytes[entry];
            const uint8_t *text = entry_text(b, entry, &text_bytes);
            fold_words(text, text_bytes, camel, key, sizeof key, starts, &found);
            for (size_t i = 0; i < found; i++) {
                size_t start = starts[i], length = key_bytes - start;
                if (start == 0 || start >= key_bytes)
                    continue;
                if (!counting) {
                    if (length > MRN_WORD_KEY_MAX)
                        for (length = MRN_WORD_KEY_MAX; (key[start + length] & 0xc0) == 0x80;)
                            length--;
                    words.start[count] = b->key_start[entry] + start;
                    words.length[count] = (uint16_t)length;
                    entries[count] = r;
                }
                count++;
            }
        }
        if (!counting || count >= NONE) {
            status = counting ? MRN_E_TOO_LARGE : MRN_OK;
            break;
        }
        words.count = count;
        words.start = calloc(count + 1, sizeof *words.start);
        words.length = calloc(count + 1, sizeof *words.length);
        entries = calloc(count + 1, sizeof *entries);
        if (words.start == NULL || words.length == NULL || entries == NULL) {
            status = MRN_E_NO_MEMORY;
            break;
        }
    }
    if (status == MRN_OK)
        status = make_room(b, words.count);
    if (status == MRN_OK) {
        free(b->keys.start);
        free(b->keys.length);
        b->keys = words;
        words = (keys){0};
        item *sorted = calloc(b->keys.count + 1, sizeof *sorted);
        status = sorted == NULL ? MRN_E_NO_MEMORY : MRN_OK;
        if (status == MRN_OK) {
            for (size_t i = 0; i < b->keys.count; i++)
                sorted[i] = (item){key_head(b->arena + b->keys.start[i], b->keys.length[i]), (uint32_t)i};
            sort_items(b, sorted, b->spare, b->keys.count, by_node_tie);
            sweep(b, sorted);
            status = write_nodes(b, MRN_SECTION_WORDS);
        }
        free(sorted);
    }
    if (status == MRN_OK)
        status = write_numbers(&b->out, MRN_SECTION_WORD_ENTRIES, entries, b->keys.count);
    if (status == MRN_OK && b->in->tag_count > 0)
        for (size_t i = 0; i < b->keys.count; i++)
            b->masks[i] = b->in->contexts == NULL ? 0 : b->in->contexts[b->by_rank[entries[i]].id];
    free(words.start);
    free(words.length);
    free(entries);
    return status;
}

/* ---- 5. Scores, texts, payloads, contexts ------------------------------------------------------------- */

static int write_scores(builder *b) {
    output *o = &b->out;
    size_t classes = 0, start = open_section(o);
    uint64_t *values = malloc((b->count + 1) * sizeof *values);
    if (values == NULL)
        return MRN_E_NO_MEMORY;
    int whole = !(b->in->flags & MRN_INDEX_FLOAT);
    uint64_t bits = 0, last = 0;
    uint32_t tie = 0, before = 0;
    for (size_t r = 0; r <= b->count; r++) {
        if (r % 64 == 0 || r == b->count) { /* a block ends */
            if (r > 0) {
                append_number(o, bits, 8);
                append_number(o, tie, 4);
                append_number(o, before, 4);
                if (bits != 0)
                    tie = (uint32_t)((r - 1) / 64 * 64 + bit_length(bits) - 1);
                before = (uint32_t)classes;
                bits = 0;
            }
            if (r == b->count)
                break;
        }
        double score = given_score(b, b->by_rank[r].id);
        uint64_t value = (uint64_t)score;
        if (!whole)
            memcpy(&value, &score, sizeof value);
        if (r == 0 || value != last) {
            bits |= (uint64_t)1 << (r % 64);
            values[classes++] = last = value;
        }
    }
    int status = close_section(o, start, MRN_SECTION_TIES, (uint32_t)b->count);
    if (status == MRN_OK)
        status = write_numbers(o, MRN_SECTION_SCORES, values, classes);
    free(values);
    return status;
}

/* Whether the text of an entry has to be stored. With words always: it tells where they are. */
static int text_is_stored(const builder *b, uint32_t entry) {
    size_t bytes;
    const uint8_t *text = entry_text(b, entry, &bytes);
    return b->in->flags & MRN_INDEX_WORDS ||
           compare_bytes(text, bytes, b->arena + b->key_start[entry], b->key_bytes[entry]) != 0;
}

static int write_blobs(builder *b, unsigned id) {
    size_t groups = (b->count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    output *o = &b->out;
    int any = 0;
    for (size_t r = 0; r < b->count && !any; r++) {
        uint32_t entry = b->by_rank[r].id;
        size_t bytes = 0;
        if (id == MRN_SECTION_PAYLOADS)
            part(b->in->payloads, b->in->payload_ends, entry, &bytes);
        any = id == MRN_SECTION_PAYLOADS ? bytes > 0 : text_is_stored(b, entry);
    }
    if (!any)
        return MRN_OK;
    size_t start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups && !o->failed; g++) {
        put(o->bytes + start + 4 * g, o->used - start, 4);
        size_t lengths = o->used;
        append_zeros(o, MRN_NODE_GROUP);
        for (size_t i = 0; i < MRN_NODE_GROUP && g * MRN_NODE_GROUP + i < b->count; i++) {
            uint32_t entry = b->by_rank[g * MRN_NODE_GROUP + i].id;
            size_t bytes;
            const uint8_t *blob;
            if (id == MRN_SECTION_PAYLOADS) {
                blob = part(b->in->payloads, b->in->payload_ends, entry, &bytes);
            } else {
                blob = entry_text(b, entry, &bytes);
                bytes = text_is_stored(b, entry) ? bytes : 0;
            }
            if (bytes >= BLOB_LONG)
                append_number(o, bytes, 4);
            append(o, blob, bytes);
            if (!o->failed)
                o->bytes[lengths + i] = (uint8_t)(bytes < BLOB_LONG ? bytes : BLOB_LONG);
        }
    }
    return close_section(o, start, id, (uint32_t)b->count);
}

static int write_tags(builder *b) {
    output *o = &b->out;
    size_t start = open_section(o);
    for (size_t t = 0; t < b->in->tag_count; t++) {
        size_t bytes;
        const uint8_t *tag = part(b->in->tags, b->in->tag_ends, t, &bytes);
        append_number(o, bytes, 1);
        append(o, tag, bytes);
    }
    return close_section(o, start, MRN_SECTION_TAGS, (uint32_t)b->in->tag_count);
}

static int write_masks(builder *b, unsigned id, size_t count) {
    output *o = &b->out;
    unsigned width = mask_bytes((uint32_t)b->in->tag_count);
    size_t start = open_section(o);
    for (size_t i = 0; i < count; i++)
        append_number(o, b->masks[i], width);
    return close_section(o, start, id, (uint32_t)count);
}

/* Add to the contexts of each node those of the nodes below it. */
static void spread_masks(builder *b) {
    for (size_t i = b->keys.count; i-- > 1;)
        b->masks[b->parent[i]] |= b->masks[i];
}

static int write_sections(builder *b) {
    int words = b->in->flags & MRN_INDEX_WORDS ? 1 : 0, tags = b->in->tag_count > 0;
    uint64_t *key_masks = NULL, *word_masks = NULL;
    size_t word_count = 0;
    int status = write_keys(b);
    if (tags && status == MRN_OK) {
        for (size_t r = 0; r < b->count; r++)
            b->masks[r] = b->in->contexts == NULL ? 0 : b->in->contexts[b->by_rank[r].id];
        spread_masks(b);
        key_masks = malloc((b->count + 1) * sizeof *key_masks);
        if (key_masks == NULL)
            return MRN_E_NO_MEMORY;
        memcpy(key_masks, b->masks, b->count * sizeof *key_masks);
    }
    if (words && status == MRN_OK) {
        status = write_words(b);
        word_count = b->keys.count;
        if (tags && status == MRN_OK) {
            spread_masks(b);
            word_masks = malloc((word_count + 1) * sizeof *word_masks);
            if (word_masks != NULL)
                memcpy(word_masks, b->masks, word_count * sizeof *word_masks);
            else
                status = MRN_E_NO_MEMORY;
        }
    }
    if (status == MRN_OK)
        status = write_scores(b);
    if (status == MRN_OK)
        status = write_blobs(b, MRN_SECTION_TEXTS);
    if (status == MRN_OK)
        status = write_blobs(b, MRN_SECTION_PAYLOADS);
    if (tags && status == MRN_OK) {
        status = write_tags(b);
        for (size_t r = 0; r < b->count; r++)
            b->masks[r] = b->in->contexts == NULL ? 0 : b->in->contexts[b->by_rank[r].id];
        if (status == MRN_OK)
            status = write_masks(b, MRN_SECTION_MASKS, b->count);
        if (status == MRN_OK) {
            memcpy(b->masks, key_masks, b->count * sizeof *key_masks);
            status = write_masks(b, MRN_SECTION_KEY_MASKS, b->count);
        }
        if (status == MRN_OK && words) {
            memcpy(b->masks, word_masks, word_count * sizeof *word_masks);
            status = write_masks(b, MRN_SECTION_WORD_MASKS, word_count);
        }
    }
    free(key_masks);
    free(word_masks);
    return status;
}

static int write_file(builder *b, char **file, size_t *file_bytes) {
    output *o = &b->out;
    uint32_t flags = b->in->flags, sections = 3 + (flags & MRN_INDEX_WORDS ? 2 : 0);
    int texts = 0, payloads = 0;
    for (size_t r = 0; r < b->count; r++) {
        size_t bytes;
        part(b->in->payloads, b->in->payload_ends, b->by_rank[r].id, &bytes);
        payloads |= bytes > 0;
        texts = texts || text_is_stored(b, b->by_rank[r].id);
    }
    sections += (uint32_t)(texts + payloads);
    if (b->in->tag_count > 0)
        sections += flags & MRN_INDEX_WORDS ? 4 : 3;
    size_t header_bytes = MRN_HEADER_BYTES + (size_t)sections * MRN_SECTION_BYTES;
    append_zeros(o, header_bytes);
    int status = write_sections(b);
    if (status != MRN_OK)
        return status;
    uint8_t *out = o->bytes;
    memcpy(out + MRN_HEADER_MAGIC, index_magic, sizeof index_magic);
    put(out + MRN_HEADER_VERSION, MRN_INDEX_VERSION, 4);
    put(out + MRN_HEADER_FOLD_VERSION, MRN_FOLD_VERSION, 4);
    put(out + MRN_HEADER_FILE_BYTES, o->used, 8);
    put(out + MRN_HEADER_ENTRIES, b->count, 8);
    put(out + MRN_HEADER_SECTIONS, o->sections, 4);
    put(out + MRN_HEADER_FLAGS, flags, 4);
    put(out + MRN_HEADER_CHECKSUM, crc32c(0, out, header_bytes), 4);
    *file = (char *)out;
    *file_bytes = o->used;
    o->bytes = NULL;
    return MRN_OK;
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

static int check_ends(const uint64_t *ends, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (ends[i] < ends[i - 1])
            return 0;
    return 1;
}

/* Whether the names of the contexts can be stored. */
static int check_tags(const mrn_entries *in) {
    if (in->tag_count == 0)
        return 1;
    if (in->tag_count > MRN_TAGS_MAX || in->tags == NULL || in->tag_ends == NULL ||
        !check_ends(in->tag_ends, in->tag_count))
        return 0;
    for (size_t t = 0; t < in->tag_count; t++) {
        size_t bytes, other_bytes;
        const uint8_t *tag = part(in->tags, in->tag_ends, t, &bytes);
        if (bytes == 0 || bytes > MRN_TAG_MAX || text_points(tag, bytes) == SIZE_MAX)
            return 0;
        for (size_t u = 0; u < t; u++) {
            const uint8_t *other = part(in->tags, in->tag_ends, u, &other_bytes);
            if (compare_bytes(tag, bytes, other, other_bytes) == 0)
                return 0;
        }
    }
    return 1;
}

static int make_room(builder *b, size_t nodes) {
    if (nodes < b->room)
        return MRN_OK;
    void **arrays[] = {(void **)&b->spare,      (void **)&b->parent,   (void **)&b->first_child,
                       (void **)&b->next_child, (void **)&b->branches, (void **)&b->depth,
                       (void **)&b->stack,      (void **)&b->masks};
    const size_t sizes[] = {sizeof *b->spare,       sizeof *b->parent,
                            sizeof *b->first_child, sizeof *b->next_child,
                            sizeof *b->branches,    sizeof *b->depth,
                            sizeof *b->stack,       b->in->tag_count > 0 ? sizeof *b->masks : 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        free(*arrays[i]);
        *arrays[i] = malloc((nodes + 1) * sizes[i] + 1);
        if (*arrays[i] == NULL)
            return MRN_E_NO_MEMORY;
    }
    b->room = nodes + 1;
    return MRN_OK;
}

static int allocate(builder *b, size_t n) {
    size_t texts = b->in->count == 0 ? 0 : (size_t)b->in->text_ends[b->in->count - 1];
    b->arena_room = texts + 2 * MRN_KEY_MAX; /* folding rarely makes a text longer */
    b->arena = malloc(b->arena_room);
    b->key_start = malloc((n + 1) * sizeof *b->key_start);
    b->key_bytes = malloc((n + 1) * sizeof *b->key_bytes);
    b->points = malloc((n + 1) * sizeof *b->points);
    b->rank = malloc((n + 1) * sizeof *b->rank);
    b->by_key = malloc((n + 1) * sizeof *b->by_key);
    b->by_rank = malloc((n + 1) * sizeof *b->by_rank);
    b->keys.start = malloc((n + 1) * sizeof *b->keys.start);
    b->keys.length = malloc((n + 1) * sizeof *b->keys.length);
    return b->arena && b->key_start && b->key_bytes && b->points && b->rank && b->by_key && b->by_rank &&
           b->keys.start && b->keys.length && make_room(b, n) == MRN_OK;
}

static void release(builder *b) {
    void *blocks[] = {b->arena,      b->key_start,  b->key_bytes,   b->points, b->rank,   b->by_key,
                      b->by_rank,    b->keys.start, b->keys.length, b->spare,  b->parent, b->first_child,
                      b->next_child, b->branches,   b->depth,       b->stack,  b->masks,  b->out.bytes};
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
    if (!check_tags(entries) || entries->flags & ~(uint32_t)(MRN_INDEX_WORDS | MRN_INDEX_CAMEL) ||
        entries->flags == MRN_INDEX_CAMEL)
        return MRN_E_ARGUMENT;
    if (n >= NONE)
        return MRN_E_TOO_LARGE;
    mrn_entries in = *entries;
    builder b = {.in = &in};
    int status = allocate(&b, n) ? fold_entries(&b, verdicts) : MRN_E_NO_MEMORY;
    if (status == MRN_OK) {
        sort_entries(&b, verdicts);
        for (size_t i = 0; i < b.count; i++)
            if (!score_is_integer(given_score(&b, b.by_rank[i].id)))
                in.flags |= MRN_INDEX_FLOAT;
        status = write_file(&b, file, file_bytes);
    }
    release(&b);
    return status;
}

void mrn_free(void *memory) {
    free(memory);
}
