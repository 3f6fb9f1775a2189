/* The shortest decimal of a double, after Raffaello Giulietti, "The Schubfach way to render doubles" (2021):
 * of the decimals that lie in the interval that rounds to the double, it takes one of the largest power of
 * ten, and finds it with three products of 64 by 126 bits. */

#include "double_text.h"

#include <string.h>

#include "power_table.h"

/* The high half of a product. */
static inline uint64_t high_product(uint64_t a, uint64_t b) {
    const uint64_t low = UINT32_MAX;
    uint64_t a0 = a & low, a1 = a >> 32, b0 = b & low, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & low);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

/* The product of c and a power, rounded to odd. */
static uint64_t round_to_odd(const uint64_t power[2], uint64_t c) {
    const uint64_t mask = UINT64_MAX >> 1;
    uint64_t z = (power[0] * c >> 1) + high_product(power[1], c);
    uint64_t w = high_product(power[0], c) + (z >> 63);
    return w | ((z & mask) + mask) >> 63;
}

/* Floors of logarithms, exact for every exponent of a double: of 2^e and 3/4 2^e to base 10, of 10^e to
 * base 2. */
static int log10_of_power(int e) {
    return (int)((e * INT64_C(661971961083)) >> 41);
}

static int log10_of_three_quarters(int e) {
    return (int)((e * INT64_C(661971961083) - INT64_C(274743187321)) >> 41);
}

static int log2_of_power(int e) {
    return (int)((e * INT64_C(913124641741)) >> 38);
}

/* The digits and the exponent of ten of c * 2^q. */
static uint64_t to_decimal(uint64_t c, int q, int *exponent) {
    const uint64_t c_least = UINT64_C(1) << 52;
    const int q_least = -1074;
    uint64_t odd = c & 1, cb = c << 2, right = cb + 2, left;
    int k;
    if (c != c_least || q == q_least) {
        left = cb - 2;
        k = log10_of_power(q);
    } else { /* the double below is half as far away */
        left = cb - 1;
        k = log10_of_three_quarters(q);
    }
    int h = q + log2_of_power(-k) + 2;
    const uint64_t *power = powers[-k - POWER_LEAST];
    uint64_t v = round_to_odd(power, cb << h), vl = round_to_odd(power, left << h),
             vr = round_to_odd(power, right << h), s = v >> 2;
    *exponent = k;
    if (s >= 100) {
        uint64_t below = s / 10 * 10, above = below + 10;
        int below_in = vl + odd <= below << 2, above_in = (above << 2) + odd <= vr;
        if (below_in != above_in)
            return below_in ? below : above;
    }
    uint64_t t = s + 1;
    int s_in = vl + odd <= s << 2, t_in = (t << 2) + odd <= vr;
    if (s_in != t_in)
        return s_in ? s : t;
    uint64_t middle = (s + t) << 1;
    return v < middle || (v == middle && (s & 1) == 0) ? s : t;
}

/* How many digits an integer has: its bits say how many, or one too few. */
static size_t count_digits(uint64_t value) {
    /* clang-format off */
    static const uint64_t tens[] = {
        0, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, UINT64_C(10000000000),
        UINT64_C(100000000000), UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000),
        UINT64_C(1000000000000000), UINT64_C(10000000000000000), UINT64_C(100000000000000000),
        UINT64_C(1000000000000000000), UINT64_C(10000000000000000000)};
    /* clang-format on */
    const unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1),
                   least = bits * 1233 >> 12; /* bits * log10(2) */
    return least + (value >= tens[least]);
}

size_t integer_text(uint64_t value, char *text) {
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    const size_t count = count_digits(value);
    size_t at = count;
    for (; at > 1; value /= 100)
        memcpy(text + (at -= 2), pairs + 2 * (value % 100), 2);
    if (at > 0)
        text[0] = (char)('0' + value);
    return count;
}

size_t double_text(double value, char *text) {
    const uint64_t whole_max = UINT64_C(1) << 53;
    if (value <= (double)whole_max && (double)(uint64_t)value == value) {
        size_t bytes = integer_text((uint64_t)value, text);
        memcpy(text + bytes, ".0", 2);
        return bytes + 2;
    }
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int biased = (int)(bits >> 52 & 0x7ff), exponent;
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    uint64_t decimal = biased > 0 ? to_decimal(fraction | UINT64_C(1) << 52, biased - 1075, &exponent)
                                  : to_decimal(fraction, -1074, &exponent);
    for (; decimal % 10 == 0; decimal /= 10)
        exponent++;
    char digits[20];
    int count = (int)integer_text(decimal, digits), point = count + exponent; /* digits before the point */
    size_t at = 0;
    if (point > 0 && point <= 16) {
        for (int i = 0; i < count || i < point; i++) {
            if (i == point)
                text[at++] = '.';
            text[at++] = i < count ? digits[i] : '0';
        }
        if (count <= point) {
            text[at++] = '.';
            text[at++] = '0';
        }
        return at;
    }
    if (point > -5 && point <= 0) {
        text[at++] = '0';
        text[at++] = '.';
        for (int i = point; i < 0; i++)
            text[at++] = '0';
        memcpy(text + at, digits, (size_t)count);
        return at + (size_t)count;
    }
    text[at++] = digits[0];
    if (count > 1) {
        text[at++] = '.';
        memcpy(text + at, digits + 1, (size_t)count - 1);
        at += (size_t)count - 1;
    }
    int power = point - 1;
    text[at++] = 'e';
    text[at++] = power < 0 ? '-' : '+';
    return at + integer_text((uint64_t)(power < 0 ? -power : power), text + at);
}
