/* Look-ups that forgive typing errors: a best-first search of the trie of trie.c that carries a row of edit
 * distances down.
 *
 * A row belongs to a path of whole characters from the root and holds, for each number of characters of the
 * query, the optimal string alignment distance between them and the path. Only the cells around the diagonal
 * can be at most `edits`, so that five of them are kept. The least distance of the whole query along the path
 * so far is what a key costs that ends or goes on from there; the least cell of the row bounds from below
 * what is still to come.
 *
 * A subtree's best entry is its first record, so (rank of that record) * 64^(lower bound of the edits) bounds
 * the subtree, and the subtree with the least bound is looked into next. Matches without an edit come from
 * the exact look-up, which cannot miss one, and are passed over here.
 */

#include "fold.h"
#include "mrn.h"
#include "trie.h"
#include "trie_record.h"

enum {
    EDITS_MAX = 2,
    PENALTY_BITS = 6, /* an edit costs a factor of 64 in rank */
    BAND = 2 * EDITS_MAX + 1,
    FRONTIER_MAX = 8192,
    WALK_MAX = 4 * (MRN_TYPED_POINTS_MAX + EDITS_MAX + 1) + 4, /* no row is alive beyond */
    MARGIN = 2 * EDITS_MAX + 2,
    AUTO_ONE = 4, /* characters from which "auto" forgives one edit; two */
    AUTO_TWO = 8
};

#define NO_POINT UINT32_MAX

_Static_assert(sizeof((mrn_workspace *)0)->frontier == FRONTIER_MAX * sizeof(mrn_typed_node), "as in mrn.h");
_Static_assert(sizeof((mrn_workspace *)0)->walk == (WALK_MAX + 1) * sizeof(mrn_typed), "as in mrn.h");
_Static_assert(sizeof((mrn_workspace *)0)->points == (MRN_TYPED_POINTS_MAX + 2 * MARGIN) * sizeof(uint32_t),
               "as in mrn.h");
_Static_assert(sizeof((mrn_typed *)0)->row == BAND, "as in mrn.h");

/* The query; the places around its characters hold NO_POINT, so that the band may look over its ends. */
typedef struct pattern {
    const uint32_t *points; /* [-MARGIN .. count + MARGIN) */
    int count;
    uint8_t edits;
    double ranks_a_byte;
} pattern;

static inline uint8_t least(uint8_t a, uint8_t b) {
    return a < b ? a : b;
}

static inline uint8_t least_cell(const mrn_typed *state) {
    uint8_t cell = state->row[0];
    for (int i = 1; i < BAND; i++)
        cell = least(cell, state->row[i]);
    return cell;
}

/* At most as many edits as any key below the state costs. */
static inline uint8_t least_edits(const mrn_typed *state) {
    return least(state->best, least_cell(state));
}

static inline uint64_t weigh(const pattern *query, uint32_t place, unsigned edits) {
    return ((uint64_t)((double)place * query->ranks_a_byte) + 1) << (PENALTY_BITS * edits);
}

static void start(const pattern *query, mrn_typed *state) {
    uint8_t none = (uint8_t)(query->edits + 1);
    *state = (mrn_typed){.best = query->count <= query->edits ? (uint8_t)query->count : none};
    for (int i = 0; i < BAND; i++) {
        int typed = i - EDITS_MAX;
        state->row[i] = typed >= 0 && typed <= query->count && typed <= query->edits ? (uint8_t)typed : none;
        state->swap[i] = none;
    }
}

/* Append a character to the path. Cell i of a row stands for `depth + i - EDITS_MAX` characters of the query;
 * swap[i] is what cell i of the next row costs when the last two characters of both are exchanged, if the
 * character that comes next fits. */
static void step(const pattern *query, mrn_typed *state, uint32_t point) {
    uint8_t none = (uint8_t)(query->edits + 1), row[BAND], swap[BAND];
    int typed = ++state->depth - EDITS_MAX; /* of cell 0 of the new row */
    const uint32_t *points = query->points + typed;
    uint8_t before = none;
    for (int i = 0; i < BAND; i++) {
        uint8_t cell = (uint8_t)(state->row[i] + (points[i - 1] != point));
        cell = least(cell, (uint8_t)(before + 1));
        if (i + 1 < BAND)
            cell = least(cell, (uint8_t)(state->row[i + 1] + 1));
        if (points[i - 2] == point)
            cell = least(cell, state->swap[i]);
        if (typed + i < 0 || typed + i > query->count)
            cell = none;
        row[i] = before = least(cell, none);
        swap[i] = points[i] == point ? least((uint8_t)(state->row[i] + 1), none) : none;
    }
    memcpy(state->row, row, BAND);
    memcpy(state->swap, swap, BAND);
    int whole = query->count - typed;
    if (whole >= 0 && whole < BAND && row[whole] < state->best) {
        state->best = row[whole];
        state->matched = state->depth;
    }
}

