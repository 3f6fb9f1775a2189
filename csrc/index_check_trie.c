/* Checking a trie of an index segment, node by node in the order of the file: each is reached by one branch
 * of an earlier one, which said where the path to it stands.
 *
 * Nearly all nodes are near and ASCII: suffix_fits and near_branches see that at a glance. They only ever say
 * that a node is right; of one that is odd in any way, check_node finds out byte by byte whether it is wrong,
 * and says how. What look-ups rely on, and where it is checked:
 *
 *   read_node       A group and its nodes lie in the section, one after the other, the far ones likewise; the
 * parts of a node fill it: check_trie (places, sums of lengths), near_branches, read_far. read_branch     A
 * rank is a node's, above its parent's and that of the branch before, so that a walk ends and the first
 * branches are the best; a position lies in the suffix or at its end: fit_branches, check_branches. One
 * branch leads to each node: check_trie counts them. trie_walk       A path has one continuation: no branch
 * goes where the suffix or another branch goes: fit_branches, check_branches. spell, read_text   A key has 1
 * to MRN_KEY_MAX bytes, and nothing follows its end (byte 0): the states that branches pass on, suffix_fits,
 * check_suffix, check_branch. append_byte, highlights, JSON   A key is UTF-8 without control characters:
 * is_plain, check_suffix, check_branch. filters         A subtree's contexts are those of its entries:
 * masks_agree.
 *
 * 8 bytes may be read at once anywhere in a section (MRN_SLACK), and 16 in a trie: the ties follow it. */

#include "index_check.h"

/* ---- Tries -------------------------------------------------------------------------------------------- */

typedef struct scratch {
    uint64_t *seen;   /* a bit for each (position, byte) of one node's branches */
    uint16_t *states; /* of each node: where the path to it stands, see below */
    uint8_t *trail;   /* UTF-8 state before each byte of one suffix, and after it */
} scratch;

enum { SEEN_WORDS = BRANCHES_MAX / 64, TRAIL_BYTES = MRN_KEY_MAX + 8, FEW_WAYS = 16 };

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

/* Whether bytes are ASCII without control characters; those of branches may be 0 too, where a key ends. Up to
 * 16 behind them are read, and may be anything. */
ALWAYS_INLINE int is_plain(const uint8_t *at, size_t bytes, int of_branches) {
#if defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), space = _mm_set1_epi8(0x20), above = _mm_set1_epi8(0x7f);
    for (;; at += 16, bytes -= 16) {
        const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i odd = _mm_or_si128(_mm_cmplt_epi8(some, space), _mm_cmpeq_epi8(some, above));
        if (of_branches)
            odd = _mm_andnot_si128(_mm_cmpeq_epi8(some, zero), odd);
        const unsigned found = (unsigned)_mm_movemask_epi8(odd);
        if (bytes <= 16)
            return (found & ((1U << bytes) - 1)) == 0;
        if (found != 0)
            return 0;
    }
#else
    const uint64_t ones = UINT64_C(0x0101010101010101), low = 0x7f * ones, high = 0x80 * ones;
    for (; bytes > 0; at += 8) {
        const uint64_t word = load64(at), part = word & low; /* no sum below carries into the next byte */
        uint64_t odd = (word | ~(part + 0x60 * ones) | (part + ones)) & high;
        if (of_branches)
            odd &= word | (part + low);
        if (bytes <= 8)
            return (odd << (64 - 8 * bytes)) == 0;
        if (odd != 0)
            return 0;
        bytes -= 8;
    }
    return 1;
#endif
}

/* Whether two branches of a node with few of them leave in one way: each is compared with those before it. */
static int ways_clash(const trie_node *n) {
    for (size_t i = 1; i < n->branches; i++)
        for (size_t j = 0; j < i; j++)
            if (n->bytes[i] == n->bytes[j] && read_branch(n, i).position == read_branch(n, j).position)
                return 1;
    return 0;
}

/* Bits of the ways of many branches: as many positions as the node has, 256 bits each. */
static void clear_ways(uint64_t *seen, const trie_node *n) {
    memset(seen, 0, (n->suffix_bytes + 1) * (256 / 8));
}

