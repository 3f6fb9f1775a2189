/* Time of building and of opening a segment inside C: bench_build ENTRIES.tsv [words]
 *
 * ENTRIES has lines of a text, a tab and a score. Prints the seconds that mrn_index_build took, the bytes of
 * the file, and the milliseconds of mrn_index_open, each the median of some rounds in CPU time of the thread.
 */

#include "../mrn_format.h"
#include "bench.h"

#include <string.h>

enum { ROUNDS = 5 };

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    size_t bytes, count = 0, used = 0, lines = 0;
    char *table = read_file(argv[1], &bytes);
    for (size_t i = 0; i < bytes; i++)
        lines += table[i] == '\n';
    char *texts = malloc(bytes + 1);
    uint64_t *ends = malloc((lines + 1) * sizeof *ends);
    double *scores = malloc((lines + 1) * sizeof *scores);
    signed char *verdicts = malloc(lines + 1);
    for (char *line = table, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *tab = memchr(line, '\t', (size_t)(end - line));
        if (tab == NULL)
            continue;
        memcpy(texts + used, line, (size_t)(tab - line));
        used += (size_t)(tab - line);
        scores[count] = strtod(tab + 1, NULL);
        ends[count++] = used;
    }
    const mrn_entries entries = {.count = count,
                                 .texts = texts,
                                 .text_ends = ends,
                                 .scores = scores,
                                 .flags = argc > 2 ? MRN_INDEX_WORDS : 0};
    double build[ROUNDS], open[ROUNDS];
    size_t file_bytes = 0;
    for (int round = 0; round < ROUNDS; round++) {
        char *file;
        mrn_index index;
        mrn_fault fault;
        double start = cpu_seconds();
        if (mrn_index_build(&entries, verdicts, &file, &file_bytes) != MRN_OK)
            return 1;
        build[round] = cpu_seconds() - start;
        size_t scratch_bytes = mrn_index_scratch_bytes(file_bytes);
        void *scratch = malloc(scratch_bytes);
        start = cpu_seconds();
        if (mrn_index_open(file, file_bytes, scratch, scratch_bytes, &index, &fault) != MRN_OK)
            return 1;
        open[round] = cpu_seconds() - start;
        free(scratch);
        mrn_free(file);
    }
    double seconds = median(build, ROUNDS), opened = median(open, ROUNDS);
    printf("%zu entries: built in %.3f s (%.0f ns each), %zu bytes; opened in %.2f ms (%.2f GB/s)\n", count,
           seconds, seconds / (double)count * 1e9, file_bytes, opened * 1e3,
           (double)file_bytes / opened / 1e9);
    free(table);
    free(texts);
    free(ends);
    free(scores);
    free(verdicts);
    return 0;
}
