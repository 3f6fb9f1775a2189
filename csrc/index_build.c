/* Building an index segment. Runs off the request path, so it may allocate; every step is n log n at worst.
 *
 *   1. check and fold each entry                     keys in one arena
 *   2. sort by key and text; drop texts seen twice   equal keys end up side by side (index_build_sort.c)
 *   3. sort by rank                                  from here on an entry is its rank: 0 is the best, and
 * keys lie in this order, so that what follows reads them one by one
 *   4. a trie of the keys, and one of the keys from each further word on (index_build_trie.c)
 *   5. scores, texts, payloads, contexts, ids        (index_build_file.c has their forms)
 */

#include "crc32c.h"
#include "fold.h"
#include "index_build.h"
#include "json_check.h"

#include <math.h>
#include <stdlib.h>

enum { KEY_SLACK = 8 }; /* bytes behind the last key */

typedef struct builder {
    const mrn_entries *in;
    uint8_t *arena; /* the keys: by entry, later by rank */
    size_t arena_room, arena_used;
    folded *folded; /* of each entry */
    int any_shown;  /* a text is not its key */
    item *by_key, *by_rank;
    sorter sorter;
    /* By rank. */
    size_t count;
    uint32_t *entry;
    keys keys;
    uint32_t *parent; /* in the trie that was written last */
    output out;
} builder;

static const uint8_t *part(const char *all, const uint64_t *ends, size_t i, size_t *bytes) {
    *bytes = 0;
    if (ends == NULL)
        return NULL;
    uint64_t start = i == 0 ? 0 : ends[i - 1];
    *bytes = (size_t)(ends[i] - start);
    return (const uint8_t *)all + start;
}

static const uint8_t *entry_text(const builder *b, size_t entry, size_t *bytes) {
    return part(b->in->texts, b->in->text_ends, entry, bytes);
}

static double given_score(const builder *b, size_t entry) {
    return b->in->scores[entry] + 0.0; /* -0 becomes 0 */
}

/* ---- 1. Check and fold -------------------------------------------------------------------------------- */

static int grow_arena(builder *b) {
    if (b->arena_room - b->arena_used >= MRN_KEY_MAX + KEY_SLACK)
        return MRN_OK;
    size_t room = 2 * b->arena_room + MRN_KEY_MAX + KEY_SLACK;
    uint8_t *arena = realloc(b->arena, room);
    if (arena == NULL)
        return MRN_E_NO_MEMORY;
    b->arena = arena;
    b->arena_room = room;
    return MRN_OK;
}

/* Check one entry and add its key to the arena; returns its verdict. */
static int fold_entry(builder *b, size_t entry) {
    size_t text_bytes, payload_bytes, id_bytes;
    const uint8_t *text = entry_text(b, entry, &text_bytes),
                  *payload = part(b->in->payloads, b->in->payload_ends, entry, &payload_bytes),
                  *id = part(b->in->ids, b->in->id_ends, entry, &id_bytes);
    if (text_bytes == 0)
        return MRN_E_TEXT;
    if (text_bytes > MRN_TEXT_MAX || payload_bytes > MRN_PAYLOAD_MAX)
        return MRN_E_TOO_LARGE;
    double score = b->in->scores[entry];
    if (!isfinite(score) || score < 0)
        return MRN_E_RANGE;
    if (b->in->contexts != NULL && b->in->tag_count < 64 && b->in->contexts[entry] >> b->in->tag_count != 0)
        return MRN_E_RANGE;
    size_t points = text_points(text, text_bytes);
    if (points == SIZE_MAX)
        return MRN_E_TEXT;
    if (payload_bytes > 0 && !json_valid(payload, payload_bytes))
        return MRN_E_PAYLOAD;
    if (id_bytes > MRN_ID_MAX || (id_bytes > 0 && text_points(id, id_bytes) == SIZE_MAX))
        return MRN_E_ID;
    uint8_t *key = b->arena + b->arena_used;
    ptrdiff_t key_bytes = fold_text(text, text_bytes, key, MRN_KEY_MAX);
    if (key_bytes < 0)
        return MRN_E_TOO_LARGE;
    if (key_bytes > 0 && key[key_bytes - 1] == ' ')
        key_bytes--;
    if (key_bytes == 0)
        return MRN_E_TEXT;
    int plain = (size_t)key_bytes == text_bytes && memcmp(key, text, text_bytes) == 0;
    b->any_shown |= !plain;
    b->folded[entry] = (folded){b->arena_used, (uint16_t)key_bytes, (uint16_t)points, (uint32_t)plain};
    b->arena_used += (size_t)key_bytes;
    return MRN_OK;
}

