/* Opening an index segment: everything that a look-up relies on is checked here, once. */

#include "crc32c.h"
#include "fold.h"
#include "json_check.h"
#include "mrn.h"
#include "trie_layout.h"

#include <math.h>

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

/* Where a section lies in the file, and the end of it. */
typedef struct extent {
    const uint8_t *from, *to;
} extent;

typedef struct opening {
    const uint8_t *file;
    mrn_index index;
    extent sections[MRN_SECTION_ID_END];
    mrn_fault *fault;
} opening;

static int refuse(const opening *o, const char *what, const uint8_t *at) {
    return fail(o->fault, MRN_E_FORMAT, what, (uint64_t)(at - o->file));
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
        (tags && (items[MRN_SECTION_TAGS] == 0 || items[MRN_SECTION_TAGS] > MRN_TAGS_MAX ||
                  items[MRN_SECTION_MASKS] != n || items[MRN_SECTION_KEY_MASKS] != n ||
                  items[MRN_SECTION_WORD_MASKS] != words)))
        return fail(fault, MRN_E_FORMAT, "the number of entries is not the same everywhere",
                    MRN_HEADER_ENTRIES);
    o->index.entries = n;
    return MRN_OK;
}

/* ---- Tries -------------------------------------------------------------------------------------------- */

typedef struct scratch {
    uint64_t *seen;   /* a bit for each (position, byte) of one node's branches */
    uint16_t *states; /* of each node: where the path to it stands, see below */
    uint8_t *trail;   /* UTF-8 state before each byte of one suffix, and after it */
} scratch;

enum { SEEN_WORDS = BRANCHES_MAX / 64, TRAIL_BYTES = MRN_KEY_MAX + 8 };

/* A group of nodes has 4 bytes for its place and 16 for their lengths at least. */
static size_t node_count_max(size_t bytes) {
    return bytes / (4 + MRN_NODE_GROUP) * MRN_NODE_GROUP + MRN_NODE_GROUP;
}

size_t mrn_index_scratch_bytes(size_t file_bytes) {
    return SEEN_WORDS * 8 + node_count_max(file_bytes) * 2 + TRAIL_BYTES + 8;
}

static scratch lay_out(void *block, size_t file_bytes) {
    scratch s;
    s.seen = block;
    s.states = (uint16_t *)(s.seen + SEEN_WORDS);
    s.trail = (uint8_t *)(s.states + node_count_max(file_bytes));
    memset(s.seen, 0, SEEN_WORDS * 8);
    return s;
}

/* Where the path to a node stands: how many bytes of its key are behind, what UTF-8 still wants, whether
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
 * bounded further, after E0, ED, F0, F4. A key holds no control character of ASCII. */
static unsigned utf8_next(unsigned state, unsigned byte) {
    static const uint8_t low[8] = {0, 0x80, 0x80, 0x80, 0xa0, 0x80, 0x90, 0x80};
    static const uint8_t high[8] = {0, 0xbf, 0xbf, 0xbf, 0xbf, 0x9f, 0xbf, 0x8f};
    static const uint8_t then[8] = {0, 0, 1, 2, 1, 1, 2, 2};
    if (state != 0)
        return byte >= low[state] && byte <= high[state] ? then[state] : UTF8_INVALID;
    if (byte < 0x80)
        return byte >= 0x20 && byte != 0x7f ? 0 : UTF8_INVALID;
    if (byte < 0xc2 || byte > 0xf4)
        return UTF8_INVALID;
    if (byte < 0xe0)
        return 1;
    if (byte < 0xf0)
        return byte == 0xe0 ? 4 : byte == 0xed ? 5 : 2;
    return byte == 0xf0 ? 6 : byte == 0xf4 ? 7 : 3;
}

/* Walk the suffix of a node that is reached in `state`, filling the trail; NULL, or what is wrong. */
static const char *check_suffix(const trie_node *n, unsigned state, uint8_t *trail) {
    size_t key_bytes = (state & STATE_DEPTH) + n->suffix_bytes;
    if (key_bytes > MRN_KEY_MAX)
        return "a key is longer than the format takes";
    if (key_bytes == 0)
        return "a key is empty";
    if (state & STATE_ENDED && n->suffix_bytes > 0)
        return "a key goes on after its end";
    unsigned utf8 = state >> STATE_UTF8_SHIFT & STATE_UTF8;
    for (size_t i = 0; i < n->suffix_bytes; i++) {
        trail[i] = (uint8_t)utf8;
        utf8 = utf8_next(utf8, n->suffix[i]);
        if (utf8 == UTF8_INVALID)
            return "a key is not UTF-8";
    }
    trail[n->suffix_bytes] = (uint8_t)utf8;
    return utf8 == 0 ? NULL : "a key is not UTF-8";
}

