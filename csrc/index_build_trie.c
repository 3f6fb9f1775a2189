/* The tries of an index, in two steps: sweep the sorted keys with a stack, so that each node gets its parent
 * and the place where it parts from it; then write the nodes in rank order, each with its children beside
 * each other.
 *
 * The sorted keys form a trie whose inner nodes are the lengths at which neighbours part. A subtree is stood
 * for by its best rank. When all children of an inner node are known, the best of them goes on as the node,
 * and the others become its branches at that depth. */

#include "index_build.h"

#include <stdlib.h>

/* Nothing is read of a key when it becomes a branch: what it will need was noted when its neighbour was met.
 */
typedef struct open_subtree {
    uint32_t best;
    int32_t shared;     /* bytes shared with the key to its left; -1 for the first */
    uint8_t byte, left; /* its next byte after them, and that of the key to its left; 0 where that ended */
} open_subtree;

/* Where a node parts from its parent: depth in the key, and the byte there. */
typedef struct parting {
    uint16_t depth;
    uint8_t byte;
} parting;

/* A branch in rank order below its parent. */
typedef struct child {
    uint32_t rank;
    uint16_t depth;
    uint8_t byte;
} child;

typedef struct tree {
    const keys *k;
    uint32_t *parent;
    parting *at; /* of each node */
    open_subtree *stack;
    uint32_t *starts; /* (count + 1): where the children of each node begin */
    child *children;
} tree;

static void attach(tree *t, uint32_t node, uint32_t parent, size_t depth, uint8_t byte) {
    t->parent[node] = parent;
    t->at[node] = (parting){(uint16_t)depth, byte};
}

/* Close inner nodes until the top of the stack shares at most `shared` bytes with its left neighbour. */
static void close_nodes(tree *t, size_t *top, int32_t shared) {
    open_subtree *stack = t->stack;
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
                attach(t, stack[i].best, best, (size_t)depth, i == first ? stack[i + 1].left : stack[i].byte);
        stack[first].best = best;
        *top = first + 1;
    }
}

/* How many bytes two keys share. */
static size_t common_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    size_t least = a_bytes < b_bytes ? a_bytes : b_bytes;
    for (size_t at = 0; at < least; at += 8) {
        uint64_t differ = load64(a + at) ^ load64(b + at);
        if (differ != 0) {
            at += (size_t)__builtin_ctzll(differ) / 8;
            return at < least ? at : least;
        }
    }
    return least;
}

/* Find the parent of each node; `sorted` has the nodes by key. */
static void sweep(tree *t, const sorter *s, item *sorted) {
    enum { AHEAD = 12 };
    const keys *k = t->k;
    size_t top = 0, last_bytes = 0;
    const uint8_t *last = NULL;
    for (size_t from = 0, to; from < k->count; from = to) {
        if (from + AHEAD < k->count)
            __builtin_prefetch(k->bytes + k->start[sorted[from + AHEAD].id]);
        const uint8_t *key = k->bytes + k->start[sorted[from].id];
        size_t bytes = k->length[sorted[from].id];
        for (to = from + 1; to < k->count && sorted[to].first == sorted[from].first; to++) {
            uint32_t other = sorted[to].id;
            if (compare_bytes(key, bytes, k->bytes + k->start[other], k->length[other]) != 0)
                break;
        }
        if (to - from > 1) { /* equal keys hang below each other, best first */
            for (size_t i = from; i < to; i++)
                sorted[i].first = sorted[i].id;
            sort_items(s, sorted + from, to - from);
            for (size_t i = from + 1; i < to; i++)
                attach(t, sorted[i].id, sorted[i - 1].id, bytes, 0);
        }
        open_subtree here = {.best = sorted[from].id, .shared = -1};
        if (from > 0) {
            size_t shared = common_bytes(key, bytes, last, last_bytes);
            here.shared = (int32_t)shared;
            here.byte = shared < bytes ? key[shared] : 0;
            here.left = shared < last_bytes ? last[shared] : 0;
            close_nodes(t, &top, here.shared);
        }
        t->stack[top++] = here;
        last = key;
        last_bytes = bytes;
    }
    if (top > 0)
        close_nodes(t, &top, -1);
}

