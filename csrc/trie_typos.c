/* Look-ups that forgive typing errors: a best-first search of a trie that carries the state of an automaton
 * down.
 *
 * A state belongs to a path of whole characters from the root and knows, for each number of characters of the
 * query near the diagonal, the optimal string alignment distance between them and the path (osa_table.h,
 * which make_osa.py writes). The least distance of the whole query along the path so far is what a key costs
 * that ends or goes on from there; the least of the state bounds from below what is still to come.
 *
 * A subtree's best key is its first node, so the weight of that node with the lower bound of the edits bounds
 * the subtree; those whose bound is below the worst answer are looked into, deep and light ones first.
 * Branches are in rank order: a list is read until its nodes are much worse than what is being looked into,
 * and the rest of it waits with the others. Matches without an edit come from the exact look-up, which cannot
 * miss one, and are passed over here.
 */

#include "osa_table.h"
#include "trie.h"

enum {
    WALK_MAX = 4 * (MRN_TYPED_POINTS_MAX + EDITS_MAX + 1) + 4, /* no state is alive beyond */
    AUTO_ONE = 4, /* characters from which "auto" forgives one edit; two */
    AUTO_TWO = 8,
    AHEAD_BITS = 3, /* a list is read up to 8 times the number of the present node, */
    BRANCHES_AT_ONCE = 16,
    FEW_BRANCHES = 4, /* to look at them at once does not pay */
    DEEP = 8,         /* see order_bits */
    DEEPER_BITS = 2
};

_Static_assert(sizeof((mrn_workspace *)0)->walk >= (WALK_MAX + 1) * sizeof(uint64_t), "as in mrn.h");
_Static_assert(sizeof((mrn_workspace *)0)->points >= MRN_TYPED_POINTS_MAX * sizeof(uint32_t), "as in mrn.h");

/* The automaton for a number of edits, and the query. */
typedef struct pattern {
    const uint16_t *next, *clip;
    const uint8_t *whole;
    const uint64_t
        *match; /* by ASCII character: bit OSA_BEFORE + i says that character i of the query is it */
    const uint32_t *points; /* of the query */
    uint64_t all;           /* the bits of its characters */
    int count, edits;
} pattern;

/* Where a path stands, as a number: the state of the automaton; the characters of the path; how many of them
 * there were when the whole query cost least, and what it cost; of a character that has begun, what is there
 * and how many bytes are left; and whether what waits is the rest of a list. */
typedef uint64_t path;

enum {
    PATH_STATE = 0xffff,
    PATH_DEPTH = 16,
    PATH_MATCHED = 24,
    PATH_BEST = 32,
    PATH_LEFT = 34,
    PATH_REST = 36,
    PATH_POINT = 40
};

#define PATH_ONE_DEEPER (UINT64_C(1) << PATH_DEPTH)

static inline unsigned path_depth(path p) {
    return p >> PATH_DEPTH & 0xff;
}

static inline unsigned path_matched(path p) {
    return p >> PATH_MATCHED & 0xff;
}

static inline unsigned path_best(path p) {
    return p >> PATH_BEST & 3;
}

static inline unsigned path_left(path p) {
    return p >> PATH_LEFT & 3;
}

static inline int is_dead(path p) {
    return (p & OSA_LINE) == 0;
}

static inline path without(path p, unsigned from, uint64_t mask) {
    return p & ~(mask << from);
}

/* What a path costs at least so far. */
static inline unsigned spent_edits(path p) {
    unsigned least = p >> OSA_LEAST & 3, best = path_best(p);
    return best < least ? best : least;
}

/* What a match below a path costs at least; what costs nothing is not of this search. */
static inline unsigned least_edits(path p) {
    unsigned spent = spent_edits(p);
    return spent > 0 ? spent : 1;
}

static uint64_t match_point(const pattern *q, uint32_t point) {
    uint64_t bits = 0;
    for (int i = 0; i < q->count; i++)
        bits |= (uint64_t)(q->points[i] == point) << (OSA_BEFORE + i);
    return bits;
}

static inline path start_path(const pattern *q) {
    static const uint16_t starts[2][3] = {{OSA1_START_0, OSA1_START_1, OSA1_START_2},
                                          {OSA2_START_0, OSA2_START_1, OSA2_START_2}};
    const uint64_t best = q->count <= q->edits ? (uint64_t)q->count : EDITS_MAX + 1;
    return starts[q->edits - 1][q->count < 2 ? q->count : 2] | best << PATH_BEST;
}

