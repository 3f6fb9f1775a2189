/* Readers: the living entries of several segments, completed as if they were in one.
 *
 * What makes that possible is that an entry's rank counts the entries with a higher score: it can be told
 * from scores alone, segment by segment, whatever the texts are. Each way of matching is a stream of nodes in
 * rank order, and each stops when nothing better than the worst of the answers can come.
 */

#include "double_text.h"
#include "trie.h"

_Static_assert(sizeof((mrn_workspace *)0)->pool == MRN_LIMIT_MAX * sizeof(uint64_t),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->query == MRN_QUERY_MAX + 8, "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->answers == (MRN_LIMIT_MAX + 1) * sizeof(mrn_answer),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->words == (MRN_WORDS_MAX + 1) * sizeof(uint16_t),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->todo == TODO_MAX * sizeof(mrn_todo),
               "mrn.h spells the number out");
_Static_assert(sizeof((mrn_workspace *)0)->log == LOG_MAX * sizeof(uint64_t), "mrn.h spells the number out");
_Static_assert(sizeof((mrn_columns *)0)->scores == MRN_LIMIT_MAX * sizeof(double), "mrn.h spells the number out");
_Static_assert(sizeof((mrn_completion *)0)->highlight == 2 * MRN_HIGHLIGHTS_MAX * sizeof(uint16_t),
               "mrn.h spells the number out");

/* ---- Opening ------------------------------------------------------------------------------------------ */

static size_t dead_count(const mrn_segments *in, size_t s) {
    return in->dead == NULL || in->dead_counts == NULL ? 0 : in->dead_counts[s];
}

/* The segment that has the most entries; the others add to the ranks of its entries at few places. */
static size_t find_base(const mrn_segments *in) {
    size_t base = 0;
    for (size_t s = 1; s < in->count; s++)
        if (in->indexes[s]->entries > in->indexes[base]->entries)
            base = s;
    return base;
}

/* At most so many shifts has a segment. */
static size_t shift_room(const mrn_segments *in, size_t s, size_t base) {
    if (s != base)
        return in->indexes[s]->items[MRN_SECTION_SCORES];
    size_t room = dead_count(in, s);
    for (size_t t = 0; t < in->count; t++)
        room += t == s ? 0 : in->indexes[t]->items[MRN_SECTION_SCORES];
    return room;
}

static size_t words_of_bits(uint32_t entries) {
    return (size_t)entries / 64 + 1;
}

int mrn_reader_plan(const mrn_segments *in, size_t *bytes) {
    if (in == NULL || bytes == NULL || (in->count > 0 && in->indexes == NULL))
        return MRN_E_ARGUMENT;
    if (in->count > MRN_SEGMENTS_MAX)
        return MRN_E_TOO_LARGE;
    size_t sum = (sizeof(mrn_reader) + 7) / 8 * 8, base = find_base(in);
    for (size_t s = 0; s < in->count; s++) {
        size_t dead = dead_count(in, s);
        sum += shift_room(in, s, base) * sizeof(shift) * (s == base ? 2 : 1) + (dead + 1) / 2 * 8;
        sum += dead > 0 ? 8 * words_of_bits(in->indexes[s]->entries) : 0;
    }
    *bytes = sum;
    return MRN_OK;
}

/* Entries of a segment with a score above this one, or not below it; at least `low` have one. Scores that
 * come in descending order find each place near the one before: the steps double until they are past it. */
static uint32_t count_above(const mrn_index *index, double score, int or_equal, uint32_t low) {
    uint32_t high = low, step = 1;
    for (; high < index->entries; high = low + step, step *= 2) {
        double here = entry_score(index, high);
        if (!(here > score || (or_equal && here >= score)))
            break;
        low = high + 1;
        if (step > index->entries - low) {
            high = index->entries;
            break;
        }
    }
    high = high < index->entries ? high : index->entries;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        double here = entry_score(index, middle);
        if (here > score || (or_equal && here >= score))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

typedef struct dead_list {
    uint32_t *ranks; /* ascending */
    size_t count;
} dead_list;

static uint32_t count_dead(const dead_list *dead, uint32_t below) {
    size_t low = 0, high = dead->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (dead->ranks[middle] < below)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)low;
}

/* Sort numbers ascending, in place: a heap, so that nothing is slow or recurses. */
#define DEFINE_HEAP_SORT(name, type, less)                                                                   \
    static void name(type *items, size_t count) {                                                            \
        for (size_t end = count, start = count / 2; end > 1;) {                                              \
            type item;                                                                                       \
            if (start > 0) {                                                                                 \
                item = items[--start];                                                                       \
            } else {                                                                                         \
                item = items[--end];                                                                         \
                items[end] = items[0];                                                                       \
            }                                                                                                \
            size_t at = start;                                                                               \
            for (size_t child; (child = 2 * at + 1) < end; at = child) {                                     \
                child += child + 1 < end && less(items[child], items[child + 1]);                            \
                if (!less(item, items[child]))                                                               \
                    break;                                                                                   \
                items[at] = items[child];                                                                    \
            }                                                                                                \
            items[at] = item;                                                                                \
        }                                                                                                    \
    }

#define RANK_LESS(a, b) ((a) < (b))
DEFINE_HEAP_SORT(heap_sort_ranks, uint32_t, RANK_LESS)

/* They nearly always come in order. */
static void sort_ranks(uint32_t *ranks, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (ranks[i] < ranks[i - 1]) {
            heap_sort_ranks(ranks, count);
            return;
        }
}

static size_t run_end(const shift *items, size_t start, size_t count) {
    size_t end = start < count ? start + 1 : count;
    while (end < count && items[end - 1].from <= items[end].from)
        end++;
    return end;
}

