/* Look-ups in an index segment: a score-ordered path-decomposed trie (Hsu and Ottaviano, "Space-efficient
 * data structures for top-k completion", WWW 2013), written so that place order is score order.
 *
 * A record holds one entry: what is left of its key once the path to the record has been taken (the suffix),
 * and the branches where other, worse entries leave that path: (position in the suffix, byte) -> a later
 * record. The first record is the best entry, spelled out whole. A branch's byte is 0 where the other key
 * ends.
 *
 *      0  "saigon"   (0, 'p') -> 1   (2, 'o') -> 2   (3, 0) -> 3     best first, so 1 beats 2 beats 3
 *      1  "aris"                                                      "paris"
 *      2  ""                                                          "sao"
 *      3  ""                                                          "sai"
 *
 * To complete a prefix, walk until it is used up, inside some record at some position. The answers are that
 * record, the subtrees of its branches from that position on, and nothing else; a subtree's best is its first
 * record; and a record's place is its rank. So the best k are found by visiting k records.
 */

#include "fold.h"
#include "mrn.h"
#include "trie.h"
#include "trie_record.h"

/* The place behind the branch (position, byte); 0, which is never a branch's target, when there is none. */
static uint32_t find_branch(const record *r, size_t position, uint8_t byte, size_t width) {
    for (size_t i = 0; i < r->branches; i++)
        if (r->bytes[i] == byte && branch_position(r, i) == position)
            return load_place(r->places + i * width, width);
    return 0;
}

/* Put a place into the ascending list best[0..*count) of at most `limit`; 0 when it is worse than a full
 * list. */
static int keep_best(uint32_t *best, size_t *count, size_t limit, uint32_t place) {
    size_t at = *count;
    if (at == limit) {
        if (place > best[limit - 1])
            return 0;
        at--;
    } else {
        (*count)++;
    }
    for (; at > 0 && best[at - 1] > place; at--)
        best[at] = best[at - 1];
    best[at] = place;
    return 1;
}

/* Find the best `limit` records below a key: their places go to best, ascending, which is best first. */
static size_t search(const mrn_index *index, const uint8_t *key, size_t key_bytes, size_t limit,
                     uint32_t *best) {
    const uint8_t *records = (const uint8_t *)index->file + index->records;
    size_t width = index->width;
    if (index->entries == 0)
        return 0;
    record r;
    uint32_t place = 0;
    size_t position; /* where the key is used up, in the suffix of r */
    for (;;) {
        read_record(records + place, NULL, width, 0, &r);
        size_t shared = r.suffix_bytes < key_bytes ? r.suffix_bytes : key_bytes;
        for (position = 0; position < shared && r.suffix[position] == key[position]; position++)
            ;
        if (position == key_bytes)
            break;
        place = find_branch(&r, position, key[position], width);
        if (place == 0)
            return 0;
        key += position + 1;
        key_bytes -= position + 1;
    }
    size_t count = 0;
    keep_best(best, &count, limit, place);
    for (size_t done = 0;;) {
        for (size_t i = 0; i < r.branches; i++) {
            if (branch_position(&r, i) < position)
                continue;
            uint32_t target = load_place(r.places + i * width, width);
            if (!keep_best(best, &count, limit, target))
                break; /* branches are best first: none that follows can win */
            __builtin_prefetch(records + target);
        }
        if (++done == count || done == limit)
            return count;
        read_record(records + best[done], NULL, width, 0, &r);
        position = 0;
    }
}

int mrn_index_complete(const mrn_index *index, const char *prefix, size_t prefix_bytes, size_t limit,
                       mrn_workspace *workspace, mrn_completion *completions, size_t *count) {
    _Static_assert(sizeof workspace->best == MRN_LIMIT_MAX * sizeof(uint32_t), "mrn.h spells the number out");
    _Static_assert(sizeof workspace->key == MRN_QUERY_MAX, "mrn.h spells the number out");
    if (index == NULL || (prefix == NULL && prefix_bytes > 0) || workspace == NULL || completions == NULL ||
        count == NULL || limit == 0 || limit > MRN_LIMIT_MAX)
        return MRN_E_ARGUMENT;
    if (prefix_bytes > MRN_QUERY_MAX)
        return MRN_E_TOO_LARGE;
    size_t key_bytes = 0;
    int status = mrn_fold(prefix, prefix_bytes, workspace->key, MRN_QUERY_MAX, &key_bytes);
    if (status != MRN_OK)
        return status;
    workspace->key_bytes = key_bytes;
    *count = search(index, (const uint8_t *)workspace->key, key_bytes, limit, workspace->best);
    for (size_t i = 0; i < *count; i++)
        trie_describe(index, workspace->best[i], key_bytes, 0, &completions[i]);
    return MRN_OK;
}