/* What becomes of the state near the end of the query, and of what the whole of it costs. */
static inline path append_end(const pattern *q, path p, int left) {
    if (left < -2)
        return without(p, 0, PATH_STATE) | OSA_DEAD;
    const size_t at = (p & OSA_LINE) / 4 + (size_t)(2 - left);
    const uint64_t cost = q->whole[at];
    if (cost < path_best(p))
        p = without(without(p, PATH_BEST, 3), PATH_MATCHED, 0xff) | cost << PATH_BEST |
            (uint64_t)path_depth(p) << PATH_MATCHED;
    return without(p, 0, PATH_STATE) | q->clip[at];
}

/* Append a character to the path that is these of the query. */
static inline path append_bits(const pattern *q, path p, uint64_t bits) {
    const unsigned depth = path_depth(p);
    p = without(p + PATH_ONE_DEEPER, 0, PATH_STATE) | q->next[(p & OSA_LINE) + (bits >> depth & 31)];
    const int left = q->count - 1 - (int)depth;
    return left > 2 ? p : append_end(q, p, left);
}

static inline path append_point(const pattern *q, path p, uint32_t point) {
    return append_bits(q, p, point < 0x80 ? q->match[point] : match_point(q, point));
}

/* Append a byte of a character that takes more than one. */
static path append_part(const pattern *q, path p, uint8_t byte) {
    uint64_t left = path_left(p), point = p >> PATH_POINT;
    if (byte >= 0xc0) {
        left = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
        point = byte & (0x3fU >> left);
    } else if (left > 0) {
        left--;
        point = (point << 6 | (byte & 0x3fU)) & 0x1fffff;
    }
    p = without(without(p, PATH_LEFT, 3), PATH_POINT, 0xffffff) | left << PATH_LEFT | point << PATH_POINT;
    return left == 0 ? append_point(q, p, (uint32_t)point) : p;
}

/* Append a byte of UTF-8 to a path that is alive; keys part in the middle of a character too. */
static inline path append_byte(const pattern *q, path p, uint8_t byte) {
    return byte < 0x80 ? append_bits(q, p, q->match[byte]) : append_part(q, p, byte);
}

/* ---- What waits --------------------------------------------------------------------------------------- */

/* Subtrees wait in buckets of like weights, eight for each factor of two, so that to add one and to take one
 * of the best costs a few instructions whatever their number. Within a bucket any order does: a search that
 * is not cut short visits all that weighs no more than the worst answer, whichever comes first. */
typedef struct waiting {
    mrn_workspace *space;
    uint32_t
        used; /* items that were ever taken; those that are free again hang below each other from `free` */
    uint16_t free;
} waiting;

enum { NO_ITEM = UINT16_MAX, BUCKETS = 512 };

_Static_assert(sizeof((mrn_workspace *)0)->next == TODO_MAX * sizeof(uint16_t),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->first == BUCKETS * sizeof(uint16_t),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->some == BUCKETS / 8, "mrn.h spells the number out");

static inline unsigned bucket_of(uint64_t weight) {
    unsigned length = bit_length(weight), dropped = length > 4 ? length - 4 : 0;
    return dropped * 8 + (unsigned)(weight >> dropped);
}

static void wait_open(waiting *w, mrn_workspace *space) {
    *w = (waiting){.space = space, .free = NO_ITEM};
    memset(space->some, 0, sizeof space->some);
}

/* Whether there is no room for one more. */
static inline int wait_full(const waiting *w) {
    return w->free == NO_ITEM && w->used == TODO_MAX;
}

static inline void wait_push(waiting *w, mrn_todo item) {
    mrn_workspace *space = w->space;
    unsigned bucket = bucket_of(item.weight), at = w->free;
    if (at == NO_ITEM)
        at = w->used++;
    else
        w->free = space->next[at];
    uint64_t *some = &space->some[bucket / 64], bit = UINT64_C(1) << (bucket % 64);
    space->next[at] = *some & bit ? space->first[bucket] : (uint16_t)NO_ITEM;
    space->first[bucket] = (uint16_t)at;
    space->todo[at] = item;
    *some |= bit;
}

/* Take one of the best; 0 when there is none. */
static inline int wait_pop(waiting *w, mrn_todo *item) {
    mrn_workspace *space = w->space;
    for (unsigned word = 0; word < BUCKETS / 64; word++) {
        if (space->some[word] == 0)
            continue;
        unsigned bucket = word * 64 + (unsigned)__builtin_ctzll(space->some[word]), at = space->first[bucket];
        *item = space->todo[at];
        if (space->next[at] == NO_ITEM)
            space->some[word] &= space->some[word] - 1;
        else
            space->first[bucket] = space->next[at];
        space->next[at] = w->free;
        w->free = (uint16_t)at;
        return 1;
    }
    return 0;
}

/* ---- The search --------------------------------------------------------------------------------------- */

/* Where a node hangs: its parent in the log, the position and the byte; 32 bits. */
static inline uint32_t hang(size_t parent, size_t position, uint8_t byte) {
    return (uint32_t)(parent << 19 | position << 8 | byte);
}

