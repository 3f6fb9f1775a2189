/* Making a reader: how the ranks of several segments become ranks among all of them.
 *
 * An entry's rank counts the living entries with a higher score, of all segments. In its own segment that is
 * its place, less the dead before it; what others add changes only where their scores lie. So each segment
 * gets a table of shifts: from this entry on, so many more. A reader that stands on one with the same
 * segments but for the newest takes its tables as they are, and adds a second, small one to each: what came
 * since.
 */

#include "trie.h"

/* The entries of a segment that are dead, ascending, and those of them that were not in the settled reader.
 */
typedef struct dead_list {
    uint32_t *ranks, *fresh;
    size_t count, fresh_count;
} dead_list;

static size_t dead_count(const mrn_segments *in, size_t s) {
    return in->dead == NULL || in->dead_counts == NULL ? 0 : in->dead_counts[s];
}

/* Segments whose tables are there already. */
static size_t settled_count(const mrn_segments *in) {
    return in->settled == NULL ? 0 : in->settled->count;
}

/* The segment that has the most entries; the others add to the ranks of its entries at few places. */
static size_t find_base(const mrn_segments *in) {
    size_t base = 0;
    for (size_t s = 1; s < in->count; s++)
        if (in->indexes[s]->entries > in->indexes[base]->entries)
            base = s;
    return base;
}

/* At most so many shifts gets a segment, and as many spare ones if it is merged from several. */
static size_t shift_room(const mrn_segments *in, size_t s) {
    size_t settled = settled_count(in), room = 0;
    if (s < settled) {
        for (size_t t = 0; t < in->count; t++)
            room += t < settled ? dead_count(in, t) : in->indexes[t]->items[MRN_SECTION_SCORES];
        for (size_t t = 0; t < settled; t++)
            room -= in->settled->segments[t].dead_count;
        return 2 * room;
    }
    if (settled > 0 || s != find_base(in))
        return in->indexes[s]->items[MRN_SECTION_SCORES];
    room = dead_count(in, s);
    for (size_t t = 0; t < in->count; t++)
        room += t == s ? 0 : in->indexes[t]->items[MRN_SECTION_SCORES];
    return 2 * room;
}

static size_t words_of_bits(uint32_t entries) {
    return (size_t)entries / 64 + 1;
}

/* Bytes of an array, so that the next one is aligned. */
static size_t padded(size_t bytes) {
    return (bytes + 7) / 8 * 8;
}

