/* Answers in JSON: numbers as short as they can be, predictions by label.
 *
 * A float32 is scaled to nine digits, which always read back as the same float32: a unit of the ninth digit
 * is at most 10^-8 of the number, half of the distance between two floats at least 2^-25 = 3 * 10^-8 of it.
 * Then digits are dropped from the end as long as what is left reads back. "Reads back" is decided on doubles
 * that may be a few units off (2^-52 each), so the number must read back 2^-48 above and below as well; where
 * it does not, a digit more is written, which is right too. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "mrn.h"

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { EXACT_POWER = 22, DIGITS = 9 };

static double scaled(double value, int power) {
    for (; power < -EXACT_POWER; power += EXACT_POWER)
        value /= POWERS[EXACT_POWER];
    for (; power > EXACT_POWER; power -= EXACT_POWER)
        value *= POWERS[EXACT_POWER];
    return power < 0 ? value / POWERS[-power] : value * POWERS[power];
}

static bool reads_back(uint32_t digits, int power, float value) {
    const double read = scaled((double)digits, power);
    if (power >= -EXACT_POWER && power <= EXACT_POWER) /* one operation on exact doubles: what parsers get */
        return (float)read == value;
    return (float)(read * (1 - 0x1p-48)) == value && (float)(read * (1 + 0x1p-48)) == value;
}

/* Write a finite number; at most MRN_JSON_FLOAT - 1 bytes. */
static char *put_float(char *to, float value) {
    if (signbit(value)) {
        *to++ = '-';
        value = -value;
    }
    if (value == 0) {
        memcpy(to, "0.0", 3);
        return to + 3;
    }
    /* exponent: value = d.ddd * 10^exponent. log10 of 2^binary is right or one too small. */
    int binary;
    (void)frexp((double)value, &binary);
    int exponent = (int)floor((binary - 1) * 0.30102999566398120);
    double nine = scaled((double)value, DIGITS - 1 - exponent);
    if (nine >= 999999999.5) { /* it would round to ten digits */
        exponent++;
        nine = scaled((double)value, DIGITS - 1 - exponent);
    }
    uint32_t digits = (uint32_t)(nine + 0.5);
    int count = DIGITS;
    while (count > 1) {
        const uint32_t shorter = (uint32_t)(nine / POWERS[DIGITS - count + 1] + 0.5);
        if (!reads_back(shorter, exponent - count + 2, value))
            break;
        digits = shorter;
        count--;
    }
    if ((double)digits >= POWERS[count]) { /* 9.99 became 10.0 */
        digits /= 10;
        exponent++;
    }
    char text[DIGITS];
    for (int i = count; i-- > 0; digits /= 10)
        text[i] = (char)('0' + digits % 10);
    while (count > 1 && text[count - 1] == '0')
        count--;
    if (exponent < -4 || exponent >= DIGITS) {
        *to++ = text[0];
        if (count > 1) {
            *to++ = '.';
            memcpy(to, text + 1, (size_t)count - 1);
            to += count - 1;
        }
        *to++ = 'e';
        if (exponent < 0) {
            *to++ = '-';
            exponent = -exponent;
        }
        if (exponent >= 10)
            *to++ = (char)('0' + exponent / 10);
        *to++ = (char)('0' + exponent % 10);
        return to;
    }
    for (int at = exponent < 0 ? exponent : 0; at < count || at <= exponent + 1; at++) {
        if (at == exponent + 1)
            *to++ = '.';
        *to++ = at >= 0 && at < count ? text[at] : '0';
    }
    return to;
}

int mrn_all_finite(const float *values, size_t count) {
    const uint32_t exponent = 0x7f800000;
    uint32_t wrong = 0;
    for (size_t i = 0; i < count; i++) { /* on bits, without a branch: compilers make vectors of that */
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        wrong |= (bits & exponent) == exponent;
    }
    return wrong == 0;
}

static char *put_floats(char *to, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            *to++ = ',';
        to = put_float(to, values[i]);
    }
    return to;
}

