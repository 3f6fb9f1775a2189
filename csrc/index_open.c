/* Opening an index segment: everything that a look-up relies on is checked here, once. */

#include "crc32c.h"
#include "index_check.h"

static uint64_t align_up(uint64_t place) {
    return (place + MRN_ALIGNMENT - 1) / MRN_ALIGNMENT * MRN_ALIGNMENT;
}

static int is_zero(const uint8_t *from, const uint8_t *to) {
    for (; from < to; from++)
        if (*from != 0)
            return 0;
    return 1;
}

enum { INDEX_FLAGS = MRN_INDEX_WORDS | MRN_INDEX_CAMEL | MRN_INDEX_FLOAT };

/* ---- Header and section table ------------------------------------------------------------------------- */

static int check_header(const uint8_t *file, size_t file_bytes, mrn_fault *fault) {
    if (file_bytes < sizeof index_magic || memcmp(file, index_magic, sizeof index_magic) != 0)
        return fail(fault, MRN_E_FORMAT, "it does not begin as an index segment does", 0);
    if (file_bytes < MRN_HEADER_BYTES)
        return fail(fault, MRN_E_FORMAT, "it ends inside its header", file_bytes);
    uint32_t version = load32(file + MRN_HEADER_VERSION);
    if (version != MRN_INDEX_VERSION)
        return fail(fault, MRN_E_VERSION,
                    version > MRN_INDEX_VERSION ? "its format version is newer than this library knows"
                                                : "its format version is older than this library reads",
                    MRN_HEADER_VERSION);
    if (load64(file + MRN_HEADER_FILE_BYTES) != file_bytes)
        return fail(fault, MRN_E_FORMAT, "it has not the length that its header says", MRN_HEADER_FILE_BYTES);
    uint32_t sections = load32(file + MRN_HEADER_SECTIONS);
    if (sections == 0 || sections > MRN_SECTION_COUNT_MAX)
        return fail(fault, MRN_E_FORMAT, "its number of sections is out of range", MRN_HEADER_SECTIONS);
    size_t header_bytes = MRN_HEADER_BYTES + (size_t)sections * MRN_SECTION_BYTES;
    if (header_bytes > file_bytes)
        return fail(fault, MRN_E_FORMAT, "it ends inside its section table", file_bytes);
    static const uint8_t zeros[4];
    uint32_t sum = crc32c(0, file, MRN_HEADER_CHECKSUM);
    sum = crc32c(sum, zeros, sizeof zeros);
    sum = crc32c(sum, file + MRN_HEADER_RESERVED, header_bytes - MRN_HEADER_RESERVED);
    if (sum != load32(file + MRN_HEADER_CHECKSUM))
        return fail(fault, MRN_E_CHECKSUM, "its header is damaged", MRN_HEADER_CHECKSUM);
    if (load32(file + MRN_HEADER_FLAGS) & ~(uint32_t)INDEX_FLAGS)
        return fail(fault, MRN_E_VERSION, "its header has a flag that this library does not know",
                    MRN_HEADER_FLAGS);
    if (!is_zero(file + MRN_HEADER_RESERVED, file + MRN_HEADER_BYTES))
        return fail(fault, MRN_E_FORMAT, "the reserved part of its header is not zero", MRN_HEADER_RESERVED);
    if (load32(file + MRN_HEADER_FOLD_VERSION) != MRN_FOLD_VERSION)
        return fail(fault, MRN_E_VERSION, "its keys were folded with another table: build the index again",
                    MRN_HEADER_FOLD_VERSION);
    return MRN_OK;
}

/* Whether a segment with these flags has a section; -1: as it likes. */
static int section_is_due(uint32_t flags, int tags, unsigned id) {
    switch (id) {
    case MRN_SECTION_KEYS:
    case MRN_SECTION_TIES:
    case MRN_SECTION_SCORES:
        return 1;
    case MRN_SECTION_WORDS:
    case MRN_SECTION_WORD_ENTRIES:
        return flags & MRN_INDEX_WORDS ? 1 : 0;
    case MRN_SECTION_MASKS:
    case MRN_SECTION_KEY_MASKS:
        return tags;
    case MRN_SECTION_WORD_MASKS:
        return tags && flags & MRN_INDEX_WORDS;
    default:
        return -1;
    }
}

