/* Time of building and of opening a segment inside C: bench_build ENTRIES.tsv [words]
 *
 * ENTRIES has lines of a text, a tab and a score. Prints the seconds that mrn_index_build took, the bytes of
 * the file, and the milliseconds of mrn_index_open, each the median of some rounds in CPU time of the thread.
 */

#include "../mrn.h"
#include "../mrn_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5 };

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(*bytes + 1);
    if (content == NULL || fread(content, 1, *bytes, file) != *bytes)
        exit(1);
    fclose(file);
    content[*bytes] = 0;
    return content;
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at); /* so that busy neighbours count less */
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *samples) {
    qsort(samples, ROUNDS, sizeof *samples, by_value);
    return samples[ROUNDS / 2];
}

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
        double start = now();
        if (mrn_index_build(&entries, verdicts, &file, &file_bytes) != MRN_OK)
            return 1;
        build[round] = now() - start;
        size_t scratch_bytes = mrn_index_scratch_bytes(file_bytes);
        void *scratch = malloc(scratch_bytes);
        start = now();
        if (mrn_index_open(file, file_bytes, scratch, scratch_bytes, &index, &fault) != MRN_OK)
            return 1;
        open[round] = now() - start;
        free(scratch);
        mrn_free(file);
    }
    double seconds = median(build), opened = median(open);
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
