/* Documents with several names, one id each: what the builder takes, what an answer shows, what is read back;
 * against a list kept by hand and a scan of all answers. */

#include "../mrn.h"
#include "../mrn_format.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define EXPECT(condition) CHECK(condition, "in %s", __func__)

enum { ENTRIES_MAX = 200, TEXT_ROOM = 32, ID_ROOM = 24 };

typedef struct list {
    size_t count;
    char texts[ENTRIES_MAX][TEXT_ROOM];
    char ids[ENTRIES_MAX][ID_ROOM];
    double scores[ENTRIES_MAX];
} list;

typedef struct opened {
    char *file;
    size_t bytes;
    mrn_index index;
    void *block;
    mrn_reader *reader;
} opened;

static mrn_workspace workspace;
static mrn_completion found[MRN_LIMIT_MAX];
static char texts[MRN_LIMIT_MAX * MRN_TEXT_MAX];

static void open_file(opened *o) {
    const size_t scratch_bytes = mrn_index_scratch_bytes(o->bytes);
    void *scratch = malloc(scratch_bytes);
    mrn_fault fault;
    EXPECT(mrn_index_open(o->file, o->bytes, scratch, scratch_bytes, &o->index, &fault) == MRN_OK);
    free(scratch);
    const mrn_index *const indexes[] = {&o->index};
    const mrn_segments segments = {.count = 1, .indexes = indexes};
    size_t block_bytes = 0;
    EXPECT(mrn_reader_plan(&segments, &block_bytes) == MRN_OK);
    o->block = malloc(block_bytes);
    EXPECT(mrn_reader_open(&segments, o->block, block_bytes, &o->reader) == MRN_OK);
}

static void close_file(opened *o) {
    free(o->block);
    mrn_free(o->file);
}

static void build(const list *l, uint32_t flags, opened *o) {
    static char text_blob[ENTRIES_MAX * TEXT_ROOM], id_blob[ENTRIES_MAX * ID_ROOM];
    uint64_t text_ends[ENTRIES_MAX], id_ends[ENTRIES_MAX];
    signed char verdicts[ENTRIES_MAX];
    size_t text_bytes = 0, id_bytes = 0;
    for (size_t i = 0; i < l->count; i++) {
        memcpy(text_blob + text_bytes, l->texts[i], strlen(l->texts[i]));
        memcpy(id_blob + id_bytes, l->ids[i], strlen(l->ids[i]));
        text_ends[i] = text_bytes += strlen(l->texts[i]);
        id_ends[i] = id_bytes += strlen(l->ids[i]);
    }
    const mrn_entries entries = {.count = l->count,
                                 .texts = text_blob,
                                 .text_ends = text_ends,
                                 .scores = l->scores,
                                 .ids = id_blob,
                                 .id_ends = id_ends,
                                 .flags = flags};
    EXPECT(mrn_index_build(&entries, verdicts, &o->file, &o->bytes) == MRN_OK);
    for (size_t i = 0; i < l->count; i++)
        EXPECT(verdicts[i] == MRN_OK);
    open_file(o);
}

/* What the builder makes of one entry with this id. */
static int verdict_of(const char *id, size_t id_bytes) {
    const uint64_t text_ends[] = {1}, id_ends[] = {id_bytes};
    const double score = 1;
    signed char verdict = 0;
    const mrn_entries entries = {
        .count = 1, .texts = "a", .text_ends = text_ends, .scores = &score, .ids = id, .id_ends = id_ends};
    char *file = NULL;
    size_t bytes = 0;
    EXPECT(mrn_index_build(&entries, &verdict, &file, &bytes) == MRN_OK);
    mrn_free(file);
    return verdict;
}

static void test_what_is_an_id(void) {
    static char longest[MRN_ID_MAX + 1];
    memset(longest, 'i', sizeof longest);
    EXPECT(verdict_of("", 0) == MRN_OK); /* none */
    EXPECT(verdict_of("1", 1) == MRN_OK);
    EXPECT(verdict_of(" ", 1) == MRN_OK);
    EXPECT(verdict_of(longest, MRN_ID_MAX) == MRN_OK);
    EXPECT(verdict_of(longest, MRN_ID_MAX + 1) == MRN_E_ID);
    EXPECT(verdict_of("\0", 1) == MRN_E_ID);
    EXPECT(verdict_of("a\nb", 3) == MRN_E_ID);
    EXPECT(verdict_of("\xff", 1) == MRN_E_ID);
    EXPECT(verdict_of("\xed\xa0\x80", 3) == MRN_E_ID); /* half of a surrogate pair */
    EXPECT(verdict_of("a\xe2\x80\xae"
                      "b",
                      5) == MRN_E_ID); /* a mark of writing direction */
    EXPECT(verdict_of("\xf0\x9f\x97\xbc", 4) == MRN_OK);
    EXPECT(verdict_of("\xf0\x9f\x97", 3) == MRN_E_ID); /* cut short */
}