/* What keys cost at least that go on from a path with a character that is none of the query's near it; more
 * than the edits that are forgiven when they do not count. */
static inline unsigned cost_of_other(const pattern *q, path p) {
    if (path_left(p) == 0 && !is_dead(p))
        p = append_bits(q, p, 0);
    return path_best(p) == 0 ? EDITS_MAX + 1 : least_edits(p);
}

/* The trie that is searched, and how far. */
typedef struct ground {
    const reader_segment *segment;
    const trie *trie;
    size_t number;
    int kind;
    unsigned masks, penalty;
    uint64_t bar;                   /* what an answer has to weigh at most, */
    uint32_t within[EDITS_MAX + 2]; /* and by number of edits: only nodes below this one can */
} ground;

/* Nodes come by weight: find, by bisection, how many of them are good enough now. So no branch's entry and
 * score need to be looked up. */
static void find_within(ground *g, const search *s) {
    const uint64_t most = bar(s);
    if (most == g->bar)
        return;
    g->bar = most;
    for (int edits = 1; edits <= s->edits; edits++) {
        const unsigned bits = edit_bits((unsigned)edits) + g->penalty;
        uint32_t low = 0, high = g->within[edits];
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (weigh(g->segment, node_entry(g->segment, g->kind, middle), bits) <= most)
                low = middle + 1;
            else
                high = middle;
        }
        g->within[edits] = low;
    }
}

/* The order in which subtrees are looked into: as their best weighs, and each character of the path, up to
 * the eighth, is worth a factor of four: deep ones are soon done, and tell what it takes to be an answer. */
static inline unsigned order_bits(path p) {
    const unsigned depth = path_depth(p), deep = depth < DEEP ? depth : DEEP;
    return edit_bits(spent_edits(p)) + DEEPER_BITS * (DEEP - deep);
}

static inline uint64_t order_of(uint32_t node, path p) {
    return ((uint64_t)node + 1) << order_bits(p);
}

/* Which of the next 16 branches go on with a character near the path, or with one that is not ASCII: a bit
 * each. */
static inline unsigned near_branches(const pattern *q, const uint8_t *bytes, uint64_t near) {
    unsigned found = 0;
#if defined(__SSE2__)
    /* There are 16 bytes to read: sections follow that of a trie. */
    const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    __m128i wanted = some;
    for (near >>= OSA_BEFORE; near != 0; near &= near - 1) {
        const uint32_t point = q->points[__builtin_ctzll(near)];
        const __m128i same = _mm_cmpeq_epi8(some, _mm_set1_epi8((char)(point < 0x80 ? point : 0x80)));
        wanted = _mm_or_si128(wanted, same);
    }
    found = (unsigned)_mm_movemask_epi8(wanted);
#else
    for (unsigned i = 0; i < BRANCHES_AT_ONCE; i++)
        found |= (unsigned)(bytes[i] >= 0x80 || (q->match[bytes[i]] & near)) << i;
#endif
    return found;
}

