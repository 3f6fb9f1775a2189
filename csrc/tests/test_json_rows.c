/* mrn_json_rows against strtod, against bodies that it must take and bodies that it must decline. Every body
 * is copied into a block of exactly its size, so that a sanitizer sees a read behind it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../mrn.h"

static int failures;

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            failures++;                                                                                      \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                  \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fputc('\n', stderr);                                                                             \
        }                                                                                                    \
    } while (0)

static int parse(const char *text, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows) {
    char *copy = malloc(bytes + (bytes == 0));
    float *out = malloc(capacity * sizeof *out + (capacity == 0));
    if (copy == NULL || out == NULL)
        abort();
    memcpy(copy, text, bytes);
    const int status = mrn_json_rows(copy, bytes, columns, out, capacity, rows);
    if (status == 0)
        memcpy(x, out, *rows * columns * sizeof *x);
    free(copy);
    free(out);
    return status;
}

static void test_bodies(void) {
    static const struct {
        const char *text;
        size_t columns;
        size_t rows; /* 0: declined */
    } cases[] = {
        {"{\"instances\":[[1,2],[3,4]]}", 2, 2},
        {" {\n\"instances\"\t: [ [ -1.5e-3 ,\r2E+2 ] ] } \n", 2, 1},
        {"{\"instances\":[[0],[-0],[-0.0],[1e0]]}", 1, 4},
        {"", 1, 0},
        {"{", 1, 0},
        {"{}", 1, 0},
        {"[]", 1, 0},
        {"{\"instances\":[]}", 1, 0},
        {"{\"instances\":[[]]}", 1, 0},
        {"{\"instances\":[[1,2]]}", 1, 0},
        {"{\"instances\":[[1]]}", 2, 0},
        {"{\"instances\":[[1],]}", 1, 0},
        {"{\"instances\":[[1,]]}", 1, 0},
        {"{\"instances\":[[1]]", 1, 0},
        {"{\"instances\":[[1]]}x", 1, 0},
        {"{\"instances\":[[1]]}\0", 1, 1}, /* the NUL belongs to C, not to the body */
        {"{\"instances\":[[1]],\"a\":1}", 1, 0},
        {"{\"Instances\":[[1]]}", 1, 0},
        {"{\"instances\":[[01]]}", 1, 0},
        {"{\"instances\":[[+1]]}", 1, 0},
        {"{\"instances\":[[.5]]}", 1, 0},
        {"{\"instances\":[[5.]]}", 1, 0},
        {"{\"instances\":[[1e]]}", 1, 0},
        {"{\"instances\":[[1e+]]}", 1, 0},
        {"{\"instances\":[[-]]}", 1, 0},
        {"{\"instances\":[[0x10]]}", 1, 0},
        {"{\"instances\":[[NaN]]}", 1, 0},
        {"{\"instances\":[[Infinity]]}", 1, 0},
        {"{\"instances\":[[true]]}", 1, 0},
        {"{\"instances\":[[null]]}", 1, 0},
        {"{\"instances\":[[\"3\"]]}", 1, 0},
        {"{\"instances\":[[1e39]]}", 1, 0},
        {"{\"instances\":[[1e999]]}", 1, 0},
        {"{\"instances\":[[1e99999999999999999999]]}", 1, 0},
        {"{\"instances\":[[[1]]]}", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x[16];
        size_t rows = 0;
        const size_t bytes = strlen(cases[i].text);
        const int status = parse(cases[i].text, bytes, cases[i].columns, x, 16, &rows);
        CHECK(status == (cases[i].rows > 0 ? MRN_OK : MRN_E_DECLINED), "%s: status %d", cases[i].text,
              status);
        CHECK(rows == cases[i].rows, "%s: %zu rows", cases[i].text, rows);
        for (size_t cut = 0; cases[i].rows > 0 && cut < bytes && strchr(cases[i].text + cut, '}') != NULL;
             cut++) {
            CHECK(parse(cases[i].text, cut, cases[i].columns, x, 16, &rows) == MRN_E_DECLINED,
                  "%s cut at %zu", cases[i].text, cut);
        }
    }
}