int mrn_reader_plan(const mrn_segments *in, size_t *bytes) {
    if (in == NULL || bytes == NULL || (in->count > 0 && in->indexes == NULL))
        return MRN_E_ARGUMENT;
    if (in->count > MRN_SEGMENTS_MAX)
        return MRN_E_TOO_LARGE;
    if (settled_count(in) > in->count)
        return MRN_E_ARGUMENT;
    for (size_t s = 0; s < settled_count(in); s++) /* what was dead stays so */
        if (in->settled->segments[s].index != in->indexes[s] ||
            in->settled->segments[s].dead_count > dead_count(in, s))
            return MRN_E_ARGUMENT;
    for (size_t s = 0; s < settled_count(in); s++)
        if (in->settled->segments[s].fresh != NULL)
            return MRN_E_ARGUMENT; /* it stands on a third one */
    size_t sum = padded(sizeof(mrn_reader));
    for (size_t s = 0; s < in->count; s++) {
        size_t dead = dead_count(in, s);
        sum += shift_room(in, s) * sizeof(shift) + 2 * padded(dead * sizeof(uint32_t));
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

/* Append what the living entries of segment t add to the ranks of segment s. */
static size_t add_living(const mrn_segments *in, size_t s, size_t t, const dead_list *dead, shift *shifts,
                         size_t count) {
    const mrn_index *other = in->indexes[t];
    for (uint32_t from = 0, to, above = 0; from < other->entries; from = to) {
        to = next_tie(other, from);
        above = count_above(in->indexes[s], entry_score(other, from), 1, above);
        uint32_t living = to - from - (count_dead(&dead[t], to) - count_dead(&dead[t], from));
        if (living > 0)
            shifts[count++] = (shift){above, (int32_t)living};
    }
    return count;
}

/* Append what some dead entries of segment t, ascending, take from the ranks of segment s. */
static size_t add_dead(const mrn_segments *in, size_t s, size_t t, const uint32_t *ranks, size_t dead,
                       shift *shifts, size_t count) {
    for (size_t i = 0, above = 0; i < dead; i++) {
        if (t == s) {
            shifts[count++] = (shift){ranks[i] + 1, -1};
            continue;
        }
        above = count_above(in->indexes[s], entry_score(in->indexes[t], ranks[i]), 1, (uint32_t)above);
        shifts[count++] = (shift){(uint32_t)above, -1};
    }
    return count;
}

/* Sort shifts, and let each say the sum of all up to it; returns how many are left. */
static size_t sum_shifts(shift *shifts, size_t count) {
    merge_shifts(shifts, shifts + count, count);
    size_t kept = 0;
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += shifts[i].by;
        kept -= kept > 0 && shifts[kept - 1].from == shifts[i].from;
        shifts[kept++] = (shift){shifts[i].from, sum};
    }
    return kept;
}

static size_t fill_base(const mrn_segments *in, size_t base, const dead_list *dead, shift *shifts) {
    size_t count = add_dead(in, base, base, dead[base].ranks, dead[base].count, shifts, 0);
    for (size_t t = 0; t < in->count; t++)
        if (t != base)
            count = add_living(in, base, t, dead, shifts, count);
    return sum_shifts(shifts, count);
}

/* What came to the tables of a segment since the settled reader. */
static size_t fill_fresh(const mrn_segments *in, size_t s, const dead_list *dead, shift *shifts) {
    size_t count = 0, settled = settled_count(in);
    for (size_t t = 0; t < settled; t++)
        count = add_dead(in, s, t, dead[t].fresh, dead[t].fresh_count, shifts, count);
    for (size_t t = settled; t < in->count; t++)
        count = add_living(in, s, t, dead, shifts, count);
    return sum_shifts(shifts, count);
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

/* Note which entries of segment s are dead, in its bits and its list; at + what is needed. NULL: one is not
 * there. */
static uint8_t *mark_dead(const mrn_segments *in, size_t s, reader_segment *g, dead_list *dead, uint8_t *at) {
    const uint32_t entries = in->indexes[s]->entries;
    const uint64_t *before = s < settled_count(in) ? in->settled->segments[s].dead : NULL;
    const size_t count = dead_count(in, s);
    if (count == 0)
        return at;
    uint64_t *bits = (uint64_t *)(void *)at;
    at += 8 * words_of_bits(entries);
    if (before != NULL)
        memcpy(bits, before, 8 * words_of_bits(entries));
    else
        memset(bits, 0, 8 * words_of_bits(entries));
    dead->ranks = (uint32_t *)(void *)at;
    at += padded(count * sizeof *dead->ranks);
    dead->fresh = (uint32_t *)(void *)at;
    at += padded(count * sizeof *dead->fresh);
    for (size_t i = 0; i < count; i++) {
        uint32_t rank = in->dead[s][i];
        if (rank >= entries)
            return NULL;
        dead->ranks[dead->count++] = rank;
    }
    sort_ranks(dead->ranks, dead->count);
    size_t different = 0;
    for (size_t i = 0; i < dead->count; i++) {
        uint32_t rank = dead->ranks[i];
        if (i > 0 && dead->ranks[different - 1] == rank)
            continue;
        dead->ranks[different++] = rank;
        if (!(bits[rank / 64] >> (rank % 64) & 1))
            dead->fresh[dead->fresh_count++] = rank;
        bits[rank / 64] |= UINT64_C(1) << (rank % 64);
    }
    dead->count = g->dead_count = different;
    g->dead = bits;
    return at;
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
    uint8_t *at = (uint8_t *)block + padded(sizeof *r);
    dead_list dead[MRN_SEGMENTS_MAX] = {{0}};
    const size_t base = find_base(in), settled = settled_count(in);
    uint64_t entries = 0;
    r->count = in->count;
    for (size_t s = 0; s < in->count; s++) {
        const mrn_index *index = in->indexes[s];
        r->segments[s] = (reader_segment){.index = index,
                                          .keys = rooted_trie(index, MRN_SECTION_KEYS),
                                          .words = rooted_trie(index, MRN_SECTION_WORDS)};
        entries += index->entries;
        at = mark_dead(in, s, &r->segments[s], &dead[s], at);
        if (at == NULL)
            return MRN_E_ARGUMENT;
        if (s < settled &&
            r->segments[s].dead_count - dead[s].fresh_count != in->settled->segments[s].dead_count)
            return MRN_E_ARGUMENT; /* one came back to life */
    }
    if (entries > INT32_MAX)
        return MRN_E_TOO_LARGE;
    for (size_t s = 0; s < in->count && (in->count > 1 || dead[s].count > 0); s++) {
        reader_segment *g = &r->segments[s];
        shift *shifts = (shift *)(void *)at;
        at += shift_room(in, s) * sizeof *shifts;
        if (s < settled) {
            g->shifts = in->settled->segments[s].shifts;
            g->shift_count = in->settled->segments[s].shift_count;
            g->fresh = shifts;
            g->fresh_count = fill_fresh(in, s, dead, shifts);
        } else {
            g->shifts = shifts;
            g->shift_count =
                s == base && settled == 0 ? fill_base(in, s, dead, shifts) : fill_other(in, s, dead, shifts);
        }
    }
    *reader = r;
    return MRN_OK;
}