int mrn_json_floats(const float *values, size_t count, char *out, size_t capacity, size_t *bytes) {
    if (values == NULL || out == NULL || bytes == NULL)
        return MRN_E_ARGUMENT;
    if (capacity / MRN_JSON_FLOAT < count)
        return MRN_E_MEMORY;
    if (!mrn_all_finite(values, count))
        return MRN_E_RANGE;
    *bytes = (size_t)(put_floats(out, values, count) - out);
    return MRN_OK;
}

static const char LABEL[] = "{\"label\":", PROBABILITY[] = ",\"probability\":",
                  PROBABILITIES[] = ",\"probabilities\":[", VALUE[] = "{\"value\":";

static char *put(char *to, const char *text, size_t bytes) {
    memcpy(to, text, bytes);
    return to + bytes;
}
#define PUT(to, literal) put((to), (literal), sizeof(literal) - 1)

static size_t row_bytes(const mrn_json_form *form) {
    const size_t fixed = sizeof LABEL + sizeof PROBABILITY + sizeof PROBABILITIES + 8;
    /* The longest label is not longer than all of them. */
    const size_t label = form->label_count == 0 ? 0 : (size_t)form->label_ends[form->label_count - 1];
    return fixed + label + (form->outputs + 2) * MRN_JSON_FLOAT;
}

static bool consistent(const mrn_json_form *form) {
    if (form == NULL || form->outputs == 0 || form->outputs > MRN_MAX_WIDTH ||
        form->label_count > MRN_MAX_WIDTH)
        return false;
    if (form->label_count == 0)
        return true;
    return form->labels != NULL && form->label_ends != NULL &&
           (form->label_count == form->outputs || (form->outputs == 1 && form->label_count == 2));
}

size_t mrn_json_predictions_bytes(const mrn_json_form *form, size_t rows) {
    if (!consistent(form))
        return 0;
    const size_t row = row_bytes(form);
    return rows > (SIZE_MAX - 2) / row ? SIZE_MAX : rows * row + 2;
}

static char *put_class(char *to, const mrn_json_form *form, const float *y) {
    float pair[2];
    if (form->label_count != form->outputs) {
        pair[0] = (float)(1.0 - (double)y[0]);
        pair[1] = y[0];
        y = pair;
    }
    size_t best = 0;
    for (size_t i = 1; i < form->label_count; i++)
        if (y[i] > y[best])
            best = i;
    const size_t start = best == 0 ? 0 : (size_t)form->label_ends[best - 1];
    to = PUT(to, LABEL);
    to = put(to, form->labels + start, (size_t)form->label_ends[best] - start);
    to = PUT(to, PROBABILITY);
    to = put_float(to, y[best]);
    to = PUT(to, PROBABILITIES);
    to = put_floats(to, y, form->label_count);
    return PUT(to, "]}");
}

static char *put_value(char *to, const mrn_json_form *form, const float *y) {
    to = PUT(to, VALUE);
    if (form->outputs == 1)
        to = put_float(to, y[0]);
    else
        to = PUT(put_floats(PUT(to, "["), y, form->outputs), "]");
    return PUT(to, "}");
}

int mrn_json_predictions(const mrn_json_form *form, const float *y, size_t rows, char *out, size_t capacity,
                         size_t *bytes) {
    if (y == NULL || out == NULL || bytes == NULL || !consistent(form))
        return MRN_E_ARGUMENT;
    if (capacity < mrn_json_predictions_bytes(form, rows))
        return MRN_E_MEMORY;
    if (!mrn_all_finite(y, rows * form->outputs))
        return MRN_E_RANGE;
    char *to = PUT(out, "[");
    for (size_t i = 0; i < rows; i++, y += form->outputs) {
        if (i > 0)
            *to++ = ',';
        to = form->label_count > 0 ? put_class(to, form, y) : put_value(to, form, y);
    }
    *bytes = (size_t)(PUT(to, "]") - out);
    return MRN_OK;
}
