/* Opening an index segment: everything that a look-up relies on is checked here, once. */

#include "crc32c.h"
#include "fold.h"
#include "mrn.h"
#include "trie_record.h"

#include <math.h>

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)load_le(at, 4);
}

static uint64_t get64(const uint8_t *at) {
    return load_le(at, 8);
}

static uint64_t align_up(uint64_t place) {
    return (place + MRN_ALIGNMENT - 1) / MRN_ALIGNMENT * MRN_ALIGNMENT;
}

static int fail(mrn_fault *fault, int status, const char *what, uint64_t at) {
    fault->what = what;
    fault->at = at;
    return status;
}

static int is_zero(const uint8_t *from, const uint8_t *to) {
    for (; from < to; from++)
        if (*from != 0)
            return 0;
    return 1;
}

/* ---- Header and section table ------------------------------------------------------------------------- */

static int check_header(const uint8_t *file, size_t file_bytes, mrn_fault *fault) {
    if (file_bytes < sizeof index_magic || memcmp(file, index_magic, sizeof index_magic) != 0)
        return fail(fault, MRN_E_FORMAT, "it does not begin as an index segment does", 0);
    if (file_bytes < MRN_HEADER_BYTES)
        return fail(fault, MRN_E_FORMAT, "it ends inside its header", file_bytes);
    uint32_t version = get32(file + MRN_HEADER_VERSION);
    if (version > MRN_INDEX_VERSION)
        return fail(fault, MRN_E_VERSION, "its format version is newer than this library knows",
                    MRN_HEADER_VERSION);
    if (version == 0)
        return fail(fault, MRN_E_FORMAT, "its format version is 0", MRN_HEADER_VERSION);
    if (get64(file + MRN_HEADER_FILE_BYTES) != file_bytes)
        return fail(fault, MRN_E_FORMAT, "it has not the length that its header says", MRN_HEADER_FILE_BYTES);
    uint32_t sections = get32(file + MRN_HEADER_SECTIONS);
    if (sections == 0 || sections > MRN_SECTION_COUNT_MAX)
        return fail(fault, MRN_E_FORMAT, "its number of sections is out of range", MRN_HEADER_SECTIONS);
    size_t header_bytes = MRN_HEADER_BYTES + (size_t)sections * MRN_SECTION_BYTES;
    if (header_bytes > file_bytes)
        return fail(fault, MRN_E_FORMAT, "it ends inside its section table", file_bytes);
    static const uint8_t zeros[4];
    uint32_t sum = crc32c(0, file, MRN_HEADER_CHECKSUM);
    sum = crc32c(sum, zeros, sizeof zeros);
    sum = crc32c(sum, file + MRN_HEADER_RESERVED, header_bytes - MRN_HEADER_RESERVED);
    if (sum != get32(file + MRN_HEADER_CHECKSUM))
        return fail(fault, MRN_E_CHECKSUM, "its header is damaged", MRN_HEADER_CHECKSUM);
    if (get32(file + MRN_HEADER_FLAGS) != 0)
        return fail(fault, MRN_E_VERSION, "its header has a flag that this library does not know",
                    MRN_HEADER_FLAGS);
    if (!is_zero(file + MRN_HEADER_RESERVED, file + MRN_HEADER_BYTES))
        return fail(fault, MRN_E_FORMAT, "the reserved part of its header is not zero", MRN_HEADER_RESERVED);
    if (get32(file + MRN_HEADER_FOLD_VERSION) != MRN_FOLD_VERSION)
        return fail(fault, MRN_E_VERSION, "its keys were folded with another table: build the index again",
                    MRN_HEADER_FOLD_VERSION);
    return MRN_OK;
}

