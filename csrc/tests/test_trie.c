/* The trie against a linear scan, on random dictionaries; damaged files; folding and checksums by published
 * vectors. Files are copied into blocks of their exact size, so that a sanitizer sees every byte read
 * outside. */

#include "../crc32c.h"
#include "../fold.h"
#include "../mrn.h"
#include "../mrn_format.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define EXPECT(condition) CHECK(condition, "in %s", __func__)

static uint32_t random_below(uint32_t bound) {
    static uint64_t state = 88172645463325252u;
    return (uint32_t)(next_random(&state) >> 32) % bound;
}

/* ---- A dictionary, its file, and the slow way to complete --------------------------------------------- */

enum { ENTRIES_MAX = 300, TEXT_ROOM = 600 };

typedef struct dictionary {
    size_t count;
    char texts[ENTRIES_MAX][TEXT_ROOM];
    double scores[ENTRIES_MAX];
    signed char verdicts[ENTRIES_MAX];
} dictionary;

static char blob[ENTRIES_MAX * TEXT_ROOM];

static char *build(dictionary *d, uint32_t flags, size_t *file_bytes) {
    uint64_t ends[ENTRIES_MAX];
    size_t used = 0;
    for (size_t i = 0; i < d->count; i++) {
        size_t bytes = strlen(d->texts[i]);
        memcpy(blob + used, d->texts[i], bytes);
        ends[i] = used += bytes;
    }
    char *exact = malloc(used + 1), *file = NULL; /* a sanitizer sees what is read behind them */
    EXPECT(exact != NULL);
    memcpy(exact + 1, blob, used);
    mrn_entries entries = {
        .count = d->count, .texts = exact + 1, .text_ends = ends, .scores = d->scores, .flags = flags};
    EXPECT(mrn_index_build(&entries, d->verdicts, &file, file_bytes) == MRN_OK);
    free(exact);
    return file;
}

/* Whether entry a ranks before b. */
static int before(const dictionary *d, size_t a, size_t b) {
    if (d->scores[a] > d->scores[b] || d->scores[a] < d->scores[b])
        return d->scores[a] > d->scores[b];
    const uint8_t *x = (const uint8_t *)d->texts[a], *y = (const uint8_t *)d->texts[b];
    size_t points_a = text_points(x, strlen(d->texts[a])), points_b = text_points(y, strlen(d->texts[b]));
    return points_a != points_b ? points_a < points_b : strcmp(d->texts[a], d->texts[b]) < 0;
}

static size_t scan(const dictionary *d, const char *prefix, size_t limit, size_t *best) {
    char wanted[TEXT_ROOM * 4], key[TEXT_ROOM * 4];
    size_t wanted_bytes = 0, key_bytes = 0, count = 0;
    EXPECT(mrn_fold(prefix, strlen(prefix), wanted, sizeof wanted, &wanted_bytes) == MRN_OK);
    for (size_t i = 0; i < d->count; i++) {
        if (d->verdicts[i] != MRN_OK)
            continue;
        EXPECT(mrn_fold(d->texts[i], strlen(d->texts[i]), key, sizeof key, &key_bytes) == MRN_OK);
        key_bytes -= key_bytes > 0 && key[key_bytes - 1] == ' ';
        key[key_bytes++] = ' '; /* as if one followed */
        if (key_bytes < wanted_bytes || memcmp(key, wanted, wanted_bytes) != 0)
            continue;
        size_t at = count < limit ? count++ : limit;
        if (at == limit && !before(d, i, best[--at]))
            continue;
        for (; at > 0 && before(d, i, best[at - 1]); at--)
            best[at] = best[at - 1];
        best[at] = i;
    }
    return count;
}

static int open_file(const char *file, size_t bytes, mrn_index *index, mrn_fault *fault) {
    size_t scratch_bytes = mrn_index_scratch_bytes(bytes);
    void *scratch = malloc(scratch_bytes);
    int status = mrn_index_open(file, bytes, scratch, scratch_bytes, index, fault);
    free(scratch);
    return status;
}

static size_t points_of(const char *text, uint32_t *points) {
    char key[TEXT_ROOM * 4];
    size_t bytes = 0, count = 0;
    EXPECT(mrn_fold(text, strlen(text), key, sizeof key, &bytes) == MRN_OK);
    for (size_t at = 0; at < bytes; count++)
        at += utf8_decode((const uint8_t *)key + at, bytes - at, &points[count]);
    return count;
}