/* Sort by `from`: merges neighbouring runs until there is one. Each segment has made one run. */
static void merge_shifts(shift *items, shift *spare, size_t count) {
    shift *from = items, *to = spare;
    while (run_end(from, 0, count) < count) {
        for (size_t start = 0, out = 0; start < count;) {
            size_t middle = run_end(from, start, count), end = run_end(from, middle, count);
            size_t i = start, j = middle;
            while (i < middle && j < end)
                to[out++] = from[j].from < from[i].from ? from[j++] : from[i++];
            while (i < middle)
                to[out++] = from[i++];
            while (j < end)
                to[out++] = from[j++];
            start = end;
        }
        shift *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

/* Where the scores of a segment change: call with the start of one to get the start of the next. */
static uint32_t next_tie(const mrn_index *index, uint32_t start) {
    uint32_t rank = start + 1;
    while (rank < index->entries && tie_start(index, rank) == start)
        rank++;
    return rank;
}

static size_t fill_base(const mrn_segments *in, size_t base, const dead_list *dead, shift *shifts,
                        shift *spare) {
    size_t count = 0;
    for (size_t i = 0; i < dead[base].count; i++)
        shifts[count++] = (shift){dead[base].ranks[i] + 1, -1};
    for (size_t t = 0; t < in->count; t++) {
        const mrn_index *other = in->indexes[t];
        for (uint32_t from = 0, to, above = 0; t != base && from < other->entries; from = to) {
            to = next_tie(other, from);
            above = count_above(in->indexes[base], entry_score(other, from), 1, above);
            uint32_t living = to - from - (count_dead(&dead[t], to) - count_dead(&dead[t], from));
            if (living > 0)
                shifts[count++] = (shift){above, (int32_t)living};
        }
    }
    merge_shifts(shifts, spare, count);
    size_t kept = 0;
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += shifts[i].by;
        kept -= kept > 0 && shifts[kept - 1].from == shifts[i].from;
        shifts[kept++] = (shift){shifts[i].from, sum};
    }
    return kept;
}

static size_t fill_other(const mrn_segments *in, size_t s, const dead_list *dead, shift *shifts) {
    const mrn_index *index = in->indexes[s];
    size_t count = 0;
    uint32_t reached[MRN_SEGMENTS_MAX] = {0};
    for (uint32_t from = 0; from < index->entries; from = next_tie(index, from)) {
        double score = entry_score(index, from);
        int64_t by = -(int64_t)count_dead(&dead[s], from);
        for (size_t t = 0; t < in->count; t++) {
            if (t == s)
                continue;
            uint32_t above = reached[t] = count_above(in->indexes[t], score, 0, reached[t]);
            by += (int64_t)above - count_dead(&dead[t], above);
        }
        shifts[count++] = (shift){from, (int32_t)by};
    }
    return count;
}

int mrn_reader_open(const mrn_segments *in, void *block, size_t block_bytes, mrn_reader **reader) {
    size_t needed = 0;
    int status = mrn_reader_plan(in, &needed);
    if (status != MRN_OK)
        return status;
    if (block == NULL || reader == NULL)
        return MRN_E_ARGUMENT;
    if (block_bytes < needed || (uintptr_t)block % 8 != 0)
        return MRN_E_MEMORY;
    mrn_reader *r = block;
    uint8_t *at = (uint8_t *)block + (sizeof *r + 7) / 8 * 8;
    dead_list dead[MRN_SEGMENTS_MAX] = {{0}};
    const size_t base = find_base(in);
    uint64_t entries = 0;
    r->count = in->count;
    for (size_t s = 0; s < in->count; s++) {
        const mrn_index *index = in->indexes[s];
        reader_segment *g = &r->segments[s];
        *g = (reader_segment){.index = index,
                              .keys = segment_trie(index, MRN_SECTION_KEYS),
                              .words = segment_trie(index, MRN_SECTION_WORDS)};
        entries += index->entries;
        size_t count = dead_count(in, s);
        if (count == 0)
            continue;
        uint64_t *bits = (uint64_t *)(void *)at;
        at += 8 * words_of_bits(index->entries);
        memset(bits, 0, 8 * words_of_bits(index->entries));
        dead[s].ranks = (uint32_t *)(void *)at;
        at += (count + 1) / 2 * 8;
        for (size_t i = 0; i < count; i++) {
            uint32_t rank = in->dead[s][i];
            if (rank >= index->entries)
                return MRN_E_ARGUMENT;
            if (!(bits[rank / 64] >> (rank % 64) & 1))
                dead[s].ranks[dead[s].count++] = rank;
            bits[rank / 64] |= UINT64_C(1) << (rank % 64);
        }
        sort_ranks(dead[s].ranks, dead[s].count);
        g->dead = bits;
    }
    if (entries > INT32_MAX)
        return MRN_E_TOO_LARGE;
    for (size_t s = 0; s < in->count; s++) {
        shift *shifts = (shift *)(void *)at;
        shift *spare = shifts + shift_room(in, s, base); /* of the base only */
        at += shift_room(in, s, base) * sizeof *shifts * (s == base ? 2 : 1);
        if (in->count > 1 || dead[s].count > 0)
            r->segments[s].shift_count =
                s == base ? fill_base(in, s, dead, shifts, spare) : fill_other(in, s, dead, shifts);
        r->segments[s].shifts = shifts;
    }
    *reader = r;
    return MRN_OK;
}

/* ---- Answers ------------------------------------------------------------------------------------------ */

/* Spell the key of the node at `path` in the log, from its end; returns where it begins in the buffer. */
static uint8_t *spell(const search *s, const trie *t, size_t path, uint8_t *buffer, size_t *bytes) {
    uint8_t *end = buffer + MRN_KEY_MAX, *at = end;
    size_t to = SIZE_MAX;
    for (;;) {
        uint64_t entry = s->space->log[path];
        size_t parent = entry >> 19 & (LOG_MAX - 1), position = entry >> 8 & 0x7ff, from = 0;
        int start = parent == path, typed = (uint8_t)entry == LOG_START_TYPED;
        trie_node n;
        read_node(t, (uint32_t)(entry >> 32), &n);
        if (start && !typed)
            from = position;
        size_t upto = to < n.suffix_bytes ? to : n.suffix_bytes;
        at -= upto - from;
        memcpy(at, n.suffix + from, upto - from);
        if (start && !typed) {
            at -= s->query_bytes;
            memcpy(at, s->space->query, s->query_bytes);
        }
        if (start)
            break;
        if ((uint8_t)entry != 0)
            *--at = (uint8_t)entry;
        to = position;
        path = parent;
    }
    *bytes = (size_t)(end - at);
    return at;
}

const uint8_t *answer_text(const search *s, const mrn_answer *answer, uint8_t *buffer, size_t *bytes) {
    const reader_segment *g = &s->reader->segments[answer->segment];
    const uint8_t *text = read_blob(g->index, MRN_SECTION_TEXTS, answer->entry, bytes);
    if (*bytes > 0)
        return text;
    return spell(s, &g->keys, answer->path, buffer, bytes);
}

/* Whether answer a comes before b. */
static int answer_before(const search *s, const mrn_answer *a, const mrn_answer *b) {
    if (a->weight != b->weight)
        return a->weight < b->weight;
    if (a->segment == b->segment)
        return a->entry < b->entry;
    double x = entry_score(s->reader->segments[a->segment].index, a->entry),
           y = entry_score(s->reader->segments[b->segment].index, b->entry);
    if (x != y)
        return x > y;
    size_t a_bytes, b_bytes;
    const uint8_t *a_text = answer_text(s, a, (uint8_t *)s->space->keys[0], &a_bytes),
                  *b_text = answer_text(s, b, (uint8_t *)s->space->keys[1], &b_bytes);
    size_t a_points = text_points(a_text, a_bytes), b_points = text_points(b_text, b_bytes);
    if (a_points != b_points)
        return a_points < b_points;
    int order = memcmp(a_text, b_text, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order < 0 : a_bytes < b_bytes;
}

/* Where the key of a node of the words begins in the key of its entry; `key` becomes that key. */
static size_t word_start(const search *s, const mrn_answer *answer, const uint8_t *text, size_t bytes,
                         uint8_t *key, size_t *key_bytes) {
    const reader_segment *g = &s->reader->segments[answer->segment];
    uint16_t *starts = s->space->words;
    size_t count = 0, number = 0;
    ptrdiff_t folded =
        fold_words(text, bytes, g->index->flags & MRN_INDEX_CAMEL ? 1 : 0, key, MRN_KEY_MAX, starts, &count);
    *key_bytes = folded < 0 ? 0 : (size_t)folded;
    while (answer->node > number && number < MRN_WORDS_MAX &&
           node_entry(g, KIND_WORD, answer->node - (uint32_t)number - 1) == answer->entry)
        number++;
    number += count > 0 && starts[0] == 0;
    return number < count ? starts[number] : 0;
}

/* Whether what an answer matches has the accents that were typed. */
static int marks_agree(const search *s, const mrn_answer *answer) {
    size_t bytes, key_bytes, from = 0;
    uint8_t *key = (uint8_t *)s->space->keys[1];
    const uint8_t *text = answer_text(s, answer, (uint8_t *)s->space->keys[0], &bytes);
    if (answer->kind == KIND_WORD)
        from = word_start(s, answer, text, bytes, key, &key_bytes);
    return fold_same_marks(s->typed, s->typed_bytes, text, bytes, from, answer->matched);
}

/* Whether a is the better one of two matches of one entry; they are told apart by what is highlighted. */
static int better_match(const mrn_answer *a, const mrn_answer *b) {
    if (a->weight != b->weight)
        return a->weight < b->weight;
    if (a->edits != b->edits)
        return a->edits < b->edits;
    return a->kind != b->kind ? a->kind < b->kind : a->node < b->node;
}

void search_offer(search *s, size_t number, int kind, uint32_t node, size_t path, size_t matched,
                  unsigned edits) {
    const reader_segment *g = &s->reader->segments[number];
    mrn_answer *answers = s->space->answers;
    uint32_t entry = kind == KIND_ORDER ? node : node_entry(g, kind, node);
    if (g->dead != NULL && g->dead[entry / 64] >> (entry % 64) & 1)
        return;
    uint64_t mask = s->filtered | s->preferring ? read_mask(g->index, MRN_SECTION_MASKS, entry) : 0;
    if (s->filtered && !(mask & s->filter[number]))
        return;
    unsigned bits = edit_bits(edits) + (kind == KIND_WORD ? WORD_BITS : kind == KIND_ORDER ? ORDER_BITS : 0U);
    if (s->preferring && !(mask & s->prefer[number]))
        bits += PENALTY_BITS;
    mrn_answer answer = {.entry = entry,
                         .node = node,
                         .segment = (uint16_t)number,
                         .path = (uint16_t)path,
                         .matched = (uint16_t)matched,
                         .kind = (uint8_t)kind,
                         .edits = (uint8_t)edits};
    uint64_t rank = union_rank(g, entry) + 1;
    if (rank << bits > bar(s))
        return;
    if (s->marks && (edits > 0 || kind == KIND_ORDER || !marks_agree(s, &answer)))
        bits += PENALTY_BITS;
    answer.weight = rank << bits;
    if (answer.weight > bar(s))
        return;
    for (size_t i = 0; i < s->count; i++) { /* an entry is an answer once, by the best of its matches */
        if (answers[i].entry != entry || answers[i].segment != number)
            continue;
        if (!better_match(&answer, &answers[i]))
            return;
        memmove(answers + i, answers + i + 1, (s->count - i - 1) * sizeof *answers);
        s->count--;
        break;
    }
    size_t at = s->count;
    while (at > 0 && answer_before(s, &answer, &answers[at - 1]))
        at--;
    if (at == s->limit)
        return;
    memmove(answers + at + 1, answers + at, (s->count - at) * sizeof *answers);
    answers[at] = answer;
    s->count += s->count < s->limit;
}

/* ---- Matches without errors --------------------------------------------------------------------------- */

/* Whether one more node may be visited. */
static int may_visit(search *s, int logged) {
    if (s->visits == MRN_VISITS_MAX || (logged && s->logged == LOG_MAX)) {
        s->partial = 1;
        return 0;
    }
    s->visits++;
    return 1;
}

/* Offer what lies below a place, one by one. */
static void offer_stream(search *s, size_t number, int kind, const place *at) {
    const reader_segment *g = &s->reader->segments[number];
    stream below = {.trie = kind == KIND_KEY ? &g->keys : &g->words,
                    .index = g->index,
                    .masks = kind == KIND_KEY ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS,
                    .filter = s->filtered ? s->filter[number] : 0,
                    .todo = s->space->todo,
                    .capacity = TODO_MAX};
    if (s->filtered && s->filter[number] == 0)
        return;
    stream_open(&below, at);
    const unsigned bits = kind == KIND_WORD ? WORD_BITS : 0;
    for (uint32_t head; (head = stream_head(&below)) != NO_NODE;) {
        if (weigh(g, node_entry(g, kind, head), bits) > bar(s) || !may_visit(s, kind == KIND_KEY))
            return;
        size_t path = 0;
        uint32_t node = stream_next(&below, kind == KIND_KEY ? s : NULL, &path);
        search_offer(s, number, kind, node, path, s->query_bytes, 0);
    }
    if (below.full)
        s->partial = 1;
}

/* Log the nodes that trie_best gave; the first one's place in the log. */
static size_t log_pool(search *s, const place *at, size_t found) {
    const uint64_t *pool = s->space->pool;
    uint64_t *log = s->space->log;
    size_t first = s->logged;
    log[first] = log_entry(at->rank, first, at->position, 0);
    for (size_t i = 1; i < found; i++)
        log[first + i] = log_entry(pool_node(pool[i]), first + (pool[i] >> 19 & 0x7f), pool[i] >> 8 & 0x7ff,
                                   (uint8_t)pool[i]);
    s->logged += found;
    return first;
}

static void search_exact(search *s, size_t number) {
    const reader_segment *g = &s->reader->segments[number];
    const uint8_t *key = (const uint8_t *)s->space->query;
    place at;
    if (trie_walk(&g->keys, key, s->query_bytes, &at)) {
        if (g->dead != NULL || s->filtered || s->preferring || s->marks) {
            offer_stream(s, number, KIND_KEY, &at);
        } else {
            size_t found = trie_best(&g->keys, &at, s->limit, s->space->pool, s->space->spelled),
                   first = log_pool(s, &at, found);
            for (size_t i = 0; i < found; i++)
                search_offer(s, number, KIND_KEY, pool_node(s->space->pool[i]), first + i, s->query_bytes, 0);
        }
    }
    if (g->words.nodes > 0 && s->query_bytes > 0 && trie_walk(&g->words, key, s->query_bytes, &at))
        offer_stream(s, number, KIND_WORD, &at);
}

/* Spell the keys of what trie_best gave one behind the other, each from that of its parent, with `gap` bytes of
 * line feed between them; 0 when they may not fit. */
static int spell_pool(search *s, uint8_t *room, size_t capacity, size_t gap) {
    mrn_spelled *keys = s->space->spelled;
    size_t used = 0;
    for (size_t i = 0; i < s->count; i++) {
        const uint64_t item = s->space->pool[i];
        size_t position = pool_position(item), start = s->query_bytes, skipped = position;
        const uint8_t *from = (const uint8_t *)s->space->query;
        if (i > 0) {
            const mrn_spelled *parent = &keys[pool_parent(item)];
            from = room + parent->key;
            start = parent->key_bytes - parent->suffix_bytes + position;
            skipped = 0;
        }
        if (capacity - used < MRN_KEY_MAX + 9)
            return 0;
        room[used] = '\n';
        used += i > 0 ? gap : 0;
        uint8_t *key = room + used, *to = key;
        copy_short(to, from, start);
        to += start;
        if (i > 0 && (uint8_t)item != 0)
            *to++ = (uint8_t)item;
        copy_short(to, keys[i].suffix + skipped, keys[i].suffix_bytes - skipped);
        to += keys[i].suffix_bytes - skipped;
        keys[i].key = (uint32_t)used;
        keys[i].key_bytes = (uint32_t)(to - key);
        used += keys[i].key_bytes;
    }
    return 1;
}

/* Make answers of what trie_best gave. */
static void answer_pool(search *s) {
    const size_t first = log_pool(s, &s->start, s->count);
    for (size_t i = 0; i < s->count; i++) {
        uint32_t rank = pool_node(s->space->pool[i]);
        s->space->answers[i] = (mrn_answer){
            .entry = rank, .node = rank, .path = (uint16_t)(first + i), .matched = (uint16_t)s->query_bytes};
    }
    s->plain = 0;
}

/* The usual case: one segment without words, nothing dead, nothing asked for: the nodes are the answers. */
static int search_plain(search *s) {
    const reader_segment *g = &s->reader->segments[0];
    if (s->reader->count != 1 || g->dead != NULL || g->words.nodes > 0 || s->filtered || s->preferring ||
        s->marks)
        return 0;
    if (!trie_walk(&g->keys, (const uint8_t *)s->space->query, s->query_bytes, &s->start))
        return 1;
    s->count = trie_best(&g->keys, &s->start, s->limit, s->space->pool, s->space->spelled);
    s->plain = g->index->items[MRN_SECTION_TEXTS] == 0;
    if (!s->plain)
        answer_pool(s);
    return 1;
}

/* ---- Several words in any order ------------------------------------------------------------------------ */

size_t query_words(const search *s, uint16_t *starts, uint16_t *ends, size_t capacity) {
    const uint8_t *key = (const uint8_t *)s->space->query;
    size_t count = 0;
    int inside = 0;
    for (size_t at = 0; at < s->query_bytes;) {
        uint32_t point;
        size_t step = utf8_decode(key + at, s->query_bytes - at, &point);
        int word = !fold_parts_words(point);
        if (word && !inside) {
            if (count == capacity)
                return capacity + 1;
            starts[count++] = (uint16_t)at;
        }
        if (word)
            ends[count - 1] = (uint16_t)(at + step);
        inside = word;
        at += step;
    }
    return count;
}

/* A word of the query, and the two tries where it begins a key. */
typedef struct wanted {
    uint16_t start, bytes; /* of the folded query */
    stream streams[2];
} wanted;

/* The first entry that is still to come in either stream of a word. */
static uint32_t next_entry(const reader_segment *g, const wanted *w, int *which) {
    uint32_t a = stream_head(&w->streams[0]), b = stream_head(&w->streams[1]);
    if (b != NO_NODE)
        b = node_entry(g, KIND_WORD, b);
    *which = b < a;
    return b < a ? b : a;
}

/* The first place in a key where a word of the query begins a word; SIZE_MAX when there is none. */
static size_t find_word(const uint8_t *key, size_t key_bytes, const uint16_t *starts, size_t count,
                        const uint8_t *word, size_t bytes) {
    for (size_t i = 0; i < count; i++)
        if (key_bytes >= bytes && starts[i] <= key_bytes - bytes && memcmp(key + starts[i], word, bytes) == 0)
            return starts[i];
    return SIZE_MAX;
}

/* Whether every word of the query begins a word of an entry. */
static int has_words(search *s, const reader_segment *g, uint32_t entry, const wanted *words, size_t count) {
    size_t bytes, starts;
    const uint8_t *query = (const uint8_t *)s->space->query;
    uint8_t *key = (uint8_t *)s->space->keys[0];
    const uint8_t *text = read_blob(g->index, MRN_SECTION_TEXTS, entry, &bytes);
    ptrdiff_t key_bytes = fold_words(text, bytes, g->index->flags & MRN_INDEX_CAMEL ? 1 : 0, key, MRN_KEY_MAX,
                                     s->space->words, &starts);
    for (size_t i = 0; i < count; i++)
        if (key_bytes < 0 || find_word(key, (size_t)key_bytes, s->space->words, starts,
                                       query + words[i].start, words[i].bytes) == SIZE_MAX)
            return 0;
    return 1;
}

/* Offer the entries that have all words. Each word has its entries in rank order; they are taken in turns,
 * and each is looked at for the other words. When one word's have all been seen up to a rank, every match up
 * to it is known. */
static void search_order(search *s, size_t number, const uint16_t *starts, const uint16_t *ends,
                         size_t count) {
    const reader_segment *g = &s->reader->segments[number];
    wanted words[MRN_QUERY_WORDS_MAX];
    size_t capacity = TODO_MAX / (2 * count);
    for (size_t i = 0; i < count; i++) {
        words[i].start = starts[i];
        words[i].bytes = (uint16_t)(ends[i] - starts[i]);
        for (int k = 0; k < 2; k++) {
            stream *below = &words[i].streams[k];
            place at;
            *below = (stream){.trie = k == 0 ? &g->keys : &g->words,
                              .index = g->index,
                              .masks = k == 0 ? MRN_SECTION_KEY_MASKS : MRN_SECTION_WORD_MASKS,
                              .filter = s->filtered ? s->filter[number] : 0,
                              .todo = s->space->todo + (2 * i + (size_t)k) * capacity,
                              .capacity = (uint32_t)capacity};
            if (trie_walk(below->trie, (const uint8_t *)s->space->query + starts[i], words[i].bytes, &at))
                stream_open(below, &at);
        }
    }
    for (size_t turn = 0;; turn = (turn + 1) % count) {
        int which;
        uint32_t seen = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t head = next_entry(g, &words[i], &which);
            if (words[i].streams[0].full || words[i].streams[1].full) {
                s->partial = 1;
                return;
            }
            if (head == NO_NODE)
                return;
            seen = head > seen ? head : seen;
        }
        if (weigh(g, seen, ORDER_BITS) > bar(s) || !may_visit(s, 0))
            return;
        uint32_t entry = next_entry(g, &words[turn], &which);
        stream_next(&words[turn].streams[which], NULL, NULL);
        if (has_words(s, g, entry, words, count))
            search_offer(s, number, KIND_ORDER, entry, 0, 0, 0);
    }
}

/* ---- A query ------------------------------------------------------------------------------------------ */

/* The contexts of a segment that a list of names has. */
static uint64_t name_mask(const mrn_index *index, const char *names, size_t bytes) {
    uint64_t mask = 0;
    const uint8_t *tags = (const uint8_t *)index->file + index->place[MRN_SECTION_TAGS];
    for (size_t from = 0, to; from < bytes; from = to + 1) {
        for (to = from; to < bytes && names[to] != '\n'; to++)
            ;
        const uint8_t *at = tags;
        for (uint32_t t = 0; t < index->items[MRN_SECTION_TAGS]; t++, at += 1 + *at)
            if (*at == to - from && memcmp(at + 1, names + from, *at) == 0)
                mask |= UINT64_C(1) << t;
    }
    return mask;
}

/* Fold the query. */
static int prepare_query(search *s) {
    char *key = s->space->query;
    s->query_bytes = s->typed_bytes;
    s->query_points = (uint16_t)s->typed_bytes;
    if (fold_ascii(s->typed, s->typed_bytes, (uint8_t *)key))
        return MRN_OK;
    int status = mrn_fold((const char *)s->typed, s->typed_bytes, key, MRN_QUERY_MAX, &s->query_bytes);
    if (status != MRN_OK)
        return status;
    s->marks = fold_has_marks(s->typed, s->typed_bytes);
    s->query_points = 0;
    for (size_t i = 0; i < s->query_bytes; i++)
        s->query_points = (uint16_t)(s->query_points + (((uint8_t)key[i] & 0xc0) != 0x80));
    return MRN_OK;
}

static int search_run(search *s, const mrn_reader *reader, const char *query, size_t query_bytes,
                      const mrn_options *options, mrn_workspace *space) {
    if (reader == NULL || options == NULL || space == NULL || (query == NULL && query_bytes > 0) ||
        options->limit == 0 || options->limit > MRN_LIMIT_MAX || options->edits < MRN_EDITS_AUTO ||
        options->edits > EDITS_MAX || (options->contexts == NULL && options->contexts_bytes > 0) ||
        (options->prefer == NULL && options->prefer_bytes > 0))
        return MRN_E_ARGUMENT;
    if (query_bytes > MRN_QUERY_MAX)
        return MRN_E_TOO_LARGE;
    s->reader = reader;
    s->space = space;
    s->limit = options->limit;
    s->count = s->logged = s->visits = 0;
    s->partial = s->marks = s->edits = s->plain = 0;
    s->typed = (const uint8_t *)query;
    s->typed_bytes = query_bytes;
    int status = prepare_query(s);
    if (status != MRN_OK)
        return status;
    s->filtered = options->contexts_bytes > 0;
    s->preferring = options->prefer_bytes > 0;
    if (s->filtered | s->preferring)
        for (size_t i = 0; i < reader->count; i++) {
            s->filter[i] = name_mask(reader->segments[i].index, options->contexts, options->contexts_bytes);
            s->prefer[i] = name_mask(reader->segments[i].index, options->prefer, options->prefer_bytes);
        }
    int edits = options->edits == 0 ? 0 : search_prepare_typed(s, options->edits);
    if (edits == 0 && search_plain(s))
        return MRN_OK;
    for (size_t i = 0; i < reader->count; i++)
        search_exact(s, i);
    uint16_t starts[MRN_QUERY_WORDS_MAX], ends[MRN_QUERY_WORDS_MAX];
    size_t words = query_words(s, starts, ends, MRN_QUERY_WORDS_MAX);
    for (size_t i = 0; i < reader->count; i++)
        if (words >= 2 && words <= MRN_QUERY_WORDS_MAX && reader->segments[i].words.nodes > 0)
            search_order(s, i, starts, ends, words);
    if (edits > 0) {
        s->edits = edits;
        s->visits = 0;
        for (size_t i = 0; i < reader->count; i++) {
            search_typed(s, i, KIND_KEY);
            if (reader->segments[i].words.nodes > 0)
                search_typed(s, i, KIND_WORD);
        }
    }
    return MRN_OK;
}

/* ---- Describing answers ------------------------------------------------------------------------------- */

/* The bytes of the first `points` characters of a key. */
static size_t points_bytes(const uint8_t *key, size_t bytes, size_t points) {
    size_t at = 0;
    for (uint32_t point; points > 0 && at < bytes; points--)
        at += utf8_decode(key + at, bytes - at, &point);
    return at;
}

/* Add a range of the key as code points of the text. */
static void add_highlight(mrn_completion *c, const uint8_t *text, size_t bytes, size_t from, size_t to) {
    uint16_t *at = c->highlight + 2 * c->highlights++;
    at[0] = (uint16_t)(from == 0 ? 0 : fold_before(text, bytes, from));
    at[1] = (uint16_t)fold_span(text, bytes, to);
}

/* Highlight the words of the query where they first begin a word; ranges are put in order and joined. */
static void highlight_words(const search *s, const mrn_index *index, const uint8_t *text, size_t bytes,
                            mrn_completion *c) {
    uint16_t starts[MRN_QUERY_WORDS_MAX], ends[MRN_QUERY_WORDS_MAX];
    uint8_t *key = (uint8_t *)s->space->keys[1];
    size_t count = query_words(s, starts, ends, MRN_QUERY_WORDS_MAX), there;
    ptrdiff_t key_bytes = fold_words(text, bytes, index->flags & MRN_INDEX_CAMEL ? 1 : 0, key, MRN_KEY_MAX,
                                     s->space->words, &there);
    for (size_t i = 0; i < count; i++) {
        size_t length = (size_t)ends[i] - starts[i];
        size_t at = find_word(key, (size_t)key_bytes, s->space->words, there,
                              (const uint8_t *)s->space->query + starts[i], length);
        if (at != SIZE_MAX)
            add_highlight(c, text, bytes, at, at + length);
    }
    uint16_t (*ranges)[2] = (uint16_t (*)[2])c->highlight;
    for (uint32_t i = 1; i < c->highlights; i++)
        for (uint32_t j = i; j > 0 && ranges[j - 1][0] > ranges[j][0]; j--) {
            uint16_t start = ranges[j][0], end = ranges[j][1];
            ranges[j][0] = ranges[j - 1][0], ranges[j][1] = ranges[j - 1][1];
            ranges[j - 1][0] = start, ranges[j - 1][1] = end;
        }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->highlights; i++) {
        if (kept > 0 && ranges[i][0] <= ranges[kept - 1][1]) {
            if (ranges[i][1] > ranges[kept - 1][1])
                ranges[kept - 1][1] = ranges[i][1];
            continue;
        }
        ranges[kept][0] = ranges[i][0], ranges[kept][1] = ranges[i][1];
        kept++;
    }
    c->highlights = kept;
}

