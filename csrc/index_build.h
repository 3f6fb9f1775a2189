/* What the parts of the index builder share; index_build.c says what happens in which order. */
#ifndef MRN_INDEX_BUILD_H
#define MRN_INDEX_BUILD_H

#include "mrn.h"
#include "trie_layout.h"

/* Something to be sorted by a number. */
typedef struct item {
    uint64_t first;
    uint32_t id;
} item;

/* Texts that are compared byte by byte: text i is bytes[start[i] .. start[i] + length[i]). Keys in an arena
 * are followed by at least 8 bytes; texts as they were given end where `end` says. */
typedef struct keys {
    const uint8_t *bytes, *end;
    size_t count;
    uint64_t *start;
    uint16_t *length;
} keys;

/* What an entry became by folding. */
typedef struct folded {
    uint64_t start; /* of its key, in the arena */
    uint16_t bytes, points;
    uint32_t plain; /* the text is the key */
} folded;

/* The file as it grows. A failure is remembered, and told when a section is closed. */
typedef struct output {
    uint8_t *bytes;
    size_t used, room;
    int failed;
    uint32_t sections;
} output;

/* ---- index_build_sort.c ------------------------------------------------------------------------------- */

typedef struct sorter {
    item *spare;      /* as many as are sorted */
    uint32_t *digits; /* SORT_DIGITS_BYTES */
} sorter;

enum { SORT_DIGIT = 11, SORT_DIGITS_BYTES = 6 * (1 << SORT_DIGIT) * 4 };

/* Sort ascending by `first`, stably. */
void sort_items(const sorter *s, item *items, size_t count);

/* Sort by key or text, stably; ids are their numbers. `first` becomes something that equal keys have in
 * common. */
void sort_keys(const sorter *s, const keys *k, item *items, size_t count);

int compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes);

/* ---- index_build_trie.c ------------------------------------------------------------------------------- */

/* Write the trie of keys that are numbered by rank; `sorted` has them by key. parent[i] becomes the node that
 * node i hangs below, for i > 0. */
int write_trie(output *o, const sorter *s, const keys *k, item *sorted, unsigned id, uint32_t *parent);

/* ---- index_build_file.c ------------------------------------------------------------------------------- */

uint8_t *put(uint8_t *at, uint64_t value, size_t width);

/* Room for `bytes` more at the end, not counted as used; NULL when there is none. */
uint8_t *reserve(output *o, size_t bytes);

void append(output *o, const void *from, size_t bytes);
void append_number(output *o, uint64_t value, size_t width);
void append_zeros(output *o, size_t bytes);

/* Where the next section begins; it is put into the table when it is closed. */
size_t open_section(output *o);
int close_section(output *o, size_t start, unsigned id, uint32_t items);

int write_numbers(output *o, unsigned id, const uint64_t *values, size_t count);

/* Tells the bytes of a blob, and where it is; 0 bytes for none. */
typedef const uint8_t *blob_function(const void *of, size_t rank, size_t *bytes);

/* Write a section of blobs, unless all are empty. */
int write_blobs(output *o, unsigned id, blob_function *blob, const void *of, size_t count);

#endif
