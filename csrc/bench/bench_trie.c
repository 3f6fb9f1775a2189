/* Time of one look-up inside C: bench_trie SEGMENT.mrx PREFIXES.txt [LIMIT [EDITS]]
 *
 * PREFIXES has one prefix a line. Prints a line for each prefix length in characters of ASCII, then one for
 * all: "LENGTH COUNT NANOSECONDS", the nanoseconds being the median over rounds of the mean over the
 * prefixes. With EDITS, those of single calls besides: "median ... p99 ... partial ...".
 */

#include "../mrn_format.h"
#include "bench.h"

#include <string.h>

enum { ROUNDS = 9, LENGTHS = 9 }; /* 8 stands for 8 and more, 0 for all */

static double nanoseconds(void) {
    return cpu_seconds() * 1e9;
}

typedef struct line {
    const char *text;
    size_t bytes;
} line;

/* The lines of a text by their length, and where those of each length end: what is timed only reads them. */
static line *lines_by_length(const char *text, size_t ends[LENGTHS]) {
    line *lines = NULL;
    size_t count = 0, room = 0;
    for (size_t length = 1; length < LENGTHS; length++) {
        for (const char *at = text; *at != 0;) {
            const size_t bytes = strcspn(at, "\n");
            if ((bytes < LENGTHS - 1 ? bytes : LENGTHS - 1) == length) {
                if (count == room) {
                    room = 2 * room + 1024;
                    lines = realloc(lines, room * sizeof *lines);
                    CHECK(lines, "memory");
                }
                lines[count++] = (line){at, bytes};
            }
            at += bytes + (at[bytes] != 0);
        }
        ends[length] = count;
    }
    return lines;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    size_t limit = argc > 3 ? (size_t)atoi(argv[3]) : 10, file_bytes, prefixes_bytes;
    char *file = read_file(argv[1], &file_bytes), *prefixes = read_file(argv[2], &prefixes_bytes);
    mrn_index index;
    mrn_fault fault;
    size_t scratch_bytes = mrn_index_scratch_bytes(file_bytes);
    void *scratch = malloc(scratch_bytes);
    double start = nanoseconds();
    if (mrn_index_open(file, file_bytes, scratch, scratch_bytes, &index, &fault) != MRN_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], fault.what);
        return 1;
    }
    fprintf(stderr, "open: %.2f ms, %.2f GB/s\n", (nanoseconds() - start) / 1e6,
            (double)file_bytes / (nanoseconds() - start));
    free(scratch);

    const mrn_index *const indexes[] = {&index};
    const mrn_segments segments = {.count = 1, .indexes = indexes};
    size_t block_bytes = 0;
    mrn_reader *reader;
    if (mrn_reader_plan(&segments, &block_bytes) != MRN_OK)
        return 1;
    void *block = malloc(block_bytes);
    if (mrn_reader_open(&segments, block, block_bytes, &reader) != MRN_OK)
        return 1;
    const mrn_options options = {.limit = (uint32_t)limit, .edits = argc > 4 ? atoi(argv[4]) : 0};
    static mrn_workspace workspace;
    static mrn_completion found[MRN_LIMIT_MAX];
    static char texts[MRN_LIMIT_MAX * MRN_TEXT_MAX];
    static double singles[1 << 20];
    size_t single_count = 0, partials = 0;
    static double samples[LENGTHS][ROUNDS];
    size_t counts[LENGTHS] = {0}, ends[LENGTHS] = {0}, sink = 0;
    line *lines = lines_by_length(prefixes, ends);
    for (int round = 0; round < ROUNDS; round++) {
        double total = 0;
        size_t all = 0;
        for (size_t length = 1; length < LENGTHS; length++) {
            const size_t done = ends[length] - ends[length - 1];
            start = nanoseconds();
            for (size_t i = ends[length - 1]; i < ends[length]; i++) {
                size_t count = 0;
                int partial = 0;
                double before = argc > 4 ? nanoseconds() : 0;
                mrn_reader_complete(reader, lines[i].text, lines[i].bytes, &options, &workspace, found,
                                    &count, texts, sizeof texts, &partial);
                if (argc > 4 && round == 1 && single_count < sizeof singles / sizeof *singles) {
                    singles[single_count++] = nanoseconds() - before;
                    partials += (size_t)partial;
                }
                sink += count;
            }
            double spent = nanoseconds() - start;
            samples[length][round] = done > 0 ? spent / (double)done : 0;
            counts[length] = done;
            total += spent;
            all += done;
        }
        samples[0][round] = total / (double)all;
        counts[0] = all;
    }
    for (size_t length = 1; length <= LENGTHS; length++) {
        printf("%zu %zu %.1f\n", length % LENGTHS, counts[length % LENGTHS],
               median(samples[length % LENGTHS], ROUNDS));
    }
    if (single_count > 0) {
        const double middle = median(singles, single_count); /* which sorts them */
        fprintf(stderr, "median %.1f us, p99 %.1f us, partial %zu of %zu\n", middle / 1e3,
                singles[single_count * 99 / 100] / 1e3, partials, single_count);
    }
    free(lines);
    free(block);
    free(file);
    free(prefixes);
    return sink == 1;
}