/* Check one branch and set *next to the state behind it; NULL, or what is wrong. */
static const char *check_branch(const trie_node *n, unsigned state, size_t position, unsigned byte,
                                const uint8_t *trail, unsigned *next) {
    if (position > n->suffix_bytes)
        return "a branch leaves behind the end of its suffix";
    unsigned depth = (state & STATE_DEPTH) + (unsigned)position;
    if (byte == 0) {
        if (trail[position] != 0)
            return "a key is not UTF-8";
        *next = depth | STATE_ENDED;
        return NULL;
    }
    if (position < n->suffix_bytes && n->suffix[position] == byte)
        return "a branch goes where the suffix goes";
    unsigned utf8 = utf8_next(trail[position], byte);
    if (state & STATE_ENDED || utf8 == UTF8_INVALID || depth + 1 > MRN_KEY_MAX)
        return "a branch leads to no key";
    *next = (depth + 1) | utf8 << STATE_UTF8_SHIFT;
    return NULL;
}

/* Check the branches of node `rank` and write the states of the nodes behind them. */
static const char *check_branches(const trie *t, const trie_node *n, uint32_t rank, unsigned state,
                                  scratch *s) {
    uint32_t before = rank;
    for (size_t i = 0; i < n->branches; i++) {
        branch b = read_branch(n, i);
        unsigned byte = n->bytes[i], next = 0;
        if (b.rank <= before || b.rank >= t->nodes)
            return "a branch does not lead to a later node";
        before = b.rank;
        if (s->states[b.rank] != STATE_UNREACHED)
            return "two branches lead to one node";
        const char *wrong = check_branch(n, state, b.position, byte, s->trail, &next);
        if (wrong != NULL)
            return wrong;
        s->states[b.rank] = (uint16_t)next;
        if (n->branches > 1) {
            size_t pair = b.position * 256 + byte;
            if (s->seen[pair / 64] >> (pair % 64) & 1)
                return "two branches leave in one way";
            s->seen[pair / 64] |= (uint64_t)1 << (pair % 64);
        }
    }
    if (n->branches > 1)
        for (size_t i = 0; i < n->branches; i++)
            s->seen[(read_branch(n, i).position * 256 + n->bytes[i]) / 64] = 0;
    return NULL;
}

/* Read a node whose parts must lie before `end`; where it ends, or NULL. */
static const uint8_t *read_far(const trie *t, unsigned kind, const uint8_t *at, const uint8_t *end,
                               trie_node *n) {
    size_t head = kind & MRN_NODE_BRANCHES ? 6 : 2, room = (size_t)(end - at);
    if (room < head)
        return NULL;
    size_t suffix = load16(at), count = kind & MRN_NODE_BRANCHES ? load32(at + 2) : 0;
    if (suffix > MRN_KEY_MAX || count > BRANCHES_MAX || (kind & MRN_NODE_BRANCHES && count == 0))
        return NULL;
    size_t bytes = head + suffix + count + packed_bytes(count, bit_length(suffix) + t->rank_bits);
    uint8_t place[4] = {(uint8_t)(at - t->base), (uint8_t)((size_t)(at - t->base) >> 8),
                        (uint8_t)((size_t)(at - t->base) >> 16), (uint8_t)((size_t)(at - t->base) >> 24)};
    if (room < bytes)
        return NULL;
    read_node_at(t, kind, place, n);
    return at + bytes;
}

/* The contexts of a node and all below it are its own and those of its branches. */
static int masks_agree(const mrn_index *index, const trie_node *n, unsigned id, uint32_t rank,
                       uint32_t entry) {
    uint64_t mask = read_mask(index, MRN_SECTION_MASKS, entry);
    for (size_t i = 0; i < n->branches; i++)
        mask |= read_mask(index, id, read_branch(n, i).rank);
    return mask == read_mask(index, id, rank);
}

