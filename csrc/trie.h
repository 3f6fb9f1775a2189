/* What the look-ups in an index segment share. */
#ifndef MRN_TRIE_H
#define MRN_TRIE_H

#include "fold.h"
#include "mrn.h"
#include "trie_record.h"

/* Describe the record at `place`, whose key matches in its first `key_bytes` bytes with so many edits. */
ALWAYS_INLINE void trie_describe(const mrn_index *index, uint32_t place, size_t key_bytes, uint32_t edits,
                                 mrn_completion *completion) {
    const uint8_t *file = (const uint8_t *)index->file;
    record r;
    document d;
    read_record(file + index->records + place, NULL, index->width, 0, &r);
    read_document(&r, NULL, 0, &d);
    *completion = (mrn_completion){
        .score = d.score,
        .text = (uint64_t)(d.text - file),
        .text_bytes = (uint32_t)d.text_bytes,
        .payload = (uint64_t)(d.payload - file),
        .payload_bytes = (uint32_t)d.payload_bytes,
        .highlight = key_bytes == 0 ? 0 : fold_span(d.text, d.text_bytes, key_bytes),
        .edits = edits,
    };
}

#endif
