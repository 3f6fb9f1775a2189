/* What the look-ups of a reader share. */
#ifndef MRN_TRIE_H
#define MRN_TRIE_H

#include "fold.h"
#include "mrn.h"
#include "trie_layout.h"

enum {
    ERROR_BITS = 10,  /* the first edit costs a factor of 1,024 in rank */
    PENALTY_BITS = 6, /* each further one 64; so do other accents, and not being preferred */
    WORD_BITS = 3,    /* a match from a further word on: 8 */
    ORDER_BITS = 6,   /* the words in another order, or apart: 64 */
    EDITS_MAX = 2,
    TODO_MAX = 4096,
    LOG_MAX = 8192
};

/* How an answer was found. */
enum { KIND_KEY, KIND_WORD, KIND_ORDER };

#define NO_NODE UINT32_MAX

/* From this entry on, so many more entries of other segments, less dead ones, have a higher score. */
typedef struct shift {
    uint32_t from;
    int32_t by;
} shift;

typedef struct reader_segment {
    const mrn_index *index;
    trie keys, words;
    const uint64_t *dead; /* a bit an entry; NULL: none is */
    size_t dead_count;
    const shift *shifts; /* ascending; of a reader that was settled before, its own */
    size_t shift_count;
    const shift *fresh; /* what came since, likewise */
    size_t fresh_count;
} reader_segment;

struct mrn_reader {
    size_t count;
    reader_segment segments[MRN_SEGMENTS_MAX];
};

/* Where a key is used up: inside the suffix of a node, at a position. */
typedef struct place {
    uint32_t rank;
    size_t position;
    trie_node node;
} place;

/* One query on its way. */
typedef struct search {
    const mrn_reader *reader;
    mrn_workspace *space;
    size_t limit, count; /* answers wanted, and there */
    size_t query_bytes;  /* of the folded query, in space->query */
    size_t logged, visits;
    const uint8_t *typed; /* the query as typed */
    size_t typed_bytes;
    int edits;                /* that are forgiven */
    int marks;                /* it has accents */
    int filtered, preferring; /* by contexts */
    int partial;
    int whole;             /* its last word is complete: something that parts words follows */
    int documents;         /* some segment has ids */
    uint16_t query_points; /* characters of the folded query */
    int plain;             /* the answers are those of trie_best, and their texts their keys */
    place start;           /* then: where it began */
    uint64_t filter[MRN_SEGMENTS_MAX], prefer[MRN_SEGMENTS_MAX];
} search;

/* What the last shift that begins at or before a rank says. */
ALWAYS_INLINE int32_t shift_at(const shift *shifts, size_t count, uint32_t rank) {
    size_t low = 0, high = count; /* shifts before low begin at or before the rank */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (shifts[middle].from <= rank)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? 0 : shifts[low - 1].by;
}

/* How many living entries of all segments have a higher score than this one. */
ALWAYS_INLINE uint64_t union_rank(const reader_segment *s, uint32_t entry) {
    uint32_t rank = tie_start(s->index, entry);
    return (uint64_t)((int64_t)rank + shift_at(s->shifts, s->shift_count, rank) +
                      shift_at(s->fresh, s->fresh_count, rank));
}

ALWAYS_INLINE uint64_t weigh(const reader_segment *s, uint32_t entry, unsigned bits) {
    return (union_rank(s, entry) + 1) << bits;
}

/* What edits cost. */
ALWAYS_INLINE unsigned edit_bits(unsigned edits) {
    return edits == 0 ? 0 : ERROR_BITS + PENALTY_BITS * (edits - 1);
}

/* The entry of a node. */
ALWAYS_INLINE uint32_t node_entry(const reader_segment *s, int kind, uint32_t node) {
    return kind == KIND_KEY
               ? node
               : (uint32_t)read_number(
                     (const uint8_t *)s->index->file + s->index->place[MRN_SECTION_WORD_ENTRIES], node);
}

/* What an answer has to weigh at most to be wanted. */
ALWAYS_INLINE uint64_t bar(const search *s) {
    return s->count == s->limit ? s->space->answers[s->limit - 1].weight : UINT64_MAX;
}

/* ---- The log: how each node that was visited was reached, so that its key can be spelled ----------------
 */