static void test_capacity(void) {
    static const char text[] = "{\"instances\":[[1,2],[3,4],[5,6]]}";
    float x[6];
    size_t rows = 0;
    for (size_t capacity = 0; capacity < 6; capacity++) {
        CHECK(parse(text, sizeof text - 1, 2, x, capacity, &rows) == MRN_E_DECLINED, "capacity %zu",
              capacity);
    }
    CHECK(parse(text, sizeof text - 1, 2, x, 6, &rows) == MRN_OK && rows == 3 && x[5] == 6.0F,
          "six numbers fit");
    CHECK(mrn_json_rows(text, sizeof text - 1, 0, x, 6, &rows) == MRN_E_ARGUMENT, "no columns");
    CHECK(mrn_json_rows(NULL, 0, 1, x, 6, &rows) == MRN_E_ARGUMENT, "no body");
    CHECK(mrn_json_rows(text, SIZE_MAX >> 40, SIZE_MAX, x, 6, &rows) == MRN_E_DECLINED, "absurd columns");
}

static uint64_t state = 0x9e3779b97f4a7c15U;

static uint64_t next(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Returns 1 when the number was taken; checks it against strtod then. */
static unsigned same_as_strtod(const char *number) {
    char text[1200];
    float x[1];
    size_t rows = 0;
    const int bytes = snprintf(text, sizeof text, "{\"instances\":[[%s]]}", number);
    if (parse(text, (size_t)bytes, 1, x, 1, &rows) != MRN_OK)
        return 0;
    const float expected = (float)strtod(number, NULL);
    CHECK(memcmp(&expected, x, sizeof expected) == 0, "%s: %a, strtod gives %a", number, (double)x[0],
          (double)expected);
    return 1;
}

static void test_numbers(void) {
    char text[1100];
    const unsigned count = 400000;
    unsigned taken = 0;
    for (unsigned i = 0; i < count; i++) {
        const uint32_t pattern = (uint32_t)(next() >> 32) & 0x7fffffffU;
        float value;
        memcpy(&value, &pattern, sizeof value);
        if (!(value >= 1e-37F && value <= 3e38F))
            value = (float)(next() >> 40) / 255.0F;
        snprintf(text, sizeof text, "%.*g", 1 + (int)(next() % 20), (double)value);
        taken += same_as_strtod(text);
    }
    CHECK(taken > count - count / 1000, "only %u of %u plain numbers were taken", taken, count);

    for (unsigned i = 0; i < count; i++) { /* the middle of two floats, and what lies next to it */
        const uint32_t pattern = ((uint32_t)(next() >> 32) & 0x3fffffffU) + 0x20000000U;
        float low;
        memcpy(&low, &pattern, sizeof low);
        uint64_t bits;
        const double wide = (double)low;
        memcpy(&bits, &wide, sizeof bits);
        bits += (UINT64_C(1) << 28) + next() % 81 - 40;
        double middle;
        memcpy(&middle, &bits, sizeof middle);
        snprintf(text, sizeof text, "%.*e", 12 + (int)(next() % 12), middle);
        (void)same_as_strtod(text);
    }
    for (unsigned i = 0; i < 2000; i++) { /* any digits, any exponent, many digits */
        size_t at = 0;
        text[at++] = '1';
        for (uint64_t digits = next() % 1000; digits > 0; digits--)
            text[at++] = (char)('0' + next() % 10);
        if (next() & 1) {
            text[at++] = '.';
            text[at++] = '0';
            for (uint64_t digits = next() % 30; digits > 0; digits--)
                text[at++] = (char)('0' + next() % 10);
        }
        snprintf(text + at, sizeof text - at, "e%d", (int)(next() % 2100) - 1050);
        (void)same_as_strtod(text);
    }
}

static void test_tensors(void) {
    static const struct {
        const char *text;
        size_t rows; /* 0: declined */
        const char *id;
    } cases[] = {
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[2,2],\"datatype\":\"FP32\",\"data\":[1,2,3,4]}]}", 2,
         NULL},
        {"{\"id\":\"a "
         "b\",\"inputs\":[{\"data\":[[1,2],[3,4]],\"datatype\":\"FP32\",\"shape\":[2,2],\"name\":\"input\"}]"
         "}",
         2, "a b"},
        {" { \"inputs\" : [ { \"name\" : \"input\" , \"shape\" : [ 1 , 2 ] , \"datatype\" : \"FP32\" , "
         "\"data\" : [ 1 , 2 ] } "
         "] , \"id\" : \"\" } ",
         1, ""},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":[1,2,3]}]}", 0,
         NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2,3,4]}]}", 0,
         NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[0,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}", 0, NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[01,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}", 0,
         NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1000000001,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}",
         0, NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[]}]}", 0, NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2],\"data\":[1,"
         "2]}]}",
         0, NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,2],\"datatype\":\"FP64\",\"data\":[1,2]}]}", 0, NULL},
        {"{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}", 0, NULL},
        {"{\"inputs\":[{\"name\":\"input\",\"shape\":[1,2],\"datatype\":\"FP32\"}]}", 0, NULL},
        {"{\"inputs\":[{\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2],\"name\":\"input\"}],\"id\":"
         "\"\\n\"}",
         0, NULL},
        {"{\"id\":\"a\"}", 0, NULL},
        {"{\"id\":\"a", 0, NULL},
        {"{}", 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t whole = strlen(cases[i].text);
        for (size_t bytes = cases[i].rows > 0 ? 0 : whole; bytes <= whole; bytes++) {
            char *copy = malloc(bytes + (bytes == 0));
            float x[6] = {0};
            mrn_json_request request;
            if (copy == NULL)
                abort();
            memcpy(copy, cases[i].text, bytes);
            const int status = mrn_json_tensor(copy, bytes, 2, x, 6, &request);
            const bool all = bytes == whole || strspn(cases[i].text + bytes, " ") == whole - bytes;
            const bool taken = all && cases[i].rows > 0;
            CHECK(status == (taken ? MRN_OK : MRN_E_DECLINED), "%s cut at %zu: status %d", cases[i].text,
                  bytes, status);
            if (taken) {
                CHECK(request.rows == cases[i].rows && x[0] == 1.0F &&
                          x[2 * request.rows - 1] == 2.0F * (float)request.rows,
                      "%s", cases[i].text);
                CHECK(request.has_id == (cases[i].id != NULL), "%s", cases[i].text);
                if (cases[i].id != NULL)
                    CHECK(request.id_bytes == strlen(cases[i].id) &&
                              memcmp(copy + request.id, cases[i].id, request.id_bytes) == 0,
                          "%s", cases[i].text);
            }
            free(copy);
        }
    }
}