static void test_what_is_no_argument(void) {
    static const list l = {.count = 2, .texts = {"a", "b"}, .ids = {"1", ""}, .scores = {1, 1}};
    opened o;
    build(&l, 0, &o);
    uint64_t id = 1, hashes[2];
    size_t id_bytes = 1;
    EXPECT(mrn_index_id(&o.index, 2, &id, &id_bytes) == MRN_E_NOT_FOUND);
    EXPECT(mrn_index_id(NULL, 0, &id, &id_bytes) == MRN_E_ARGUMENT);
    EXPECT(mrn_index_id(&o.index, 0, NULL, &id_bytes) == MRN_E_ARGUMENT);
    EXPECT(mrn_index_id(&o.index, 1, &id, &id_bytes) == MRN_OK && id == 0 && id_bytes == 0);
    EXPECT(mrn_index_id_hashes(&o.index, NULL) == MRN_E_ARGUMENT);
    EXPECT(mrn_index_id_hashes(&o.index, hashes) == MRN_OK && hashes[1] == 0);
    EXPECT(hashes[0] == mrn_id_hash("1", 1) && hashes[0] != 0 && mrn_id_hash("", 0) == 0);
    close_file(&o);
    const uint64_t ends[] = {1, 2}, backwards[] = {2, 1};
    const double scores[] = {1, 1};
    signed char verdicts[2];
    const mrn_entries entries = {
        .count = 2, .texts = "ab", .text_ends = ends, .scores = scores, .ids = "12", .id_ends = backwards};
    EXPECT(mrn_index_build(&entries, verdicts, &o.file, &o.bytes) == MRN_E_ARGUMENT);
}

/* An index in which no entry has an id is the same file as one that was told of none. */
static void test_no_ids_take_no_room(void) {
    static const list l = {.count = 2, .texts = {"a", "b"}, .scores = {1, 1}};
    const uint64_t ends[] = {1, 2};
    const mrn_entries entries = {.count = 2, .texts = "ab", .text_ends = ends, .scores = l.scores};
    signed char verdicts[2];
    char *file = NULL;
    size_t bytes = 0;
    opened o;
    build(&l, 0, &o);
    EXPECT(mrn_index_build(&entries, verdicts, &file, &bytes) == MRN_OK);
    EXPECT(bytes == o.bytes && memcmp(file, o.file, bytes) == 0);
    EXPECT(o.index.items[MRN_SECTION_IDS] == 0);
    mrn_free(file);
    close_file(&o);
}

/* Of two entries with one text, the better one stays, with its own id. */
static void test_a_merged_entry_keeps_the_id_of_the_better(void) {
    const uint64_t text_ends[] = {1, 2}, id_ends[] = {1, 2};
    const double scores[] = {1, 2};
    signed char verdicts[2];
    const mrn_entries entries = {
        .count = 2, .texts = "aa", .text_ends = text_ends, .scores = scores, .ids = "12", .id_ends = id_ends};
    opened o;
    EXPECT(mrn_index_build(&entries, verdicts, &o.file, &o.bytes) == MRN_OK);
    EXPECT(verdicts[0] == MRN_MERGED && verdicts[1] == MRN_OK);
    open_file(&o);
    uint64_t id;
    size_t id_bytes;
    EXPECT(mrn_index_id(&o.index, 0, &id, &id_bytes) == MRN_OK && id_bytes == 1 && o.file[id] == '2');
    close_file(&o);
}

static const char *id_of(const list *l, const mrn_completion *c) {
    for (size_t i = 0; i < l->count; i++)
        if (strlen(l->texts[i]) == c->text_bytes && memcmp(l->texts[i], texts + c->text, c->text_bytes) == 0)
            return l->ids[i];
    EXPECT(0);
    return "";
}

static size_t ask(const opened *o, const char *query, uint32_t limit, int edits) {
    const mrn_options options = {.limit = limit, .edits = edits};
    size_t count = 0;
    int partial = 0;
    EXPECT(mrn_reader_complete(o->reader, query, strlen(query), &options, &workspace, found, &count, texts,
                               sizeof texts, &partial) == MRN_OK);
    EXPECT(!partial);
    return count;
}

/* The answers with ids are those without, but for the later ones of a document: `all` holds no more than one
 * answer takes, so that the longest list is all that matches. */
static void compare(const list *l, const opened *with, const opened *without, const char *query,
                    uint32_t limit, int edits) {
    char expected[MRN_LIMIT_MAX][TEXT_ROOM], seen[MRN_LIMIT_MAX][ID_ROOM];
    size_t expected_count = 0, documents = 0;
    const size_t all = ask(without, query, MRN_LIMIT_MAX, edits);
    for (size_t i = 0; i < all && expected_count < limit; i++) {
        const char *id = id_of(l, &found[i]);
        int again = 0;
        for (size_t j = 0; j < documents && id[0] != 0; j++)
            again |= strcmp(seen[j], id) == 0;
        if (again)
            continue;
        if (id[0] != 0)
            strcpy(seen[documents++], id);
        memcpy(expected[expected_count], texts + found[i].text, found[i].text_bytes);
        expected[expected_count++][found[i].text_bytes] = 0;
    }
    const size_t count = ask(with, query, limit, edits);
    EXPECT(count == expected_count);
    for (size_t i = 0; i < count; i++) {
        const char *id = id_of(l, &found[i]);
        EXPECT(strlen(expected[i]) == found[i].text_bytes &&
               memcmp(expected[i], texts + found[i].text, found[i].text_bytes) == 0);
        EXPECT(found[i].id_bytes == strlen(id) &&
               memcmp(with->file + found[i].id, id, found[i].id_bytes) == 0);
    }
}