/* The byte of an entry that is its own parent. */
enum {
    LOG_START_TYPED = 1, /* its key begins with its suffix */
    LOG_START_WHOLE = 2  /* its key is the query without the space at its end */
};

ALWAYS_INLINE uint64_t log_entry(uint32_t node, size_t parent, size_t position, uint8_t byte) {
    return (uint64_t)node << 32 | (uint64_t)parent << 19 | (uint64_t)position << 8 | byte;
}

/* ---- trie.c ------------------------------------------------------------------------------------------- */

/* Walk down a key, behind which 7 bytes more can be read; 0 when no key begins so. */
int trie_walk(const trie *t, const uint8_t *key, size_t key_bytes, place *at);

/* Walk to the best node with just this key; 0 when there is none. Then to the next one with the same key. */
int trie_walk_whole(const trie *t, const uint8_t *key, size_t key_bytes, place *at);
int trie_next_whole(const trie *t, place *at);

/* The best `limit` nodes below a place in the keys of a segment, best first: items to be read with the
 * functions below, and their suffixes. Returns how many. */
size_t trie_best(const reader_segment *segment, const place *from, size_t limit, uint64_t *pool,
                 mrn_spelled *suffixes);

ALWAYS_INLINE uint32_t pool_node(uint64_t item) {
    return (uint32_t)(item >> 26);
}

ALWAYS_INLINE size_t pool_parent(uint64_t item) {
    return item >> 19 & 0x7f;
}

ALWAYS_INLINE size_t pool_position(uint64_t item) {
    return item >> 8 & 0x7ff;
}

/* The nodes below a place one by one, best first. */
typedef struct stream {
    const trie *trie;
    const mrn_index *index;
    uint64_t filter; /* 0: none */
    mrn_todo *todo;
    uint32_t count, capacity;
    uint16_t masks; /* section of the contexts of nodes */
    uint16_t full;  /* a node was lost */
} stream;

void stream_open(stream *s, const place *from);
ALWAYS_INLINE uint32_t stream_head(const stream *s) {
    return s->count == 0 ? NO_NODE : s->todo[0].node;
}
/* Take the head. With `search`, it is logged, and *path says where. */
uint32_t stream_next(stream *s, search *logger, size_t *path);

/* A heap, the least (weight, node) first. */
void todo_push(mrn_todo *todo, uint32_t *count, mrn_todo item);
mrn_todo todo_pop(mrn_todo *todo, uint32_t *count);

/* ---- search.c ----------------------------------------------------------------------------------------- */

/* Tell of a node that matches; it becomes an answer if it is alive, wanted and good enough. */
void search_offer(search *s, size_t segment, int kind, uint32_t node, size_t path, size_t matched,
                  unsigned edits);

/* Find the answers of a query: s->space->answers, or, if s->plain, what trie_best gave; a status. */
int search_run(search *s, const mrn_reader *reader, const char *query, size_t query_bytes,
               const mrn_options *options, mrn_workspace *space);

/* Make answers of what trie_best gave: s->plain no more. */
void answer_pool(search *s);

/* Where the key of a node of the words begins in the key of its entry; `key` becomes that key. */
size_t word_start(const search *s, const mrn_answer *answer, const uint8_t *text, size_t bytes, uint8_t *key,
                  size_t *key_bytes);

/* The first place in a key where a word of the query begins a word, or is one; SIZE_MAX when there is none.
 */
size_t find_word(const uint8_t *key, size_t key_bytes, const uint16_t *starts, size_t count,
                 const uint8_t *word, size_t bytes, int whole);

/* The text of an answer, in the file or in `buffer` (MRN_KEY_MAX bytes). */
const uint8_t *answer_text(const search *s, const mrn_answer *answer, uint8_t *buffer, size_t *bytes);

/* The words of the folded query, at most `capacity`: where each begins and ends. Returns how many there are.
 */
size_t query_words(const search *s, uint16_t *starts, uint16_t *ends, size_t capacity);

/* ---- trie_typos.c ------------------------------------------------------------------------------------- */

/* Offer what matches with 1 to s->edits typing errors. */
void search_typed(search *s, size_t segment, int kind);

/* Make the query ready for that; 0 when it forgives none: too short, too long. */
int search_prepare_typed(search *s, int edits);

#endif
