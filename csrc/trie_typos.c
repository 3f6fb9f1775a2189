/* Look-ups that forgive typing errors: a best-first search of a trie that carries the state of an automaton
 * down.
 *
 * A state belongs to a path of whole characters from the root and knows, for each number of characters of the
 * query near the diagonal, the optimal string alignment distance between them and the path (osa_table.h,
 * which make_osa.py writes). The least distance of the whole query along the path so far is what a key costs
 * that ends or goes on from there; the least of the state bounds from below what is still to come.
 *
 * A subtree's best key is its first node, so the weight of that node with the lower bound of the edits bounds
 * the subtree, and the subtree with the least bound is looked into next. Branches are in rank order: a list
 * is read until its nodes are much worse than what is being looked into, and the rest of it waits with the
 * others. Matches without an edit come from the exact look-up, which cannot miss one, and are passed over
 * here.
 */

#include "osa_table.h"
#include "trie.h"

enum {
    WALK_MAX = 4 * (MRN_TYPED_POINTS_MAX + EDITS_MAX + 1) + 4, /* no state is alive beyond */
    AUTO_ONE = 4, /* characters from which "auto" forgives one edit; two */
    AUTO_TWO = 8,
    AHEAD_BITS = 4 /* a list is read up to weights of 16 times the present one */
};

_Static_assert(sizeof((mrn_workspace *)0)->walk >= (WALK_MAX + 1) * sizeof(uint64_t), "as in mrn.h");
_Static_assert(sizeof((mrn_workspace *)0)->points >= MRN_TYPED_POINTS_MAX * sizeof(uint32_t), "as in mrn.h");

/* The automaton for a number of edits, and the query. */
typedef struct pattern {
    const uint16_t *next, *clip;
    const uint8_t *whole, *least;
    const uint64_t
        *match; /* by ASCII character: bit OSA_BEFORE + i says that character i of the query is it */
    const uint32_t *points; /* of the query */
    int count, edits;
} pattern;

/* Where a path stands; 8 bytes, kept as a number in the workspace. */
typedef struct path {
    uint16_t state;
    uint8_t depth;   /* characters of the path */
    uint8_t matched; /* the depth where the whole query cost `best` */
    uint32_t point : 21, left : 2, best : 2, rest : 1,
        others : 1; /* others: whether any other character may follow */
} path;

_Static_assert(sizeof(path) == sizeof(uint64_t), "it is kept as a number");

static inline path load_path(uint64_t number) {
    path p;
    memcpy(&p, &number, sizeof p);
    return p;
}

static inline uint64_t save_path(path p) {
    uint64_t number;
    memcpy(&number, &p, sizeof number);
    return number;
}

static inline unsigned least_edits(const pattern *q, path p) {
    unsigned least = q->least[p.state];
    return p.best < least ? p.best : least;
}

static uint64_t match_point(const pattern *q, uint32_t point) {
    uint64_t bits = 0;
    for (int i = 0; i < q->count; i++)
        bits |= (uint64_t)(q->points[i] == point) << (OSA_BEFORE + i);
    return bits;
}

static inline path start_path(const pattern *q) {
    static const uint8_t starts[2][3] = {{OSA1_START_0, OSA1_START_1, OSA1_START_2},
                                         {OSA2_START_0, OSA2_START_1, OSA2_START_2}};
    path p = {.state = starts[q->edits - 1][q->count < 2 ? q->count : 2], .best = 3};
    if (q->count <= q->edits)
        p.best = (uint32_t)q->count & 3;
    return p;
}

/* Append a character to the path that is these of the query. */
static inline path append_bits(const pattern *q, path p, uint64_t bits) {
    unsigned state = q->next[p.state * 32U + (bits >> p.depth & 31)];
    int left = q->count - ++p.depth;
    if (left <= 2) {
        if (left < -2) {
            state = 0;
        } else {
            unsigned column = (unsigned)(2 - left), cost = q->whole[state * 5 + column];
            if (cost < p.best) {
                p.best = cost & 3;
                p.matched = p.depth;
            }
            state = q->clip[state * 5 + column];
        }
    }
    p.state = (uint16_t)state;
    return p;
}

static inline path append_point(const pattern *q, path p, uint32_t point) {
    return append_bits(q, p, point < 0x80 ? q->match[point] : match_point(q, point));
}