static void highlight(const search *s, const mrn_answer *answer, const uint8_t *text, size_t bytes,
                      mrn_completion *c) {
    const mrn_index *index = s->reader->segments[answer->segment].index;
    uint8_t *key = (uint8_t *)s->space->keys[1];
    size_t from = 0, matched = answer->matched, key_bytes = 0;
    if (answer->kind == KIND_ORDER) {
        highlight_words(s, index, text, bytes, c);
        return;
    }
    if (answer->kind == KIND_WORD) {
        from = word_start(s, answer, text, bytes, key, &key_bytes);
    } else if (answer->edits > 0) {
        ptrdiff_t folded = fold_text(text, bytes, key, MRN_KEY_MAX + 1);
        key_bytes = folded < 0 ? 0 : (size_t)folded;
    }
    if (answer->edits > 0)
        matched = points_bytes(key + from, key_bytes - from, matched);
    if (matched > 0)
        add_highlight(c, text, bytes, from, from + matched);
}

/* What the index says of an entry. */
static inline void describe_entry(const mrn_index *index, uint32_t segment, uint32_t entry, mrn_completion *c) {
    size_t bytes;
    const uint8_t *payload = read_blob(index, MRN_SECTION_PAYLOADS, entry, &bytes);
    c->score = entry_score(index, entry);
    c->payload = bytes == 0 ? 0 : (uint64_t)(payload - (const uint8_t *)index->file);
    c->payload_bytes = (uint32_t)bytes;
    c->segment = segment;
    c->entry = entry;
}