/* The least optimal string alignment distance between the query and a beginning of the text's key. */
static unsigned distance(const char *typed, const char *text) {
    static uint32_t query[TEXT_ROOM * 4], key[TEXT_ROOM * 4];
    unsigned rows[3][80], least = UINT32_MAX;
    size_t n = points_of(typed, query), m = points_of(text, key);
    m -= m > 0 && key[m - 1] == ' ';
    if (m > 0 && n == m + 1 && query[m] == ' ' && memcmp(query, key, m * sizeof *key) == 0)
        return 0; /* as if one followed the text */
    for (size_t i = 0; i <= m; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        for (size_t j = 0; j <= n; j++) {
            unsigned cell = i == 0 ? (unsigned)j : above[j] + 1;
            if (j > 0 && row[j - 1] + 1 < cell)
                cell = row[j - 1] + 1;
            if (i > 0 && j > 0 && above[j - 1] + (key[i - 1] != query[j - 1]) < cell)
                cell = above[j - 1] + (key[i - 1] != query[j - 1]);
            if (i > 1 && j > 1 && key[i - 1] == query[j - 2] && key[i - 2] == query[j - 1] &&
                two_above[j - 2] + 1 < cell)
                cell = two_above[j - 2] + 1;
            row[j] = cell;
        }
        least = row[n] < least ? row[n] : least;
    }
    return least;
}

/* A reader of one segment, and what its queries write. */
typedef struct opened {
    mrn_index index;
    mrn_reader *reader;
    void *block;
} opened;

static mrn_workspace workspace;
static mrn_completion found[MRN_LIMIT_MAX];
static char texts[MRN_LIMIT_MAX * MRN_TEXT_MAX];

static int open_reader(const char *file, size_t bytes, opened *o, mrn_fault *fault) {
    int status = open_file(file, bytes, &o->index, fault);
    o->block = NULL;
    if (status != MRN_OK)
        return status;
    const mrn_index *const indexes[] = {&o->index};
    const mrn_segments segments = {.count = 1, .indexes = indexes};
    size_t block_bytes = 0;
    EXPECT(mrn_reader_plan(&segments, &block_bytes) == MRN_OK);
    o->block = malloc(block_bytes);
    EXPECT(mrn_reader_open(&segments, o->block, block_bytes, &o->reader) == MRN_OK);
    return MRN_OK;
}

/* The JSON of a query is as long as it says, and does not fit where there is a byte less. */
static void check_room(const opened *o, const char *query, const mrn_options *options) {
    static char json[8 * MRN_LIMIT_MAX * (MRN_TEXT_MAX + 1)];
    size_t bytes = 0, fewer;
    EXPECT(mrn_reader_complete_json(o->reader, query, strlen(query), options, &workspace, json, sizeof json,
                                    &bytes) == MRN_OK);
    EXPECT(memcmp(json + bytes - 2, "]}", 2) == 0);
    EXPECT(mrn_reader_complete_json(o->reader, query, strlen(query), options, &workspace, json, bytes - 1,
                                    &fewer) == MRN_E_MEMORY);
}

static int ask(const opened *o, const char *query, size_t limit, int edits, size_t *count, int *partial) {
    const mrn_options options = {.limit = (uint32_t)limit, .edits = edits};
    int status = mrn_reader_complete(o->reader, query, strlen(query), &options, &workspace, found, count,
                                     texts, sizeof texts, partial);
    static unsigned asked; /* each eighth: emulated machines are slow */
    if (status == MRN_OK && asked++ % 8 == 0)
        check_room(o, query, &options);
    return status;
}

static const char *text_of(size_t i) {
    static char text[MRN_TEXT_MAX + 1];
    memcpy(text, texts + found[i].text, found[i].text_bytes);
    text[found[i].text_bytes] = 0;
    return text;
}

static void compare_typed(const dictionary *d, const opened *o, const char *prefix, size_t limit) {
    if (*prefix == 0 || text_points((const uint8_t *)prefix, strlen(prefix)) > MRN_TYPED_POINTS_MAX)
        return;
    for (int edits = 0; edits <= 2; edits++) {
        size_t count = 0, expected = 0;
        int partial = 1;
        EXPECT(ask(o, prefix, limit, edits, &count, &partial) == MRN_OK && !partial);
        for (size_t i = 0; i < d->count; i++)
            expected += d->verdicts[i] == MRN_OK && distance(prefix, d->texts[i]) <= (unsigned)edits;
        EXPECT(count == (expected < limit ? expected : limit));
        for (size_t i = 0; i < count; i++)
            EXPECT(found[i].edits == distance(prefix, text_of(i)) && found[i].edits <= (unsigned)edits);
    }
}

