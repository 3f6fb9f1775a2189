/* Runs a fuzz target over the files of its corpus: the findings of the past, in every test run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int count, char **paths) {
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(paths[i], "rb");
        if (file == NULL) {
            fprintf(stderr, "cannot open %s\n", paths[i]);
            return 1;
        }
        fseek(file, 0, SEEK_END);
        const long size = ftell(file);
        rewind(file);
        uint8_t *data =
            malloc(size > 0 ? (size_t)size : 1); /* exact size: the sanitizer sees one byte too far */
        if (size < 0 || data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) {
            fprintf(stderr, "cannot read %s\n", paths[i]);
            return 1;
        }
        fclose(file);
        LLVMFuzzerTestOneInput(data, (size_t)size);
        free(data);
    }
    printf("%d files replayed\n", count - 1);
    return 0;
}