/* Look into one subtree. */
static void visit(search *s, ground *g, const pattern *q, mrn_todo item, waiting *w) {
    const path start = without(item.state, PATH_REST, 1);
    size_t walked = 0, log, from = 0;
    trie_node n;
    read_node(g->trie, item.node, &n);
    if (start != item.state) {
        log = item.from >> 19;
        from = item.from & 0x7ffff;
    } else {
        log = s->logged++;
        int root = item.node == 0;
        s->space->log[log] = (uint64_t)item.node << 32 | (root ? hang(log, 0, LOG_START_TYPED) : item.from);
    }
    path *walk = s->space->walk; /* before each byte of the suffix, and at the end */
    path end = start;
    for (;; end = append_byte(q, end, n.suffix[walked++])) {
        walk[walked] = end;
        if (walked == n.suffix_bytes || walked == WALK_MAX || is_dead(end) || path_best(end) == 0)
            break;
    }
    const unsigned best = path_best(end);
    if (from == 0 && best > 0 && (int)best <= q->edits) {
        search_offer(s, g->number, g->kind, item.node, log, path_matched(end), best);
        find_within(g, s);
    }
    if (n.branches == 0)
        return;
    uint64_t near = 0;               /* characters of the query that a branch may go on with */
    unsigned others = EDITS_MAX + 1; /* what it costs at least to go on with any other */
    for (size_t i = 0; i <= walked; i++) {
        const unsigned other = cost_of_other(q, walk[i]);
        others = other < others ? other : others;
        near |= UINT64_C(31) << path_depth(walk[i]);
    }
    near &= q->all;
    const unsigned lowest = least_edits(start);
    const uint64_t ahead = (item.weight >> order_bits(start)) << AHEAD_BITS;
    for (size_t i = from; i < n.branches; i += BRANCHES_AT_ONCE) {
        const size_t count = n.branches - i < BRANCHES_AT_ONCE ? n.branches - i : BRANCHES_AT_ONCE;
        unsigned left = (1U << count) - 1;
        if (count > FEW_BRANCHES && read_branch(&n, i).rank >= g->within[others])
            left &= near_branches(q, n.bytes + i, near);
        for (; left != 0; left &= left - 1) {
            const size_t one = i + (size_t)__builtin_ctz(left);
            const branch b = read_branch(&n, one);
            if (b.rank >= g->within[lowest])
                return; /* branches are best first: none that follows can win */
            if (b.rank >= ahead && one > from && one < 0x7ffff && !wait_full(w)) {
                wait_push(w, (mrn_todo){order_of(b.rank, start), item.node, (uint32_t)(log << 19 | one),
                                        start | UINT64_C(1) << PATH_REST});
                return;
            }
            const uint8_t byte = n.bytes[one];
            path next = walk[b.position < walked ? b.position : walked];
            if (byte == 0)
                next = without(next, 0, PATH_STATE) | OSA_DEAD; /* the key ends */
            else if (!is_dead(next))
                next = append_byte(q, next, byte);
            const unsigned edits = least_edits(next);
            if (b.rank >= g->within[edits] || path_best(next) == 0)
                continue;
            if (s->filtered && !(read_mask(g->segment->index, g->masks, b.rank) & s->filter[g->number]))
                continue;
            if (wait_full(w)) {
                s->partial = 1;
                return;
            }
            prefetch_node(g->trie, b.rank);
            wait_push(w, (mrn_todo){order_of(b.rank, next), b.rank, hang(log, b.position, byte), next});
        }
        if (i + count < n.branches && read_branch(&n, i + count).rank >= g->within[lowest])
            return;
    }
}

void search_typed(search *s, size_t number, int kind) {
    const reader_segment *segment = &s->reader->segments[number];
    const trie *t = kind == KIND_KEY ? &segment->keys : &segment->words;
    ground g = {.segment = segment,
                .trie = t,
                .number = number,
                .kind = kind,
                .masks = kind == KIND_KEY ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS,
                .penalty = (kind == KIND_WORD ? WORD_BITS : 0U) + (s->marks ? PENALTY_BITS : 0U),
                .bar = UINT64_MAX,
                .within = {0, t->nodes, s->edits > 1 ? t->nodes : 0}};
    pattern q = {osa1_next, osa1_clip, osa1_whole, s->space->match, s->space->points, 0, 0, s->edits};
    if (s->edits == 2)
        q = (pattern){osa2_next, osa2_clip, osa2_whole, s->space->match, s->space->points, 0, 0, 2};
    q.count = (int)s->space->points[MRN_TYPED_POINTS_MAX];
    q.all = ((UINT64_C(1) << q.count) - 1) << OSA_BEFORE;
    if (t->nodes == 0 || (s->filtered && !(read_mask(segment->index, g.masks, 0) & s->filter[number])))
        return;
    find_within(&g, s);
    path p = start_path(&q);
    waiting w;
    wait_open(&w, s->space);
    wait_push(&w, (mrn_todo){order_of(0, p), 0, 0, p});
    for (mrn_todo item; wait_pop(&w, &item);) {
        if (item.weight >> order_bits(item.state) > g.within[least_edits(item.state)])
            continue;
        if (s->visits == MRN_VISITS_MAX || s->logged == LOG_MAX) {
            s->partial = 1;
            return;
        }
        s->visits++;
        visit(s, &g, &q, item, &w);
    }
}

int search_prepare_typed(search *s, int edits) {
    const uint8_t *key = (const uint8_t *)s->space->query;
    uint32_t *points = s->space->points;
    uint64_t *match = s->space->match;
    size_t count = 0;
    for (size_t at = 0; at < s->query_bytes; count++) {
        uint32_t point;
        at += utf8_decode(key + at, s->query_bytes - at, &point);
        if (count < MRN_TYPED_POINTS_MAX)
            points[count] = point;
    }
    if (edits == MRN_EDITS_AUTO)
        edits = count < AUTO_ONE ? 0 : count < AUTO_TWO ? 1 : 2;
    if (edits == 0 || count == 0 || count > MRN_TYPED_POINTS_MAX)
        return 0;
    memset(match, 0, 128 * sizeof *match);
    for (size_t i = 0; i < count; i++)
        if (points[i] < 0x80)
            match[points[i]] |= UINT64_C(1) << (OSA_BEFORE + i);
    points[MRN_TYPED_POINTS_MAX] = (uint32_t)count;
    return edits;
}