/* Everything about an answer but where its text goes. */
static const uint8_t *describe(const search *s, const mrn_answer *answer, mrn_completion *c) {
    size_t bytes;
    const uint8_t *text = answer_text(s, answer, (uint8_t *)s->space->keys[0], &bytes);
    describe_entry(s->reader->segments[answer->segment].index, answer->segment, answer->entry, c);
    c->text_bytes = (uint32_t)bytes;
    c->edits = answer->edits;
    c->highlights = 0;
    highlight(s, answer, text, bytes, c);
    return text;
}

/* The same of plain answers, whose texts were spelled: a character of the text is one of its key. */
static void describe_plain(const search *s, mrn_completion *completions) {
    const mrn_index *index = s->reader->segments[0].index;
    for (size_t i = 0; i < s->count; i++) {
        mrn_completion *c = &completions[i];
        describe_entry(index, 0, pool_node(s->space->pool[i]), c);
        c->text = s->space->spelled[i].key;
        c->text_bytes = s->space->spelled[i].key_bytes;
        c->edits = 0;
        c->highlights = s->query_points > 0;
        c->highlight[0] = 0;
        c->highlight[1] = s->query_points;
    }
}

/* Describe all answers, and write their texts with `gap` line feeds between them. */
static int write_answers(search *s, mrn_completion *completions, char *texts, size_t capacity, size_t gap,
                         size_t *texts_bytes) {
    if (s->plain) {
        if (spell_pool(s, (uint8_t *)texts, capacity, gap)) {
            describe_plain(s, completions);
            *texts_bytes = s->count == 0 ? 0 : completions[s->count - 1].text + completions[s->count - 1].text_bytes;
            return MRN_OK;
        }
        answer_pool(s);
    }
    size_t used = 0;
    for (size_t i = 0; i < s->count; i++) {
        mrn_completion *c = &completions[i];
        const uint8_t *text = describe(s, &s->space->answers[i], c);
        const size_t before = i > 0 ? gap : 0;
        if (before + c->text_bytes > capacity - used)
            return MRN_E_MEMORY;
        memset(texts + used, '\n', before);
        used += before;
        memcpy(texts + used, text, c->text_bytes);
        c->text = (uint32_t)used;
        used += c->text_bytes;
    }
    *texts_bytes = used;
    return MRN_OK;
}

