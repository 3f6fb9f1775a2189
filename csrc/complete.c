/* What was found, told as structs or as JSON. */

#include "double_text.h"
#include "trie.h"

_Static_assert(sizeof((mrn_completion *)0)->highlight == 2 * MRN_HIGHLIGHTS_MAX * sizeof(uint16_t),
               "mrn.h spells the number out");

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
        size_t at =
            find_word(key, (size_t)key_bytes, s->space->words, there,
                      (const uint8_t *)s->space->query + starts[i], length, s->whole && i + 1 == count);
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

/* Spell the keys of what trie_best gave one behind the other, each from that of its parent; 0 when they may
 * not fit. Where their scores stand is looked up before, for all at once: each may have to wait for memory,
 * and so they wait together; meanwhile the first key, from which most others begin, gets to where it can be
 * read again. What copy_short reads behind a suffix is in the file: the ties follow the keys. */
static int spell_pool(const search *s, uint8_t *room, size_t capacity, size_t *room_used) {
    enum { KEY_ROOM = MRN_KEY_MAX + 1 + 16 };
    const mrn_index *index = s->reader->segments[0].index;
    const uint64_t *pool = s->space->pool;
    mrn_spelled *keys = s->space->spelled;
    const size_t count = s->count;
    uint8_t *to = room;
    if (count > 0) {
        if (capacity < KEY_ROOM)
            return 0;
        const size_t behind = pool_position(pool[0]), rest = keys[0].suffix_bytes - behind;
        copy_short(to, (const uint8_t *)s->space->query, s->query_bytes);
        to += s->query_bytes;
        copy_short(to, keys[0].suffix + behind, rest);
        to += rest;
        keys[0].key = 0;
        keys[0].key_bytes = (uint32_t)(to - room);
    }
    for (size_t i = 0; i < count; i++)
        keys[i].score = tie_class(index, pool_node(pool[i]));
    for (size_t i = 1; i < count; i++) {
        const mrn_spelled *parent = &keys[pool_parent(pool[i])];
        const size_t shared = parent->key_bytes - parent->suffix_bytes + pool_position(pool[i]);
        const uint8_t byte = (uint8_t)pool[i], *from = to;
        if (capacity - (size_t)(to - room) < KEY_ROOM)
            return 0;
        copy_short(to, room + parent->key, shared);
        to += shared;
        *to = byte; /* 0: none, the key ends */
        to += byte != 0;
        copy_short(to, keys[i].suffix, keys[i].suffix_bytes);
        to += keys[i].suffix_bytes;
        keys[i].key = (uint32_t)(from - room);
        keys[i].key_bytes = (uint32_t)(to - from);
    }
    *room_used = (size_t)(to - room);
    return 1;
}

/* What the index says of an entry but its score. */
static inline void describe_entry(const mrn_index *index, uint32_t segment, uint32_t entry,
                                  mrn_completion *c) {
    size_t bytes;
    const uint8_t *payload = read_blob(index, MRN_SECTION_PAYLOADS, entry, &bytes);
    c->payload = bytes == 0 ? 0 : (uint64_t)(payload - (const uint8_t *)index->file);
    c->payload_bytes = (uint32_t)bytes;
    const uint8_t *id = read_blob(index, MRN_SECTION_IDS, entry, &bytes);
    c->id = bytes == 0 ? 0 : (uint64_t)(id - (const uint8_t *)index->file);
    c->id_bytes = (uint32_t)bytes;
    c->segment = segment;
    c->entry = entry;
}

/* Everything about an answer but where its text goes. */
static const uint8_t *describe(const search *s, const mrn_answer *answer, mrn_completion *c) {
    size_t bytes;
    const uint8_t *text = answer_text(s, answer, (uint8_t *)s->space->keys[0], &bytes);
    const mrn_index *index = s->reader->segments[answer->segment].index;
    describe_entry(index, answer->segment, answer->entry, c);
    c->score = entry_score(index, answer->entry);
    c->text_bytes = (uint32_t)bytes;
    c->edits = answer->edits;
    c->highlights = 0;
    highlight(s, answer, text, bytes, c);
    return text;
}

/* The same of plain answers, whose texts were spelled: a character of the text is one of its key. */
static void describe_plain(const search *s, mrn_completion *completions) {
    const mrn_index *index = s->reader->segments[0].index;
    const int blobs = index->items[MRN_SECTION_PAYLOADS] > 0 || index->items[MRN_SECTION_IDS] > 0;
    const mrn_spelled *keys = s->space->spelled;
    const uint64_t *pool = s->space->pool;
    const size_t count = s->count;
    const uint16_t points = s->query_points;
    for (size_t i = 0; i < count; i++) {
        mrn_completion *c = &completions[i];
        c->score = class_score(index, keys[i].score);
        c->payload = c->id = 0;
        c->payload_bytes = c->id_bytes = 0;
        c->segment = 0;
        c->entry = pool_node(pool[i]);
        c->text = keys[i].key;
        c->text_bytes = keys[i].key_bytes;
        c->edits = 0;
        c->highlights = points > 0;
        c->highlight[0] = 0;
        c->highlight[1] = points;
        if (blobs)
            describe_entry(index, 0, c->entry, c);
    }
}

