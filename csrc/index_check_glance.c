/* Checking a group of 16 nodes of a trie at a glance: whether all is right with it, when it is what nearly
 * all groups are. Of one that is odd in any way nothing is said, and index_check_trie.c looks closer.
 *
 * An open is as fast as this is. What takes time is what the processor does not foresee, and what is done for
 * each branch: so the leaves between two nodes with branches are looked at together, as one run of text; what
 * a node with branches says of itself is looked up by its first byte; and what can wait until all has been
 * done for the group is decided then, once. */

#include "index_check.h"

/* 16 bytes side by side. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef int8_t lanes __attribute__((vector_size(16)));
typedef uint8_t bytes8 __attribute__((vector_size(8)));
typedef uint16_t words8 __attribute__((vector_size(16)));

/* Of the window at FILLED - n, the first n bytes are 0 and the others, up to 32, are not. */
enum { FILLED = 32 };
/* clang-format off */
static const uint8_t fill[2 * FILLED] = {
    [FILLED] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};
/* clang-format on */

enum {
    STEP_ODD = 0x8000, /* of a byte that is no branch of ASCII */
    DEPTH_COMMON = 512 /* a path of up to so many bytes leaves room for any suffix that is looked at here */
};

void glance_prepare(const trie *t, trie_scratch *s) {
    for (unsigned first = 0; first < 256; first++) {
        const unsigned suffix_bytes = first & 15, branches = (first >> 4) + 1;
        const unsigned position_bits = bit_length(suffix_bytes), branch_bits = position_bits + t->rank_bits;
        const size_t bytes = 1 + suffix_bytes + branches + packed_bytes(branches, branch_bits);
        s->heads[first] = (near_head){.kind = bytes <= MRN_NODE_BYTES ? (uint8_t)(MRN_NODE_BRANCHES | bytes)
                                                                      : 0, /* of no such node */
                                      .suffix_bytes = (uint8_t)suffix_bytes,
                                      .branches = (uint8_t)branches,
                                      .position_bits = (uint8_t)position_bits,
                                      .position_mask = (uint8_t)((1U << position_bits) - 1),
                                      .branch_bits = (uint8_t)branch_bits};
        s->steps[first] = first == 0 ? STATE_ENDED : first >= 0x20 && first < 0x7f ? 1 : STEP_ODD;
    }
    memset(s->ways, 0xff, sizeof s->ways);
}

ALWAYS_INLINE lanes load_lanes(const uint8_t *at) {
    lanes some;
    memcpy(&some, at, sizeof some);
    return some;
}

/* Where bytes are ASCII without control characters, or do not count. */
ALWAYS_INLINE lanes plain(lanes some, lanes filled) {
    return ((lanes)((bytes16)some + 1) > 0x20) | filled;
}

/* The same of a run of them: those behind it, up to 32, which are read too, do not count. */
ALWAYS_INLINE lanes plain_short(const uint8_t *at, size_t bytes) {
    const uint8_t *filled = fill + FILLED - bytes;
    return plain(load_lanes(at), load_lanes(filled)) & plain(load_lanes(at + 16), load_lanes(filled + 16));
}

static __attribute__((noinline)) lanes plain_long(const uint8_t *at, size_t bytes) {
    const lanes none = {0};
    lanes fine = ~none;
    for (; bytes > FILLED; at += 16, bytes -= 16)
        fine &= plain(load_lanes(at), none);
    return fine & plain_short(at, bytes);
}

ALWAYS_INLINE lanes plain_run(const uint8_t *at, size_t bytes) {
    return bytes <= FILLED ? plain_short(at, bytes) : plain_long(at, bytes);
}

ALWAYS_INLINE int all_set(lanes some) {
    uint64_t halves[2];
    memcpy(halves, &some, sizeof halves);
    return (halves[0] & halves[1]) == ~UINT64_C(0);
}

/* Copy up to 16 bytes of a suffix to where branches look for it, with 0xff behind them, which no branch that
 * is plain goes to; where they are plain. */
ALWAYS_INLINE lanes copy_suffix(uint8_t *to, const uint8_t *suffix, size_t bytes) {
    const lanes filled = load_lanes(fill + FILLED - bytes), some = load_lanes(suffix) | filled;
    memcpy(to, &some, sizeof some);
    return plain(some, filled);
}

/* The nodes of a group that are more than a suffix in it: a bit each. */
ALWAYS_INLINE unsigned not_leaves(const uint8_t *kinds) {
    unsigned found = 0;
    for (unsigned half = 0; half < 2; half++) {
        const uint64_t some = load64(kinds + 8 * half);
        const uint64_t high = (some | some << 1) & UINT64_C(0x8080808080808080); /* branches, or far */
        found |= (unsigned)(high * UINT64_C(0x0002040810204081) >> 56) << 8 * half;
    }
    return found;
}

ALWAYS_INLINE uint32_t all_ranks(const trie *t) {
    return (uint32_t)((UINT64_C(1) << t->rank_bits) - 1);
}

/* Check the branches of node `rank`, whose suffix was copied, and write the states of the nodes behind them,
 * as check_branches does: in order, none that is not above its parent. Of each way to leave a node it is
 * known which one was left so last (16 bits of its number, so that a node may seem to be left twice in one
 * way). Returns STEP_ODD, among other bits, if something is odd. */