static void compare(const dictionary *d, const opened *o, const char *typed, size_t limit) {
    size_t best[MRN_LIMIT_MAX], count = 0, bytes = 0;
    char prefix[TEXT_ROOM * 4] = "";
    int partial = 1;
    EXPECT(mrn_fold(typed, strlen(typed), prefix, sizeof prefix - 1, &bytes) == MRN_OK);
    prefix[bytes] = 0; /* without accents, which would put the entries that have none back */
    EXPECT(ask(o, prefix, limit, 0, &count, &partial) == MRN_OK && !partial);
    EXPECT(count == scan(d, prefix, limit, best));
    for (size_t i = 0; i < count; i++) {
        const char *text = d->texts[best[i]];
        EXPECT(strcmp(text_of(i), text) == 0);
        EXPECT(!(found[i].score > d->scores[best[i]] || found[i].score < d->scores[best[i]]));
        EXPECT(found[i].payload_bytes == 0 && found[i].edits == 0);
        uint32_t entry = 0;
        EXPECT(mrn_index_find(&o->index, text, strlen(text), &workspace, &entry) == MRN_OK);
        EXPECT(entry == found[i].entry);
    }
    compare_typed(d, o, typed, limit);
}

/* ---- Random dictionaries ------------------------------------------------------------------------------ */

static void random_text(char *text) {
    static const char *const letters[] = {"a",        "b",        "A", "c",           "\xc3\xa1",
                                          "\xc4\x91", "\xc3\x9f", " ", "\xe6\x9d\xb1"};
    size_t kinds = 2 + random_below(8), length = 1 + random_below(random_below(8) == 0 ? 60 : 6);
    text[0] = 0;
    if (random_below(40) == 0)
        for (size_t i = 0; i < 280; i++)
            strcat(text, "a");
    for (size_t i = 0; i < length; i++)
        strcat(text, letters[random_below((uint32_t)kinds)]);
}

static void test_random_dictionaries(void) {
    static dictionary d;
    for (int round = 0; round < 300; round++) {
        d.count = random_below(ENTRIES_MAX + 1);
        uint32_t scores = 1 + random_below(round % 2 ? 3 : 1000);
        for (size_t i = 0; i < d.count; i++) {
            random_text(d.texts[i]);
            d.scores[i] = random_below(scores) / (round % 3 == 0 ? 4.0 : 1.0);
        }
        size_t bytes = 0;
        char *file = build(&d, 0, &bytes);
        opened o;
        mrn_fault fault;
        EXPECT(open_reader(file, bytes, &o, &fault) == MRN_OK);
        for (int query = 0; query < 40; query++) {
            char prefix[TEXT_ROOM] = "";
            if (query > 0 && d.count > 0 && query % 2) {
                strcpy(prefix, d.texts[random_below((uint32_t)d.count)]);
                size_t length = random_below(12);
                while (length < strlen(prefix) && ((uint8_t)prefix[length] & 0xc0) == 0x80)
                    length++;
                prefix[length < strlen(prefix) ? length : 0] = 0;
            } else if (query > 0) {
                random_text(prefix);
            }
            if (strlen(prefix) <= MRN_QUERY_MAX)
                compare(&d, &o, prefix, 1 + random_below(MRN_LIMIT_MAX));
        }
        free(o.block);
        mrn_free(file);
    }
}

/* ---- Damage ------------------------------------------------------------------------------------------- */

static void put32(char *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (char)(value >> (8 * i));
}

static uint64_t get(const char *at, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)(uint8_t)at[i] << (8 * i);
    return value;
}

/* Make the checksums right again. */
static void repair(char *file, size_t bytes) {
    size_t sections = (size_t)get(file + MRN_HEADER_SECTIONS, 4);
    sections = sections > MRN_SECTION_COUNT_MAX ? MRN_SECTION_COUNT_MAX : sections;
    size_t header_bytes = MRN_HEADER_BYTES + sections * MRN_SECTION_BYTES;
    if (header_bytes > bytes)
        return;
    for (size_t i = 0; i < sections; i++) {
        char *section = file + MRN_HEADER_BYTES + i * MRN_SECTION_BYTES;
        uint64_t offset = get(section + MRN_SECTION_OFFSET, 8), length = get(section + MRN_SECTION_LENGTH, 8);
        if (offset <= bytes && length <= bytes - offset)
            put32(section + MRN_SECTION_CHECKSUM, crc32c(0, file + offset, (size_t)length));
    }
    put32(file + MRN_HEADER_CHECKSUM, 0);
    put32(file + MRN_HEADER_CHECKSUM, crc32c(0, file, header_bytes));
}

