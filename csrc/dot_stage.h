/* Staging: a row of float32 as cells, written once for all instruction sets as plain loops that compilers
 * vectorise. Every operation is an integer one or has one IEEE rounding, so that all sets get the same cells.
 * The including file defines NAME and TARGET as kernels_generic.c says.
 *
 * What a row is staged with (range_...) comes apart from the staging itself (stage_...): the ranges of a few
 * rows are found before any of them is staged, so that the divisions of one do not hold up the next. */

/* Rounded to bfloat16, to nearest, ties to even. NaN stays NaN; a denormal becomes zero of its sign. */
static inline TARGET mrn_dot_row NAME(range_bf16)(const float *x, size_t inputs) {
    (void)x, (void)inputs;
    return (mrn_dot_row){1, 0};
}

static inline TARGET void NAME(stage_bf16)(const float *x, size_t inputs, size_t groups, unsigned char *cells,
                                           const mrn_dot_row *row) {
    (void)row;
    uint16_t *to = (uint16_t *)(void *)cells;
    for (size_t k = 0; k < inputs; k++) {
        uint32_t bits;
        memcpy(&bits, x + k, sizeof bits);
        const uint32_t size = bits & 0x7fffffffU;
        uint32_t rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
        rounded = size > 0x7f800000U ? bits >> 16 | 0x40U : rounded;
        to[k] = (uint16_t)(size < 0x00800000U ? bits >> 16 & 0x8000U : rounded);
    }
    for (size_t k = inputs; k < groups * 2; k++)
        to[k] = 0;
}

/* Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits. */
#define MAGIC 12582912.0F
#define MAGIC_BITS 0x4b400000

/* x = (q - zero) * scale with q in 0..255: the range of the row, widened to hold 0, in 255 steps. A row that
 * is not finite gets the scale NaN, which makes NaN of all its results. */
static inline TARGET mrn_dot_row NAME(range_s8)(const float *x, size_t inputs) {
    enum { W = 16 };
    float low[W] = {0}, high[W] = {0};
    uint32_t size[W] = {0};
    size_t k = 0;
    for (; k + W <= inputs; k += W)
        for (size_t i = 0; i < W; i++) {
            uint32_t bits;
            memcpy(&bits, x + k + i, sizeof bits);
            bits &= 0x7fffffffU;
            low[i] = x[k + i] < low[i] ? x[k + i] : low[i];
            high[i] = x[k + i] > high[i] ? x[k + i] : high[i];
            size[i] = bits > size[i] ? bits : size[i];
        }
    for (; k < inputs; k++) {
        uint32_t bits;
        memcpy(&bits, x + k, sizeof bits);
        bits &= 0x7fffffffU;
        low[0] = x[k] < low[0] ? x[k] : low[0];
        high[0] = x[k] > high[0] ? x[k] : high[0];
        size[0] = bits > size[0] ? bits : size[0];
    }
    for (size_t i = 1; i < W; i++) {
        low[0] = low[i] < low[0] ? low[i] : low[0];
        high[0] = high[i] > high[0] ? high[i] : high[0];
        size[0] = size[i] > size[0] ? size[i] : size[0];
    }
    if (size[0] >= 0x7f800000U)
        return (mrn_dot_row){NAN, 0};
    const float step = high[0] / 255.0F - low[0] / 255.0F;
    const float scale = step > 1e-37F ? step : 1e-37F; /* or its inverse would be infinite */
    const float shifted = MAGIC - low[0] * (1.0F / scale);
    int32_t zero;
    memcpy(&zero, &shifted, sizeof zero);
    zero -= MAGIC_BITS;
    return (mrn_dot_row){scale, zero > 255 ? 255 : zero};
}

static inline TARGET void NAME(stage_s8)(const float *x, size_t inputs, size_t groups, unsigned char *cells,
                                         const mrn_dot_row *row) {
    if (row->scale != row->scale) {
        memset(cells, 0, groups * MRN_CELL);
        return;
    }
    const float inverse = 1.0F / row->scale;
    for (size_t k = 0; k < inputs; k++) {
        const float at = x[k] * inverse + MAGIC;
        int32_t q;
        memcpy(&q, &at, sizeof q);
        q += row->zero - MAGIC_BITS;
        q = q < 0 ? 0 : q;
        cells[k] = (unsigned char)(q > 255 ? 255 : q);
    }
    for (size_t k = inputs; k < groups * MRN_CELL; k++)
        cells[k] = 0;
}
#undef MAGIC
#undef MAGIC_BITS
