/* Staging: a row of float32 as cells, written once for all instruction sets as plain loops that compilers
 * vectorise. Every operation is an integer one or has one IEEE rounding, so that all sets get the same cells.
 * The including file defines NAME and TARGET as kernels_generic.c says.
 *
 * What rows are staged with (ranges_...) comes apart from the staging itself (stage_...): the ranges of a few
 * rows are found before any of them is staged, so that the divisions of one do not hold up the next. */

/* The bits of a bfloat16, nearest, ties to even. NaN stays NaN; a denormal becomes zero of its sign. */
static inline TARGET uint32_t NAME(bfloat16_of)(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    const uint32_t size = bits & 0x7fffffffU;
    uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    rounded = size > 0x7f800000U ? bits >> 16 | 0x40U : rounded;
    return size < 0x00800000U ? bits >> 16 & 0x8000U : rounded;
}

static inline TARGET void NAME(stage_bf16)(const float *x, size_t inputs, size_t groups,
                                           unsigned char *cells) {
    uint16_t *to = (uint16_t *)(void *)cells;
    for (size_t k = 0; k < inputs; k++)
        to[k] = (uint16_t)NAME(bfloat16_of)(x[k]);
    for (size_t k = inputs; k < groups * 2; k++)
        to[k] = 0;
}

/* Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits. */
#define MAGIC 12582912.0F
#define MAGIC_BITS 0x4b400000

/* x = (q - zero) * scale with q in 0..255: the range of a row, widened to hold 0, in 255 steps. A row that is
 * not finite gets the scale NaN, which makes NaN of all its results.
 *
 * The range comes as bits of float32: `highest`, the largest taken for signed integers, is the highest
 * number, for the negative ones are negative; `lowest`, the largest taken for unsigned ones, begins at -0 and
 * is the lowest, for these have their size behind the sign. An infinity or NaN is beyond every finite number.
 */
static inline TARGET void NAME(range_s8)(int32_t highest, uint32_t lowest, mrn_dot_rows about, size_t row) {
    const int broken = (highest >= 0x7f800000) | (lowest >= 0xff800000U);
    float high, low;
    memcpy(&high, &highest, sizeof high);
    memcpy(&low, &lowest, sizeof low);
    const float step = high / 255.0F - low / 255.0F;
    const float scale = step > 1e-37F ? step : 1e-37F; /* or its inverse would be infinite */
    const float inverse = 1.0F / scale, shifted = MAGIC - low * inverse;
    int32_t zero;
    memcpy(&zero, &shifted, sizeof zero);
    zero = zero > MAGIC_BITS + 255 ? 255 : zero - MAGIC_BITS;
    about.scale[row] = broken ? NAN : scale;
    about.inverse[row] = inverse;
    about.zero[row] = broken ? 0 : zero;
}

/* `rows` rows, at most MRN_DOT_STAGED, of which the first is number `row` in `about`. */
static inline TARGET void NAME(ranges_s8)(const float *x, size_t x_stride, size_t rows, size_t inputs,
                                          mrn_dot_rows about, size_t row) {
    for (const size_t end = row + rows; row < end; row++, x += x_stride) {
        int32_t highest = 0;
        uint32_t lowest = 0x80000000U;
        for (size_t k = 0; k < inputs; k++) {
            int32_t bits;
            memcpy(&bits, x + k, sizeof bits);
            highest = bits > highest ? bits : highest;
            lowest = (uint32_t)bits > lowest ? (uint32_t)bits : lowest;
        }
        NAME(range_s8)(highest, lowest, about, row);
    }
}

/* What a number becomes; in a row that is not finite anything from 0 to 255. */
static inline TARGET uint32_t NAME(step_of)(float number, float inverse, int32_t zero) {
    const float at = number * inverse + MAGIC;
    int32_t q;
    memcpy(&q, &at, sizeof q);
    q += zero - MAGIC_BITS;
    q = q < 0 ? 0 : q;
    return (uint32_t)(q > 255 ? 255 : q);
}

static inline TARGET void NAME(stage_s8)(const float *x, size_t inputs, size_t groups, float inverse,
                                         int32_t zero, unsigned char *cells) {
    for (size_t k = 0; k < inputs; k++)
        cells[k] = (unsigned char)NAME(step_of)(x[k], inverse, zero);
    for (size_t k = inputs; k < groups * MRN_CELL; k++)
        cells[k] = 0;
}
