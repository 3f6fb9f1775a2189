/* Look-ups in a trie of a segment: a score-ordered path-decomposed trie (Hsu and Ottaviano, "Space-efficient
 * data structures for top-k completion", WWW 2013), numbered so that the order of nodes is the order of
 * scores.
 *
 * A node holds one key: what is left of it once the path to the node has been taken (the suffix), and the
 * branches where other, worse keys leave that path: (position in the suffix, byte) -> a later node. The first
 * node is the best key, spelled out whole. A branch's byte is 0 where the other key ends.
 *
 *      0  "saigon"   (0, 'p') -> 1   (2, 'o') -> 2   (3, 0) -> 3     best first, so 1 beats 2 beats 3
 *      1  "aris"                                                      "paris"
 *      2  ""                                                          "sao"
 *      3  ""                                                          "sai"
 *
 * To complete a prefix, walk until it is used up, inside some node at some position. The answers are that
 * node, the subtrees of its branches from that position on, and nothing else; a subtree's best is its first
 * node; and a node's number is its rank. So the best k are found by visiting k nodes.
 */

#include "trie.h"

/* The node behind the branch (position, byte); 0, which is never a branch's target, when there is none. */
ALWAYS_INLINE uint32_t find_branch(const trie_node *n, size_t position, uint8_t byte) {
    for (size_t first = 0; first < n->branches; first += BYTES_AT_ONCE) {
        unsigned same = same_bytes(n->bytes + first, byte);
        if (n->branches - first < BYTES_AT_ONCE)
            same &= (1U << (n->branches - first)) - 1;
        for (; same != 0; same &= same - 1) {
            const branch b = read_branch(n, first + (size_t)__builtin_ctz(same));
            if (b.position == position)
                return b.rank;
        }
    }
    return 0;
}

int trie_walk(const trie *t, const uint8_t *key, size_t key_bytes, place *at) {
    if (t->nodes == 0)
        return 0;
    trie_node n = t->root;
    for (uint32_t rank = 0;;) {
        const size_t position =
            shared_bytes(n.suffix, key, n.suffix_bytes < key_bytes ? n.suffix_bytes : key_bytes);
        if (position == key_bytes) {
            *at = (place){rank, position, n};
            return 1;
        }
        rank = find_branch(&n, position, key[position]);
        if (rank == 0)
            return 0;
        prefetch_node(t, rank); /* where it is likely to lie, while its length comes */
        read_node(t, rank, &n);
        key += position + 1;
        key_bytes -= position + 1;
    }
}

int trie_walk_whole(const trie *t, const uint8_t *key, size_t key_bytes, place *at) {
    if (!trie_walk(t, key, key_bytes, at))
        return 0;
    return at->position == at->node.suffix_bytes || trie_next_whole(t, at); /* it ends inside a longer key */
}

int trie_next_whole(const trie *t, place *at) {
    at->rank = find_branch(&at->node, at->position, 0);
    if (at->rank == 0)
        return 0;
    read_node(t, at->rank, &at->node);
    at->position = 0;
    return 1;
}

/* ---- All at once -------------------------------------------------------------------------------------- */

/* A node, and how it was reached: from the answer before it with that number, at a position, by a byte. */
static inline uint64_t pool_item(uint32_t node, size_t parent, size_t position, uint8_t byte) {
    return (uint64_t)node << 26 | (uint64_t)parent << 19 | (uint64_t)position << 8 | byte;
}

/* Put an item into an ascending list in place of its last one, which is not better. */
ALWAYS_INLINE void put_in_order(uint64_t *last, const uint64_t *first, uint64_t item) {
    for (; last > first && last[-1] > item; last--)
        last[0] = last[-1];
    *last = item;
}

/* Note which branches of a node leave it at a position or behind it: their numbers, at most `most`. Nobody
 * can foresee which ones do, so each is written, and stays where it does. */
static size_t branches_from(const trie_node *n, size_t position, uint64_t *numbers, size_t most) {
    const uint64_t position_mask = (UINT64_C(1) << n->position_bits) - 1;
    const uint8_t *packed = n->packed;
    const size_t branches = n->branches, step = n->branch_bits;
    size_t count = 0;
    if (position == 0) { /* all do */
        for (; count < branches && count < most; count++)
            numbers[count] = count;
        return count;
    }
    for (size_t i = 0, bit = 0; i < branches && count < most; i++, bit += step) {
        numbers[count] = i;
        count += (load64(packed + bit / 8) >> (bit % 8) & position_mask) >= position;
    }
    return count;
}

size_t trie_best(const reader_segment *segment, const place *from, size_t limit, uint64_t *pool,
                 mrn_spelled *suffixes) {
    const trie *t = &segment->keys;
    trie_node n = from->node;
    size_t count = 1 + branches_from(&n, from->position, pool + 1, limit - 1);
    pool[0] = pool_item(from->rank, 0, from->position, 0);
    for (size_t i = 1; i < count; i++) { /* branches are best first: so is the list */
        branch b = read_branch(&n, pool[i]);
        prefetch_node(t, b.rank);
        pool[i] = pool_item(b.rank, 0, b.position, n.bytes[pool[i]]);
    }
    for (size_t done = 0;;) {
        suffixes[done].suffix = n.suffix;
        suffixes[done].suffix_bytes = (uint32_t)n.suffix_bytes;
        if (++done == count)
            return count;
        __builtin_prefetch(
            tie_block(segment->index, pool_node(pool[done]))); /* its score is asked for next */
        read_node(t, pool_node(pool[done]), &n);
        if (done + 1 == limit) /* what follows it cannot win */
            continue;
        for (size_t i = 0; i < n.branches; i++) {
            const branch b = read_branch(&n, i);
            if (count == limit && b.rank > pool_node(pool[limit - 1]))
                break; /* nor can any that follows */
            count += count < limit;
            prefetch_node(t, b.rank);
            put_in_order(pool + count - 1, pool + done + 1, pool_item(b.rank, done, b.position, n.bytes[i]));
        }
    }
}

