/* Reading the sections of a segment that has been checked. docs/format.md draws them.
 *
 *   trie     groups of 16 nodes: 16 bytes that say how long each is, then the nodes. A leaf is its suffix and
 *            nothing else; so the rank of a node is enough to find it, and nodes are as short as can be.
 *   numbers  groups of 64: the least, a width in bits, and what each one is above the least.
 *   blobs    groups of 16: 16 bytes that say how long each is, then the blobs.
 *   ties     64 entries a block: which ones begin a new score, and where things stand before the block.
 */
#ifndef MRN_TRIE_LAYOUT_H
#define MRN_TRIE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "mrn.h"
#include "mrn_format.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static const uint8_t index_magic[8] = {0x89, 'M', 'R', 'X', '\r', '\n', 0x1a, '\n'};

#define SCORE_INTEGER_MAX ((uint64_t)1 << 53) /* up to here every integer is a float64 */

enum {
    BLOB_LONG = 255, /* its length comes before the blob, in 4 bytes */
    TIES_BYTES = 16,
    BRANCHES_MAX = (MRN_KEY_MAX + 1) * 256
};

/* How many bits are set; without the instruction, which not every x86-64 has, the compiler's own is a call.
 */
ALWAYS_INLINE uint32_t count_bits(uint64_t value) {
    value -= value >> 1 & UINT64_C(0x5555555555555555);
    value = (value & UINT64_C(0x3333333333333333)) + (value >> 2 & UINT64_C(0x3333333333333333));
    value = (value + (value >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (uint32_t)(value * UINT64_C(0x0101010101010101) >> 56);
}

ALWAYS_INLINE uint64_t load64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

ALWAYS_INLINE void store64(uint8_t *at, uint64_t value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(at, &value, sizeof value);
}

ALWAYS_INLINE uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

ALWAYS_INLINE unsigned load16(const uint8_t *at) {
    return at[0] | (unsigned)at[1] << 8;
}

/* Copy a few bytes, 16 at a time: up to 16 more are read, and written. `to` may lie right behind `from`. Most
 * pieces of keys take one step, so that the processor foresees the end. */
ALWAYS_INLINE void copy_short(uint8_t *to, const uint8_t *from, size_t bytes) {
    size_t at = 0;
    do {
        uint64_t part[2];
        memcpy(part, from + at, sizeof part);
        memcpy(to + at, part, sizeof part);
        at += sizeof part;
    } while (at < bytes);
}

/* How many of the first bytes are the same in both, `most` at most; up to 7 more are read. */
ALWAYS_INLINE size_t shared_bytes(const uint8_t *a, const uint8_t *b, size_t most) {
    for (size_t at = 0; at < most; at += 8) {
        uint64_t differ = load64(a + at) ^ load64(b + at);
        if (differ != 0) {
            at += (size_t)__builtin_ctzll(differ) / 8;
            return at < most ? at : most;
        }
    }
    return most;
}

/* Which of 16 bytes are this one: a bit each. */
enum { BYTES_AT_ONCE = 16 };
ALWAYS_INLINE unsigned same_bytes(const uint8_t *at, uint8_t byte) {
#if defined(__SSE2__)
    const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)at);
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(some, _mm_set1_epi8((char)byte)));
#else
    unsigned same = 0;
    for (unsigned i = 0; i < BYTES_AT_ONCE; i++)
        same |= (unsigned)(at[i] == byte) << i;
    return same;
#endif
}

/* How many bits a number has; 0 has none. */
ALWAYS_INLINE unsigned bit_length(uint64_t value) {
    return value == 0 ? 0 : 64 - (unsigned)__builtin_clzll(value);
}

/* ---- Tries -------------------------------------------------------------------------------------------- */

typedef struct trie_node {
    const uint8_t *suffix;
    size_t suffix_bytes;
    size_t branches;
    const uint8_t *bytes;  /* (branches) */
    const uint8_t *packed; /* (branches) of position and rank */
    unsigned position_bits, branch_bits;
    uint64_t branch_mask;
} trie_node;

typedef struct trie {
    const uint8_t *base; /* of the section */
    uint32_t nodes;
    unsigned rank_bits;
    trie_node root; /* where each walk begins; of a rooted_trie */
} trie;

ALWAYS_INLINE unsigned rank_bits(uint32_t nodes) {
    return nodes < 2 ? 1 : bit_length(nodes - 1);
}