/* Append a byte of UTF-8 to a path that is alive; keys part in the middle of a character too. */
static inline path append_byte(const pattern *q, path p, uint8_t byte) {
    if (byte < 0x80)
        return append_point(q, p, byte);
    if (byte >= 0xc0) {
        p.left = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
        p.point = byte & (0x3fU >> p.left);
    } else if (p.left > 0) {
        p.left = (p.left - 1U) & 3;
        p.point = ((unsigned)p.point << 6 | (byte & 0x3fU)) & 0x1fffffU;
    }
    return p.left == 0 ? append_point(q, p, p.point) : p;
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

/* Have the node near that is likely to be taken next. */
static inline void wait_prefetch(const waiting *w, const trie *t) {
    const mrn_workspace *space = w->space;
    for (unsigned word = 0; word < BUCKETS / 64; word++)
        if (space->some[word] != 0) {
            unsigned bucket = word * 64 + (unsigned)__builtin_ctzll(space->some[word]);
            prefetch_node(t, space->todo[space->first[bucket]].node);
            return;
        }
}

/* Take one of the best; 0 when those weigh more than `limit`, or there is none. */
static inline int wait_pop(waiting *w, uint64_t limit, mrn_todo *item) {
    mrn_workspace *space = w->space;
    for (unsigned word = 0, last = bucket_of(limit); word <= last / 64; word++) {
        if (space->some[word] == 0)
            continue;
        unsigned bucket = word * 64 + (unsigned)__builtin_ctzll(space->some[word]), at = space->first[bucket];
        if (bucket > last)
            return 0;
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
    if (p.left == 0 && p.state != 0)
        p = append_bits(q, p, 0);
    return p.best == 0 ? EDITS_MAX + 1 : least_edits(q, p);
}

/* The trie that is searched. */
typedef struct ground {
    const reader_segment *segment;
    const trie *trie;
    size_t number;
    int kind;
    unsigned masks, penalty;
} ground;

/* Look into one subtree. */
static void visit(search *s, const ground *g, const pattern *q, mrn_todo item, waiting *w) {
    const reader_segment *segment = g->segment;
    path walk_start = load_path(item.state);
    size_t walked = 0, log, from = 0;
    trie_node n;
    read_node(g->trie, item.node, &n);
    if (walk_start.rest) {
        walk_start.rest = 0;
        log = item.from >> 19;
        from = item.from & 0x7ffff;
    } else {
        log = s->logged++;
        int root = item.node == 0;
        s->space->log[log] = (uint64_t)item.node << 32 | (root ? hang(log, 0, LOG_START_TYPED) : item.from);
    }
    uint64_t *walk = s->space->walk; /* the path before each byte of the suffix */
    uint64_t near = 0;               /* characters of the query that a branch may go on with */
    unsigned others = EDITS_MAX + 1; /* what it costs at least to go on with any other */
    for (path p = walk_start;; p = append_byte(q, p, n.suffix[walked++])) {
        const unsigned other = cost_of_other(q, p);
        p.others = (int)other <= q->edits;
        others = other < others ? other : others;
        near |= p.state == 0 ? 0 : UINT64_C(31) << p.depth;
        walk[walked] = save_path(p);
        if (walked == n.suffix_bytes || walked == WALK_MAX || p.state == 0 || p.best == 0)
            break;
    }
    const path end = load_path(walk[walked]);
    if (from == 0 && end.best > 0 && (int)end.best <= q->edits)
        search_offer(s, g->number, g->kind, item.node, log, end.matched, end.best);
    uint64_t limit = bar(s), ahead = item.weight << AHEAD_BITS;
    unsigned lowest = least_edits(q, walk_start);
    for (size_t i = from; i < n.branches; i++) {
        const uint8_t byte = n.bytes[i];
        const int far = byte < 0x80 && !(q->match[byte] & near);
        if (far && (int)others > q->edits)
            continue;
        branch b = read_branch(&n, i);
        path next = load_path(walk[b.position < walked ? b.position : walked]);
        if (far && !next.others)
            continue;
        if (byte == 0)
            next.state = 0; /* the key ends */
        else if (next.state != 0)
            next = append_byte(q, next, byte);
        unsigned edits = least_edits(q, next);
        if ((int)edits > q->edits || next.best == 0)
            continue;
        if (s->filtered && !(read_mask(segment->index, g->masks, b.rank) & s->filter[g->number]))
            continue;
        uint64_t rank = union_rank(segment, node_entry(segment, g->kind, b.rank)) + 1,
                 weight = rank << (edit_bits(edits) + g->penalty),
                 least = rank << (edit_bits(lowest) + g->penalty);
        if (least > limit)
            return; /* branches are best first: none that follows can win */
        if (weight > limit) {
            if (rank << (edit_bits(others) + g->penalty) >
                limit) /* and so it is for all others that follow */
                others = EDITS_MAX + 1;
            continue;
        }
        if (wait_full(w)) {
            s->partial = 1;
            return;
        }
        if (least > ahead && i > from && i < 0x7ffff) {
            walk_start.rest = 1;
            wait_push(w, (mrn_todo){least, item.node, (uint32_t)(log << 19 | i), save_path(walk_start)});
            return;
        }
        wait_push(w, (mrn_todo){weight, b.rank, hang(log, b.position, byte), save_path(next)});
    }
}

void search_typed(search *s, size_t number, int kind) {
    const reader_segment *segment = &s->reader->segments[number];
    const ground g = {.segment = segment,
                      .trie = kind == KIND_KEY ? &segment->keys : &segment->words,
                      .number = number,
                      .kind = kind,
                      .masks = kind == KIND_KEY ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS,
                      .penalty = (kind == KIND_WORD ? WORD_BITS : 0U) + (s->marks ? PENALTY_BITS : 0U)};
    pattern q = {osa1_next,       osa1_clip,        osa1_whole, osa1_least,
                 s->space->match, s->space->points, 0,          s->edits};
    if (s->edits == 2)
        q = (pattern){osa2_next, osa2_clip, osa2_whole, osa2_least, s->space->match, s->space->points, 0, 2};
    q.count = (int)s->space->points[MRN_TYPED_POINTS_MAX];
    if (g.trie->nodes == 0 || (s->filtered && !(read_mask(segment->index, g.masks, 0) & s->filter[number])))
        return;
    path p = start_path(&q);
    waiting w;
    wait_open(&w, s->space);
    wait_push(&w, (mrn_todo){
                      weigh(segment, node_entry(segment, kind, 0), edit_bits(least_edits(&q, p)) + g.penalty),
                      0, 0, save_path(p)});
    for (mrn_todo item; wait_pop(&w, bar(s), &item);) {
        if (item.weight > bar(s))
            continue;
        if (s->visits == MRN_VISITS_MAX || s->logged == LOG_MAX) {
            s->partial = 1;
            return;
        }
        s->visits++;
        wait_prefetch(&w, g.trie);
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
