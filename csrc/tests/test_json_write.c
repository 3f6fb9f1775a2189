/* mrn_json_floats and mrn_json_predictions: what they write reads back, and nothing shorter does. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../mrn.h"
#include "check.h"

static size_t written(float value, char *text) {
    char *out = malloc(MRN_JSON_FLOAT); /* exactly, so that a sanitizer sees a byte too many */
    size_t bytes = 0;
    CHECK(out != NULL && mrn_json_floats(&value, 1, out, MRN_JSON_FLOAT, &bytes) == MRN_OK, "%a",
          (double)value);
    CHECK(bytes < MRN_JSON_FLOAT, "%a: no room for a comma", (double)value);
    memcpy(text, out, bytes);
    text[bytes] = '\0';
    free(out);
    return bytes;
}

static int significant(const char *text) {
    int digits = 0, zeros = 0;
    for (; *text != '\0' && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (digits == 0 && *text == '0'))
            continue;
        zeros = *text == '0' ? zeros + 1 : 0;
        digits++;
    }
    return digits - zeros;
}

static int shortest(float value) {
    for (int digits = 1;; digits++) {
        char text[64];
        snprintf(text, sizeof text, "%.*e", digits - 1, (double)value);
        if ((float)strtod(text, NULL) == value)
            return digits;
    }
}

static void test_floats(void) {
    uint64_t state = 7;
    size_t longer = 0;
    for (unsigned i = 0; i < 400000; i++) {
        const uint32_t pattern = (uint32_t)(next_random(&state) >> 32);
        float value;
        memcpy(&value, &pattern, sizeof value);
        if (i % 2)
            value = next_float(&state);
        if (!isfinite(value))
            continue;
        char text[MRN_JSON_FLOAT + 1];
        written(value, text);
        const float read = (float)strtod(text, NULL);
        CHECK(memcmp(&read, &value, sizeof read) == 0, "%a became %s", (double)value, text);
        CHECK(strpbrk(text, ".e") != NULL, "%s could be taken for an integer", text);
        if (i % 16 == 0 && value != 0)
            longer += significant(text) > shortest(value);
    }
    CHECK(longer <= 2, "%zu numbers of 25,000 have a digit too many", longer);
    static const struct {
        float value;
        const char *text;
    } cases[] = {
        {0.0F, "0.0"},
        {-0.0F, "-0.0"},
        {1.0F, "1.0"},
        {-1.5F, "-1.5"},
        {0.1F, "0.1"},
        {0.99999994F, "0.99999994"},
        {100.0F, "100.0"},
        {123456.0F, "123456.0"},
        {16777216.0F, "16777216.0"},
        {0.0001F, "0.0001"},
        {0.00001F, "1e-5"},
        {1e9F, "1e9"},
        {3.4028235e38F, "3.4028235e38"},
        {1.1754944e-38F, "1.1754944e-38"},
        {1e-45F, "1e-45"},
        {9.999999e9F, "9.999999e9"},
        {1.0F / 3.0F, "0.33333334"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[MRN_JSON_FLOAT + 1];
        written(cases[i].value, text);
        CHECK(strcmp(text, cases[i].text) == 0, "%s, expected %s", text, cases[i].text);
    }
}

static void test_statuses(void) {
    const float values[2] = {1.0F, INFINITY};
    char out[64];
    size_t bytes;
    CHECK(mrn_json_floats(values, 2, out, 32, &bytes) == MRN_E_RANGE, "infinity");
    CHECK(mrn_json_floats(values, 1, out, 15, &bytes) == MRN_E_MEMORY, "too small");
    CHECK(mrn_json_floats(NULL, 1, out, 15, &bytes) == MRN_E_ARGUMENT, "no values");
    CHECK(mrn_json_floats(values, 0, out, 0, &bytes) == MRN_OK && bytes == 0, "no numbers");
}

static void check_predictions(const mrn_json_form *form, const float *y, size_t rows, const char *expected) {
    const size_t capacity = mrn_json_predictions_bytes(form, rows);
    char *out = malloc(capacity);
    size_t bytes = 0;
    CHECK(out != NULL && capacity >= strlen(expected), "capacity %zu", capacity);
    CHECK(mrn_json_predictions(form, y, rows, out, capacity, &bytes) == MRN_OK, "%s", expected);
    CHECK(bytes == strlen(expected) && memcmp(out, expected, bytes) == 0, "%.*s", (int)bytes, out);
    CHECK(mrn_json_predictions(form, y, rows, out, capacity - 1, &bytes) == MRN_E_MEMORY, "too small");
    free(out);
}

static void test_predictions(void) {
    static const uint64_t ends[] = {3, 4};
    mrn_json_form form = {.outputs = 2, .label_count = 2, .labels = "\"a\"7", .label_ends = ends};
    check_predictions(&form, (const float[]){0.25F, 0.75F, 0.5F, 0.5F}, 2,
                      "[{\"label\":7,\"probability\":0.75,\"probabilities\":[0.25,0.75]},"
                      "{\"label\":\"a\",\"probability\":0.5,\"probabilities\":[0.5,0.5]}]");
    check_predictions(&form, (const float[]){0}, 0, "[]");
    form.outputs = 1;
    check_predictions(&form, (const float[]){0.25F}, 1,
                      "[{\"label\":\"a\",\"probability\":0.75,\"probabilities\":[0.75,0.25]}]");
    form = (mrn_json_form){.outputs = 1};
    check_predictions(&form, (const float[]){-2.0F, 3.5F}, 2, "[{\"value\":-2.0},{\"value\":3.5}]");
    form.outputs = 2;
    check_predictions(&form, (const float[]){-2.0F, 3.5F}, 1, "[{\"value\":[-2.0,3.5]}]");
    form = (mrn_json_form){.outputs = 3, .label_count = 2, .labels = "12", .label_ends = ends};
    char out[8];
    size_t bytes;
    CHECK(mrn_json_predictions_bytes(&form, 1) == 0, "labels that do not fit");
    CHECK(mrn_json_predictions(&form, (const float[]){0, 0, 0}, 1, out, 8, &bytes) == MRN_E_ARGUMENT,
          "the same");
}

int main(void) {
    test_floats();
    test_statuses();
    test_predictions();
    puts("test_json_write: ok");
    return 0;
}
