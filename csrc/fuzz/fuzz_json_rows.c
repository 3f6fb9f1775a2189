/* libFuzzer: any bytes, any capacity; what is taken must be what strtod reads.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined csrc/fuzz/fuzz_json_rows.c csrc/json_*.c */
#include <stdlib.h>
#include <string.h>

#include "../mrn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const size_t columns = 1 + data[0] % 8;
    const size_t capacity = data[1];
    const size_t bytes = size - 2;
    float *x = malloc(capacity * sizeof *x + 1);
    char *text = malloc(bytes + 1); /* strtod wants the end marked */
    if (x == NULL || text == NULL)
        abort();
    memcpy(text, data + 2, bytes);
    text[bytes] = '\0';
    size_t rows = 0;
    const int status = mrn_json_rows(data + 2, bytes, columns, x, capacity, &rows);
    if (status == MRN_OK) {
        if (rows == 0 || rows > capacity / columns)
            abort();
        const char *at = strchr(text, ':') + 1;
        for (size_t i = 0; i < rows * columns; i++) {
            at += strcspn(at, "-0123456789");
            char *end;
            const float expected = (float)strtod(at, &end);
            if (end == at || memcmp(&expected, &x[i], sizeof expected) != 0)
                abort();
            at = end;
        }
    } else if (status != MRN_E_DECLINED) {
        abort();
    }
    mrn_json_request request;
    if (mrn_json_tensor(data + 2, bytes, columns, x, capacity, &request) == MRN_OK &&
        (request.rows == 0 || request.rows > capacity / columns || request.id + request.id_bytes > bytes))
        abort();
    free(text);
    free(x);
    return 0;
}