static void test_damage(uint32_t flags) {
    static dictionary d = {
        .count = 8,
        .texts = {"saigon", "sai", "SAI", "sa", "saint b", "\xe6\x9d\xb1\xe4\xba\xac", "\xe6\x9d\xb1", "b"},
        .scores = {9, 5, 5, 0.5, 7, 3, 3, 0}};
    size_t bytes = 0, usable = 0;
    char *file = build(&d, flags, &bytes);
    char *copy = malloc(bytes);
    opened o;
    mrn_fault fault;
    for (size_t length = 0; length < bytes; length++) {
        char *cut = malloc(length + (length == 0));
        memcpy(cut, file, length);
        EXPECT(open_file(cut, length, &o.index, &fault) != MRN_OK && fault.what[0] != 0);
        free(cut);
    }
    for (size_t at = 0; at < bytes; at++) {
        for (int value = 0; value < 256; value++) {
            memcpy(copy, file, bytes);
            if (copy[at] == (char)value)
                continue;
            copy[at] = (char)value;
            EXPECT(open_file(copy, bytes, &o.index, &fault) != MRN_OK && fault.what[0] != 0);
            repair(copy, bytes);
            if (open_reader(copy, bytes, &o, &fault) != MRN_OK)
                continue;
            usable++;
            static const char *const prefixes[] = {"",  "s",   "sa", "sai", "saigon!", "\xe6\x9d\xb1",
                                                   "b", "b sa"};
            for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
                size_t count = 0;
                int partial;
                EXPECT(ask(&o, prefixes[p], 100, (int)p % 3, &count, &partial) == MRN_OK);
                EXPECT(count <= o.index.entries);
            }
            free(o.block);
        }
    }
    EXPECT(usable > 0); /* letters may be changed for others */
    free(copy);
    mrn_free(file);
}

/* ---- Arguments, folding, checksums -------------------------------------------------------------------- */

static void test_arguments(void) {
    static dictionary d = {.count = 3, .texts = {"a", "b\n", ""}, .scores = {1, 1, 1}};
    size_t bytes = 0, count = 0;
    char *file = build(&d, 0, &bytes);
    EXPECT(d.verdicts[0] == MRN_OK && d.verdicts[1] == MRN_E_TEXT && d.verdicts[2] == MRN_E_TEXT);
    opened o;
    mrn_fault fault;
    uint64_t scratch[1];
    EXPECT(mrn_index_open(file, bytes, scratch, sizeof scratch, &o.index, &fault) == MRN_E_MEMORY);
    EXPECT(mrn_index_open(NULL, bytes, scratch, sizeof scratch, &o.index, &fault) == MRN_E_ARGUMENT);
    EXPECT(open_reader(file, bytes, &o, &fault) == MRN_OK);
    int partial = 0;
    EXPECT(ask(&o, "", 0, 0, &count, &partial) == MRN_E_ARGUMENT);
    EXPECT(ask(&o, "", 101, 0, &count, &partial) == MRN_E_ARGUMENT);
    EXPECT(ask(&o, "a", 1, 3, &count, &partial) == MRN_E_ARGUMENT);
    EXPECT(ask(&o, "a", 1, -2, &count, &partial) == MRN_E_ARGUMENT);
    EXPECT(ask(&o, "", 1, 0, &count, &partial) == MRN_OK && count == 1);
    EXPECT(ask(&o, "\xff", 1, 2, &count, &partial) == MRN_E_TEXT);
    memset(blob, 'a', 257);
    blob[257] = 0;
    EXPECT(ask(&o, blob, 1, 0, &count, &partial) == MRN_E_TOO_LARGE);
    const mrn_options options = {.limit = 1, .edits = 0};
    EXPECT(mrn_reader_complete(o.reader, NULL, 1, &options, &workspace, found, &count, texts, sizeof texts,
                               &partial) == MRN_E_ARGUMENT);
    EXPECT(mrn_reader_complete(o.reader, NULL, 0, &options, &workspace, found, &count, texts, 0, &partial) ==
           MRN_E_MEMORY);
    size_t json_bytes = 0;
    EXPECT(mrn_reader_complete_json(o.reader, "a", 1, &options, &workspace, texts, 10, &json_bytes) ==
           MRN_E_MEMORY);
    static const char answer[] =
        "{\"query\":\"a\",\"completions\":[{\"text\":\"a\",\"score\":1.0,\"edits\":0,"
        "\"highlights\":[[0,1]],\"payload\":null}]}";
    EXPECT(mrn_reader_complete_json(o.reader, "a", 1, &options, &workspace, texts, sizeof texts,
                                    &json_bytes) == MRN_OK);
    EXPECT(json_bytes == sizeof answer - 1 && memcmp(texts, answer, json_bytes) == 0);
    const mrn_index *const indexes[] = {&o.index};
    const uint32_t ranks[] = {1}, *const dead[] = {ranks};
    const size_t dead_counts[] = {1};
    const mrn_segments segments = {1, indexes, dead, dead_counts, NULL};
    size_t needed = 0;
    EXPECT(mrn_reader_plan(&segments, &needed) == MRN_OK);
    void *block = malloc(needed);
    mrn_reader *reader;
    EXPECT(mrn_reader_open(&segments, block, needed - 1, &reader) == MRN_E_MEMORY);
    EXPECT(mrn_reader_open(&segments, block, needed, &reader) == MRN_E_ARGUMENT); /* there is no entry 1 */
    free(block);
    free(o.block);
    mrn_free(file);
    const uint64_t backwards[] = {2, 1};
    const double scores[] = {1, 1};
    signed char verdicts[2];
    mrn_entries entries = {.count = 2, .texts = "ab", .text_ends = backwards, .scores = scores};
    EXPECT(mrn_index_build(&entries, verdicts, &file, &bytes) == MRN_E_ARGUMENT);
    EXPECT(mrn_index_build(NULL, verdicts, &file, &bytes) == MRN_E_ARGUMENT);
}

