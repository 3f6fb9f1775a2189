/* Time of one look-up inside C: bench_trie SEGMENT.mrx PREFIXES.txt [LIMIT]
 *
 * PREFIXES has one prefix a line. Prints a line for each prefix length in characters of ASCII, then one for
 * all: "LENGTH COUNT NANOSECONDS", the nanoseconds being the median over rounds of the mean over the
 * prefixes.
 */

#include "../mrn.h"
#include "../mrn_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 15, LENGTHS = 9 }; /* 8 stands for 8 and more, 0 for all */

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
    timespec_get(&at, TIME_UTC);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
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
    double start = now();
    if (mrn_index_open(file, file_bytes, scratch, scratch_bytes, &index, &fault) != MRN_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], fault.what);
        return 1;
    }
    fprintf(stderr, "open: %.2f ms, %.2f GB/s\n", (now() - start) / 1e6,
            (double)file_bytes / (now() - start));
    free(scratch);

    static mrn_completion found[MRN_LIMIT_MAX];
    static double samples[LENGTHS][ROUNDS];
    size_t counts[LENGTHS] = {0}, sink = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double total = 0;
        size_t all = 0;
        for (size_t length = 1; length < LENGTHS; length++) {
            size_t done = 0;
            start = now();
            for (char *line = prefixes; *line != 0;) {
                char *end = strchr(line, '\n');
                size_t bytes = end == NULL ? strlen(line) : (size_t)(end - line);
                if ((bytes < LENGTHS - 1 ? bytes : LENGTHS - 1) == length) {
                    mrn_workspace workspace;
                    size_t count;
                    mrn_index_complete(&index, line, bytes, limit, &workspace, found, &count);
                    for (size_t i = 0; i < count; i++) /* as a caller would, touch each text */
                        sink += (unsigned char)file[found[i].text];
                    done++;
                }
                line += bytes + (end != NULL);
            }
            double spent = now() - start;
            samples[length][round] = done > 0 ? spent / (double)done : 0;
            counts[length] = done;
            total += spent;
            all += done;
        }
        samples[0][round] = total / (double)all;
        counts[0] = all;
    }
    for (size_t length = 1; length <= LENGTHS; length++) {
        qsort(samples[length % LENGTHS], ROUNDS, sizeof(double), by_value);
        printf("%zu %zu %.1f\n", length % LENGTHS, counts[length % LENGTHS],
               samples[length % LENGTHS][ROUNDS / 2]);
    }
    free(file);
    free(prefixes);
    return sink == 1;
}
