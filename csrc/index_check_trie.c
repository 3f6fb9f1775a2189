/* Checking a trie of an index segment, node by node in the order of the file: each is reached by one branch
 * of an earlier one, which said where the path to it stands.
 *
 * Nearly all groups of nodes are ASCII and their keys short: index_check_glance.c sees at a glance that they
 * are right. Of one that is odd in any way, check_group finds out byte by byte whether it is wrong, and says
 * how; it writes what the glance wrote once more. What look-ups rely on, and where it is checked, in the
 * latter file too where a function is named twice:
 *
 * read_node: a group and its nodes lie in the section, one after the other, the far ones likewise; the parts
 * of a node fill it: check_trie (places, sums of lengths), check_group or the heads of glance_prepare,
 * read_far.
 *
 * read_branch: a rank is a node's, above its parent's and that of the branch before, so that a walk ends and
 * the first branches are the best; a position lies in the suffix or at its end: check_branches, fit_branches.
 * One branch leads to each node: check_trie counts them.
 *
 * trie_walk: a path has one continuation: no branch goes where the suffix or another branch goes:
 * check_branches, fit_branches.
 *
 * spell, read_text: a key has 1 to MRN_KEY_MAX bytes, and nothing follows its end (byte 0): the states that
 * branches pass on; check_suffix and check_branch, states_fit.
 *
 * append_byte, highlights, JSON: a key is UTF-8 without control characters: check_suffix and check_branch,
 * plain and the steps of glance_prepare.
 *
 * filters: a subtree's contexts are those of its entries: masks_agree.
 *
 * 8 bytes may be read at once behind the end of a section (MRN_SLACK), and 32 behind that of a trie: the ties
 * follow it. */

#include "index_check.h"

/* A group of nodes has 4 bytes for its place and 16 for their lengths at least. */
static size_t node_count_max(size_t bytes) {
    return bytes / (4 + MRN_NODE_GROUP) * MRN_NODE_GROUP + MRN_NODE_GROUP;
}

size_t trie_scratch_bytes(size_t file_bytes) {
    return sizeof(trie_scratch) + node_count_max(file_bytes) * sizeof(uint16_t);
}

enum { UTF8_INVALID = 8 };

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

ALWAYS_INLINE uint64_t note_way(uint64_t *seen, size_t position, unsigned byte) {
    uint64_t *word = &seen[position * 4 + byte / 64], bit = UINT64_C(1) << (byte % 64), known = *word & bit;
    *word |= bit;
    return known;
}

/* Check the branches of node `rank` one by one and write the states of the nodes behind them. */
static const char *check_branches(const trie *t, const trie_node *n, uint32_t rank, unsigned state,
                                  trie_scratch *s) {
    uint32_t before = rank;
    memset(s->seen, 0, (n->suffix_bytes + 1) * (256 / 8));
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
        if (note_way(s->seen, b.position, n->bytes[i]))
            return "two branches leave in one way";
    }
    return NULL;
}

ALWAYS_INLINE size_t node_bytes(const trie_node *n) {
    return 1 + n->suffix_bytes + n->branches + packed_bytes(n->branches, n->branch_bits);
}

/* Check what a node that is reached in `state` says. */
static const char *check_node(const trie *t, const trie_node *n, uint32_t rank, trie_scratch *s) {
    const unsigned state = s->states[rank];
    if (state == STATE_UNREACHED)
        return "no branch leads to a node";
    const char *wrong = check_suffix(n, state, s->trail);
    return wrong != NULL ? wrong : check_branches(t, n, rank, state, s);
}

