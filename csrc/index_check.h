/* What the checks of an index segment share; index_open.c calls them in their order. */
#ifndef MRN_INDEX_CHECK_H
#define MRN_INDEX_CHECK_H

#include "mrn.h"
#include "trie_layout.h"

/* Where a section lies in the file, and the end of it without its slack. */
typedef struct extent {
    const uint8_t *from, *to;
} extent;

typedef struct opening {
    const uint8_t *file;
    mrn_index index;
    extent sections[MRN_SECTION_ID_END];
    mrn_fault *fault;
} opening;

static inline int fail(mrn_fault *fault, int status, const char *what, uint64_t at) {
    fault->what = what;
    fault->at = at;
    return status;
}

static inline int refuse(const opening *o, const char *what, const uint8_t *at) {
    return fail(o->fault, MRN_E_FORMAT, what, (uint64_t)(at - o->file));
}

/* ---- index_check_trie.c: after the masks and the entries of the words ---------------------------------- */

size_t trie_scratch_bytes(size_t file_bytes);
int check_trie(const opening *o, unsigned id, void *scratch);

/* Where the path to a node stands: how many bytes of its key are behind, what UTF-8 still wants, whether
 * the key has ended (the path came through a branch with byte 0). */
enum {
    STATE_DEPTH = 0x7ff,
    STATE_UTF8_SHIFT = 11,
    STATE_UTF8 = 7,
    STATE_ENDED = 0x4000,
    STATE_UNREACHED = 0xffff
};

/* What the first byte says of a near node with branches: its length byte is `kind`. */
typedef struct near_head {
    uint8_t kind, suffix_bytes, branches, position_bits, position_mask, branch_bits, unused[2];
} near_head;

enum { SEEN_WORDS = BRANCHES_MAX / 64, WAY_POSITIONS = 64 };

typedef struct trie_scratch {
    /* of index_check_glance.c */
    uint8_t suffix[WAY_POSITIONS]; /* of one node, and 0xff; first: where blocks are well aligned */
    near_head heads[256];
    uint16_t steps[256];                /* what a byte of a branch adds to a state */
    uint16_t ways[WAY_POSITIONS * 256]; /* for each (position, byte), which node had such a branch last */
    /* of index_check_trie.c, for one node */
    uint64_t seen[SEEN_WORDS];      /* a bit for each (position, byte) of its branches */
    uint8_t trail[MRN_KEY_MAX + 1]; /* UTF-8 state before each byte of its suffix, and after it */
    /* of both, for each node */
    uint16_t states[];
} trie_scratch;

/* Read a far node whose parts must lie before `end`; where it ends, or NULL. */
const uint8_t *read_far(const trie *t, unsigned kind, const uint8_t *at, const uint8_t *end, trie_node *n);

/* ---- index_check_glance.c ------------------------------------------------------------------------------ */

void glance_prepare(const trie *t, trie_scratch *s);

/* Whether all is right with the group of nodes from `first` on whose length bytes, and nodes, are in place.
 * The next far node is at `far`, all end at `end`. Returns what `far` is after the group and adds its
 * branches to *branches; or NULL: it is not what nearly all groups are, and nothing is said of it. */
const uint8_t *glance_group(const trie *t, const uint8_t *kinds, uint32_t first, const uint8_t *far,
                            const uint8_t *end, trie_scratch *s, uint64_t *branches);

/* ---- index_check_values.c ----------------------------------------------------------------------------- */

int check_scores(const opening *o);
int check_word_entries(const opening *o);
int check_masks(const opening *o);
/* Texts, payloads or ids; after the scores. */
int check_blobs(const opening *o, unsigned id);

#endif
