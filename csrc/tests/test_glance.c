/* The glance at a group of nodes against the check node by node: damaged segments get the same verdict, for
 * the same reason and at the same place, with it and without it. */

#define glance_group seen_group
#include "../index_check_glance.c"
#undef glance_group

#include "../crc32c.h"

#include <stdlib.h>

#include "check.h"

#define EXPECT(condition) CHECK(condition, "in %s", __func__)

static int glancing;
static size_t groups_asked, groups_seen;

/* In place of that of the library. */
const uint8_t *glance_group(const trie *t, const uint8_t *kinds, uint32_t first, const uint8_t *far,
                            const uint8_t *end, trie_scratch *s, uint64_t *branches) {
    const uint8_t *then = glancing ? seen_group(t, kinds, first, far, end, s, branches) : NULL;
    groups_asked += (size_t)glancing;
    groups_seen += then != NULL;
    return then;
}

static uint32_t random_below(uint32_t bound) {
    static uint64_t state = 88172645463325252u;
    return (uint32_t)(next_random(&state) >> 32) % bound;
}

enum { ENTRIES_MAX = 600, TEXT_ROOM = 700 };

static char texts[ENTRIES_MAX * TEXT_ROOM];
static uint64_t ends[ENTRIES_MAX], contexts[ENTRIES_MAX];
static double scores[ENTRIES_MAX];

/* A text: of few letters, so that nodes have many branches; now and then with a long beginning or end. */
static size_t put_text(char *to, int wide) {
    static const char *const letters[] = {"a", "b", "e",        "o", "s",        "t",
                                          "n", " ", "\xd0\xb0", "i", "\xd1\x8f", "\xe6\x9d\xb1"};
    size_t used = 0, length = 1 + random_below(random_below(9) == 0 ? 40 : 9);
    if (random_below(60) == 0)
        used = (size_t)sprintf(to, "%*s", 1 + (int)random_below(600), "q");
    for (size_t i = 0; i < used; i++)
        to[i] = 'q';
    for (size_t i = 0; i < length; i++)
        used += (size_t)sprintf(to + used, "%s", letters[random_below(wide ? 12 : 8)]);
    to[used++] = (char)('!' + random_below('~' - '!'));
    return used;
}

static uint8_t *build(int wide, int words, int tagged, size_t *file_bytes) {
    static const uint64_t tag_ends[] = {1, 2, 3};
    static signed char verdicts[ENTRIES_MAX];
    const size_t count = 1 + random_below(ENTRIES_MAX);
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        used += put_text(texts + used, wide);
        ends[i] = used;
        scores[i] = random_below(100);
        contexts[i] = random_below(8);
    }
    mrn_entries entries = {.count = count, .texts = texts, .text_ends = ends, .scores = scores};
    entries.flags = words ? MRN_INDEX_WORDS : 0;
    if (tagged) {
        entries.contexts = contexts;
        entries.tags = "abc";
        entries.tag_ends = tag_ends;
        entries.tag_count = 3;
    }
    char *file = NULL;
    EXPECT(mrn_index_build(&entries, verdicts, &file, file_bytes) == MRN_OK);
    return (uint8_t *)file;
}

static uint8_t *section_entry(uint8_t *file, unsigned id) {
    uint8_t *entry = file + MRN_HEADER_BYTES;
    for (uint32_t i = load32(file + MRN_HEADER_SECTIONS); i > 0; i--, entry += MRN_SECTION_BYTES)
        if (load32(entry + MRN_SECTION_ID) == id)
            return entry;
    return NULL;
}

static void put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Change a section, and make the checksums right again: a byte, or a branch. */
static void damage(uint8_t *file, unsigned id) {
    uint8_t *entry = section_entry(file, id);
    const size_t header_bytes = MRN_HEADER_BYTES + load32(file + MRN_HEADER_SECTIONS) * MRN_SECTION_BYTES;
    const size_t bytes = (size_t)load64(entry + MRN_SECTION_LENGTH);
    const uint32_t items = load32(entry + MRN_SECTION_ITEMS);
    uint8_t *section = file + load64(entry + MRN_SECTION_OFFSET);
    uint8_t *at = section + random_below((uint32_t)(bytes - MRN_SLACK));
    const trie t = {.base = section, .nodes = items, .rank_bits = rank_bits(items)};
    trie_node n = {.branches = 0};
    if (id == MRN_SECTION_KEYS || id == MRN_SECTION_WORDS)
        read_node(&t, random_below(items), &n);
    if (n.branches > 0 && random_below(2)) {
        const size_t i = random_below((uint32_t)n.branches), bit = i * n.branch_bits;
        const uint64_t rank = read_branch(&n, i).rank + random_below(4) - 1;
        const uint64_t both = (rank << n.position_bits | random_below(16)) & n.branch_mask;
        uint8_t *where = section + (n.packed - section) + bit / 8;
        if (random_below(3) == 0) /* where another one goes, or the suffix does */
            section[n.bytes - section + (ptrdiff_t)i] =
                n.suffix[random_below((uint32_t)(n.suffix_bytes + i) + 1)];
        else
            store64(where, (load64(where) & ~(n.branch_mask << (bit % 8))) | both << (bit % 8));
    } else {
        static const uint8_t bounds[] = {0, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0xc3, 0xff};
        const uint8_t values[] = {(uint8_t)random_below(256), (uint8_t)(*at + 1), (uint8_t)(*at ^ 64),
                                  bounds[random_below(8)]};
        *at = values[random_below(4)];
    }
    put32(entry + MRN_SECTION_CHECKSUM, crc32c(0, section, bytes));
    put32(file + MRN_HEADER_CHECKSUM, 0);
    put32(file + MRN_HEADER_CHECKSUM, crc32c(0, file, header_bytes));
}

static int open_file(const uint8_t *file, size_t bytes, void *scratch, int with, mrn_fault *fault) {
    mrn_index index;
    glancing = with;
    return mrn_index_open((const char *)file, bytes, scratch, mrn_index_scratch_bytes(bytes), &index, fault);
}

int main(void) {
    size_t right = 0, wrong = 0;
    for (int round = 0; round < 60; round++) {
        const int wide = round % 3 == 0, words = round % 4 == 1, tagged = round % 5 == 2;
        size_t bytes = 0;
        mrn_fault fault, other;
        uint8_t *file = build(wide, words, tagged, &bytes);
        uint8_t *copy = malloc(bytes);
        void *scratch = malloc(mrn_index_scratch_bytes(bytes));
        groups_asked = groups_seen = 0;
        EXPECT(open_file(file, bytes, scratch, 1, &fault) == MRN_OK);
        EXPECT(wide || 2 * groups_seen >= groups_asked); /* most of them, where keys are ASCII */
        for (int change = 0; change < 300; change++) {
            memcpy(copy, file, bytes);
            damage(copy, tagged && change % 8 == 0  ? MRN_SECTION_KEY_MASKS
                         : words && change % 2 == 0 ? MRN_SECTION_WORDS
                                                    : MRN_SECTION_KEYS);
            const int status = open_file(copy, bytes, scratch, 1, &fault);
            EXPECT(status == open_file(copy, bytes, scratch, 0, &other));
            EXPECT(strcmp(fault.what, other.what) == 0 && fault.at == other.at);
            right += status == MRN_OK;
            wrong += status != MRN_OK;
        }
        free(scratch);
        free(copy);
        mrn_free((char *)file);
    }
    EXPECT(right > 1000 && wrong > 1000);
    return 0;
}