ALWAYS_INLINE uint64_t note_way(uint64_t *seen, size_t position, unsigned byte) {
    uint64_t *word = &seen[position * 4 + byte / 64], bit = UINT64_C(1) << (byte % 64), known = *word & bit;
    *word |= bit;
    return known;
}

/* Check the branches of node `rank`, whose bytes are plain, and write the states of the nodes behind them.
 * The path to the node and its suffix are ASCII, and no longer than a key with one more byte may be. 0:
 * something is wrong, or they want a closer look. Of few branches each has a bit of 64, which others may have
 * too. */
ALWAYS_INLINE int fit_branches(const trie *t, const trie_node *n, uint32_t rank, unsigned depth,
                               uint16_t *states, uint64_t *seen) {
    const uint8_t *suffix = n->suffix, *bytes = n->bytes, *packed = n->packed;
    const size_t suffix_bytes = n->suffix_bytes, count = n->branches;
    const unsigned position_bits = n->position_bits, branch_bits = n->branch_bits;
    const uint64_t branch_mask = n->branch_mask, position_mask = (UINT64_C(1) << position_bits) - 1;
    const uint32_t nodes = t->nodes;
    uint32_t before = rank;
    uint64_t ways = 0, known = 0;
    unsigned along = 0;
    size_t bit = 0;
    for (size_t i = 0; i < count; i++, bit += branch_bits) {
        const uint64_t both = load64(packed + bit / 8) >> (bit % 8) & branch_mask;
        const size_t position = both & position_mask;
        const uint32_t to = (uint32_t)(both >> position_bits);
        const unsigned byte = bytes[i];
        if (to <= before || to >= nodes || position > suffix_bytes)
            return 0;
        before = to;
        states[to] = (uint16_t)(byte == 0 ? (depth + position) | STATE_ENDED : depth + position + 1);
        along |= (suffix[position] == byte) & (position < suffix_bytes);
        if (seen == NULL) {
            const uint64_t way = UINT64_C(1) << ((position * 27 + byte) % 64); /* 26 letters a position */
            known |= ways & way;
            ways |= way;
        } else {
            known |= note_way(seen, position, byte);
        }
    }
    return along == 0 && known == 0;
}

/* Check the branches of node `rank` one by one and write the states of the nodes behind them. */
static const char *check_branches(const trie *t, const trie_node *n, uint32_t rank, unsigned state,
                                  scratch *s) {
    uint32_t before = rank;
    const int few = n->branches <= FEW_WAYS;
    if (!few)
        clear_ways(s->seen, n);
    for (size_t i = 0; i < n->branches; i++) {
        branch b = read_branch(n, i);
        unsigned next;
        if (b.rank <= before || b.rank >= t->nodes)
            return "a branch does not lead to a later node";
        before = b.rank;
        const char *wrong = check_branch(n, state, b.position, n->bytes[i], s->trail, &next);
        if (wrong != NULL)
            return wrong;
        s->states[b.rank] = (uint16_t)next;
        if (!few && note_way(s->seen, b.position, n->bytes[i]))
            return "two branches leave in one way";
    }
    return few && ways_clash(n) ? "two branches leave in one way" : NULL;
}

/* Whether a suffix that is reached in `state` is ASCII, and leaves room in the key for a byte more. */
ALWAYS_INLINE int suffix_fits(const uint8_t *suffix, size_t bytes, unsigned state) {
    const unsigned depth = state & STATE_DEPTH;
    return (state == depth || (state == (depth | STATE_ENDED) && bytes == 0)) &&
           depth + bytes - 1 < MRN_KEY_MAX - 1 && is_plain(suffix, bytes, 0);
}

ALWAYS_INLINE size_t node_bytes(const trie_node *n) {
    return 1 + n->suffix_bytes + n->branches + packed_bytes(n->branches, n->branch_bits);
}

/* The number of branches of a node that is near, has some, and is what nearly all such nodes are: ASCII. 0:
 * it is not, and check_node has to say what it is. */