static void test_folding(void) {
    static const char *const pairs[][2] = {
        {"\xc4\x90\xc6\xb0\xe1\xbb\x9dng", "duong"},
        {"T\xc3\xa2m", "tam"},
        {"\xe1\xba\x9e", "ss"},
        {"  A  \xc2\xa0 b ", "a b "},
        {"\xc3\x98re", "ore"},
        {"\xef\xac\x83", "ffi"},
        {"\xed\x95\x9c", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab"},
        {"\xcc\x81", ""},
        {"e\xcc\x81", "e"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char key[64];
        size_t bytes = 0;
        EXPECT(mrn_fold(pairs[i][0], strlen(pairs[i][0]), key, sizeof key, &bytes) == MRN_OK);
        EXPECT(bytes == strlen(pairs[i][1]) && memcmp(key, pairs[i][1], bytes) == 0);
        EXPECT(bytes == 0 ||
               mrn_fold(pairs[i][0], strlen(pairs[i][0]), key, bytes - 1, &bytes) == MRN_E_TOO_LARGE);
    }
}

static void test_checksums(void) {
    uint8_t bytes[100] = {0};
    EXPECT(crc32c(0, "123456789", 9) == 0xe3069283); /* RFC 3720, B.4, as the next three */
    EXPECT(crc32c(0, bytes, 32) == 0x8a9136aa);
    memset(bytes, 0xff, 32);
    EXPECT(crc32c(0, bytes, 32) == 0x62a8ab43);
    for (uint8_t i = 0; i < 100; i++)
        bytes[i] = i;
    EXPECT(crc32c(0, bytes, 32) == 0x46dd794e);
    for (size_t from = 0; from < 16; from++)
        for (size_t length = 0; length + from <= sizeof bytes; length++) {
            uint32_t whole = crc32c(0, bytes + from, length);
            EXPECT(whole == crc32c_portable(0, bytes + from, length));
            EXPECT(whole == crc32c(crc32c(0, bytes + from, length / 3), bytes + from + length / 3,
                                   length - length / 3));
        }
    static uint8_t many[100000]; /* enough for several runs side by side */
    for (uint32_t i = 0, state = 1; i < sizeof many; i++) {
        state = state * 1664525 + 1013904223;
        many[i] = (uint8_t)(state >> 24);
    }
    for (size_t length = sizeof many; length > 20000; length = length * 7 / 8)
        EXPECT(crc32c(7, many + length % 8, length - 8) == crc32c_portable(7, many + length % 8, length - 8));
}

int main(void) {
    test_checksums();
    test_folding();
    test_arguments();
    test_random_dictionaries();
    test_damage(0);
    test_damage(MRN_INDEX_WORDS);
    return 0;
}
