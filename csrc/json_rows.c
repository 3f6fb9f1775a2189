/* Numbers out of {"instances": [[1, 2.5], ...]} and {"inputs": [{"data": [1, 2.5], ...}]}: the strict, common
 * cases of a prediction request.
 *
 * The bytes are hostile: every read is guarded by `end`, every write by the capacity that the caller names,
 * nothing recurses. Whatever is not plainly right is declined and left to the full parser, which also words
 * the errors; so a wrong answer is possible in one way only, a wrong number, and convert() says why there is
 * none. */
#include <float.h>
#include <stdbool.h>
#include <string.h>

#include "mrn.h"

typedef struct cursor {
    const unsigned char *at;
    const unsigned char *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

/* Take `token` if it is next, with the space before it. */
static bool take(cursor *c, unsigned char token) {
    skip_space(c);
    if (c->at == c->end || *c->at != token)
        return false;
    c->at++;
    return true;
}

/* Take exactly these bytes if they are next, with the space before them. */
static bool take_bytes(cursor *c, const char *wanted, size_t bytes) {
    skip_space(c);
    if ((size_t)(c->end - c->at) < bytes || memcmp(c->at, wanted, bytes) != 0)
        return false;
    c->at += bytes;
    return true;
}

/* Take a string literal, given with its quotes. */
#define TAKE(c, literal) take_bytes((c), (literal), sizeof(literal) - 1)

static bool digit_next(const cursor *c) {
    return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

/* A decimal number: mantissa * 10^exponent. */
typedef struct decimal {
    uint64_t mantissa; /* its first 19 significant digits, so < 10^19 < 2^64 */
    int64_t exponent;  /* wide enough to count the digits of any body */
    int32_t digits;    /* significant digits seen, counted up to 20 */
    bool negative;
} decimal;

/* Take digits into the mantissa. Those after the 19th only count: `before_point` tells what they are worth.
 */
static void take_digits(cursor *c, decimal *d, bool before_point) {
    for (; digit_next(c); c->at++) {
        const uint64_t digit = (uint64_t)(*c->at - '0');
        if (d->digits < 19) {
            d->mantissa = d->mantissa * 10 + digit;
            d->digits += d->mantissa != 0;
            d->exponent -= !before_point;
        } else {
            d->digits = 20;
            d->exponent += before_point;
        }
    }
}

enum { MAX_EXPONENT = 9999 };

/* Take a number by the grammar of RFC 8259 section 6. False: it is not one, or its exponent is absurd. */
static bool take_number(cursor *c, decimal *d) {
    *d = (decimal){0};
    skip_space(c);
    if (c->at < c->end && *c->at == '-') {
        d->negative = true;
        c->at++;
    }
    if (!digit_next(c))
        return false;
    if (*c->at == '0') {
        c->at++; /* a digit after it is refused by whoever looks for ',' or ']' */
    } else {
        take_digits(c, d, true);
    }
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (!digit_next(c))
            return false;
        take_digits(c, d, false);
    }
    if (c->at < c->end && (*c->at | 0x20) == 'e') {
        c->at++;
        bool minus = false;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
            minus = *c->at++ == '-';
        if (!digit_next(c))
            return false;
        int64_t exponent = 0;
        for (; digit_next(c); c->at++) {
            exponent = exponent * 10 + (*c->at - '0');
            if (exponent > MAX_EXPONENT)
                return false;
        }
        d->exponent += minus ? -exponent : exponent;
    }
    return true;
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { EXACT_POWER = 22, MAX_POWER = 66 };

/* The float32 nearest to the double nearest to the decimal: what Python's float() and NumPy's float32() give.
 *
 * 1. Mantissa below 2^53 and a power of ten up to 22: both are exact doubles and one operation rounds once,
 * so the double is the nearest one (Clinger 1990, "How to read floating point numbers accurately").
 * 2. Otherwise the double is a few units in the last place off: digits cut (2^-59), mantissa rounded, up to
 * three operations, each at most one unit. That changes the float32 only if the double lies that close to the
 * middle of two neighbouring floats, which its low 29 bits tell; then, once in ten million numbers, we
 * decline.
 *
 * False: declined. Numbers beyond float32 are, and so are the subnormals of case 2, whose middles lie
 * elsewhere. */
static bool convert(const decimal *d, float *out) {
    enum { LOW_BITS = 29, MARGIN = 16 };
    const uint64_t middle = UINT64_C(1) << (LOW_BITS - 1);
    if (d->mantissa == 0) {
        *out = d->negative ? -0.0F : 0.0F;
        return true;
    }
    if (d->exponent < -MAX_POWER || d->exponent > MAX_POWER)
        return false;
    double value = (double)d->mantissa;
    int64_t left = d->exponent;
    const bool exact = FLT_EVAL_METHOD == 0 && d->digits < 20 && d->mantissa <= (UINT64_C(1) << 53) &&
                       left >= -EXACT_POWER && left <= EXACT_POWER;
    for (; left < -EXACT_POWER; left += EXACT_POWER)
        value /= POWERS[EXACT_POWER];
    for (; left > EXACT_POWER; left -= EXACT_POWER)
        value *= POWERS[EXACT_POWER];
    value = left < 0 ? value / POWERS[-left] : value * POWERS[left];
    if (value > (double)FLT_MAX)
        return false;
    if (!exact) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        const uint64_t low = bits & ((UINT64_C(1) << LOW_BITS) - 1);
        const uint64_t distance = low > middle ? low - middle : middle - low;
        if (value < (double)FLT_MIN || distance <= MARGIN)
            return false;
    }
    *out = (float)(d->negative ? -value : value);
    return true;
}

static bool take_row(cursor *c, size_t columns, float *row) {
    if (!take(c, '['))
        return false;
    for (size_t i = 0; i < columns; i++) {
        decimal number;
        if (i > 0 && !take(c, ','))
            return false;
        if (!take_number(c, &number) || !convert(&number, &row[i]))
            return false;
    }
    return take(c, ']');
}

int mrn_json_rows(const void *json, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows) {
    if (json == NULL || x == NULL || rows == NULL || columns == 0)
        return MRN_E_ARGUMENT;
    cursor c = {.at = json};
    c.end = c.at + bytes;
    size_t count = 0;
    if (!take(&c, '{') || !TAKE(&c, "\"instances\"") || !take(&c, ':') || !take(&c, '['))
        return MRN_E_DECLINED;
    do {
        if (count == capacity / columns || !take_row(&c, columns, x + count * columns))
            return MRN_E_DECLINED;
        count++;
    } while (take(&c, ','));
    if (!take(&c, ']') || !take(&c, '}'))
        return MRN_E_DECLINED;
    skip_space(&c);
    if (c.at != c.end)
        return MRN_E_DECLINED;
    *rows = count;
    return MRN_OK;
}

/* Take a whole number below 10^9. */
static bool take_count(cursor *c, size_t *count) {
    enum { DIGITS = 9 };
    skip_space(c);
    size_t value = 0;
    int digits = 0;
    for (; digits < DIGITS && digit_next(c); digits++, c->at++)
        value = value * 10 + (size_t)(*c->at - '0');
    *count = value;
    return digits > 0 && !digit_next(c) && !(digits > 1 && c->at[-digits] == '0');
}

/* Take a string of printable ASCII without escapes. */
static bool take_plain_string(cursor *c, const unsigned char **text, size_t *bytes) {
    if (!take(c, '"'))
        return false;
    *text = c->at;
    while (c->at < c->end && *c->at >= 0x20 && *c->at < 0x7f && *c->at != '"' && *c->at != '\\')
        c->at++;
    *bytes = (size_t)(c->at - *text);
    return c->at < c->end && *c->at++ == '"';
}

/* Take numbers up to ']', flat, or nested as rows of `columns`. */
static bool take_data(cursor *c, size_t columns, float *x, size_t capacity, size_t *count) {
    if (!take(c, '['))
        return false;
    skip_space(c);
    size_t n = 0;
    if (c->at < c->end && *c->at == '[') {
        do {
            if (capacity - n < columns || !take_row(c, columns, x + n))
                return false;
            n += columns;
        } while (take(c, ','));
    } else {
        do {
            decimal number;
            if (n == capacity || !take_number(c, &number) || !convert(&number, &x[n]))
                return false;
            n++;
        } while (take(c, ','));
    }
    *count = n;
    return take(c, ']');
}

/* Take the tensor, its members in any order, each once. */
static bool take_tensor(cursor *c, size_t columns, float *x, size_t capacity, size_t *rows) {
    enum { NAME = 1, SHAPE = 2, DATATYPE = 4, DATA = 8, ALL = 15 };
    unsigned found = 0;
    size_t shape[2] = {0, 0};
    size_t count = 0;
    if (!take(c, '{'))
        return false;
    do {
        unsigned member = 0;
        if (TAKE(c, "\"name\"")) {
            member = NAME;
            if (!take(c, ':') || !TAKE(c, "\"input\""))
                return false;
        } else if (TAKE(c, "\"shape\"")) {
            member = SHAPE;
            if (!take(c, ':') || !take(c, '[') || !take_count(c, &shape[0]) || !take(c, ',') ||
                !take_count(c, &shape[1]) || !take(c, ']'))
                return false;
        } else if (TAKE(c, "\"datatype\"")) {
            member = DATATYPE;
            if (!take(c, ':') || !TAKE(c, "\"FP32\""))
                return false;
        } else if (TAKE(c, "\"data\"")) {
            member = DATA;
            if (!take(c, ':') || !take_data(c, columns, x, capacity, &count))
                return false;
        }
        if (member == 0 || (found & member) != 0)
            return false;
        found |= member;
    } while (take(c, ','));
    *rows = shape[0];
    return found == ALL && take(c, '}') && shape[0] > 0 && shape[1] == columns && count % columns == 0 &&
           count / columns == shape[0];
}

int mrn_json_tensor(const void *json, size_t bytes, size_t columns, float *x, size_t capacity,
                    mrn_json_request *request) {
    if (json == NULL || x == NULL || request == NULL || columns == 0)
        return MRN_E_ARGUMENT;
    const unsigned char *const start = json;
    cursor c = {.at = start, .end = start + bytes};
    *request = (mrn_json_request){0};
    bool inputs = false;
    if (!take(&c, '{'))
        return MRN_E_DECLINED;
    do {
        if (!inputs && TAKE(&c, "\"inputs\"")) {
            inputs = true;
            if (!take(&c, ':') || !take(&c, '[') || !take_tensor(&c, columns, x, capacity, &request->rows) ||
                !take(&c, ']'))
                return MRN_E_DECLINED;
        } else if (!request->has_id && TAKE(&c, "\"id\"")) {
            const unsigned char *text;
            if (!take(&c, ':') || !take_plain_string(&c, &text, &request->id_bytes))
                return MRN_E_DECLINED;
            request->has_id = 1;
            request->id = (size_t)(text - start);
        } else {
            return MRN_E_DECLINED;
        }
    } while (take(&c, ','));
    if (!inputs || !take(&c, '}'))
        return MRN_E_DECLINED;
    skip_space(&c);
    return c.at == c.end ? MRN_OK : MRN_E_DECLINED;
}

int mrn_raw_rows(const void *raw, size_t bytes, size_t columns, float *x, size_t capacity, size_t *rows) {
    if (raw == NULL || x == NULL || rows == NULL || columns == 0)
        return MRN_E_ARGUMENT;
    const size_t count = bytes / sizeof *x;
    if (count == 0 || count > capacity || bytes % sizeof *x != 0 || count % columns != 0)
        return MRN_E_DECLINED;
    memcpy(x, raw, bytes);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = __builtin_bswap32(bits);
        memcpy(&x[i], &bits, sizeof bits);
    }
#endif
    if (!mrn_all_finite(x, count))
        return MRN_E_DECLINED;
    *rows = count / columns;
    return MRN_OK;
}