/* Describe all answers, and write their texts one behind the other. */
static int write_answers(search *s, mrn_completion *completions, char *texts, size_t capacity) {
    if (s->plain) {
        size_t used;
        if (spell_pool(s, (uint8_t *)texts, capacity, &used)) {
            describe_plain(s, completions);
            return MRN_OK;
        }
        answer_pool(s);
    }
    size_t used = 0;
    for (size_t i = 0; i < s->count; i++) {
        mrn_completion *c = &completions[i];
        const uint8_t *text = describe(s, &s->space->answers[i], c);
        if (c->text_bytes > capacity - used)
            return MRN_E_MEMORY;
        memcpy(texts + used, text, c->text_bytes);
        c->text = (uint32_t)used;
        used += c->text_bytes;
    }
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
    return write_answers(&s, completions, texts, texts_bytes);
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

/* The text of the score with a number. */
ALWAYS_INLINE size_t score_text(const mrn_index *index, uint32_t number, char *text) {
    if (index->flags & MRN_INDEX_FLOAT)
        return double_text(class_score(index, number), text);
    const size_t bytes = integer_text(class_value(index, number), text);
    memcpy(text + bytes, ".0", 2);
    return bytes + 2;
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
    if (c.id_bytes > 0) {
        WRITE(w, ",\"id\":");
        write_string(w, (const uint8_t *)s->reader->segments[c.segment].index->file + c.id, c.id_bytes);
    }
    WRITE(w, "}");
}

/* Whether a text has to be escaped; 15 bytes behind it can be written. */
static int needs_escapes(uint8_t *text, size_t bytes) {
    unsigned found = 0;
    memset(text + bytes, ' ', BYTES_AT_ONCE - 1);
    for (size_t at = 0; at < bytes; at += BYTES_AT_ONCE) {
#if defined(__SSE2__)
        const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)(text + at)),
                      control = _mm_cmpeq_epi8(_mm_min_epu8(some, _mm_set1_epi8(0x1f)), some),
                      quote = _mm_cmpeq_epi8(some, _mm_set1_epi8('"')),
                      back = _mm_cmpeq_epi8(some, _mm_set1_epi8('\\'));
        found |= (unsigned)_mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, back)));
#else
        for (size_t i = at; i < at + BYTES_AT_ONCE; i++)
            found |= text[i] < 0x20 || text[i] == '"' || text[i] == '\\';
#endif
    }
    return found != 0;
}

ALWAYS_INLINE char *put(char *at, const void *from, size_t bytes) {
    memcpy(at, from, bytes);
    return at + bytes;
}

#define PUT(at, literal) put(at, literal, sizeof(literal) - 1)

/* Plain answers, whose texts were spelled in `room`: what is alike in all of them is written once. */
static void write_plain(writer *w, const search *s, uint8_t *room, size_t room_used) {
    enum { SAME_MAX = 64 };
    const mrn_index *index = s->reader->segments[0].index;
    const mrn_spelled *keys = s->space->spelled;
    const uint64_t *pool = s->space->pool;
    const size_t count = s->count;
    const int escapes = needs_escapes(room, room_used), payloads = index->items[MRN_SECTION_PAYLOADS] > 0;
    char same[SAME_MAX] = {0}, *end = PUT(same, ",\"edits\":0,\"highlights\":[");
    if (s->query_points > 0) {
        end = PUT(end, "[0,");
        end += integer_text(s->query_points, end);
        end = PUT(end, "]");
    }
    end = PUT(end, "],\"payload\":");
    if (!payloads)
        end = PUT(end, "null}");
    const size_t same_bytes = (size_t)(end - same);
    char *at = w->at;
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = keys[i].key_bytes;
        /* so that no piece but the payload needs to be checked */
        if ((size_t)(w->end - at) < 6 * bytes + NUMBER_TEXT_MAX + 2 * SAME_MAX) {
            w->full = 1;
            return;
        }
        *at = ',';
        at = PUT(at + (i > 0), "{\"text\":\"");
        if (escapes) {
            w->at = at - 1;
            write_string(w, room + keys[i].key, bytes);
            at = w->at - 1;
        } else {
            copy_short((uint8_t *)at, room + keys[i].key, bytes);
            at += bytes;
        }
        at = PUT(at, "\",\"score\":");
        at += score_text(index, keys[i].score, at);
        memcpy(at, same, sizeof same);
        at += same_bytes;
        if (payloads) {
            size_t payload_bytes;
            const uint8_t *payload =
                read_blob(index, MRN_SECTION_PAYLOADS, pool_node(pool[i]), &payload_bytes);
            w->at = at;
            if (payload_bytes > 0)
                write_bytes(w, payload, payload_bytes);
            else
                WRITE(w, "null");
            WRITE(w, "}");
            at = w->at;
        }
    }
    w->at = at;
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
    size_t used;
    if (s.plain && spell_pool(&s, room, sizeof workspace->todo, &used)) {
        write_plain(&w, &s, room, used);
    } else {
        if (s.plain)
            answer_pool(&s);
        for (size_t i = 0; i < s.count; i++) {
            if (i > 0)
                WRITE(&w, ",");
            write_completion(&w, &s, &workspace->answers[i]);
        }
    }
    WRITE(&w, "]");
    if (s.partial)
        WRITE(&w, ",\"partial\":true");
    WRITE(&w, "}");
    *json_bytes = (size_t)(w.at - json);
    return w.full ? MRN_E_MEMORY : MRN_OK;
}