/* The sum of the first `at` of 16 lengths. */
ALWAYS_INLINE unsigned sum_lengths(const uint8_t *lengths, unsigned at) {
#if defined(__SSE2__)
    static const uint8_t kept[32] = {63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};
    __m128i sums =
        _mm_sad_epu8(_mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)lengths),
                                   _mm_loadu_si128((const __m128i *)(const void *)(kept + 16 - at))),
                     _mm_setzero_si128());
    return (unsigned)(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4));
#else
    const uint64_t bytes = UINT64_C(0x3f3f3f3f3f3f3f3f), pairs = UINT64_C(0x00ff00ff00ff00ff);
    uint64_t low = load64(lengths) & bytes, high = load64(lengths + 8) & bytes;
    low &= at >= 8 ? ~UINT64_C(0) : (UINT64_C(1) << (8 * at)) - 1;
    high &= at > 8 ? (UINT64_C(1) << (8 * (at - 8))) - 1 : 0;
    uint64_t sum = low + high;
    sum = (sum & pairs) + (sum >> 8 & pairs);
    return (unsigned)(sum * UINT64_C(0x0001000100010001) >> 48);
#endif
}

/* Read the node whose length byte is `kind` and whose bytes are at `at`. */
ALWAYS_INLINE void read_node_at(const trie *t, unsigned kind, const uint8_t *at, trie_node *n) {
    n->branches = 0;
    if (!(kind & (MRN_NODE_FAR | MRN_NODE_BRANCHES))) { /* most are leaves */
        n->suffix = n->bytes = n->packed = at;
        n->suffix_bytes = kind;
        n->position_bits = n->branch_bits = 0;
        n->branch_mask = 0;
        return;
    }
    if (kind & MRN_NODE_FAR) {
        at = t->base + load32(at);
        n->suffix_bytes = load16(at);
        at += 2;
        if (kind & MRN_NODE_BRANCHES) {
            n->branches = load32(at);
            at += 4;
        }
        n->position_bits = bit_length(n->suffix_bytes);
    } else {
        static const uint8_t lengths[16] = {0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4};
        n->suffix_bytes = at[0] & 15;
        n->position_bits = lengths[n->suffix_bytes];
        n->branches = (size_t)(at[0] >> 4) + 1;
        at++;
    }
    n->suffix = at;
    n->bytes = at + n->suffix_bytes;
    n->packed = n->bytes + n->branches;
    n->branch_bits = n->position_bits + t->rank_bits;
    n->branch_mask = (UINT64_C(1) << n->branch_bits) - 1;
}

ALWAYS_INLINE void read_node(const trie *t, uint32_t rank, trie_node *n) {
    const uint8_t *group = t->base + load32(t->base + 4 * (size_t)(rank / MRN_NODE_GROUP));
    unsigned at = rank % MRN_NODE_GROUP;
    read_node_at(t, group[at], group + MRN_NODE_GROUP + sum_lengths(group, at), n);
}

ALWAYS_INLINE trie segment_trie(const mrn_index *index, unsigned id) {
    return (trie){.base = (const uint8_t *)index->file + index->place[id],
                  .nodes = index->items[id],
                  .rank_bits = rank_bits(index->items[id])};
}

/* The same of a segment that has been checked, for walks. */
ALWAYS_INLINE trie rooted_trie(const mrn_index *index, unsigned id) {
    trie t = segment_trie(index, id);
    if (t.nodes > 0)
        read_node(&t, 0, &t.root);
    return t;
}

/* Have the bytes of a node near when it is read soon: what its group says of lengths, and where it would lie
 * if all nodes of the group were alike, which misses one line in twelve. */
ALWAYS_INLINE void prefetch_node(const trie *t, uint32_t rank) {
    const uint8_t *places = t->base + 4 * (size_t)(rank / MRN_NODE_GROUP);
    const uint32_t from = load32(places), to = load32(places + 4); /* behind the last place comes a group */
    const uint8_t *group = t->base + from,
                  *likely = group + ((to - from) / MRN_NODE_GROUP) * (size_t)(rank % MRN_NODE_GROUP);
    __builtin_prefetch(group);
    __builtin_prefetch(likely);
    __builtin_prefetch(likely + 48);
}

typedef struct branch {
    size_t position;
    uint32_t rank;
} branch;

ALWAYS_INLINE branch read_branch(const trie_node *n, size_t i) {
    size_t bit = i * n->branch_bits;
    uint64_t both = load64(n->packed + bit / 8) >> (bit % 8) & n->branch_mask;
    return (branch){(size_t)(both & ((UINT64_C(1) << n->position_bits) - 1)),
                    (uint32_t)(both >> n->position_bits)};
}

