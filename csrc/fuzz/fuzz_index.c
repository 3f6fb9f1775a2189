/* libFuzzer target: any bytes as an index segment, with the checksums repaired so that the deep checks are
 * reached. The first byte is the length of a query that follows the second, which says how to ask; the rest
 * is the file. It is searched alone, and as three segments of one reader with some entries dead; then its
 * entries are read one by one and as columns. Run it with: make -C csrc fuzz.
 */

#include "../crc32c.h"
#include "../mrn.h"
#include "../mrn_format.h"

#include <stdlib.h>
#include <string.h>

static uint64_t get(const uint8_t *at, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put(uint8_t *at, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void repair(uint8_t *file, size_t bytes) {
    if (bytes < MRN_HEADER_BYTES)
        return;
    put(file + MRN_HEADER_FILE_BYTES, bytes, 8);
    size_t sections = (size_t)(get(file + MRN_HEADER_SECTIONS, 4) % (MRN_SECTION_COUNT_MAX + 1));
    size_t header_bytes = MRN_HEADER_BYTES + sections * MRN_SECTION_BYTES;
    if (header_bytes > bytes)
        return;
    for (size_t i = 0; i < sections; i++) {
        uint8_t *section = file + MRN_HEADER_BYTES + i * MRN_SECTION_BYTES;
        uint64_t offset = get(section + MRN_SECTION_OFFSET, 8);
        if (i + 1 == sections && offset <= bytes)
            put(section + MRN_SECTION_LENGTH, bytes - offset, 8);
        uint64_t length = get(section + MRN_SECTION_LENGTH, 8);
        if (offset <= bytes && length <= bytes - offset)
            put(section + MRN_SECTION_CHECKSUM, crc32c(0, file + offset, (size_t)length), 4);
    }
    put(file + MRN_HEADER_CHECKSUM, 0, 4);
    put(file + MRN_HEADER_CHECKSUM, crc32c(0, file, header_bytes), 4);
}

static mrn_workspace workspace;
static mrn_completion found[MRN_LIMIT_MAX];
static char texts[MRN_LIMIT_MAX * MRN_TEXT_MAX];

static void complete(const mrn_reader *reader, size_t entries, const char *file, size_t file_bytes,
                     const char *query, size_t query_bytes, unsigned how) {
    static const char names[] = "city\nland\n";
    static char json[1 << 20];
    mrn_options options = {.limit = how % 3 == 0 ? 1 : how % 3 == 1 ? 10 : MRN_LIMIT_MAX, .edits = 0};
    if (how & 0x40)
        options.contexts = names, options.contexts_bytes = sizeof names - 1;
    if (how & 0x80)
        options.prefer = names, options.prefer_bytes = 5;
    for (options.edits = MRN_EDITS_AUTO; options.edits <= 2; options.edits++) {
        size_t count = 0, json_bytes = 0;
        int partial = 0;
        int status = mrn_reader_complete(reader, query, query_bytes, &options, &workspace, found, &count,
                                         texts, sizeof texts, &partial);
        if (status != MRN_OK && options.edits != MRN_EDITS_AUTO)
            abort(); /* it did not depend on them */
        if (status != MRN_OK)
            return;
        if (count > options.limit || count > entries)
            abort();
        for (size_t i = 0; i < count; i++) {
            if ((size_t)found[i].text + found[i].text_bytes > sizeof texts || found[i].text_bytes == 0 ||
                found[i].payload + found[i].payload_bytes > file_bytes ||
                found[i].id + found[i].id_bytes > file_bytes || found[i].id_bytes > MRN_ID_MAX ||
                found[i].edits > 2 || found[i].highlights > MRN_HIGHLIGHTS_MAX)
                abort();
            for (size_t j = 0; j < 2 * (size_t)found[i].highlights; j++)
                if (found[i].highlight[j] > found[i].text_bytes ||
                    (j > 0 && found[i].highlight[j] < found[i].highlight[j - 1]))
                    abort();
            for (size_t j = 0; j < i; j++)
                if ((found[j].segment == found[i].segment && found[j].entry == found[i].entry) ||
                    (found[i].id_bytes > 0 && found[j].id_bytes == found[i].id_bytes &&
                     memcmp(file + found[j].id, file + found[i].id, found[i].id_bytes) == 0))
                    abort(); /* an entry, or a document, twice */
        }
        mrn_reader_complete_json(reader, query, query_bytes, &options, &workspace, json, sizeof json,
                                 &json_bytes);
        if (json_bytes > sizeof json)
            abort();
    }
}

static void search(const mrn_index *index, size_t file_bytes, const char *query, size_t query_bytes,
                   unsigned how) {
    const mrn_index *const indexes[] = {index, index, index};
    const uint32_t first[] = {0, 1}, *const dead[] = {first, NULL, first};
    const size_t counts[] = {index->entries < 2 ? index->entries : 2, 0, index->entries < 1 ? 0 : 1};
    for (size_t count = 1; count <= 3; count += 2) {
        const mrn_segments segments = {count, indexes, count == 1 ? NULL : dead, counts, NULL};
        const size_t entries = count * (size_t)index->entries;
        size_t block_bytes = 0;
        mrn_reader *reader;
        if (mrn_reader_plan(&segments, &block_bytes) != MRN_OK)
            abort();
        void *block = malloc(block_bytes);
        if (mrn_reader_open(&segments, block, block_bytes, &reader) != MRN_OK)
            abort();
        complete(reader, entries, index->file, file_bytes, query, query_bytes, how);
        for (size_t cut = 0; cut < query_bytes && cut < 4; cut++)
            complete(reader, entries, index->file, file_bytes, query, cut, how);
        free(block);
    }
}

static void read_entries(const mrn_index *index, size_t file_bytes, const uint64_t *parents) {
    uint64_t *hashes = malloc(((size_t)index->entries + 1) * sizeof *hashes);
    if (mrn_index_id_hashes(index, hashes) != MRN_OK)
        abort();
    for (uint32_t i = 0; i < index->entries && i < 64; i++) {
        static char text[MRN_TEXT_MAX];
        size_t text_bytes, payload_bytes, id_bytes;
        double score;
        uint64_t payload, contexts, id;
        if (mrn_index_entry(index, parents, i, text, &text_bytes, &score, &payload, &payload_bytes,
                            &contexts) != MRN_OK ||
            text_bytes == 0 || payload + payload_bytes > file_bytes)
            abort();
        if (mrn_index_id(index, i, &id, &id_bytes) != MRN_OK || id_bytes > MRN_ID_MAX ||
            id + id_bytes > file_bytes || hashes[i] != mrn_id_hash(index->file + id, id_bytes))
            abort();
        uint32_t entry;
        mrn_index_find(index, text, text_bytes, &workspace, &entry);
    }
    free(hashes);
}

/* In pieces that are as small as they may be, but for one entry in three. */
static void read_columns(const mrn_index *index, const uint64_t *parents) {
    enum { ROWS = 3 };
    static char texts_of[MRN_TEXT_MAX], payloads[MRN_PAYLOAD_MAX], ids[MRN_ID_MAX];
    static uint64_t text_ends[ROWS], payload_ends[ROWS], id_ends[ROWS], contexts[ROWS];
    static double scores[ROWS];
    const mrn_entry_columns columns = {ROWS,      sizeof texts_of, sizeof payloads, sizeof ids,   texts_of,
                                       text_ends, scores,          payloads,        payload_ends, contexts,
                                       ids,       id_ends};
    uint8_t *skip = malloc((size_t)index->entries + 1);
    for (uint32_t i = 0; i < index->entries; i++)
        skip[i] = i % 3 == 2;
    size_t rows = 1, read = 0;
    for (uint32_t next = 0; next < index->entries; read += rows) {
        const uint32_t before = next;
        if (mrn_index_columns(index, parents, skip, &next, &columns, &rows) != MRN_OK || next <= before ||
            rows > ROWS ||
            (rows > 0 && (text_ends[rows - 1] > MRN_TEXT_MAX || payload_ends[rows - 1] > MRN_PAYLOAD_MAX ||
                          id_ends[rows - 1] > MRN_ID_MAX)))
            abort();
    }
    if (read > index->entries - index->entries / 3)
        abort();
    free(skip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || (size_t)data[0] + 2 > size)
        return 0;
    const uint8_t *query = data + 2;
    size_t query_bytes = data[0], bytes = size - 2 - query_bytes;
    uint8_t *file =
        malloc(bytes + (bytes == 0)); /* of its exact size, so that the sanitizer sees every step outside */
    memcpy(file, query + query_bytes, bytes);
    repair(file, bytes);
    size_t scratch_bytes = mrn_index_scratch_bytes(bytes);
    void *scratch = malloc(scratch_bytes);
    mrn_index index;
    mrn_fault fault;
    if (mrn_index_open((const char *)file, bytes, scratch, scratch_bytes, &index, &fault) == MRN_OK) {
        uint64_t *parents = malloc(((size_t)index.entries + 1) * sizeof *parents);
        mrn_index_parents(&index, parents);
        search(&index, bytes, (const char *)query, query_bytes, data[1]);
        read_entries(&index, bytes, parents);
        read_columns(&index, parents);
        free(parents);
    }
    free(scratch);
    free(file);
    return 0;
}