int mrn_reader_complete(const mrn_reader *reader, const char *query, size_t query_bytes,
                        const mrn_options *options, mrn_workspace *workspace, mrn_completion *completions,
                        size_t *count, char *texts, size_t texts_bytes, int *partial) {
    search s;
    if (completions == NULL || count == NULL || texts == NULL || partial == NULL)
        return MRN_E_ARGUMENT;
    int status = search_run(&s, reader, query, query_bytes, options, workspace);
    if (status != MRN_OK)
        return status;
    *count = s.count;
    *partial = s.partial;
    return write_answers(&s, completions, texts, texts_bytes, 0, &texts_bytes);
}

/* Whether a completion says nothing but its text, its score, and that its first `points` characters match. */
static int is_bare(const mrn_completion *c, uint32_t points) {
    return c->edits == 0 && c->payload_bytes == 0 && c->highlights == (points > 0) &&
           (points == 0 || (c->highlight[0] == 0 && c->highlight[1] == points));
}

int64_t mrn_bound_columns(const mrn_reader *reader, mrn_bound *bound, const char *query, size_t query_bytes,
                          mrn_columns *columns) {
    search s;
    if (bound == NULL || bound->completions == NULL || bound->out == NULL || columns == NULL)
        return MRN_E_ARGUMENT;
    int status = search_run(&s, reader, query, query_bytes, &bound->options, bound->workspace);
    size_t texts_bytes = 0;
    if (status == MRN_OK)
        status = write_answers(&s, bound->completions, bound->out, bound->capacity, 1, &texts_bytes);
    if (status != MRN_OK)
        return status;
    columns->texts_bytes = (uint32_t)texts_bytes;
    columns->partial = (uint32_t)s.partial;
    columns->points = s.query_points;
    columns->alike = 1;
    for (size_t i = 0; i < s.count; i++) {
        columns->scores[i] = bound->completions[i].score;
        columns->alike &= (uint32_t)is_bare(&bound->completions[i], s.query_points);
    }
    return (int64_t)s.count;
}