/* Check the sections; the place and length of the records go to *index. */
static int check_sections(const uint8_t *file, size_t file_bytes, mrn_index *index, mrn_fault *fault) {
    uint32_t sections = get32(file + MRN_HEADER_SECTIONS);
    uint64_t end = MRN_HEADER_BYTES + (uint64_t)sections * MRN_SECTION_BYTES;
    uint32_t last_id = 0;
    index->width = 0;
    for (uint32_t i = 0; i < sections; i++) {
        uint64_t entry = MRN_HEADER_BYTES + (uint64_t)i * MRN_SECTION_BYTES;
        uint32_t id = get32(file + entry + MRN_SECTION_ID);
        uint32_t flags = get32(file + entry + MRN_SECTION_FLAGS);
        uint64_t offset = get64(file + entry + MRN_SECTION_OFFSET);
        uint64_t length = get64(file + entry + MRN_SECTION_LENGTH);
        uint32_t width = get32(file + entry + MRN_SECTION_WIDTH);
        if (id <= last_id)
            return fail(fault, MRN_E_FORMAT, "its sections are not in the order of their numbers", entry);
        last_id = id;
        if (flags & ~(uint32_t)MRN_SECTION_OPTIONAL)
            return fail(fault, MRN_E_VERSION, "a section has a flag that this library does not know", entry);
        if (offset != align_up(end) || offset > file_bytes || length > file_bytes - offset)
            return fail(fault, MRN_E_FORMAT, "a section is not where it should be", entry);
        if (!is_zero(file + end, file + offset))
            return fail(fault, MRN_E_FORMAT, "the bytes between two sections are not zero", end);
        if (crc32c(0, file + offset, (size_t)length) != get32(file + entry + MRN_SECTION_CHECKSUM))
            return fail(fault, MRN_E_CHECKSUM, "a section is damaged: its checksum does not match", offset);
        end = offset + length;
        if (id == MRN_SECTION_RECORDS) {
            if ((width != 3 && width != 4) || length > ((uint64_t)1 << (8 * width)))
                return fail(fault, MRN_E_FORMAT, "the width of its places is wrong",
                            entry + MRN_SECTION_WIDTH);
            index->records = (size_t)offset;
            index->record_bytes = (size_t)length;
            index->width = width;
        } else if (!(flags & MRN_SECTION_OPTIONAL)) {
            return fail(fault, MRN_E_VERSION, "it has a section that this library does not know", entry);
        }
    }
    if (index->width == 0)
        return fail(fault, MRN_E_FORMAT, "it has no records", MRN_HEADER_SECTIONS);
    if (end != file_bytes)
        return fail(fault, MRN_E_FORMAT, "something follows its last section", end);
    return MRN_OK;
}

/* ---- Scratch ------------------------------------------------------------------------------------------ */

typedef struct scratch {
    uint64_t *starts; /* a bit for each byte of the records: a record begins here */
    uint32_t *ranks;  /* records that begin before word i of starts */
    uint64_t *seen;   /* a bit for each (position, byte) of one record's branches */
    uint16_t *states; /* of each record: where the path to it stands, see below */
    uint8_t *trail;   /* UTF-8 state before each byte of one suffix, and after it */
} scratch;

enum { SEEN_WORDS = BRANCHES_MAX / 64, TRAIL_BYTES = MRN_KEY_MAX + 1 };

static size_t start_words(size_t bytes) {
    return bytes / 64 + 1;
}

static size_t state_count(size_t bytes) {
    return bytes / RECORD_BYTES_MIN + 1;
}

size_t mrn_index_scratch_bytes(size_t file_bytes) {
    size_t words = start_words(file_bytes);
    return words * (8 + 4) + SEEN_WORDS * 8 + state_count(file_bytes) * 2 + TRAIL_BYTES + 16;
}

static scratch lay_out(void *block, size_t file_bytes) {
    size_t words = start_words(file_bytes);
    scratch s;
    s.starts = block;
    s.seen = s.starts + words;
    s.ranks = (uint32_t *)(s.seen + SEEN_WORDS);
    s.states = (uint16_t *)(s.ranks + words);
    s.trail = (uint8_t *)(s.states + state_count(file_bytes));
    memset(s.starts, 0, (words + SEEN_WORDS) * 8);
    return s;
}

static unsigned bits_set(uint64_t word) {
    return (unsigned)__builtin_popcountll(word);
}

/* ---- First pass: each record alone, and the order of the entries -------------------------------------- */

static int score_is_canonical(const record *r, double score) {
    if (!(r->flags & MRN_RECORD_FLOAT))
        return 1;
    return isfinite(score) && score > 0 && !score_is_integer(score);
}

typedef struct rank_key {
    double score;
    size_t points, text_bytes;
    const uint8_t *text;
} rank_key;

/* Whether a ranks before b: score descending, code points ascending, bytes ascending. */
static int ranks_before(const rank_key *a, const rank_key *b) {
    if (a->score != b->score)
        return a->score > b->score;
    if (a->points != b->points)
        return a->points < b->points;
    size_t shared = a->text_bytes < b->text_bytes ? a->text_bytes : b->text_bytes;
    int order = memcmp(a->text, b->text, shared);
    return order != 0 ? order < 0 : a->text_bytes < b->text_bytes;
}

