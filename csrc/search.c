/* The answers of a query: which entries of the segments match, and which of them are the best.
 *
 * Each way of matching is a stream of nodes in rank order, and each stops when nothing better than the worst
 * of the answers can come.
 */

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

/* ---- Answers ------------------------------------------------------------------------------------------ */

/* Spell the key of the node at `path` in the log, from its end; returns where it begins in the buffer. */
static uint8_t *spell(const search *s, const trie *t, size_t path, uint8_t *buffer, size_t *bytes) {
    uint8_t *end = buffer + MRN_KEY_MAX, *at = end;
    size_t to = SIZE_MAX;
    for (;;) {
        uint64_t entry = s->space->log[path];
        size_t parent = entry >> 19 & (LOG_MAX - 1), position = entry >> 8 & 0x7ff, from = 0;
        if ((uint8_t)entry == LOG_START_WHOLE && parent == path) {
            at -= s->query_bytes - 1;
            memcpy(at, s->space->query, s->query_bytes - 1);
            break;
        }
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

size_t word_start(const search *s, const mrn_answer *answer, const uint8_t *text, size_t bytes, uint8_t *key,
                  size_t *key_bytes) {
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

/* A hash of the id of an entry; 0 when it has none. */
static uint64_t hash_id(const reader_segment *g, uint32_t entry) {
    size_t bytes;
    const uint8_t *id = read_blob(g->index, MRN_SECTION_IDS, entry, &bytes);
    return mrn_id_hash((const char *)id, bytes);
}

/* Whether two answers are names of one document. */
static int same_document(const search *s, const mrn_answer *a, const mrn_answer *b) {
    if (a->document == 0 || a->document != b->document)
        return 0;
    size_t a_bytes, b_bytes;
    const uint8_t *x = read_blob(s->reader->segments[a->segment].index, MRN_SECTION_IDS, a->entry, &a_bytes),
                  *y = read_blob(s->reader->segments[b->segment].index, MRN_SECTION_IDS, b->entry, &b_bytes);
    return a_bytes == b_bytes && memcmp(x, y, a_bytes) == 0;
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
    answer.document = s->documents ? hash_id(g, entry) : 0;
    for (size_t i = 0; i < s->count; i++) {
        /* An entry is an answer once, by the best of its matches; a document by the best of its names. */
        int same = answers[i].entry == entry && answers[i].segment == number;
        if (!same && !same_document(s, &answer, &answers[i]))
            continue;
        if (!(same ? better_match(&answer, &answers[i]) : answer_before(s, &answer, &answers[i])))
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

/* Offer what is just the query without the space at its end: what a space would follow if anything did. */
static void offer_whole(search *s, size_t number, int kind) {
    const reader_segment *g = &s->reader->segments[number];
    const trie *t = kind == KIND_KEY ? &g->keys : &g->words;
    const size_t bytes = s->query_bytes - 1;
    const unsigned bits = kind == KIND_WORD ? WORD_BITS : 0;
    place at;
    if (kind == KIND_WORD && bytes > MRN_WORD_KEY_MAX - 4) /* it may be cut */
        return;
    for (int found = trie_walk_whole(t, (const uint8_t *)s->space->query, bytes, &at); found;
         found = trie_next_whole(t, &at)) {
        if (weigh(g, node_entry(g, kind, at.rank), bits) > bar(s) || !may_visit(s, 1))
            return;
        size_t path = s->logged++;
        s->space->log[path] = log_entry(at.rank, path, 0, LOG_START_WHOLE);
        search_offer(s, number, kind, at.rank, path, bytes, 0);
    }
}

static void search_exact(search *s, size_t number) {
    const reader_segment *g = &s->reader->segments[number];
    const uint8_t *key = (const uint8_t *)s->space->query;
    place at;
    if (trie_walk(&g->keys, key, s->query_bytes, &at)) {
        if (g->dead != NULL || s->filtered || s->preferring || s->marks || s->documents) {
            offer_stream(s, number, KIND_KEY, &at);
        } else {
            size_t found = trie_best(g, &at, s->limit, s->space->pool, s->space->spelled),
                   first = log_pool(s, &at, found);
            for (size_t i = 0; i < found; i++)
                search_offer(s, number, KIND_KEY, pool_node(s->space->pool[i]), first + i, s->query_bytes, 0);
        }
    }
    if (g->words.nodes > 0 && s->query_bytes > 0 && trie_walk(&g->words, key, s->query_bytes, &at))
        offer_stream(s, number, KIND_WORD, &at);
    if (s->query_bytes > 1 && key[s->query_bytes - 1] == ' ') {
        offer_whole(s, number, KIND_KEY);
        if (g->words.nodes > 0)
            offer_whole(s, number, KIND_WORD);
    }
}

void answer_pool(search *s) {
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
        s->marks || s->documents || (s->query_bytes > 0 && s->space->query[s->query_bytes - 1] == ' '))
        return 0;
    if (!trie_walk(&g->keys, (const uint8_t *)s->space->query, s->query_bytes, &s->start))
        return 1;
    s->count = trie_best(g, &s->start, s->limit, s->space->pool, s->space->spelled);
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

/* Whether a word of a key ends at a byte. */
static int ends_word(const uint8_t *key, size_t key_bytes, const uint16_t *starts, size_t count, size_t at) {
    uint32_t point;
    if (at == key_bytes)
        return 1;
    utf8_decode(key + at, key_bytes - at, &point);
    for (size_t i = 0; i < count; i++)
        if (starts[i] == at) /* at a capital of camelCase */
            return 1;
    return fold_parts_words(point);
}

size_t find_word(const uint8_t *key, size_t key_bytes, const uint16_t *starts, size_t count,
                 const uint8_t *word, size_t bytes, int whole) {
    for (size_t i = 0; i < count; i++)
        if (key_bytes >= bytes && starts[i] <= key_bytes - bytes &&
            memcmp(key + starts[i], word, bytes) == 0 &&
            (!whole || ends_word(key, key_bytes, starts, count, starts[i] + bytes)))
            return starts[i];
    return SIZE_MAX;
}

/* Whether every word of the query begins a word of an entry; the last one has to be one where it is complete.
 */
static int has_words(search *s, const reader_segment *g, uint32_t entry, const wanted *words, size_t count) {
    size_t bytes, starts;
    const uint8_t *query = (const uint8_t *)s->space->query;
    uint8_t *key = (uint8_t *)s->space->keys[0];
    const uint8_t *text = read_blob(g->index, MRN_SECTION_TEXTS, entry, &bytes);
    ptrdiff_t key_bytes = fold_words(text, bytes, g->index->flags & MRN_INDEX_CAMEL ? 1 : 0, key, MRN_KEY_MAX,
                                     s->space->words, &starts);
    for (size_t i = 0; i < count; i++)
        if (key_bytes < 0 ||
            find_word(key, (size_t)key_bytes, s->space->words, starts, query + words[i].start, words[i].bytes,
                      s->whole && i + 1 == count) == SIZE_MAX)
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

int search_run(search *s, const mrn_reader *reader, const char *query, size_t query_bytes,
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
    s->partial = s->marks = s->edits = s->plain = s->documents = s->whole = 0;
    for (size_t i = 0; i < reader->count; i++)
        s->documents |= reader->segments[i].index->items[MRN_SECTION_IDS] > 0;
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
    uint16_t starts[MRN_QUERY_WORDS_MAX], ends[MRN_QUERY_WORDS_MAX];
    int by_words = 0;
    for (size_t i = 0; i < reader->count; i++)
        by_words |= reader->segments[i].index->flags & MRN_INDEX_WORDS ? 1 : 0;
    size_t words = by_words ? query_words(s, starts, ends, MRN_QUERY_WORDS_MAX) : 0;
    s->whole = words > 0 && words <= MRN_QUERY_WORDS_MAX && ends[words - 1] < s->query_bytes;
    by_words = words + (size_t)s->whole >= 2 && words <= MRN_QUERY_WORDS_MAX;
    if (edits == 0 && !by_words && search_plain(s))
        return MRN_OK;
    for (size_t i = 0; i < reader->count; i++)
        search_exact(s, i);
    for (size_t i = 0; i < reader->count; i++)
        if (by_words && reader->segments[i].index->flags & MRN_INDEX_WORDS)
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