static int fold_entries(builder *b, signed char *verdicts) {
    for (size_t i = 0; i < b->in->count; i++) {
        int status = grow_arena(b);
        if (status != MRN_OK)
            return status;
        int verdict = fold_entry(b, i);
        verdicts[i] = (signed char)verdict;
        if (verdict == MRN_OK)
            b->by_key[b->count++].id = (uint32_t)i;
    }
    memset(b->arena + b->arena_used, 0, KEY_SLACK);
    return MRN_OK;
}

/* ---- 2, 3. Sort by key, drop what is there twice, sort by rank ---------------------------------------- */

/* Which of two entries comes first among those of one key: by text, then by score, descending, then by place
 * in the input. */
static int compare_entries(const builder *b, uint32_t left, uint32_t right) {
    size_t left_bytes, right_bytes;
    const uint8_t *l = entry_text(b, left, &left_bytes), *r = entry_text(b, right, &right_bytes);
    int order = compare_bytes(l, left_bytes, r, right_bytes);
    if (order != 0)
        return order;
    double x = given_score(b, left), y = given_score(b, right);
    return x != y ? (x < y) - (x > y) : (left > right) - (left < right);
}

static int same_text(const builder *b, uint32_t left, uint32_t right) {
    size_t left_bytes, right_bytes;
    const uint8_t *l = entry_text(b, left, &left_bytes), *r = entry_text(b, right, &right_bytes);
    return left_bytes == right_bytes && memcmp(l, r, left_bytes) == 0;
}