/* ---- One by one --------------------------------------------------------------------------------------- */

static inline int todo_before(const mrn_todo *a, const mrn_todo *b) {
    return a->weight != b->weight ? a->weight < b->weight : a->node < b->node;
}

void todo_push(mrn_todo *todo, uint32_t *count, mrn_todo item) {
    size_t at = (*count)++;
    while (at > 0 && todo_before(&item, &todo[(at - 1) / 2])) {
        todo[at] = todo[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    todo[at] = item;
}

mrn_todo todo_pop(mrn_todo *todo, uint32_t *count) {
    mrn_todo first = todo[0], item = todo[--*count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *count; at = child) {
        child += child + 1 < *count && todo_before(&todo[child + 1], &todo[child]);
        if (!todo_before(&todo[child], &item))
            break;
        todo[at] = todo[child];
    }
    todo[at] = item;
    return first;
}

/* A stream's item: a node that is to come, found in branch `from` of its parent. When it comes, so does the
 * next branch of the parent, so that as few wait as were taken. The state holds the parent, the position from
 * which its branches count, and where it is in the log. */
static uint64_t stream_state(uint32_t parent, size_t position, size_t path) {
    return (uint64_t)parent << 32 | (uint64_t)position << 16 | path;
}

/* Add the first branch of a node from number `from` on that counts. */
static void push_branch(stream *s, uint32_t rank, const trie_node *n, size_t from, size_t position,
                        size_t path) {
    for (size_t i = from; i < n->branches; i++) {
        branch b = read_branch(n, i);
        if (b.position < position || (s->filter != 0 && !(read_mask(s->index, s->masks, b.rank) & s->filter)))
            continue;
        if (s->count == s->capacity) {
            s->full = 1;
            return;
        }
        todo_push(s->todo, &s->count,
                  (mrn_todo){b.rank, b.rank, (uint32_t)i, stream_state(rank, position, path)});
        return;
    }
}

void stream_open(stream *s, const place *from) {
    s->count = 0;
    s->full = 0;
    if (s->filter != 0 && s->index->items[s->masks] > 0 &&
        !(read_mask(s->index, s->masks, from->rank) & s->filter))
        return;
    s->todo[s->count++] = (mrn_todo){from->rank, from->rank, 0, stream_state(NO_NODE, from->position, 0)};
}

uint32_t stream_next(stream *s, search *logger, size_t *path) {
    mrn_todo item = todo_pop(s->todo, &s->count);
    uint32_t parent = (uint32_t)(item.state >> 32);
    size_t position = item.state >> 16 & 0xffff, parent_path = item.state & 0xffff, here = 0;
    trie_node n;
    uint8_t byte = 0;
    size_t at = position;
    if (parent != NO_NODE) {
        read_node(s->trie, parent, &n);
        byte = n.bytes[item.from];
        at = read_branch(&n, item.from).position;
        push_branch(s, parent, &n, item.from + 1, position, parent_path);
        position = 0;
    }
    if (logger != NULL) {
        here = logger->logged++;
        logger->space->log[here] = log_entry(item.node, parent == NO_NODE ? here : parent_path, at, byte);
        *path = here;
    }
    read_node(s->trie, item.node, &n);
    push_branch(s, item.node, &n, 0, position, here);
    return item.node;
}

/* ---- One entry ---------------------------------------------------------------------------------------- */

int mrn_index_find(const mrn_index *index, const char *text, size_t text_bytes, mrn_workspace *workspace,
                   uint32_t *entry) {
    if (index == NULL || (text == NULL && text_bytes > 0) || workspace == NULL || entry == NULL)
        return MRN_E_ARGUMENT;
    const uint8_t *wanted = (const uint8_t *)text;
    uint8_t *key = (uint8_t *)workspace->keys[0];
    if (text_bytes == 0 || text_bytes > MRN_TEXT_MAX || text_points(wanted, text_bytes) == SIZE_MAX)
        return MRN_E_NOT_FOUND;
    ptrdiff_t key_bytes = fold_text(wanted, text_bytes, key, MRN_KEY_MAX);
    if (key_bytes > 0 && key[key_bytes - 1] == ' ')
        key_bytes--;
    const trie t = rooted_trie(index, MRN_SECTION_KEYS);
    place at;
    int found = key_bytes > 0 && trie_walk_whole(&t, key, (size_t)key_bytes, &at);
    for (; found; found = trie_next_whole(&t, &at)) {
        size_t bytes;
        const uint8_t *here = read_blob(index, MRN_SECTION_TEXTS, at.rank, &bytes);
        if (bytes == 0) {
            here = key;
            bytes = (size_t)key_bytes;
        }
        if (bytes == text_bytes && memcmp(here, wanted, bytes) == 0) {
            *entry = at.rank;
            return MRN_OK;
        }
    }
    return MRN_E_NOT_FOUND;
}