/* ---- JSON --------------------------------------------------------------------------------------------- */

typedef struct writer {
    char *at, *end;
    int full;
} writer;

static inline void write_bytes(writer *w, const void *from, size_t bytes) {
    if ((size_t)(w->end - w->at) < bytes) {
        w->full = 1;
        return;
    }
    memcpy(w->at, from, bytes);
    w->at += bytes;
}

#define WRITE(w, literal) write_bytes(w, literal, sizeof(literal) - 1)

/* A valid text in quotes, escaped as RFC 8259 says it must and no more. */
static void write_string(writer *w, const uint8_t *text, size_t bytes) {
    static const char hex[] = "0123456789abcdef";
    WRITE(w, "\"");
    for (size_t from = 0, at = 0; from < bytes; from = at) {
        while (at < bytes && text[at] >= 0x20 && text[at] != '"' && text[at] != '\\')
            at++;
        write_bytes(w, text + from, at - from);
        if (at == bytes)
            break;
        uint8_t byte = text[at++];
        const char plain[2] = {'\\', (char)byte},
                   unit[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
        if (byte < 0x20)
            write_bytes(w, unit, sizeof unit);
        else
            write_bytes(w, plain, sizeof plain);
    }
    WRITE(w, "\"");
}

static void write_integer(writer *w, uint64_t value) {
    char text[NUMBER_TEXT_MAX];
    write_bytes(w, text, integer_text(value, text));
}

static void write_completion(writer *w, const search *s, const mrn_answer *answer) {
    mrn_completion c;
    char number[NUMBER_TEXT_MAX];
    const uint8_t *text = describe(s, answer, &c);
    WRITE(w, "{\"text\":");
    write_string(w, text, c.text_bytes);
    WRITE(w, ",\"score\":");
    write_bytes(w, number, double_text(c.score, number));
    WRITE(w, ",\"edits\":");
    write_integer(w, c.edits);
    WRITE(w, ",\"highlights\":[");
    for (uint32_t i = 0; i < c.highlights; i++) {
        if (i > 0)
            WRITE(w, ",");
        WRITE(w, "[");
        write_integer(w, c.highlight[2 * i]);
        WRITE(w, ",");
        write_integer(w, c.highlight[2 * i + 1]);
        WRITE(w, "]");
    }
    WRITE(w, "],\"payload\":");
    if (c.payload_bytes > 0)
        write_bytes(w, s->reader->segments[c.segment].index->file + c.payload, c.payload_bytes);
    else
        WRITE(w, "null");
    WRITE(w, "}");
}

/* Whether one of eight bytes has to be escaped; may be wrong about those behind one that has. */
static inline uint64_t find_escaped(uint64_t part) {
    const uint64_t ones = UINT64_C(0x0101010101010101), quote = part ^ '"' * ones, back = part ^ '\\' * ones;
    return ((quote - ones) & ~quote) | ((back - ones) & ~back) | ((part - ' ' * ones) & ~part);
}

/* write_string of a text that mostly needs no escaping; 7 bytes behind it can be read. There is room. */
static inline void write_clean(writer *w, const uint8_t *text, size_t bytes) {
    uint64_t escaped = 0;
    *w->at = '"';
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t part = load64(text + at);
        if (bytes - at < 8)
            part |= UINT64_MAX << (8 * (bytes - at));
        escaped |= find_escaped(part);
        store64((uint8_t *)w->at + 1 + at, part);
    }
    w->at[1 + bytes] = '"';
    if (escaped & UINT64_C(0x8080808080808080))
        write_string(w, text, bytes);
    else
        w->at += bytes + 2;
}