/* Written out: 1.0F and -2.5F, little-endian; then what is not finite. Behind the copy there is nothing to
 * read. */
static void test_raw_rows(void) {
    static const unsigned char numbers[8] = {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0};
    static const unsigned char wrong[][4] = {
        {0, 0, 0x80, 0x7f}, {0, 0, 0x80, 0xff}, {1, 0, 0x80, 0x7f}, {0, 0, 0xc0, 0xff}};
    float x[2];
    size_t rows = 0;
    for (size_t bytes = 0; bytes <= sizeof numbers; bytes++) {
        for (size_t shift = 0; shift < 4; shift++) { /* unaligned as well */
            unsigned char *copy = malloc(shift + bytes + (shift + bytes == 0));
            CHECK(copy != NULL, "memory");
            memcpy(copy + shift, numbers, bytes);
            const int status = mrn_raw_rows(copy + shift, bytes, 2, x, 2, &rows);
            CHECK(status == (bytes == 8 ? MRN_OK : MRN_E_DECLINED), "%zu bytes", bytes);
            CHECK(bytes != 8 || (rows == 1 && x[0] == 1.0F && x[1] == -2.5F), "numbers");
            free(copy);
        }
    }
    CHECK(mrn_raw_rows(numbers, 8, 1, x, 2, &rows) == MRN_OK && rows == 2, "two rows");
    CHECK(mrn_raw_rows(numbers, 8, 1, x, 1, &rows) == MRN_E_DECLINED, "more than fit");
    CHECK(mrn_raw_rows(numbers, 8, 0, x, 2, &rows) == MRN_E_ARGUMENT, "no columns");
    CHECK(mrn_raw_rows(NULL, 8, 1, x, 2, &rows) == MRN_E_ARGUMENT, "no body");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(mrn_raw_rows(wrong[i], 4, 1, x, 2, &rows) == MRN_E_DECLINED, "not finite %zu", i);
}

int main(void) {
    test_bodies();
    test_raw_rows();
    test_tensors();
    test_capacity();
    test_numbers();
    if (failures == 0)
        puts("test_json_rows: ok");
    return failures != 0;
}
