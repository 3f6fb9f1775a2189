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
int check_trie(const opening *o, unsigned id, void *scratch, size_t file_bytes);

/* ---- index_check_values.c ----------------------------------------------------------------------------- */

int check_scores(const opening *o);
int check_word_entries(const opening *o);
int check_masks(const opening *o);
/* Texts, payloads or ids; after the scores. */
int check_blobs(const opening *o, unsigned id);

#endif