const uint8_t *read_far(const trie *t, unsigned kind, const uint8_t *at, const uint8_t *end, trie_node *n) {
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
static int masks_agree(const opening *o, unsigned id, uint32_t rank, const trie_node *n) {
    const mrn_index *index = &o->index;
    const unsigned masks = id == MRN_SECTION_KEYS ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS;
    uint32_t entry = rank;
    if (id == MRN_SECTION_WORDS)
        entry = (uint32_t)read_number(o->sections[MRN_SECTION_WORD_ENTRIES].from, rank);
    uint64_t mask = read_mask(index, MRN_SECTION_MASKS, entry);
    for (size_t i = 0; i < n->branches; i++)
        mask |= read_mask(index, masks, read_branch(n, i).rank);
    return mask == read_mask(index, masks, rank);
}

/* Check a group of nodes one by one; the others are as in glance_group. */
static int check_group(const opening *o, const trie *t, unsigned id, const uint8_t *kinds, uint32_t first,
                       const uint8_t **far, trie_scratch *s, uint64_t *branches) {
    const uint8_t *at = kinds + MRN_NODE_GROUP, *const end = o->sections[id].to;
    const int masked = o->index.items[MRN_SECTION_TAGS] > 0;
    for (uint32_t i = 0; i < MRN_NODE_GROUP && first + i < t->nodes; i++) {
        const unsigned kind = kinds[i];
        const size_t bytes = kind & MRN_NODE_BYTES;
        trie_node n;
        if (kind & MRN_NODE_FAR) {
            if (bytes != 4 || load32(at) != (size_t)(*far - t->base))
                return refuse(o, "a node is not where it should be", at);
            *far = read_far(t, kind, *far, end, &n);
            if (*far == NULL)
                return refuse(o, "a node breaks the format", at);
        } else {
            if (kind & MRN_NODE_BRANCHES && bytes == 0)
                return refuse(o, "a node breaks the format", at);
            read_node_at(t, kind, at, &n);
            if (kind & MRN_NODE_BRANCHES && node_bytes(&n) != bytes)
                return refuse(o, "a node breaks the format", at);
        }
        const char *wrong = check_node(t, &n, first + i, s);
        if (wrong != NULL)
            return refuse(o, wrong, at);
        if (masked && !masks_agree(o, id, first + i, &n))
            return refuse(o, "the contexts of a node are not those below it", at);
        *branches += n.branches;
        at += bytes;
    }
    return MRN_OK;
}

/* The same of a group that was seen to be right, but for its contexts. */
static int check_masks_of_group(const opening *o, const trie *t, unsigned id, const uint8_t *kinds,
                                uint32_t first) {
    const uint8_t *at = kinds + MRN_NODE_GROUP;
    for (uint32_t i = 0; i < MRN_NODE_GROUP && first + i < t->nodes; at += kinds[i++] & MRN_NODE_BYTES) {
        trie_node n;
        read_node_at(t, kinds[i], at, &n);
        if (!masks_agree(o, id, first + i, &n))
            return refuse(o, "the contexts of a node are not those below it", at);
    }
    return MRN_OK;
}

int check_trie(const opening *o, unsigned id, void *block) {
    trie_scratch *s = block;
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
    for (size_t i = t.nodes; i < MRN_NODE_GROUP * groups; i++)
        s->states[i] = 1; /* that of a leaf, so that the last group looks as if it were full */
    s->states[0] = 0;
    if (groups > 1)
        glance_prepare(&t, s);
    for (uint32_t first = 0; first < t.nodes; first += MRN_NODE_GROUP) {
        const uint8_t *kinds = at;
        if (load32(section.from + first / MRN_NODE_GROUP * 4) != (size_t)(at - section.from) ||
            (size_t)(near_end - at) < MRN_NODE_GROUP)
            return refuse(o, "a group of nodes is not where it should be", at);
        at += MRN_NODE_GROUP;
        for (uint32_t i = t.nodes - first; i < MRN_NODE_GROUP; i++)
            if (kinds[i] != 0)
                return refuse(o, "the last group has nodes too many", kinds);
        const size_t bytes = sum_lengths(kinds, 15) + (kinds[15] & MRN_NODE_BYTES);
        if ((size_t)(near_end - at) < bytes)
            return refuse(o, "a node breaks the format", at);
        const uint8_t *far_then = NULL; /* the path to the root is empty, as no other is */
        if (first > 0)
            far_then = glance_group(&t, kinds, first, far, section.to, s, &branches);
        int status = MRN_OK;
        if (far_then == NULL)
            status = check_group(o, &t, id, kinds, first, &far, s, &branches);
        else if (masked)
            status = check_masks_of_group(o, &t, id, kinds, first);
        if (status != MRN_OK)
            return status;
        if (far_then != NULL)
            far = far_then;
        at += bytes;
    }
    if (at != near_end || far != section.to)
        return refuse(o, "something follows its nodes", at);
    if (t.nodes > 0 && branches != t.nodes - 1) /* each other node was reached, so each by just one */
        return refuse(o, "two branches lead to one node", section.from);
    return MRN_OK;
}