/* Sort entries as compare_entries says; they often are. Stable, by merging runs. */
static void sort_by_text(const builder *b, item *items, size_t count) {
    size_t sorted = 1;
    while (sorted < count && compare_entries(b, items[sorted - 1].id, items[sorted].id) <= 0)
        sorted++;
    if (sorted >= count)
        return;
    item *from = items, *to = b->sorter.spare;
    for (size_t run = 1; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t left = start, middle = count - start < run ? count : start + run;
            size_t right = middle, end = count - middle < run ? count : middle + run;
            for (size_t at = start; at < end; at++) {
                int take_left = left < middle;
                if (take_left && right < end)
                    take_left = compare_entries(b, from[left].id, from[right].id) <= 0;
                to[at] = take_left ? from[left++] : from[right++];
            }
        }
        item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

static int same_key(const builder *b, uint32_t left, uint32_t right) {
    const folded *l = &b->folded[left], *r = &b->folded[right];
    return l->bytes == r->bytes && memcmp(b->arena + l->start, b->arena + r->start, l->bytes) == 0;
}

/* Sort the entries by key and text, and drop all but the best of each text. */
static void sort_by_key(builder *b, signed char *verdicts) {
    size_t kept = 0;
    for (size_t i = 0; i < b->in->count; i++) {
        b->keys.start[i] = b->folded[i].start;
        b->keys.length[i] = b->folded[i].bytes;
    }
    b->keys.bytes = b->arena;
    b->keys.end = b->arena + b->arena_used + KEY_SLACK;
    sort_keys(&b->sorter, &b->keys, b->by_key, b->count);
    for (size_t from = 0, to; from < b->count; from = to) {
        item *items = b->by_key;
        for (to = from + 1; to < b->count && items[to].first == items[from].first &&
                            same_key(b, items[from].id, items[to].id);
             to++)
            ;
        if (to - from > 1)
            sort_by_text(b, items + from, to - from);
        for (size_t i = from; i < to; i++) {
            if (i > from && same_text(b, items[kept - 1].id, items[i].id))
                verdicts[items[i].id] = MRN_MERGED;
            else
                items[kept++] = items[i];
        }
    }
    b->count = kept;
}

/* What is compared from here on: the texts as they were given. */
static void compare_texts(builder *b) {
    const size_t n = b->in->count;
    b->keys.bytes = (const uint8_t *)b->in->texts;
    b->keys.end = b->keys.bytes + (n > 0 ? b->in->text_ends[n - 1] : 0);
    for (size_t i = 0; i < b->count; i++) {
        const uint32_t entry = b->by_key[i].id;
        size_t bytes;
        b->keys.start[entry] = (uint64_t)(entry_text(b, entry, &bytes) - b->keys.bytes);
        b->keys.length[entry] = (uint16_t)bytes;
    }
}

/* Sort the entries by rank. They come by key; where each text is its key, that is by text. */
static void sort_by_rank(builder *b) {
    item *items = b->by_rank;
    if (b->any_shown)
        compare_texts(b);
    for (size_t i = 0; i < b->count; i++)
        items[i] = (item){b->folded[b->by_key[i].id].points, b->by_key[i].id};
    sort_items(&b->sorter, items, b->count);
    for (size_t i = 0; i < b->count; i++) {
        double score = given_score(b, items[i].id);
        memcpy(&items[i].first, &score, sizeof score); /* the bits of a float64 >= 0 compare as it does */
        items[i].first = ~items[i].first;
    }
    sort_items(&b->sorter, items, b->count);
    for (size_t from = 0, to; b->any_shown && from < b->count; from = to) {
        unsigned points = b->folded[items[from].id].points;
        for (to = from + 1; to < b->count && items[to].first == items[from].first &&
                            b->folded[items[to].id].points == points;
             to++)
            ;
        const uint64_t score = items[from].first;
        if (to - from > 1)
            sort_keys(&b->sorter, &b->keys, items + from, to - from);
        for (size_t i = from; i < to; i++) /* which sorting has used */
            items[i].first = score;
    }
}

/* Lay the keys out by rank, and number the entries so. */
static int order_by_rank(builder *b) {
    enum { AHEAD = 16 };
    uint8_t *arena = malloc(b->arena_used + KEY_SLACK);
    uint32_t *rank = malloc((b->in->count + 1) * sizeof *rank);
    int status = arena != NULL && rank != NULL ? MRN_OK : MRN_E_NO_MEMORY;
    size_t used = 0;
    for (size_t r = 0; status == MRN_OK && r < b->count; r++) {
        if (r + AHEAD < b->count)
            __builtin_prefetch(&b->folded[b->by_rank[r + AHEAD].id]);
        if (r + AHEAD / 2 < b->count)
            __builtin_prefetch(b->arena + b->folded[b->by_rank[r + AHEAD / 2].id].start);
        uint32_t entry = b->by_rank[r].id;
        const folded *f = &b->folded[entry];
        memcpy(arena + used, b->arena + f->start, f->bytes);
        b->keys.start[r] = used;
        b->keys.length[r] = f->bytes;
        b->entry[r] = entry;
        rank[entry] = (uint32_t)r;
        used += f->bytes;
    }
    if (status == MRN_OK) {
        memset(arena + used, 0, KEY_SLACK);
        for (size_t i = 0; i < b->count; i++)
            b->by_key[i].id = rank[b->by_key[i].id];
        uint8_t *before = b->arena;
        b->keys.bytes = b->arena = arena;
        b->keys.end = arena + used + KEY_SLACK;
        arena = before;
    }
    b->keys.count = b->count;
    free(arena);
    free(rank);
    return status;
}

/* ---- 4. Tries ----------------------------------------------------------------------------------------- */

/* The further words of the entries, by rank, then by place in the text. */
typedef struct words {
    keys keys;
    uint64_t *entries;
    size_t room;
} words;

static int grow_words(words *w) {
    if (w->room - w->keys.count > MRN_WORDS_MAX)
        return MRN_OK;
    size_t room = w->room * 3 / 2 + 1024;
    uint64_t *start = realloc(w->keys.start, room * sizeof *start);
    w->keys.start = start != NULL ? start : w->keys.start;
    uint16_t *length = realloc(w->keys.length, room * sizeof *length);
    w->keys.length = length != NULL ? length : w->keys.length;
    uint64_t *entries = realloc(w->entries, room * sizeof *entries);
    w->entries = entries != NULL ? entries : w->entries;
    w->room = room;
    return start != NULL && length != NULL && entries != NULL ? MRN_OK : MRN_E_NO_MEMORY;
}

static int find_words(const builder *b, words *w) {
    uint8_t scratch[MRN_KEY_MAX];
    uint16_t starts[MRN_WORDS_MAX + 1];
    const int camel = b->in->flags & MRN_INDEX_CAMEL ? 1 : 0;
    w->keys.bytes = b->arena;
    w->keys.end = b->keys.end;
    for (size_t r = 0; r < b->count; r++) {
        size_t found, bytes = b->keys.length[r];
        const uint8_t *key = b->arena + b->keys.start[r];
        int status = grow_words(w);
        if (status != MRN_OK)
            return status;
        if (camel) {
            size_t text_bytes;
            const uint8_t *text = entry_text(b, b->entry[r], &text_bytes);
            fold_words(text, text_bytes, camel, scratch, sizeof scratch, starts, &found);
        } else {
            found = key_words(key, bytes, starts);
        }
        for (size_t i = 0; i < found; i++) {
            size_t start = starts[i], length = bytes - start;
            if (start == 0 || start >= bytes)
                continue;
            if (length > MRN_WORD_KEY_MAX)
                for (length = MRN_WORD_KEY_MAX; (key[start + length] & 0xc0) == 0x80;)
                    length--;
            w->keys.start[w->keys.count] = b->keys.start[r] + start;
            w->keys.length[w->keys.count] = (uint16_t)length;
            w->entries[w->keys.count++] = r;
        }
        if (w->keys.count >= UINT32_MAX)
            return MRN_E_TOO_LARGE;
    }
    return MRN_OK;
}

static void release_words(words *w) {
    free(w->keys.start);
    free(w->keys.length);
    free(w->entries);
}

/* Write the trie of the keys from each further word on, and whose they are. */
static int write_words(builder *b, words *w) {
    size_t count = w->keys.count;
    item *sorted = malloc((count + 1) * sizeof *sorted);
    sorter s = {malloc((count + 1) * sizeof *s.spare), b->sorter.digits};
    free(b->parent);
    b->parent = malloc((count + 1) * sizeof *b->parent);
    int status = sorted != NULL && s.spare != NULL && b->parent != NULL ? MRN_OK : MRN_E_NO_MEMORY;
    if (status == MRN_OK) {
        for (size_t i = 0; i < count; i++)
            sorted[i].id = (uint32_t)i;
        sort_keys(&s, &w->keys, sorted, count);
        status = write_trie(&b->out, &s, &w->keys, sorted, MRN_SECTION_WORDS, b->parent);
    }
    free(sorted);
    free(s.spare);
    return status == MRN_OK ? write_numbers(&b->out, MRN_SECTION_WORD_ENTRIES, w->entries, count) : status;
}

/* ---- 5. Scores, texts, payloads, contexts, ids -------------------------------------------------------- */

static int write_scores(builder *b) {
    output *o = &b->out;
    size_t classes = 0, start = open_section(o);
    uint64_t *values = malloc((b->count + 1) * sizeof *values);
    if (values == NULL)
        return MRN_E_NO_MEMORY;
    int whole = !(b->in->flags & MRN_INDEX_FLOAT);
    uint64_t bits = 0, last = 0;
    uint32_t tie = 0, before = 0;
    for (size_t r = 0; r <= b->count; r++) {
        if (r % 64 == 0 || r == b->count) { /* a block ends */
            if (r > 0) {
                append_number(o, bits, 8);
                append_number(o, tie, 4);
                append_number(o, before, 4);
                if (bits != 0)
                    tie = (uint32_t)((r - 1) / 64 * 64 + bit_length(bits) - 1);
                before = (uint32_t)classes;
                bits = 0;
            }
            if (r == b->count)
                break;
        }
        double score;
        uint64_t value = ~b->by_rank[r].first;
        memcpy(&score, &value, sizeof score);
        if (whole)
            value = (uint64_t)score;
        if (r == 0 || value != last) {
            bits |= (uint64_t)1 << (r % 64);
            values[classes++] = last = value;
        }
    }
    int status = close_section(o, start, MRN_SECTION_TIES, (uint32_t)b->count);
    if (status == MRN_OK)
        status = write_numbers(o, MRN_SECTION_SCORES, values, classes);
    free(values);
    return status;
}

enum { BLOBS_AHEAD = 12 };

/* The text of an entry where it has to be stored. With words always: it tells where they are. */
static const uint8_t *text_blob(const void *of, size_t rank, size_t *bytes) {
    const builder *b = of;
    if (!(b->in->flags & MRN_INDEX_WORDS) && b->folded[b->entry[rank]].plain) {
        *bytes = 0;
        return NULL;
    }
    if (rank + 2 * BLOBS_AHEAD < b->count) {
        __builtin_prefetch(&b->in->text_ends[b->entry[rank + 2 * BLOBS_AHEAD]]);
        uint32_t next = b->entry[rank + BLOBS_AHEAD];
        __builtin_prefetch(b->in->texts + (next == 0 ? 0 : b->in->text_ends[next - 1]));
    }
    return entry_text(b, b->entry[rank], bytes);
}

static const uint8_t *payload_blob(const void *of, size_t rank, size_t *bytes) {
    const builder *b = of;
    return part(b->in->payloads, b->in->payload_ends, b->entry[rank], bytes);
}

static const uint8_t *id_blob(const void *of, size_t rank, size_t *bytes) {
    const builder *b = of;
    return part(b->in->ids, b->in->id_ends, b->entry[rank], bytes);
}

static int write_tags(builder *b) {
    output *o = &b->out;
    size_t start = open_section(o);
    for (size_t t = 0; t < b->in->tag_count; t++) {
        size_t bytes;
        const uint8_t *tag = part(b->in->tags, b->in->tag_ends, t, &bytes);
        append_number(o, bytes, 1);
        append(o, tag, bytes);
    }
    return close_section(o, start, MRN_SECTION_TAGS, (uint32_t)b->in->tag_count);
}

static int write_masks(builder *b, unsigned id, const uint64_t *masks, size_t count) {
    output *o = &b->out;
    unsigned width = mask_bytes((uint32_t)b->in->tag_count);
    size_t start = open_section(o);
    for (size_t i = 0; i < count; i++)
        append_number(o, masks[i], width);
    return close_section(o, start, id, (uint32_t)count);
}

/* The contexts of each node of the trie that was written last and of all nodes below it; NULL without memory.
 * `entries` says whose the nodes are; NULL: each is that of the entry of its rank. */
static uint64_t *node_masks(const builder *b, const uint64_t *entries, size_t count) {
    uint64_t *masks = malloc((count + 1) * sizeof *masks);
    if (masks == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t rank = entries == NULL ? i : (size_t)entries[i];
        masks[i] = b->in->contexts == NULL ? 0 : b->in->contexts[b->entry[rank]];
    }
    for (size_t i = count; b->parent != NULL && i-- > 1;)
        masks[b->parent[i]] |= masks[i];
    return masks;
}

static int write_sections(builder *b) {
    const int with_words = b->in->flags & MRN_INDEX_WORDS ? 1 : 0, tags = b->in->tag_count > 0;
    uint64_t *masks = NULL, *key_masks = NULL, *word_masks = NULL;
    words w = {0};
    int status = write_trie(&b->out, &b->sorter, &b->keys, b->by_key, MRN_SECTION_KEYS, b->parent);
    if (tags && status == MRN_OK) {
        key_masks = node_masks(b, NULL, b->count);
        status = key_masks == NULL ? MRN_E_NO_MEMORY : MRN_OK;
    }
    free(b->by_key);
    b->by_key = NULL;
    if (with_words && status == MRN_OK)
        status = find_words(b, &w);
    if (with_words && status == MRN_OK)
        status = write_words(b, &w);
    if (with_words && tags && status == MRN_OK) {
        word_masks = node_masks(b, w.entries, w.keys.count);
        status = word_masks == NULL ? MRN_E_NO_MEMORY : MRN_OK;
    }
    if (status == MRN_OK)
        status = write_scores(b);
    if (status == MRN_OK)
        status = write_blobs(&b->out, MRN_SECTION_TEXTS, text_blob, b, b->count);
    if (status == MRN_OK)
        status = write_blobs(&b->out, MRN_SECTION_PAYLOADS, payload_blob, b, b->count);
    if (tags && status == MRN_OK) {
        free(b->parent); /* the contexts of entries, not of nodes */
        b->parent = NULL;
        masks = node_masks(b, NULL, b->count);
        status = masks == NULL ? MRN_E_NO_MEMORY : write_tags(b);
    }
    if (tags && status == MRN_OK)
        status = write_masks(b, MRN_SECTION_MASKS, masks, b->count);
    if (tags && status == MRN_OK)
        status = write_masks(b, MRN_SECTION_KEY_MASKS, key_masks, b->count);
    if (tags && with_words && status == MRN_OK)
        status = write_masks(b, MRN_SECTION_WORD_MASKS, word_masks, w.keys.count);
    if (status == MRN_OK)
        status = write_blobs(&b->out, MRN_SECTION_IDS, id_blob, b, b->count);
    free(masks);
    free(key_masks);
    free(word_masks);
    release_words(&w);
    return status;
}

/* How many sections there will be. */
static uint32_t count_sections(const builder *b) {
    uint32_t flags = b->in->flags, sections = 3 + (flags & MRN_INDEX_WORDS ? 2 : 0);
    int texts = b->count > 0 && flags & MRN_INDEX_WORDS ? 1 : 0, payloads = 0, ids = 0;
    for (size_t r = 0; r < b->count; r++) {
        size_t bytes;
        texts |= b->any_shown && !b->folded[b->entry[r]].plain;
        if (b->in->payload_ends != NULL && !payloads) {
            payload_blob(b, r, &bytes);
            payloads = bytes > 0;
        }
        if (b->in->id_ends != NULL && !ids) {
            id_blob(b, r, &bytes);
            ids = bytes > 0;
        }
    }
    if (b->in->tag_count > 0)
        sections += flags & MRN_INDEX_WORDS ? 4 : 3;
    return sections + (uint32_t)(texts + payloads + ids);
}

static int write_file(builder *b, char **file, size_t *file_bytes) {
    output *o = &b->out;
    size_t header_bytes = MRN_HEADER_BYTES + (size_t)count_sections(b) * MRN_SECTION_BYTES;
    append_zeros(o, header_bytes);
    int status = write_sections(b);
    if (status != MRN_OK)
        return status;
    uint8_t *out = o->bytes;
    memcpy(out + MRN_HEADER_MAGIC, index_magic, sizeof index_magic);
    put(out + MRN_HEADER_VERSION, MRN_INDEX_VERSION, 4);
    put(out + MRN_HEADER_FOLD_VERSION, MRN_FOLD_VERSION, 4);
    put(out + MRN_HEADER_FILE_BYTES, o->used, 8);
    put(out + MRN_HEADER_ENTRIES, b->count, 8);
    put(out + MRN_HEADER_SECTIONS, o->sections, 4);
    put(out + MRN_HEADER_FLAGS, b->in->flags, 4);
    put(out + MRN_HEADER_CHECKSUM, crc32c(0, out, header_bytes), 4);
    *file = (char *)out;
    *file_bytes = o->used;
    o->bytes = NULL;
    return MRN_OK;
}

/* ---- All of it ---------------------------------------------------------------------------------------- */

static int check_ends(const uint64_t *ends, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (ends[i] < ends[i - 1])
            return 0;
    return 1;
}

/* Whether the names of the contexts can be stored. */
static int check_tags(const mrn_entries *in) {
    if (in->tag_count == 0)
        return 1;
    if (in->tag_count > MRN_TAGS_MAX || in->tags == NULL || in->tag_ends == NULL ||
        !check_ends(in->tag_ends, in->tag_count))
        return 0;
    for (size_t t = 0; t < in->tag_count; t++) {
        size_t bytes, other_bytes;
        const uint8_t *tag = part(in->tags, in->tag_ends, t, &bytes);
        if (bytes == 0 || bytes > MRN_TAG_MAX || text_points(tag, bytes) == SIZE_MAX)
            return 0;
        for (size_t u = 0; u < t; u++) {
            const uint8_t *other = part(in->tags, in->tag_ends, u, &other_bytes);
            if (compare_bytes(tag, bytes, other, other_bytes) == 0)
                return 0;
        }
    }
    return 1;
}

static int allocate(builder *b, size_t n) {
    size_t texts = n == 0 ? 0 : (size_t)b->in->text_ends[n - 1];
    b->arena_room = texts + 2 * (MRN_KEY_MAX + KEY_SLACK); /* folding rarely makes a text longer */
    b->arena = malloc(b->arena_room);
    b->folded = malloc((n + 1) * sizeof *b->folded);
    b->by_key = malloc((n + 1) * sizeof *b->by_key);
    b->by_rank = malloc((n + 1) * sizeof *b->by_rank);
    b->sorter.spare = malloc((n + 1) * sizeof *b->sorter.spare);
    b->sorter.digits = malloc(SORT_DIGITS_BYTES);
    b->entry = malloc((n + 1) * sizeof *b->entry);
    b->keys.start = malloc((n + 1) * sizeof *b->keys.start);
    b->keys.length = malloc((n + 1) * sizeof *b->keys.length);
    b->parent = malloc((n + 1) * sizeof *b->parent);
    return b->arena && b->folded && b->by_key && b->by_rank && b->sorter.spare && b->sorter.digits &&
           b->entry && b->keys.start && b->keys.length && b->parent;
}

static void release(builder *b) {
    void *blocks[] = {b->arena, b->folded,     b->by_key,      b->by_rank, b->sorter.spare, b->sorter.digits,
                      b->entry, b->keys.start, b->keys.length, b->parent,  b->out.bytes};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

/* Whether the arguments can be read at all. */
static int check_entries(const mrn_entries *in, const signed char *verdicts) {
    size_t n = in->count;
    if (n > 0 &&
        (in->texts == NULL || in->text_ends == NULL || in->scores == NULL || verdicts == NULL ||
         (in->payload_ends != NULL && in->payloads == NULL) || (in->id_ends != NULL && in->ids == NULL)))
        return 0;
    if (n > 0 &&
        (!check_ends(in->text_ends, n) || (in->payload_ends != NULL && !check_ends(in->payload_ends, n)) ||
         (in->id_ends != NULL && !check_ends(in->id_ends, n))))
        return 0;
    return check_tags(in) && !(in->flags & ~(uint32_t)(MRN_INDEX_WORDS | MRN_INDEX_CAMEL)) &&
           in->flags != MRN_INDEX_CAMEL;
}

int mrn_index_build(const mrn_entries *entries, signed char *verdicts, char **file, size_t *file_bytes) {
    if (entries == NULL || file == NULL || file_bytes == NULL || !check_entries(entries, verdicts))
        return MRN_E_ARGUMENT;
    if (entries->count >= UINT32_MAX)
        return MRN_E_TOO_LARGE;
    mrn_entries in = *entries;
    builder b = {.in = &in};
    int status = allocate(&b, in.count) ? fold_entries(&b, verdicts) : MRN_E_NO_MEMORY;
    if (status == MRN_OK) {
        sort_by_key(&b, verdicts);
        sort_by_rank(&b);
        status = order_by_rank(&b);
    }
    if (status == MRN_OK) {
        for (size_t i = 0; i < b.count && !(in.flags & MRN_INDEX_FLOAT); i++)
            if (!score_is_integer(given_score(&b, b.entry[i])))
                in.flags |= MRN_INDEX_FLOAT;
        status = write_file(&b, file, file_bytes);
    }
    release(&b);
    return status;
}

void mrn_free(void *memory) {
    free(memory);
}
