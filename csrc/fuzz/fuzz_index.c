/* libFuzzer target: any bytes as an index segment, with the checksums repaired so that the deep checks are
 * reached. The first byte is the length of a query that follows it; the rest is the file.
 * Run it with: make -C csrc fuzz.
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

static void complete(const mrn_index *index, size_t file_bytes, const uint8_t *query, size_t query_bytes) {
    static mrn_completion found[MRN_LIMIT_MAX];
    static mrn_workspace workspace;
    size_t count = 0;
    for (size_t limit = 1; limit <= MRN_LIMIT_MAX; limit += 33) {
        if (mrn_index_complete(index, (const char *)query, query_bytes, limit, &workspace, found, &count) !=
            MRN_OK)
            return;
        if (count > limit || count > index->entries)
            abort();
        for (size_t i = 0; i < count; i++)
            if (found[i].text + found[i].text_bytes > file_bytes ||
                found[i].highlight > found[i].text_bytes ||
                found[i].payload + found[i].payload_bytes > file_bytes ||
                (i > 0 && found[i - 1].score < found[i].score))
                abort();
        for (int edits = MRN_EDITS_AUTO; edits <= 2; edits++) {
            size_t typed = 0;
            int partial = 0;
            if (mrn_index_complete_typed(index, (const char *)query, query_bytes, limit, edits, &workspace,
                                         found, &typed, &partial) != MRN_OK)
                abort();
            if (typed > limit || typed > index->entries || typed < count)
                abort();
            for (size_t i = 0; i < typed; i++)
                if (found[i].text + found[i].text_bytes > file_bytes ||
                    found[i].highlight > found[i].text_bytes || found[i].edits > 2 ||
                    found[i].payload + found[i].payload_bytes > file_bytes ||
                    (i > 0 && found[i - 1].edits == found[i].edits && found[i - 1].score < found[i].score))
                    abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || (size_t)data[0] + 1 > size)
        return 0;
    const uint8_t *query = data + 1;
    size_t query_bytes = data[0], bytes = size - 1 - query_bytes;
    uint8_t *file =
        malloc(bytes + (bytes == 0)); /* of its exact size, so that the sanitizer sees every step outside */
    memcpy(file, query + query_bytes, bytes);
    repair(file, bytes);
    size_t scratch_bytes = mrn_index_scratch_bytes(bytes);
    void *scratch = malloc(scratch_bytes);
    mrn_index index;
    mrn_fault fault;
    if (mrn_index_open((const char *)file, bytes, scratch, scratch_bytes, &index, &fault) == MRN_OK) {
        complete(&index, bytes, query, query_bytes);
        for (size_t cut = 0; cut < query_bytes && cut < 4; cut++)
            complete(&index, bytes, query, cut);
    }
    free(scratch);
    free(file);
    return 0;
}