static int check_trie(const opening *o, unsigned id, scratch *s) {
    const extent section = o->sections[id];
    const trie t = segment_trie(&o->index, id);
    const unsigned masks = id == MRN_SECTION_KEYS ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS;
    const int masked = o->index.items[MRN_SECTION_TAGS] > 0;
    size_t groups = ((size_t)t.nodes + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    size_t room = (size_t)(section.to - section.from);
    if (room / (4 + MRN_NODE_GROUP) < groups)
        return refuse(o, "it has more entries than it can hold", section.from);
    const uint8_t *at = section.from + 4 * groups, *far = at;
    if (groups > 0) { /* the far part begins where the last group ends */
        size_t last = load32(section.from + 4 * (groups - 1));
        if (last > room - MRN_NODE_GROUP)
            return refuse(o, "a group of nodes is not where it should be", section.from);
        far = section.from + last;
        for (unsigned i = 0; i < MRN_NODE_GROUP; i++)
            last += far[i] & MRN_NODE_BYTES;
        if (last > room - MRN_NODE_GROUP)
            return refuse(o, "a group of nodes is not where it should be", section.from);
        far = section.from + last + MRN_NODE_GROUP;
    }
    const uint8_t *near_end = far;
    memset(s->states, 0xff, (size_t)t.nodes * sizeof *s->states);
    s->states[0] = 0;
    for (uint32_t first = 0; first < t.nodes; first += MRN_NODE_GROUP) {
        const uint8_t *lengths = at;
        if (load32(section.from + first / MRN_NODE_GROUP * 4) != (size_t)(at - section.from) ||
            (size_t)(near_end - at) < MRN_NODE_GROUP)
            return refuse(o, "a group of nodes is not where it should be", at);
        at += MRN_NODE_GROUP;
        for (uint32_t i = 0; i < MRN_NODE_GROUP; i++) {
            uint32_t rank = first + i;
            unsigned kind = lengths[i];
            size_t bytes = kind & MRN_NODE_BYTES;
            if (rank >= t.nodes) {
                if (kind != 0)
                    return refuse(o, "the last group has nodes too many", lengths);
                continue;
            }
            if ((size_t)(near_end - at) < bytes)
                return refuse(o, "a node breaks the format", at);
            trie_node n;
            if (kind & MRN_NODE_FAR) {
                if (bytes != 4 || load32(at) != (size_t)(far - section.from))
                    return refuse(o, "a node is not where it should be", at);
                far = read_far(&t, kind, far, section.to, &n);
                if (far == NULL)
                    return refuse(o, "a node breaks the format", at);
            } else {
                if (kind & MRN_NODE_BRANCHES && bytes == 0)
                    return refuse(o, "a node breaks the format", at);
                read_node_at(&t, kind, at, &n);
                if (kind & MRN_NODE_BRANCHES &&
                    1 + n.suffix_bytes + n.branches + packed_bytes(n.branches, n.branch_bits) != bytes)
                    return refuse(o, "a node breaks the format", at);
            }
            unsigned state = s->states[rank];
            const char *wrong = state == STATE_UNREACHED ? "no branch leads to a node" : NULL;
            if (wrong == NULL)
                wrong = check_suffix(&n, state, s->trail);
            if (wrong == NULL && n.branches > 0)
                wrong = check_branches(&t, &n, rank, state, s);
            if (wrong == NULL && masked) {
                uint32_t entry = rank;
                if (id == MRN_SECTION_WORDS)
                    entry = (uint32_t)read_number(o->sections[MRN_SECTION_WORD_ENTRIES].from, rank);
                if (!masks_agree(&o->index, &n, masks, rank, entry))
                    wrong = "the contexts of a node are not those below it";
            }
            if (wrong != NULL)
                return refuse(o, wrong, at);
            at += bytes;
        }
    }
    if (at != near_end || far != section.to)
        return refuse(o, "something follows its nodes", at);
    return MRN_OK;
}

/* ---- Numbers, ties and scores ------------------------------------------------------------------------- */

/* Check the groups of a section of numbers; then read_number may read each. */
static int check_numbers(const opening *o, unsigned id) {
    const extent section = o->sections[id];
    uint32_t count = o->index.items[id];
    size_t groups = ((size_t)count + MRN_NUMBER_GROUP - 1) / MRN_NUMBER_GROUP;
    if ((size_t)(section.to - section.from) / (4 + 9) < groups)
        return refuse(o, "it has more numbers than it can hold", section.from);
    const uint8_t *at = section.from + 4 * groups;
    for (size_t g = 0; g < groups; g++) {
        size_t here = count - g * MRN_NUMBER_GROUP;
        here = here < MRN_NUMBER_GROUP ? here : MRN_NUMBER_GROUP;
        if (load32(section.from + 4 * g) != (size_t)(at - section.from) || section.to - at < 9)
            return refuse(o, "a group of numbers is not where it should be", at);
        unsigned bits = at[8];
        size_t bytes = 9 + packed_bytes(here, bits);
        if ((bits > 57 && bits != 64) || (size_t)(section.to - at) < bytes)
            return refuse(o, "a group of numbers breaks the format", at);
        at += bytes;
    }
    return at == section.to ? MRN_OK : refuse(o, "something follows its numbers", at);
}

static int check_scores(const opening *o) {
    const mrn_index *index = &o->index;
    const extent ties = o->sections[MRN_SECTION_TIES], scores = o->sections[MRN_SECTION_SCORES];
    size_t blocks = ((size_t)index->entries + 63) / 64;
    if ((size_t)(ties.to - ties.from) != blocks * TIES_BYTES)
        return refuse(o, "its ties have not the length that its entries take", ties.from);
    uint32_t tie = 0, classes = 0;
    for (size_t i = 0; i < blocks; i++) {
        const uint8_t *block = ties.from + TIES_BYTES * i;
        uint64_t bits = load64(block);
        unsigned here = index->entries - 64 * i < 64 ? (unsigned)(index->entries - 64 * i) : 64;
        if (load32(block + 8) != tie || load32(block + 12) != classes || (i == 0 && !(bits & 1)) ||
            (here < 64 && bits >> here != 0))
            return refuse(o, "its ties are not consistent", block);
        classes += count_bits(bits);
        if (bits != 0)
            tie = (uint32_t)(64 * i) + bit_length(bits) - 1;
    }
    if (classes != index->items[MRN_SECTION_SCORES])
        return refuse(o, "the number of different scores is wrong", ties.from);
    int status = check_numbers(o, MRN_SECTION_SCORES);
    int whole = index->flags & MRN_INDEX_FLOAT ? 0 : 1, fractions = 0;
    uint64_t before = 0;
    for (uint32_t i = 0; status == MRN_OK && i < classes; i++) {
        uint64_t value = read_number(scores.from, i);
        double score = (double)value;
        if (!whole)
            memcpy(&score, &value, sizeof score);
        if (i > 0 && value >= before)
            status = refuse(o, "a score is not below the one before it", scores.from);
        else if (whole ? value > SCORE_INTEGER_MAX : value >> 63 != 0 || !isfinite(score))
            status = refuse(o, "a score is not what the format allows", scores.from);
        if (status == MRN_OK)
            fractions |= !score_is_integer(score);
        before = value;
    }
    if (status == MRN_OK && !whole && !fractions)
        status = refuse(o, "its scores are integers, and are not stored as such", scores.from);
    return status;
}

static int check_word_entries(const opening *o) {
    const uint8_t *base = o->sections[MRN_SECTION_WORD_ENTRIES].from;
    int status = check_numbers(o, MRN_SECTION_WORD_ENTRIES);
    uint64_t before = 0;
    uint32_t same = 0;
    for (uint32_t i = 0; status == MRN_OK && i < o->index.items[MRN_SECTION_WORD_ENTRIES]; i++) {
        uint64_t entry = read_number(base, i);
        same = i > 0 && entry == before ? same + 1 : 0;
        if (entry < before || entry >= o->index.entries || same >= MRN_WORDS_MAX)
            status = refuse(o, "the entries of its words are not in order", base);
        before = entry;
    }
    return status;
}

/* ---- Texts, payloads, contexts ------------------------------------------------------------------------ */

typedef struct shown {
    const uint8_t *text; /* NULL: it is not stored */
    size_t bytes, points;
} shown;

/* Whether a stands before b among entries of one score: code points ascending, bytes ascending. */
static int shown_before(const shown *a, const shown *b) {
    if (a->points != b->points)
        return a->points < b->points;
    size_t shared = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(a->text, b->text, shared);
    return order != 0 ? order < 0 : a->bytes < b->bytes;
}

static int check_blob(const opening *o, unsigned id, uint32_t rank, const uint8_t *at, size_t bytes,
                      shown *before) {
    if (id == MRN_SECTION_PAYLOADS) {
        if (bytes > MRN_PAYLOAD_MAX || (bytes > 0 && !json_valid(at, bytes)))
            return refuse(o, "a payload is not JSON", at);
        return MRN_OK;
    }
    if (bytes == 0) {
        *before = (shown){NULL, 0, 0};
        return o->index.flags & MRN_INDEX_WORDS ? refuse(o, "a text is missing", at) : MRN_OK;
    }
    shown here = {at, bytes, bytes > MRN_TEXT_MAX ? SIZE_MAX : text_points(at, bytes)};
    if (here.points == SIZE_MAX)
        return refuse(o, "a text is not UTF-8, holds a control character or is too long", at);
    if (before->text != NULL && tie_start(&o->index, rank) != rank && !shown_before(before, &here))
        return refuse(o, "an entry is not in its place by length and bytes", at);
    *before = here;
    return MRN_OK;
}

static int check_blobs(const opening *o, unsigned id) {
    const extent section = o->sections[id];
    uint32_t count = o->index.items[id];
    size_t groups = ((size_t)count + MRN_NODE_GROUP - 1) / MRN_NODE_GROUP;
    if (section.from == NULL)
        return id == MRN_SECTION_TEXTS && o->index.flags & MRN_INDEX_WORDS && o->index.entries > 0
                   ? fail(o->fault, MRN_E_FORMAT, "its texts are missing", MRN_HEADER_SECTIONS)
                   : MRN_OK;
    if ((size_t)(section.to - section.from) / (4 + MRN_NODE_GROUP) < groups)
        return refuse(o, "it has more entries than it can hold", section.from);
    const uint8_t *at = section.from + 4 * groups;
    shown before = {NULL, 0, 0};
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *lengths = at;
        if (load32(section.from + 4 * g) != (size_t)(at - section.from) ||
            (size_t)(section.to - at) < MRN_NODE_GROUP)
            return refuse(o, "a group of blobs is not where it should be", at);
        at += MRN_NODE_GROUP;
        for (size_t i = 0; i < MRN_NODE_GROUP; i++) {
            size_t bytes = lengths[i], rank = g * MRN_NODE_GROUP + i;
            if (bytes == BLOB_LONG) {
                if (section.to - at < 4 || load32(at) < BLOB_LONG)
                    return refuse(o, "the length of a blob is wrong", at);
                bytes = load32(at);
                at += 4;
            }
            if ((size_t)(section.to - at) < bytes || (rank >= count && bytes > 0))
                return refuse(o, "a blob does not fit", at);
            if (rank < count) {
                int status = check_blob(o, id, (uint32_t)rank, at, bytes, &before);
                if (status != MRN_OK)
                    return status;
            }
            at += bytes;
        }
    }
    return at == section.to ? MRN_OK : refuse(o, "something follows its blobs", at);
}