/* Put the children of each node beside each other, best first. */
static void gather(tree *t) {
    size_t count = t->k->count;
    memset(t->starts, 0, (count + 1) * sizeof *t->starts);
    for (size_t r = 1; r < count; r++)
        t->starts[t->parent[r]]++;
    uint32_t sum = 0;
    for (size_t r = 0; r <= count; r++) { /* for now, where the children of the node before begin */
        uint32_t here = t->starts[r];
        t->starts[r] = sum;
        sum += here;
    }
    for (size_t r = 1; r < count; r++)
        t->children[t->starts[t->parent[r]]++] = (child){(uint32_t)r, t->at[r].depth, t->at[r].byte};
    memmove(t->starts + 1, t->starts, count * sizeof *t->starts);
    t->starts[0] = 0;
}

/* Where the suffix of a node begins in its key. */
static size_t suffix_start(const tree *t, uint32_t rank) {
    size_t bytes = t->k->length[rank];
    if (rank == 0)
        return 0;
    return t->at[rank].depth < bytes ? (size_t)t->at[rank].depth + 1 : bytes;
}

/* Write a node's branches: their bytes, then positions and ranks side by side in bits. */
static uint8_t *put_branches(const tree *t, uint8_t *at, const child *children, size_t count, size_t start,
                             unsigned position_bits) {
    unsigned bits = position_bits + rank_bits((uint32_t)t->k->count), filled = 0;
    uint64_t pending = 0;
    uint8_t *packed = at + count;
    for (size_t i = 0; i < count; i++) {
        *at++ = children[i].byte;
        pending |= ((uint64_t)(children[i].depth - start) | (uint64_t)children[i].rank << position_bits)
                   << filled;
        for (filled += bits; filled >= 8; filled -= 8, pending >>= 8)
            *packed++ = (uint8_t)pending;
    }
    if (filled > 0)
        *packed++ = (uint8_t)pending;
    return packed;
}

/* Write one node; returns its length byte, or -1 when there is no memory. */
static int write_node(const tree *t, output *o, uint32_t rank, output *far) {
    const keys *k = t->k;
    const child *children = t->children + t->starts[rank];
    size_t start = suffix_start(t, rank), suffix_bytes = k->length[rank] - start,
           count = t->starts[rank + 1] - t->starts[rank];
    const uint8_t *suffix = k->bytes + k->start[rank] + start;
    unsigned position_bits = bit_length(suffix_bytes);
    size_t branches = count + packed_bytes(count, position_bits + rank_bits((uint32_t)k->count));
    size_t near = suffix_bytes + (count > 0 ? 1 + branches : 0);
    int is_near = near <= MRN_NODE_BYTES && (count == 0 || (count <= 16 && suffix_bytes <= 15));
    output *to = is_near ? o : far;
    size_t from = to->used;
    uint8_t *at = reserve(to, 6 + suffix_bytes + branches);
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
        at = put_branches(t, at, children, count, start, position_bits);
    to->used = (size_t)(at - to->bytes);
    int branching = count > 0 ? MRN_NODE_BRANCHES : 0;
    if (is_near)
        return (int)near | branching;
    append_number(o, from, 4); /* in the far part, for now */
    return 4 | MRN_NODE_FAR | branching;
}

static int write_nodes(const tree *t, output *o, unsigned id) {
    size_t count = t->k->count, groups = (count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    output far = {0};
    size_t start = open_section(o);
    append_zeros(o, 4 * groups);
    for (size_t g = 0; g < groups && !o->failed && !far.failed; g++) {
        put(o->bytes + start + 4 * g, o->used - start, 4);
        size_t lengths = o->used;
        append_zeros(o, MRN_NODE_GROUP);
        for (size_t i = 0; i < MRN_NODE_GROUP && g * MRN_NODE_GROUP + i < count; i++) {
            int length = write_node(t, o, (uint32_t)(g * MRN_NODE_GROUP + i), &far);
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

int write_trie(output *o, const sorter *s, const keys *k, item *sorted, unsigned id, uint32_t *parent) {
    tree t = {.k = k,
              .parent = parent,
              .at = malloc((k->count + 1) * sizeof *t.at),
              .stack = malloc(((k->count < BRANCHES_MAX ? k->count : BRANCHES_MAX) + 2) * sizeof *t.stack)};
    int status = t.at != NULL && t.stack != NULL ? MRN_OK : MRN_E_NO_MEMORY;
    if (status == MRN_OK)
        sweep(&t, s, sorted);
    free(t.stack);
    t.starts = malloc((k->count + 2) * sizeof *t.starts);
    t.children = malloc((k->count + 1) * sizeof *t.children);
    if (t.starts == NULL || t.children == NULL)
        status = MRN_E_NO_MEMORY;
    if (status == MRN_OK) {
        gather(&t);
        status = write_nodes(&t, o, id);
    }
    free(t.at);
    free(t.starts);
    free(t.children);
    return status;
}
