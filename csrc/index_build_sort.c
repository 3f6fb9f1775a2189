/* Sorting for the index builder: by numbers of 64 bits, digit by digit; keys by 8 bytes at a time. */

#include "index_build.h"

int compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    size_t shared = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = shared > 0 ? memcmp(a, b, shared) : 0;
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static void sort_few(item *items, size_t count) {
    for (size_t i = 1; i < count; i++) {
        item moved = items[i];
        size_t at = i;
        for (; at > 0 && items[at - 1].first > moved.first; at--)
            items[at] = items[at - 1];
        items[at] = moved;
    }
}

/* Merge runs of doubling length. */
static void sort_some(const sorter *s, item *items, size_t count) {
    enum { RUN = 16 };
    for (size_t start = 0; start < count; start += RUN)
        sort_few(items + start, count - start < RUN ? count - start : RUN);
    item *from = items, *to = s->spare;
    for (size_t run = RUN; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t left = start, middle = count - start < run ? count : start + run;
            size_t right = middle, end = count - middle < run ? count : middle + run;
            for (size_t at = start; at < end; at++) {
                int take_left = left < middle && (right == end || from[left].first <= from[right].first);
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

void sort_items(const sorter *s, item *items, size_t count) {
    enum { DIGITS = 6, VALUES = 1 << SORT_DIGIT, FEW = 1500 };
    if (count <= FEW) {
        sort_some(s, items, count);
        return;
    }
    item *from = items, *to = s->spare;
    memset(s->digits, 0, SORT_DIGITS_BYTES);
    for (size_t i = 0; i < count; i++)
        for (unsigned d = 0; d < DIGITS; d++)
            s->digits[d * VALUES + (items[i].first >> (d * SORT_DIGIT) & (VALUES - 1))]++;
    for (unsigned d = 0; d < DIGITS; d++) {
        uint32_t *at = s->digits + (size_t)d * VALUES, sum = 0;
        if (at[items[0].first >> (d * SORT_DIGIT) & (VALUES - 1)] == count)
            continue; /* all have this digit */
        for (size_t v = 0; v < VALUES; v++) {
            uint32_t here = at[v];
            at[v] = sum;
            sum += here;
        }
        for (size_t i = 0; i < count; i++)
            to[at[from[i].first >> (d * SORT_DIGIT) & (VALUES - 1)]++] = from[i];
        item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

/* 8 bytes of a key from `offset` on as a number that compares as they do; zeros follow its end. */
static uint64_t key_part(const keys *k, uint32_t id, size_t offset) {
    size_t bytes = k->length[id];
    if (offset >= bytes)
        return 0;
    const uint8_t *at = k->bytes + k->start[id] + offset;
    size_t left = bytes - offset;
    uint64_t part = 0;
    if (k->end - at >= 8)
        part = __builtin_bswap64(load64(at));
    else
        for (size_t i = 0; i < left; i++)
            part |= (uint64_t)at[i] << (8 * (7 - i));
    return left >= 8 ? part : part & ~(~UINT64_C(0) >> (8 * left));
}

static size_t equal_end(const item *items, size_t start, size_t count) {
    size_t end = start + 1;
    while (end < count && items[end].first == items[start].first)
        end++;
    return end;
}

void sort_keys(const sorter *s, const keys *k, item *items, size_t count) {
    for (size_t i = 0; i < count; i++)
        items[i].first = key_part(k, items[i].id, 0);
    sort_items(s, items, count);
    /* Runs that agree so far are sorted by the next 8 bytes, each to its end before the next. No key holds a
     * byte 0, so that a part that ends with one is the last of its key. `last` is where the enclosing run at
     * each depth ends. */
    enum { DEPTH_MAX = MRN_KEY_MAX / 8 + 1 };
    size_t last[DEPTH_MAX + 1], depth = 0;
    last[0] = count;
    for (size_t at = 0; at < count;) {
        while (at == last[depth])
            depth--;
        size_t end = equal_end(items, at, last[depth]);
        if (end - at == 1 || (items[at].first & 0xff) == 0 || depth == DEPTH_MAX) {
            at = end;
            continue;
        }
        last[++depth] = end;
        for (size_t i = at; i < end; i++)
            items[i].first = key_part(k, items[i].id, 8 * depth);
        sort_items(s, items + at, end - at);
    }
}
