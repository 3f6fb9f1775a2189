/* Checking a trie of an index segment, node by node in the order of the file: each is reached by one branch
 * of an earlier one, which said where the path to it stands. */

#include "index_check.h"

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

size_t trie_scratch_bytes(size_t file_bytes) {
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

/* Whether bytes are ASCII without control characters: 8 at a time, of which those behind the end may be
 * anything. */
ALWAYS_INLINE int is_plain(const uint8_t *at, size_t bytes) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = 0x80 * ones;
    for (; bytes > 0; at += 8) {
        uint64_t word = load64(at);
        uint64_t odd = (word | (word + ones) | (word - 0x20 * ones)) & high; /* the lowest one set is right */
        if (bytes <= 8)
            return (odd << (64 - 8 * bytes)) == 0;
        if (odd != 0)
            return 0;
        bytes -= 8;
    }
    return 1;
}

/* Remembers the ways in which branches leave a node: a few in a list, many as bits. */
typedef struct ways {
    uint64_t *seen;
    size_t count;
    uint32_t few[8];
} ways;

/* Note one; 0 when it is there already. */
ALWAYS_INLINE int note_way(ways *w, size_t branches, size_t position, unsigned byte) {
    size_t pair = position * 256 + byte;
    if (branches <= sizeof w->few / sizeof *w->few) {
        for (size_t i = 0; i < w->count; i++)
            if (w->few[i] == pair)
                return 0;
        w->few[w->count++] = (uint32_t)pair;
        return 1;
    }
    uint64_t bit = UINT64_C(1) << (pair % 64);
    int known = (w->seen[pair / 64] & bit) != 0;
    w->seen[pair / 64] |= bit;
    return !known;
}

/* Check the branches of node `rank` and write the states of the nodes behind them. `plain`: the path to the
 * node and its suffix are ASCII, so that the trail is not needed. */
static const char *check_branches(const trie *t, const trie_node *n, uint32_t rank, unsigned state, int plain,
                                  scratch *s) {
    uint32_t before = rank;
    ways w = {.seen = s->seen};
    for (size_t i = 0; i < n->branches; i++) {
        branch b = read_branch(n, i);
        unsigned byte = n->bytes[i], next = (state & STATE_DEPTH) + (unsigned)b.position + 1;
        if (b.rank <= before || b.rank >= t->nodes)
            return "a branch does not lead to a later node";
        before = b.rank;
        if (!plain || byte - 0x20U >= 0x5f || b.position >= n->suffix_bytes ||
            n->suffix[b.position] == byte) {
            const char *wrong = check_branch(n, state, b.position, byte, s->trail, &next);
            if (wrong != NULL)
                return wrong;
        }
        s->states[b.rank] = (uint16_t)next;
        if (!note_way(&w, n->branches, b.position, byte))
            return "two branches leave in one way";
    }
    if (n->branches > sizeof w.few / sizeof *w.few)
        for (size_t i = 0; i < n->branches; i++)
            s->seen[(read_branch(n, i).position * 256 + n->bytes[i]) / 64] = 0;
    return NULL;
}

/* Check what a node that is reached in `state` says. */
ALWAYS_INLINE const char *check_node(const trie *t, const trie_node *n, uint32_t rank, unsigned state,
                                     scratch *s) {
    size_t key_bytes = (state & STATE_DEPTH) + n->suffix_bytes;
    int plain = state <= STATE_DEPTH && key_bytes > 0 && key_bytes <= MRN_KEY_MAX &&
                is_plain(n->suffix, n->suffix_bytes);
    if (plain && n->branches == 0)
        return NULL;
    if (state == STATE_UNREACHED)
        return "no branch leads to a node";
    if (plain) {
        memset(s->trail, 0, n->suffix_bytes + 1);
    } else {
        const char *wrong = check_suffix(n, state, s->trail);
        if (wrong != NULL)
            return wrong;
    }
    return n->branches == 0 ? NULL : check_branches(t, n, rank, state, plain, s);
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

int check_trie(const opening *o, unsigned id, void *block, size_t file_bytes) {
    scratch parts = lay_out(block, file_bytes), *s = &parts;
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
    uint64_t branches = 0;
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
            const char *wrong = check_node(&t, &n, rank, s->states[rank], s);
            branches += n.branches;
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
    if (t.nodes > 0 && branches != t.nodes - 1) /* each other node was reached, so each by just one */
        return refuse(o, "two branches lead to one node", section.from);
    return MRN_OK;
}