/* Plain answers, whose texts were spelled in `room`: what is alike in all of them is written once. */
static void write_plain(writer *w, const search *s, const uint8_t *room) {
    enum { SAME_MAX = 64 };
    const mrn_index *index = s->reader->segments[0].index;
    char same[SAME_MAX] = {0};
    writer tail = {same, same + sizeof same, 0};
    WRITE(&tail, ",\"edits\":0,\"highlights\":[");
    if (s->query_points > 0) {
        WRITE(&tail, "[0,");
        write_integer(&tail, s->query_points);
        WRITE(&tail, "]");
    }
    WRITE(&tail, "],\"payload\":");
    for (size_t i = 0; i < s->count; i++) {
        const mrn_spelled *key = &s->space->spelled[i];
        const uint32_t entry = pool_node(s->space->pool[i]);
        size_t payload_bytes;
        const uint8_t *payload = read_blob(index, MRN_SECTION_PAYLOADS, entry, &payload_bytes);
        /* so that no piece but the payload needs to be checked */
        if ((size_t)(w->end - w->at) < 6 * (size_t)key->key_bytes + NUMBER_TEXT_MAX + 2 * SAME_MAX) {
            w->full = 1;
            return;
        }
        if (i > 0)
            *w->at++ = ',';
        WRITE(w, "{\"text\":");
        write_clean(w, room + key->key, key->key_bytes);
        WRITE(w, ",\"score\":");
        w->at += double_text(entry_score(index, entry), w->at);
        memcpy(w->at, same, sizeof same);
        w->at += tail.at - same;
        if (payload_bytes > 0)
            write_bytes(w, payload, payload_bytes);
        else
            WRITE(w, "null");
        WRITE(w, "}");
    }
}