static int check_masks(const opening *o) {
    const mrn_index *index = &o->index;
    uint32_t tags = index->items[MRN_SECTION_TAGS];
    if (tags == 0)
        return MRN_OK;
    const uint8_t *at = o->sections[MRN_SECTION_TAGS].from, *end = o->sections[MRN_SECTION_TAGS].to;
    for (uint32_t t = 0; t < tags; t++) {
        if (at == end || *at == 0 || *at > MRN_TAG_MAX || end - at <= *at ||
            text_points(at + 1, *at) == SIZE_MAX)
            return refuse(o, "the name of a context breaks the format", at);
        at += 1 + *at;
    }
    if (at != end)
        return refuse(o, "something follows the names of its contexts", at);
    for (unsigned id = MRN_SECTION_MASKS; id <= MRN_SECTION_WORD_MASKS; id++) {
        const extent section = o->sections[id];
        if (section.from == NULL)
            continue;
        if ((size_t)(section.to - section.from) != (size_t)index->items[id] * mask_bytes(tags))
            return refuse(o, "its contexts have not the length that its entries take", section.from);
        for (uint32_t i = 0; tags < 64 && i < index->items[id]; i++)
            if (read_mask(index, id, i) >> tags != 0)
                return refuse(o, "an entry has a context that has no name", section.from);
    }
    return MRN_OK;
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
    scratch s = lay_out(block, file_bytes);
    const int words = o.index.flags & MRN_INDEX_WORDS ? 1 : 0;
    status = check_scores(&o);
    if (status == MRN_OK)
        status = check_masks(&o);
    if (status == MRN_OK && words)
        status = check_word_entries(&o);
    if (status == MRN_OK)
        status = check_trie(&o, MRN_SECTION_KEYS, &s);
    if (status == MRN_OK && words)
        status = check_trie(&o, MRN_SECTION_WORDS, &s);
    if (status == MRN_OK)
        status = check_blobs(&o, MRN_SECTION_TEXTS);
    if (status == MRN_OK)
        status = check_blobs(&o, MRN_SECTION_PAYLOADS);
    if (status == MRN_OK)
        *index = o.index;
    return status;
}
