/* libFuzzer: any bytes. What is taken must lie within them, and say what a second, slow reading finds.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined csrc/fuzz/fuzz_http_read.c csrc/http_read.c */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../mrn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void want(int condition) {
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); /* ends where the bytes end: a read beyond them is seen */
    mrn_http_request request;
    if (text == NULL)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    char *exact = malloc(size == 0 ? 1 : size);
    if (exact == NULL)
        abort();
    memcpy(exact, data, size);
    const int status = mrn_http_read(exact, size, &request);
    if (status == MRN_OK) {
        want(request.route <= request.target && request.target < request.body && request.body <= size);
        want(memcmp(text + request.body - 4, "\r\n\r\n", 4) == 0);
        want(strncmp(text, "GET /", 5) == 0 || strncmp(text, "POST /", 6) == 0);
        want(strncmp(text + request.target, " HTTP/1.1\r\n", 11) == 0);
        want(request.kind <= MRN_HTTP_OCTETS && request.header_length >= -1);
        unsigned long length = 0;
        char *line = strstr(text, "\r\n") + 2;
        while (line + 2 < text + request.body) {
            if (strncasecmp(line, "content-length:", 15) == 0)
                length = strtoul(line + 15, NULL, 10);
            want(strncasecmp(line, "transfer-encoding:", 18) != 0);
            line = strstr(line, "\r\n") + 2;
        }
        want(length == size - request.body);
        for (size_t i = 0; i < MRN_HTTP_FIELDS; i++)
            if ((request.present >> i & 1U) != 0)
                want(request.field[i] > request.target &&
                     request.field[i] + request.field_bytes[i] < request.body);
    } else {
        want(status == MRN_E_DECLINED);
    }
    free(exact);
    free(text);
    return 0;
}