int mrn_reader_complete_json(const mrn_reader *reader, const char *query, size_t query_bytes,
                             const mrn_options *options, mrn_workspace *workspace, char *json,
                             size_t capacity, size_t *json_bytes) {
    search s;
    if (json == NULL || json_bytes == NULL)
        return MRN_E_ARGUMENT;
    int status = search_run(&s, reader, query, query_bytes, options, workspace);
    if (status != MRN_OK)
        return status;
    writer w = {json, json + capacity, 0};
    WRITE(&w, "{\"query\":");
    write_string(&w, s.typed, s.typed_bytes);
    WRITE(&w, ",\"completions\":[");
    uint8_t *room = (uint8_t *)workspace->todo;
    if (s.plain && spell_pool(&s, room, sizeof workspace->todo, 0)) {
        write_plain(&w, &s, room);
    } else {
        if (s.plain)
            answer_pool(&s);
        for (size_t i = 0; i < s.count; i++) {
            if (i > 0)
                WRITE(&w, ",");
            write_completion(&w, &s, &workspace->answers[i]);
        }
    }
    WRITE(&w, "]}");
    *json_bytes = (size_t)(w.at - json);
    return w.full ? MRN_E_MEMORY : MRN_OK;
}

int64_t mrn_bound_json(const mrn_reader *reader, mrn_bound *bound, const char *query, size_t query_bytes) {
    size_t bytes = 0;
    if (bound == NULL)
        return MRN_E_ARGUMENT;
    int status = mrn_reader_complete_json(reader, query, query_bytes, &bound->options, bound->workspace, bound->out,
                                          bound->capacity, &bytes);
    return status == MRN_OK ? (int64_t)bytes : status;
}
