/* What the look-ups in an index segment share. */
#ifndef MRN_TRIE_H
#define MRN_TRIE_H

#include "mrn.h"

/* Describe the record at `place`, whose key matches in its first `key_bytes` bytes with so many edits. */
void trie_describe(const mrn_index *index, uint32_t place, size_t key_bytes, uint32_t edits,
                   mrn_completion *completion);

#endif