ALWAYS_INLINE size_t packed_bytes(size_t count, unsigned bits) {
    return (count * bits + 7) / 8;
}

/* ---- Numbers ------------------------------------------------------------------------------------------ */

ALWAYS_INLINE uint64_t read_number(const uint8_t *base, uint32_t i) {
    const uint8_t *group = base + load32(base + 4 * (size_t)(i / MRN_NUMBER_GROUP));
    unsigned bits = group[8];
    size_t bit = (size_t)(i % MRN_NUMBER_GROUP) * bits;
    uint64_t above = load64(group + 9 + bit / 8) >> (bit % 8);
    return load64(group) + (bits == 64 ? above : above & ((UINT64_C(1) << bits) - 1));
}

/* ---- Ties and scores ---------------------------------------------------------------------------------- */

ALWAYS_INLINE const uint8_t *tie_block(const mrn_index *index, uint32_t rank) {
    return (const uint8_t *)index->file + index->place[MRN_SECTION_TIES] + TIES_BYTES * (size_t)(rank / 64);
}

/* The first entry that has the score of this one: how many entries have a higher one. */
ALWAYS_INLINE uint32_t tie_start(const mrn_index *index, uint32_t rank) {
    const uint8_t *block = tie_block(index, rank);
    uint64_t bits = load64(block) & (~UINT64_C(0) >> (63 - rank % 64));
    return bits == 0 ? load32(block + 8) : rank / 64 * 64 + bit_length(bits) - 1;
}

/* The number of an entry's score among the different ones, from 0. */
ALWAYS_INLINE uint32_t tie_class(const mrn_index *index, uint32_t rank) {
    const uint8_t *block = tie_block(index, rank);
    uint64_t bits = load64(block) & (~UINT64_C(0) >> (63 - rank % 64));
    return load32(block + 12) + count_bits(bits) - 1;
}

/* Whether a score >= 0 is an integer that a float64 holds exactly. */
static inline int score_is_integer(double score) {
    return score <= (double)SCORE_INTEGER_MAX && (double)(uint64_t)score == score;
}

/* A score as it is stored: an integer up to SCORE_INTEGER_MAX, or the bits of a float64. */
ALWAYS_INLINE uint64_t class_value(const mrn_index *index, uint32_t number) {
    return read_number((const uint8_t *)index->file + index->place[MRN_SECTION_SCORES], number);
}

ALWAYS_INLINE double class_score(const mrn_index *index, uint32_t number) {
    const uint64_t value = class_value(index, number);
    if (!(index->flags & MRN_INDEX_FLOAT))
        return (double)(int64_t)value; /* signed: one instruction */
    double score;
    memcpy(&score, &value, sizeof score);
    return score;
}

ALWAYS_INLINE double entry_score(const mrn_index *index, uint32_t rank) {
    return class_score(index, tie_class(index, rank));
}

/* ---- Blobs and masks ---------------------------------------------------------------------------------- */

/* The blob of an entry; its length is 0 where there is none. */
static inline const uint8_t *read_blob(const mrn_index *index, unsigned id, uint32_t rank, size_t *bytes) {
    *bytes = 0;
    if (index->items[id] == 0)
        return NULL;
    const uint8_t *base = (const uint8_t *)index->file + index->place[id];
    const uint8_t *lengths = base + load32(base + 4 * (size_t)(rank / MRN_NODE_GROUP));
    const uint8_t *at = lengths + MRN_NODE_GROUP;
    for (unsigned i = 0;; i++) {
        size_t length = lengths[i];
        if (length == BLOB_LONG) {
            length = load32(at);
            at += 4;
        }
        if (i == rank % MRN_NODE_GROUP) {
            *bytes = length;
            return at;
        }
        at += length;
    }
}

/* The bytes that a mask of a segment with so many contexts takes. */
ALWAYS_INLINE unsigned mask_bytes(uint32_t tags) {
    return (tags + 7) / 8;
}

/* The contexts of item `i` of a section of masks; none where there is no such section. */
ALWAYS_INLINE uint64_t read_mask(const mrn_index *index, unsigned id, uint32_t i) {
    if (index->items[id] == 0)
        return 0;
    unsigned width = mask_bytes(index->items[MRN_SECTION_TAGS]);
    return load64((const uint8_t *)index->file + index->place[id] + (size_t)i * width) &
           (width == 8 ? ~UINT64_C(0) : (UINT64_C(1) << (8 * width)) - 1);
}

#endif