static void test_a_document_is_shown_once(uint32_t flags) {
    static const char *const words[] = {"an", "ana", "ban", "nab", "nan"};
    static const char *const queries[] = {"", "a", "an", "ana", "anna", "nab", "bna", "nan ", "na ban", "q"};
    static list l, bare;
    uint64_t state = 88172645463325252u;
    for (int round = 0; round < 60; round++) {
        l.count = 1 + next_random(&state) % MRN_LIMIT_MAX;
        const uint64_t documents = 1 + next_random(&state) % 30, ties = 1 + next_random(&state) % 50;
        for (size_t i = 0; i < l.count; i++) {
            snprintf(l.texts[i], TEXT_ROOM, "%s %s %zu", words[next_random(&state) % 5],
                     words[next_random(&state) % 5], i);
            l.scores[i] = (double)(next_random(&state) % ties);
            l.ids[i][0] = 0;
            if (next_random(&state) % 4 != 0)
                snprintf(l.ids[i], ID_ROOM, "d%u", (unsigned)(next_random(&state) % documents));
        }
        bare = l;
        memset(bare.ids, 0, sizeof bare.ids);
        opened with, without;
        build(&l, flags, &with);
        build(&bare, flags, &without);
        for (size_t q = 0; q < sizeof queries / sizeof *queries; q++)
            for (int edits = 0; edits <= 2; edits++)
                for (uint32_t limit = 1; limit <= MRN_LIMIT_MAX; limit += 1 + limit * 2)
                    compare(&l, &with, &without, queries[q], limit, edits);
        close_file(&with);
        close_file(&without);
    }
}

/* Columns give back what the builder took, however small the pieces. */
static void test_ids_are_read_back(void) {
    enum { ROWS = 7 };
    static list l;
    static char text_blob[MRN_TEXT_MAX + 64], payload_blob[MRN_PAYLOAD_MAX], id_blob[MRN_ID_MAX + 9];
    uint64_t text_ends[ROWS], payload_ends[ROWS], id_ends[ROWS], contexts[ROWS], parents[ENTRIES_MAX];
    double scores[ROWS];
    uint8_t skip[ENTRIES_MAX] = {0};
    l.count = 61;
    for (size_t i = 0; i < l.count; i++) {
        snprintf(l.texts[i], TEXT_ROOM, "name %zu", i);
        if (i % 3 != 0)
            snprintf(l.ids[i], ID_ROOM, "%zu", i / 2);
        l.scores[i] = (double)(i * 7 % 61);
        skip[l.count - 1 - i * 7 % 61] = i % 5 == 4;
    }
    opened o;
    build(&l, 0, &o);
    EXPECT(mrn_index_parents(&o.index, parents) == MRN_OK);
    const mrn_entry_columns columns = {.rows = ROWS,
                                       .text_bytes = sizeof text_blob,
                                       .payload_bytes = sizeof payload_blob,
                                       .id_bytes = sizeof id_blob,
                                       .texts = text_blob,
                                       .text_ends = text_ends,
                                       .scores = scores,
                                       .payloads = payload_blob,
                                       .payload_ends = payload_ends,
                                       .contexts = contexts,
                                       .ids = id_blob,
                                       .id_ends = id_ends};
    size_t read = 0, rows = 0;
    for (uint32_t next = 0; next < o.index.entries;) {
        EXPECT(mrn_index_columns(&o.index, parents, skip, &next, &columns, &rows) == MRN_OK && rows <= ROWS);
        for (size_t row = 0; row < rows; row++, read++) {
            const uint64_t text = row > 0 ? text_ends[row - 1] : 0, id = row > 0 ? id_ends[row - 1] : 0;
            size_t i = 0;
            while (i < l.count && (strlen(l.texts[i]) != text_ends[row] - text ||
                                   memcmp(l.texts[i], text_blob + text, strlen(l.texts[i])) != 0))
                i++;
            EXPECT(i < l.count && i % 5 != 4);
            EXPECT(strlen(l.ids[i]) == id_ends[row] - id);
            EXPECT(memcmp(l.ids[i], id_blob + id, strlen(l.ids[i])) == 0);
        }
    }
    size_t wanted = 0;
    for (size_t i = 0; i < l.count; i++)
        wanted += i % 5 != 4;
    EXPECT(read == wanted);
    close_file(&o);
}

int main(void) {
    test_what_is_an_id();
    test_what_is_no_argument();
    test_no_ids_take_no_room();
    test_a_merged_entry_keeps_the_id_of_the_better();
    test_a_document_is_shown_once(0);
    test_a_document_is_shown_once(MRN_INDEX_WORDS);
    test_ids_are_read_back();
    return 0;
}