static size_t near_branches(const trie *t, const uint8_t *at, size_t bytes, uint32_t rank, unsigned state,
                            uint16_t *states) {
    trie_node n;
    read_node_at(t, MRN_NODE_BRANCHES, at, &n);
    const int fits = state <= STATE_DEPTH && node_bytes(&n) == bytes &&
                     suffix_fits(n.suffix, n.suffix_bytes, state) && is_plain(n.bytes, n.branches, 1) &&
                     fit_branches(t, &n, rank, state, states, NULL);
    return fits ? n.branches : 0;
}

/* Check what a node that is reached in `state` says. */
static const char *check_node(const trie *t, const trie_node *n, uint32_t rank, unsigned state, scratch *s) {
    if (state == STATE_UNREACHED)
        return "no branch leads to a node";
    if (n->branches > 0 && state <= STATE_DEPTH && suffix_fits(n->suffix, n->suffix_bytes, state) &&
        is_plain(n->bytes, n->branches, 1)) {
        clear_ways(s->seen, n);
        if (fit_branches(t, n, rank, state, s->states, s->seen))
            return NULL;
    }
    const char *wrong = check_suffix(n, state, s->trail);
    return wrong != NULL ? wrong : check_branches(t, n, rank, state, s);
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

/* The contexts of a node, which has been checked, and all below it are its own and those of its branches. */
static int masks_agree(const opening *o, const trie *t, unsigned id, uint32_t rank) {
    const mrn_index *index = &o->index;
    const unsigned masks = id == MRN_SECTION_KEYS ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS;
    uint32_t entry = rank;
    if (id == MRN_SECTION_WORDS)
        entry = (uint32_t)read_number(o->sections[MRN_SECTION_WORD_ENTRIES].from, rank);
    uint64_t mask = read_mask(index, MRN_SECTION_MASKS, entry);
    trie_node n;
    read_node(t, rank, &n);
    for (size_t i = 0; i < n.branches; i++)
        mask |= read_mask(index, masks, read_branch(&n, i).rank);
    return mask == read_mask(index, masks, rank);
}

int check_trie(const opening *o, unsigned id, void *block, size_t file_bytes) {
    scratch parts = lay_out(block, file_bytes), *s = &parts;
    const extent section = o->sections[id];
    const trie t = segment_trie(&o->index, id);
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
        const uint32_t here = t.nodes - first < MRN_NODE_GROUP ? t.nodes - first : MRN_NODE_GROUP;
        for (uint32_t i = here; i < MRN_NODE_GROUP; i++)
            if (lengths[i] != 0)
                return refuse(o, "the last group has nodes too many", lengths);
        if ((size_t)(near_end - at) < sum_lengths(lengths, 15) + (lengths[15] & MRN_NODE_BYTES))
            return refuse(o, "a node breaks the format", at);
        for (uint32_t i = 0; i < here; i++) {
            const uint32_t rank = first + i;
            const unsigned kind = lengths[i], state = s->states[rank];
            const size_t bytes = kind & MRN_NODE_BYTES;
            size_t found = 0;
            int fits = 0;
            if (kind <= MRN_NODE_BYTES)
                fits = suffix_fits(at, bytes, state);
            else if (!(kind & MRN_NODE_FAR))
                fits = (found = near_branches(&t, at, bytes, rank, state, s->states)) > 0;
            if (!fits) {
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
                    if (kind & MRN_NODE_BRANCHES && node_bytes(&n) != bytes)
                        return refuse(o, "a node breaks the format", at);
                }
                const char *wrong = check_node(&t, &n, rank, state, s);
                if (wrong != NULL)
                    return refuse(o, wrong, at);
                found = n.branches;
            }
            branches += found;
            if (masked && !masks_agree(o, &t, id, rank))
                return refuse(o, "the contexts of a node are not those below it", at);
            at += bytes;
        }
    }
    if (at != near_end || far != section.to)
        return refuse(o, "something follows its nodes", at);
    if (t.nodes > 0 && branches != t.nodes - 1) /* each other node was reached, so each by just one */
        return refuse(o, "two branches lead to one node", section.from);
    return MRN_OK;
}