/* Check the section table; the sections go to *o. */
static int check_sections(opening *o, size_t file_bytes) {
    const uint8_t *file = o->file;
    mrn_fault *fault = o->fault;
    uint32_t sections = load32(file + MRN_HEADER_SECTIONS), last_id = 0, found = 0;
    uint64_t end = MRN_HEADER_BYTES + (uint64_t)sections * MRN_SECTION_BYTES;
    for (uint32_t i = 0; i < sections; i++) {
        uint64_t entry = MRN_HEADER_BYTES + (uint64_t)i * MRN_SECTION_BYTES;
        uint32_t id = load32(file + entry + MRN_SECTION_ID);
        uint32_t flags = load32(file + entry + MRN_SECTION_FLAGS);
        uint64_t offset = load64(file + entry + MRN_SECTION_OFFSET);
        uint64_t length = load64(file + entry + MRN_SECTION_LENGTH);
        if (id <= last_id)
            return fail(fault, MRN_E_FORMAT, "its sections are not in the order of their numbers", entry);
        last_id = id;
        if (flags & ~(uint32_t)MRN_SECTION_OPTIONAL)
            return fail(fault, MRN_E_VERSION, "a section has a flag that this library does not know", entry);
        if (offset != align_up(end) || offset > file_bytes || length > file_bytes - offset ||
            length > UINT32_MAX)
            return fail(fault, MRN_E_FORMAT, "a section is not where it should be", entry);
        if (!is_zero(file + end, file + offset))
            return fail(fault, MRN_E_FORMAT, "the bytes between two sections are not zero", end);
        if (crc32c(0, file + offset, (size_t)length) != load32(file + entry + MRN_SECTION_CHECKSUM))
            return fail(fault, MRN_E_CHECKSUM, "a section is damaged: its checksum does not match", offset);
        end = offset + length;
        if (id < MRN_SECTION_ID_END) {
            if (length < MRN_SLACK || !is_zero(file + end - MRN_SLACK, file + end))
                return fail(fault, MRN_E_FORMAT, "a section does not end as it should", entry);
            o->index.place[id] = offset;
            o->index.items[id] = load32(file + entry + MRN_SECTION_ITEMS);
            o->sections[id] = (extent){file + offset, file + end - MRN_SLACK};
            found |= 1U << id;
        } else if (!(flags & MRN_SECTION_OPTIONAL)) {
            return fail(fault, MRN_E_VERSION, "it has a section that this library does not know", entry);
        }
    }
    if (end != file_bytes)
        return fail(fault, MRN_E_FORMAT, "something follows its last section", end);
    int tags = (found >> MRN_SECTION_TAGS & 1) != 0;
    for (unsigned id = 1; id < MRN_SECTION_ID_END; id++) {
        int due = section_is_due(o->index.flags, tags, id), here = (found >> id & 1) != 0;
        if (due >= 0 && due != here)
            return fail(fault, MRN_E_FORMAT, "a section is missing, or one is there that should not be",
                        MRN_HEADER_SECTIONS);
    }
    if ((o->index.flags & (MRN_INDEX_WORDS | MRN_INDEX_CAMEL)) == MRN_INDEX_CAMEL)
        return fail(fault, MRN_E_FORMAT, "it has words by capitals, but no words", MRN_HEADER_FLAGS);
    const uint32_t *items = o->index.items;
    uint32_t n = items[MRN_SECTION_KEYS], words = items[MRN_SECTION_WORDS];
    if (n != load64(file + MRN_HEADER_ENTRIES) || n == UINT32_MAX || words == UINT32_MAX ||
        items[MRN_SECTION_TIES] != n || items[MRN_SECTION_WORD_ENTRIES] != words ||
        (found >> MRN_SECTION_TEXTS & 1 && (items[MRN_SECTION_TEXTS] != n || n == 0)) ||
        (found >> MRN_SECTION_PAYLOADS & 1 && (items[MRN_SECTION_PAYLOADS] != n || n == 0)) ||
        (found >> MRN_SECTION_IDS & 1 && (items[MRN_SECTION_IDS] != n || n == 0)) ||
        (tags && (items[MRN_SECTION_TAGS] == 0 || items[MRN_SECTION_TAGS] > MRN_TAGS_MAX ||
                  items[MRN_SECTION_MASKS] != n || items[MRN_SECTION_KEY_MASKS] != n ||
                  items[MRN_SECTION_WORD_MASKS] != words)))
        return fail(fault, MRN_E_FORMAT, "the number of entries is not the same everywhere",
                    MRN_HEADER_ENTRIES);
    o->index.entries = n;
    return MRN_OK;
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

size_t mrn_index_scratch_bytes(size_t file_bytes) {
    return trie_scratch_bytes(file_bytes);
}

int mrn_index_open(const char *file, size_t file_bytes, void *block, size_t block_bytes, mrn_index *index,
                   mrn_fault *fault) {
    _Static_assert(sizeof index->place == MRN_SECTION_ID_END * sizeof(uint64_t),
                   "mrn.h spells the number out");
    if (file == NULL || block == NULL || index == NULL || fault == NULL)
        return MRN_E_ARGUMENT;
    *fault = (mrn_fault){"", 0};
    opening o = {.file = (const uint8_t *)file, .fault = fault};
    int status = check_header(o.file, file_bytes, fault);
    if (status != MRN_OK)
        return status;
    o.index.file = file;
    o.index.flags = load32(o.file + MRN_HEADER_FLAGS);
    status = check_sections(&o, file_bytes);
    if (status != MRN_OK)
        return status;
    if (block_bytes < mrn_index_scratch_bytes(file_bytes) || (uintptr_t)block % 8 != 0)
        return MRN_E_MEMORY;
    const int words = o.index.flags & MRN_INDEX_WORDS ? 1 : 0;
    status = check_scores(&o);
    if (status == MRN_OK)
        status = check_masks(&o);
    if (status == MRN_OK && words)
        status = check_word_entries(&o);
    if (status == MRN_OK)
        status = check_trie(&o, MRN_SECTION_KEYS, block);
    if (status == MRN_OK && words)
        status = check_trie(&o, MRN_SECTION_WORDS, block);
    if (status == MRN_OK)
        status = check_blobs(&o, MRN_SECTION_TEXTS);
    if (status == MRN_OK)
        status = check_blobs(&o, MRN_SECTION_PAYLOADS);
    if (status == MRN_OK)
        status = check_blobs(&o, MRN_SECTION_IDS);
    if (status == MRN_OK)
        *index = o.index;
    return status;
}
