/* The entries of a segment, as they were given to the builder. */

#include "trie.h"

int mrn_index_parents(const mrn_index *index, uint64_t *parents) {
    if (index == NULL || (parents == NULL && index->entries > 0))
        return MRN_E_ARGUMENT;
    const trie t = segment_trie(index, MRN_SECTION_KEYS);
    for (uint32_t rank = 0; rank < t.nodes; rank++) {
        trie_node n;
        read_node(&t, rank, &n);
        if (rank == 0)
            parents[0] = log_entry(0, 0, 0, 0);
        for (size_t i = 0; i < n.branches; i++) {
            branch b = read_branch(&n, i);
            parents[b.rank] = log_entry(rank, 0, b.position, n.bytes[i]);
        }
    }
    return MRN_OK;
}

/* The text of an entry; where it is the key, and therefore not stored, it is spelled from its end, then moved
 * to the front. */
static int read_text(const mrn_index *index, const uint64_t *parents, uint32_t rank, char *text,
                     size_t *bytes) {
    const uint8_t *blob = read_blob(index, MRN_SECTION_TEXTS, rank, bytes);
    if (*bytes > 0) {
        memcpy(text, blob, *bytes);
        return MRN_OK;
    }
    if (parents == NULL)
        return MRN_OK;
    const trie t = segment_trie(index, MRN_SECTION_KEYS);
    size_t at = MRN_TEXT_MAX, position = SIZE_MAX;
    for (uint32_t here = rank;;) {
        trie_node n;
        read_node(&t, here, &n);
        size_t piece = position < n.suffix_bytes ? position : n.suffix_bytes;
        if (piece > at)
            return MRN_E_FORMAT;
        at -= piece;
        memcpy(text + at, n.suffix, piece);
        if (here == 0)
            break;
        uint8_t byte = (uint8_t)parents[here];
        if (byte != 0) {
            if (at == 0)
                return MRN_E_FORMAT;
            text[--at] = (char)byte;
        }
        position = parents[here] >> 8 & 0x7ff;
        here = (uint32_t)(parents[here] >> 32);
    }
    *bytes = MRN_TEXT_MAX - at;
    memmove(text, text + at, *bytes);
    return MRN_OK;
}

int mrn_index_entry(const mrn_index *index, const uint64_t *parents, uint32_t rank, char *text,
                    size_t *text_bytes, double *score, uint64_t *payload, size_t *payload_bytes,
                    uint64_t *contexts) {
    if (index == NULL || text == NULL || text_bytes == NULL || score == NULL || payload == NULL ||
        payload_bytes == NULL || contexts == NULL)
        return MRN_E_ARGUMENT;
    if (rank >= index->entries)
        return MRN_E_NOT_FOUND;
    int status = read_text(index, parents, rank, text, text_bytes);
    if (status != MRN_OK)
        return status;
    *score = entry_score(index, rank);
    const uint8_t *blob = read_blob(index, MRN_SECTION_PAYLOADS, rank, payload_bytes);
    *payload = *payload_bytes == 0 ? 0 : (uint64_t)(blob - (const uint8_t *)index->file);
    *contexts = read_mask(index, MRN_SECTION_MASKS, rank);
    return MRN_OK;
}

/* Append the blob of an entry to a column. */
static uint64_t copy_blob(const mrn_index *index, unsigned id, uint32_t rank, char *to, uint64_t used) {
    size_t bytes;
    const uint8_t *blob = read_blob(index, id, rank, &bytes);
    if (bytes > 0)
        memcpy(to + used, blob, bytes);
    return used + bytes;
}

int mrn_index_columns(const mrn_index *index, const uint64_t *parents, const uint8_t *skip, uint32_t *next,
                      const mrn_entry_columns *c, size_t *rows) {
    if (index == NULL || (parents == NULL && index->entries > 0) || next == NULL || c == NULL ||
        rows == NULL || c->texts == NULL || c->text_ends == NULL || c->scores == NULL ||
        c->payloads == NULL || c->payload_ends == NULL || c->contexts == NULL || c->ids == NULL ||
        c->id_ends == NULL)
        return MRN_E_ARGUMENT;
    uint64_t texts = 0, payloads = 0, ids = 0;
    size_t row = 0;
    uint32_t rank = *next;
    for (; rank < index->entries && row < c->rows && texts + MRN_TEXT_MAX <= c->text_bytes &&
           payloads + MRN_PAYLOAD_MAX <= c->payload_bytes && ids + MRN_ID_MAX <= c->id_bytes;
         rank++) {
        size_t bytes;
        if (skip != NULL && skip[rank])
            continue;
        int status = read_text(index, parents, rank, c->texts + texts, &bytes);
        if (status != MRN_OK)
            return status;
        c->text_ends[row] = texts += bytes;
        c->scores[row] = entry_score(index, rank);
        c->payload_ends[row] = payloads = copy_blob(index, MRN_SECTION_PAYLOADS, rank, c->payloads, payloads);
        c->contexts[row] = read_mask(index, MRN_SECTION_MASKS, rank);
        c->id_ends[row++] = ids = copy_blob(index, MRN_SECTION_IDS, rank, c->ids, ids);
    }
    *next = rank;
    *rows = row;
    return MRN_OK;
}

int mrn_index_id(const mrn_index *index, uint32_t rank, uint64_t *id, size_t *id_bytes) {
    if (index == NULL || id == NULL || id_bytes == NULL)
        return MRN_E_ARGUMENT;
    if (rank >= index->entries)
        return MRN_E_NOT_FOUND;
    const uint8_t *blob = read_blob(index, MRN_SECTION_IDS, rank, id_bytes);
    *id = *id_bytes == 0 ? 0 : (uint64_t)(blob - (const uint8_t *)index->file);
    return MRN_OK;
}

int mrn_index_tag(const mrn_index *index, size_t tag, uint64_t *name, size_t *name_bytes) {
    if (index == NULL || name == NULL || name_bytes == NULL)
        return MRN_E_ARGUMENT;
    if (tag >= index->items[MRN_SECTION_TAGS])
        return MRN_E_NOT_FOUND;
    const uint8_t *at = (const uint8_t *)index->file + index->place[MRN_SECTION_TAGS];
    for (size_t t = 0; t < tag; t++)
        at += 1 + *at;
    *name = (uint64_t)(at + 1 - (const uint8_t *)index->file);
    *name_bytes = *at;
    return MRN_OK;
}

uint64_t mrn_id_hash(const char *id, size_t id_bytes) {
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (size_t i = 0; i < id_bytes; i++)
        hash = (hash ^ (uint8_t)id[i]) * UINT64_C(1099511628211);
    return id_bytes == 0 ? 0 : hash | 1;
}

int mrn_index_id_hashes(const mrn_index *index, uint64_t *hashes) {
    if (index == NULL || (hashes == NULL && index->entries > 0))
        return MRN_E_ARGUMENT;
    for (uint32_t rank = 0; rank < index->entries; rank++) {
        size_t bytes;
        const uint8_t *id = read_blob(index, MRN_SECTION_IDS, rank, &bytes);
        hashes[rank] = mrn_id_hash((const char *)id, bytes);
    }
    return MRN_OK;
}