ALWAYS_INLINE unsigned fit_branches(const trie *t, const uint8_t *bytes, size_t count, size_t suffix_bytes,
                                    unsigned position_bits, size_t position_mask, size_t branch_bits,
                                    uint32_t rank_mask, uint32_t rank, trie_scratch *s) {
    const uint8_t *const packed = bytes + count;
    const uint32_t nodes = t->nodes;
    const uint16_t mark = (uint16_t)rank;
    const unsigned depth = s->states[rank];
    uint32_t before = rank;
    size_t bit = 0;
    unsigned odd = 0;
    do {
        const uint64_t both = load64(packed + bit / 8) >> (bit % 8);
        const size_t position = both & position_mask;
        const uint32_t to = (uint32_t)(both >> position_bits) & rank_mask;
        if (to >= nodes)
            return STEP_ODD;
        bit += branch_bits;
        if (to <= before)
            return STEP_ODD;
        before = to;
        const size_t byte = *bytes++;
        const unsigned step = s->steps[byte];
        odd |= step;
        s->states[to] = (uint16_t)(step + depth + position);
        if (position > suffix_bytes)
            return STEP_ODD;
        uint16_t *way = &s->ways[position * 256 + byte];
        if (*way == mark)
            return STEP_ODD;
        *way = mark;
        if (s->suffix[position] == byte)
            return STEP_ODD;
    } while (bytes != packed);
    return odd;
}

/* The same of a whole far node with branches and a suffix that is not too long, whose place is at `at`.
 * Returns where it ends, or NULL. Apart, so that it takes no register from those that are near. */
static __attribute__((noinline)) const uint8_t *far_fits(const trie *t, unsigned kind, const uint8_t *at,
                                                         const uint8_t *far, const uint8_t *end,
                                                         uint32_t rank, trie_scratch *s, uint64_t *branches) {
    trie_node n;
    if (kind != (MRN_NODE_FAR | MRN_NODE_BRANCHES | 4) || load32(at) != (size_t)(far - t->base))
        return NULL;
    far = read_far(t, kind, far, end, &n);
    if (far == NULL || n.suffix_bytes >= WAY_POSITIONS)
        return NULL;
    const lanes none = {0};
    lanes fine = ~none;
    for (size_t i = 0; i <= n.suffix_bytes; i += 16)
        fine &= copy_suffix(s->suffix + i, n.suffix + i, n.suffix_bytes - i < 16 ? n.suffix_bytes - i : 16);
    if (!all_set(fine) ||
        fit_branches(t, n.bytes, n.branches, n.suffix_bytes, n.position_bits,
                     ((size_t)1 << n.position_bits) - 1, n.branch_bits, all_ranks(t), rank, s) &
            STEP_ODD)
        return NULL;
    *branches += n.branches;
    return far;
}

/* Whether the nodes of a group may be where their paths stand: keys are not empty, and as short as nearly all
 * are, so that no node makes one too long; behind the end of a key there is nothing. */
ALWAYS_INLINE int states_fit(const uint16_t *states, const uint8_t *kinds) {
    const words8 none = {0};
    words8 odd = none;
    for (unsigned half = 0; half < MRN_NODE_GROUP; half += 8) {
        words8 state;
        bytes8 kind;
        memcpy(&state, states + half, sizeof state);
        memcpy(&kind, kinds + half, sizeof kind);
        const words8 ended = (words8)((state & STATE_ENDED) != none);
        odd |= (((state & (uint16_t)~STATE_ENDED) - 1) & (uint16_t)~(DEPTH_COMMON - 1)) |
               (__builtin_convertvector(kind, words8) & ended);
    }
    return all_set((lanes)(odd == none));
}

const uint8_t *glance_group(const trie *t, const uint8_t *kinds, uint32_t first, const uint8_t *far,
                            const uint8_t *end, trie_scratch *s, uint64_t *branches) {
    const uint8_t *const nodes = kinds + MRN_NODE_GROUP, *leaves = nodes;
    const uint32_t rank_mask = all_ranks(t);
    uint64_t found = 0;
    unsigned odd = 0;
    const lanes none = {0};
    lanes fine = ~none;
    for (unsigned todo = not_leaves(kinds); todo != 0; todo &= todo - 1) {
        const unsigned i = (unsigned)__builtin_ctz(todo), kind = kinds[i];
        const uint8_t *at = nodes + sum_lengths(kinds, i);
        fine &= plain_run(leaves, (size_t)(at - leaves));
        leaves = at + (kind & MRN_NODE_BYTES);
        const near_head *head = &s->heads[*at++];
        if (head->kind != kind) { /* else the parts of a near node fill it, and may be read */
            far = far_fits(t, kind, at - 1, far, end, first + i, s, &found);
            if (far == NULL)
                return NULL;
            continue;
        }
        fine &= copy_suffix(s->suffix, at, head->suffix_bytes);
        odd |=
            fit_branches(t, at + head->suffix_bytes, head->branches, head->suffix_bytes, head->position_bits,
                         head->position_mask, head->branch_bits, rank_mask, first + i, s);
        found += head->branches;
    }
    fine &=
        plain_run(leaves, (size_t)(nodes + sum_lengths(kinds, 15) + (kinds[15] & MRN_NODE_BYTES) - leaves));
    if (odd & STEP_ODD || !states_fit(s->states + first, kinds) || !all_set(fine))
        return NULL;
    *branches += found;
    return far;
}