static int check_records(const uint8_t *file, const mrn_index *index, scratch *s, mrn_fault *fault) {
    const uint8_t *records = file + index->records, *end = records + index->record_bytes;
    rank_key before = {0};
    uint64_t entries = 0;
    for (const uint8_t *at = records; at < end; entries++) {
        uint64_t place = (uint64_t)(at - file);
        record r;
        document d;
        if (!read_record(at, end, index->width, 1, &r) || !read_document(&r, end, 1, &d))
            return fail(fault, MRN_E_FORMAT, "a record breaks the format", place);
        if (!score_is_canonical(&r, d.score))
            return fail(fault, MRN_E_FORMAT, "a score is not what the format allows", place);
        rank_key here = {d.score, text_points(d.text, d.text_bytes), d.text_bytes, d.text};
        if (here.points == SIZE_MAX)
            return fail(fault, MRN_E_FORMAT, "a text is not UTF-8 or holds a control character", place);
        if (!utf8_valid(d.payload, d.payload_bytes))
            return fail(fault, MRN_E_FORMAT, "a payload is not UTF-8", place);
        if (entries > 0 && !ranks_before(&before, &here))
            return fail(fault, MRN_E_FORMAT, "an entry is not in its place by score, length and bytes",
                        place);
        before = here;
        size_t bit = (size_t)(at - records);
        s->starts[bit / 64] |= (uint64_t)1 << (bit % 64);
        at = d.end;
    }
    if (entries != index->entries)
        return fail(fault, MRN_E_FORMAT, "the number of entries is not the one in its header",
                    MRN_HEADER_ENTRIES);
    uint32_t rank = 0;
    for (size_t word = 0; word < start_words(index->record_bytes); word++) {
        s->ranks[word] = rank;
        rank += bits_set(s->starts[word]);
    }
    return MRN_OK;
}

/* ---- Second pass: the branches make one tree of UTF-8 keys -------------------------------------------- */

/* Where the path to a record stands: how many bytes of its key are behind, what UTF-8 still wants, whether
 * the key has ended (the path came through a branch with byte 0). */
enum {
    STATE_DEPTH = 0x7ff,
    STATE_UTF8_SHIFT = 11,
    STATE_UTF8 = 7,
    STATE_ENDED = 0x4000,
    STATE_UNREACHED = 0xffff,
    UTF8_INVALID = 8
};

/* The states of UTF-8: 0 between characters; 1, 2, 3: as many bytes are wanted; 4 to 7: the next byte is
 * bounded further, after E0, ED, F0, F4. A key holds no zero byte. */
static unsigned utf8_next(unsigned state, unsigned byte) {
    static const uint8_t low[8] = {0, 0x80, 0x80, 0x80, 0xa0, 0x80, 0x90, 0x80};
    static const uint8_t high[8] = {0, 0xbf, 0xbf, 0xbf, 0xbf, 0x9f, 0xbf, 0x8f};
    static const uint8_t then[8] = {0, 0, 1, 2, 1, 1, 2, 2};
    if (state != 0)
        return byte >= low[state] && byte <= high[state] ? then[state] : UTF8_INVALID;
    if (byte < 0x80)
        return byte != 0 ? 0 : UTF8_INVALID;
    if (byte < 0xc2 || byte > 0xf4)
        return UTF8_INVALID;
    if (byte < 0xe0)
        return 1;
    if (byte < 0xf0)
        return byte == 0xe0 ? 4 : byte == 0xed ? 5 : 2;
    return byte == 0xf0 ? 6 : byte == 0xf4 ? 7 : 3;
}

/* Walk the suffix of a record that is reached in `state`, filling the trail; NULL, or what is wrong. */
static const char *check_suffix(const record *r, unsigned state, uint8_t *trail) {
    if ((state & STATE_DEPTH) + r->suffix_bytes > MRN_KEY_MAX)
        return "a key is longer than the format takes";
    if (state & STATE_ENDED && r->suffix_bytes > 0)
        return "a key goes on after its end";
    unsigned utf8 = state >> STATE_UTF8_SHIFT & STATE_UTF8;
    for (size_t i = 0; i < r->suffix_bytes; i++) {
        trail[i] = (uint8_t)utf8;
        utf8 = utf8_next(utf8, r->suffix[i]);
        if (utf8 == UTF8_INVALID)
            return "a key is not UTF-8";
    }
    trail[r->suffix_bytes] = (uint8_t)utf8;
    return utf8 == 0 ? NULL : "a key is not UTF-8";
}