/* Append a byte of UTF-8 to the path; keys part in the middle of a character too. */
static inline void step_byte(const pattern *query, mrn_typed *state, uint8_t byte) {
    if (byte < 0x80) {
        state->left = 0;
        state->point = byte;
    } else if (byte >= 0xc0) {
        state->left = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
        state->point = byte & (0x3fU >> state->left);
    } else if (state->left > 0) {
        state->left--;
        state->point = state->point << 6 | (byte & 0x3f);
    }
    if (state->left == 0)
        step(query, state, state->point);
}

static inline int comes_before(uint64_t weight, uint32_t place, uint64_t other_weight, uint32_t other_place) {
    return weight != other_weight ? weight < other_weight : place < other_place;
}

static inline int node_before(const mrn_typed_node *a, const mrn_typed_node *b) {
    return comes_before(a->weight, a->place, b->weight, b->place);
}

static void sift_up(mrn_typed_node *frontier, size_t at, mrn_typed_node node) {
    while (at > 0 && node_before(&node, &frontier[(at - 1) / 2])) {
        frontier[at] = frontier[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    frontier[at] = node;
}

static mrn_typed_node take_first(mrn_typed_node *frontier, size_t *count) {
    mrn_typed_node first = frontier[0], node = frontier[--*count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *count; at = child) {
        child += child + 1 < *count && node_before(&frontier[child + 1], &frontier[child]);
        if (!node_before(&frontier[child], &node))
            break;
        frontier[at] = frontier[child];
    }
    frontier[at] = node;
    return first;
}

/* The answers so far, best first. */
static void keep_answer(mrn_typed_answer *answers, size_t *count, size_t limit, mrn_typed_answer answer) {
    size_t at = *count;
    if (at == limit) {
        const mrn_typed_answer *last = &answers[limit - 1];
        if (!comes_before(answer.weight, answer.place, last->weight, last->place))
            return;
        at--;
    } else {
        (*count)++;
    }
    for (; at > 0 && comes_before(answer.weight, answer.place, answers[at - 1].weight, answers[at - 1].place);
         at--)
        answers[at] = answers[at - 1];
    answers[at] = answer;
}

/* Search below the root; 1 when a bound was hit, so that an answer may be missing. */
static int search(const mrn_index *index, const pattern *query, size_t limit, mrn_workspace *workspace,
                  size_t *count) {
    const uint8_t *records = (const uint8_t *)index->file + index->records;
    size_t width = index->width, waiting = 1, visited = 0;
    mrn_typed_node *frontier = workspace->frontier;
    mrn_typed_answer *answers = workspace->answers;
    mrn_typed *walk = workspace->walk; /* the states before each byte of a suffix */
    uint64_t lost = UINT64_MAX;        /* the least weight of what did not fit into the frontier */
    frontier[0] = (mrn_typed_node){.place = 0};
    start(query, &frontier[0].state);
    frontier[0].weight = weigh(query, 0, least_edits(&frontier[0].state));
    while (waiting > 0) {
        uint64_t bar = *count == limit ? answers[limit - 1].weight : UINT64_MAX;
        if (frontier[0].weight > bar)
            break;
        if (visited++ == MRN_TYPED_NODES_MAX)
            return 1;
        mrn_typed_node node = take_first(frontier, &waiting);
        record r;
        read_record(records + node.place, NULL, width, 0, &r);
        size_t walked = 0;
        walk[0] = node.state;
        while (walked < r.suffix_bytes && walked < WALK_MAX && least_cell(&walk[walked]) <= query->edits) {
            walk[walked + 1] = walk[walked];
            step_byte(query, &walk[walked + 1], r.suffix[walked]);
            walked++;
        }
        const mrn_typed *end = &walk[walked];
        if (end->best > 0 && end->best <= query->edits) {
            mrn_typed_answer answer = {weigh(query, node.place, end->best), node.place, end->best,
                                       end->matched};
            keep_answer(answers, count, limit, answer);
            bar = *count == limit ? answers[limit - 1].weight : UINT64_MAX;
        }
        unsigned lowest = least_edits(&walk[0]);
        for (size_t i = 0; i < r.branches; i++) {
            uint32_t place = load_place(r.places + i * width, width);
            if (weigh(query, place, lowest) > bar)
                break; /* branches are best first: none that follows can win */
            size_t position = branch_position(&r, i);
            const mrn_typed *from = &walk[position < walked ? position : walked];
            uint8_t edits = least_edits(from);
            if (edits > query->edits || from->best == 0 || weigh(query, place, edits) > bar)
                continue;
            mrn_typed_node next = {.place = place, .state = *from};
            if (r.bytes[i] != 0 && least_cell(from) <= query->edits)
                step_byte(query, &next.state, r.bytes[i]);
            edits = least_edits(&next.state);
            next.weight = weigh(query, place, edits);
            if (edits > query->edits || next.state.best == 0 || next.weight > bar)
                continue;
            if (waiting == FRONTIER_MAX) { /* the last place is not the best one; it makes room or not */
                int worse = node_before(&frontier[waiting - 1], &next);
                uint64_t weight = worse ? next.weight : frontier[waiting - 1].weight;
                lost = weight < lost ? weight : lost;
                if (worse)
                    continue;
                waiting--;
            }
            sift_up(frontier, waiting++, next);
        }
    }
    return lost != UINT64_MAX && (*count < limit || lost <= answers[limit - 1].weight);
}

/* The code points of a valid text; NO_POINT where the place is beyond `capacity`. */
static size_t read_points(const uint8_t *text, size_t bytes, uint32_t *points, size_t capacity) {
    size_t count = 0;
    for (size_t at = 0; at < bytes; count++) {
        uint32_t point;
        at += utf8_decode(text + at, bytes - at, &point);
        if (count < capacity)
            points[count] = point;
    }
    return count;
}

/* The bytes of the first `points` characters of a record's key. */
static size_t matched_bytes(const mrn_index *index, uint32_t place, size_t points, mrn_workspace *workspace) {
    record r;
    document d;
    read_record((const uint8_t *)index->file + index->records + place, NULL, index->width, 0, &r);
    read_document(&r, NULL, 0, &d);
    uint8_t *key = (uint8_t *)workspace->answer_key;
    ptrdiff_t key_bytes = fold_text(d.text, d.text_bytes, key, sizeof workspace->answer_key);
    size_t at = 0;
    for (uint32_t point; points > 0 && (ptrdiff_t)at < key_bytes; points--)
        at += utf8_decode(key + at, (size_t)key_bytes - at, &point);
    return at;
}

int mrn_index_complete_typed(const mrn_index *index, const char *prefix, size_t prefix_bytes, size_t limit,
                             int edits, mrn_workspace *workspace, mrn_completion *completions, size_t *count,
                             int *partial) {
    if (partial == NULL || edits < MRN_EDITS_AUTO || edits > EDITS_MAX)
        return MRN_E_ARGUMENT;
    *partial = 0;
    int status = mrn_index_complete(index, prefix, prefix_bytes, limit, workspace, completions, count);
    if (status != MRN_OK || edits == 0 || index->entries == 0)
        return status;
    uint32_t *points = workspace->points + MARGIN;
    size_t typed =
        read_points((const uint8_t *)workspace->key, workspace->key_bytes, points, MRN_TYPED_POINTS_MAX);
    if (edits == MRN_EDITS_AUTO)
        edits = typed < AUTO_ONE ? 0 : typed < AUTO_TWO ? 1 : 2;
    if (edits == 0 || typed == 0 || typed > MRN_TYPED_POINTS_MAX)
        return MRN_OK;
    for (int i = 1; i <= MARGIN; i++)
        points[-i] = points[typed + (size_t)i - 1] = NO_POINT;
    pattern query = {points, (int)typed, (uint8_t)edits,
                     (double)index->entries / (double)index->record_bytes};
    for (size_t i = 0; i < *count; i++)
        workspace->answers[i] =
            (mrn_typed_answer){weigh(&query, workspace->best[i], 0), workspace->best[i], 0, 0};
    size_t exact = *count;
    *partial = search(index, &query, limit, workspace, count);
    for (size_t i = 0, same = 1; i < *count; i++) {
        const mrn_typed_answer *answer = &workspace->answers[i];
        same = same && i < exact && answer->edits == 0; /* the exact look-up has described it in this place */
        if (!same)
            trie_describe(index, answer->place,
                          answer->edits == 0
                              ? workspace->key_bytes
                              : matched_bytes(index, answer->place, answer->matched, workspace),
                          answer->edits, &completions[i]);
    }
    return MRN_OK;
}