/* Check one branch and set *next to the state behind it; NULL, or what is wrong. */
static const char *check_branch(const record *r, unsigned state, size_t position, unsigned byte,
                                const uint8_t *trail, unsigned *next) {
    if (position > r->suffix_bytes)
        return "a branch leaves behind the end of its suffix";
    unsigned depth = (state & STATE_DEPTH) + (unsigned)position;
    if (byte == 0) {
        if (trail[position] != 0)
            return "a key is not UTF-8";
        *next = depth | STATE_ENDED;
        return NULL;
    }
    if (position < r->suffix_bytes && r->suffix[position] == byte)
        return "a branch goes where the suffix goes";
    unsigned utf8 = utf8_next(trail[position], byte);
    if (state & STATE_ENDED || utf8 == UTF8_INVALID || depth + 1 > MRN_KEY_MAX)
        return "a branch leads to no key";
    *next = (depth + 1) | utf8 << STATE_UTF8_SHIFT;
    return NULL;
}

/* Check the branches of the record at `place` and write the states of the records behind them. */
static const char *check_branches(const mrn_index *index, const record *r, uint32_t place, unsigned state,
                                  scratch *s) {
    uint32_t before = place;
    for (size_t i = 0; i < r->branches; i++) {
        uint32_t target = load_place(r->places + i * index->width, index->width);
        if (target <= before || target >= index->record_bytes)
            return "a branch does not lead to a later record";
        before = target;
        uint64_t word = s->starts[target / 64], bit = (uint64_t)1 << (target % 64);
        if (!(word & bit))
            return "a branch does not lead to a record";
        uint16_t *reached = &s->states[s->ranks[target / 64] + bits_set(word & (bit - 1))];
        if (*reached != STATE_UNREACHED)
            return "two branches lead to one record";
        size_t position = branch_position(r, i);
        unsigned byte = r->bytes[i], next = 0;
        const char *wrong = check_branch(r, state, position, byte, s->trail, &next);
        if (wrong != NULL)
            return wrong;
        size_t pair = position * 256 + byte;
        if (s->seen[pair / 64] >> (pair % 64) & 1)
            return "two branches leave in one way";
        s->seen[pair / 64] |= (uint64_t)1 << (pair % 64);
        *reached = (uint16_t)next;
    }
    for (size_t i = 0; i < r->branches; i++)
        s->seen[(branch_position(r, i) * 256 + r->bytes[i]) / 64] = 0;
    return NULL;
}

static int check_tree(const uint8_t *file, const mrn_index *index, scratch *s, mrn_fault *fault) {
    const uint8_t *records = file + index->records, *end = records + index->record_bytes;
    memset(s->states, 0xff, (size_t)index->entries * sizeof *s->states);
    s->states[0] = 0;
    size_t entry = 0;
    for (const uint8_t *at = records; at < end; entry++) {
        unsigned state = s->states[entry];
        record r;
        document d;
        read_record(at, NULL, index->width, 0, &r);
        read_document(&r, NULL, 0, &d);
        const char *wrong = state == STATE_UNREACHED ? "no branch leads to a record" : NULL;
        if (wrong == NULL)
            wrong = check_suffix(&r, state, s->trail);
        if (wrong == NULL)
            wrong = check_branches(index, &r, (uint32_t)(at - records), state, s);
        if (wrong != NULL)
            return fail(fault, MRN_E_FORMAT, wrong, (uint64_t)(at - file));
        at = d.end;
    }
    return MRN_OK;
}

int mrn_index_open(const char *file, size_t file_bytes, void *block, size_t block_bytes, mrn_index *index,
                   mrn_fault *fault) {
    if (file == NULL || block == NULL || index == NULL || fault == NULL)
        return MRN_E_ARGUMENT;
    *fault = (mrn_fault){"", 0};
    const uint8_t *bytes = (const uint8_t *)file;
    mrn_index found = {.file = file};
    int status = check_header(bytes, file_bytes, fault);
    if (status == MRN_OK)
        status = check_sections(bytes, file_bytes, &found, fault);
    if (status != MRN_OK)
        return status;
    found.entries = get64(bytes + MRN_HEADER_ENTRIES);
    if (found.entries > found.record_bytes / RECORD_BYTES_MIN)
        return fail(fault, MRN_E_FORMAT, "it has more entries than its records can hold", MRN_HEADER_ENTRIES);
    if (block_bytes < mrn_index_scratch_bytes(file_bytes) || (uintptr_t)block % 8 != 0)
        return MRN_E_MEMORY;
    scratch s = lay_out(block, file_bytes);
    status = check_records(bytes, &found, &s, fault);
    if (status == MRN_OK)
        status = check_tree(bytes, &found, &s, fault);
    if (status == MRN_OK)
        *index = found;
    return status;
}
