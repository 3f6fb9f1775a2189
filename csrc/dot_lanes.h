/* Staging as in dot_stage.h, with the same cells, for rows in lanes: x is (inputs, rows), cells is (groups,
 * rows); rows is a multiple of MRN_STRIP. The including file has what dot_template.h asks for, and
 *   V_ADD V_SUB V_MUL V_DIV        of float32
 *   V_BITS(v), I_FLOATS(i)         the same bits
 *   I_ADD I_SUB I_AND I_OR I_MIN I_MAX, U_MAX(a, b), I_LEFT(a, bits), I_RIGHT(a, bits)  of 32-bit integers,
 * signed but for U_MAX and I_RIGHT I_IF_MORE(a, b, then, else)    a > b ? then : else I_STORE(p, i), ivec */

static inline TARGET ivec NAME(to_bfloat16)(ivec bits) {
    const ivec size = I_AND(bits, I_SET(0x7fffffff)), odd = I_AND(I_RIGHT(bits, 16), I_SET(1));
    ivec rounded = I_ADD(bits, I_ADD(odd, I_SET(0x7fff)));
    rounded = I_IF_MORE(size, I_SET(0x7f800000), I_OR(bits, I_SET(0x400000)), rounded);
    return I_IF_MORE(I_SET(0x00800000), size, I_AND(bits, I_SET(INT32_MIN)), rounded);
}

static inline TARGET void NAME(stage_lanes_bf16)(const float *x, size_t inputs, size_t rows,
                                                 unsigned char *cells) {
    for (size_t k = 0; k < inputs; k += 2, x += 2 * rows)
        for (size_t row = 0; row < rows; row += LANES, cells += LANES * MRN_CELL) {
            ivec cell = I_RIGHT(NAME(to_bfloat16)(I_LOAD(x + row)), 16);
            if (k + 1 < inputs)
                cell = I_OR(cell, I_AND(NAME(to_bfloat16)(I_LOAD(x + rows + row)), I_SET(-0x10000)));
            I_STORE(cells, cell);
        }
}

/* Rows side by side, as float32: x is a row, staged (groups, 2). */
static inline TARGET void NAME(stage_floats_bf16)(const float *x, size_t inputs, size_t groups,
                                                  unsigned char *staged) {
    uint32_t *to = (uint32_t *)(void *)staged;
    size_t k = 0;
    for (; k + LANES <= inputs; k += LANES)
        I_STORE(to + k, I_AND(NAME(to_bfloat16)(I_LOAD(x + k)), I_SET(-0x10000)));
    for (; k < inputs; k++)
        to[k] = NAME(bfloat16_of)(x[k]) << 16;
    if (k < groups * 2)
        to[k] = 0;
}

/* The same for rows in lanes: staged is (groups, 2, rows). */
static inline TARGET void NAME(stage_lanes_floats_bf16)(const float *x, size_t inputs, size_t rows,
                                                        unsigned char *staged) {
    for (size_t i = 0; i < inputs * rows; i += LANES)
        I_STORE(staged + i * sizeof *x, I_AND(NAME(to_bfloat16)(I_LOAD(x + i)), I_SET(-0x10000)));
    if (inputs % 2)
        memset(staged + inputs * rows * sizeof *x, 0, rows * sizeof *x);
}

/* range_s8 of LANES rows. */
static inline TARGET void NAME(range_lanes_s8)(const float *x, size_t inputs, size_t rows, mrn_dot_rows about,
                                               size_t row) {
    ivec highest = I_SET(0), lowest = I_SET(INT32_MIN);
    for (size_t k = 0; k < inputs; k++) {
        const ivec bits = I_LOAD(x + k * rows + row);
        highest = I_MAX(highest, bits);
        lowest = U_MAX(lowest, bits);
    }
    const ivec most = I_MAX(highest, I_AND(lowest, I_SET(INT32_MAX))), finite = I_SET(0x7f7fffff);
    const vec high = I_FLOATS(highest), low = I_FLOATS(lowest), steps = V_SET(255.0F);
    const vec scale = V_MAX(V_SUB(V_DIV(high, steps), V_DIV(low, steps)), V_SET(1e-37F));
    const vec inverse = V_DIV(V_SET(1.0F), scale);
    const ivec shifted = V_BITS(V_SUB(V_SET(MAGIC), V_MUL(low, inverse)));
    const ivec zero = I_SUB(I_MIN(shifted, I_SET(MAGIC_BITS + 255)), I_SET(MAGIC_BITS));
    I_STORE(about.scale + row, I_IF_MORE(most, finite, V_BITS(V_SET(NAN)), V_BITS(scale)));
    V_STORE(about.inverse + row, inverse);
    I_STORE(about.zero + row, I_IF_MORE(most, finite, I_SET(0), zero));
}

/* step_of of LANES rows; shift is zero - MAGIC_BITS. */
static inline TARGET ivec NAME(steps_of)(const float *x, vec inverse, ivec shift) {
    const vec at = V_ADD(V_MUL(V_LOAD(x), inverse), V_SET(MAGIC));
    return I_MIN(I_MAX(I_ADD(V_BITS(at), shift), I_SET(0)), I_SET(255));
}

static inline TARGET void NAME(stage_lanes_s8)(const float *x, size_t inputs, size_t rows, mrn_dot_rows about,
                                               unsigned char *cells) {
    for (size_t row = 0; row < rows; row += LANES, cells += LANES * MRN_CELL) {
        NAME(range_lanes_s8)(x, inputs, rows, about, row);
        const vec inverse = V_LOAD(about.inverse + row);
        const ivec shift = I_SUB(I_LOAD(about.zero + row), I_SET(MAGIC_BITS));
        for (size_t k = 0; k < inputs; k += MRN_CELL) {
            ivec cell = I_SET(0);
            UNROLL for (size_t i = 0; i < MRN_CELL; i++) {
                if (k + i >= inputs)
                    break;
                const ivec q = NAME(steps_of)(x + (k + i) * rows + row, inverse, shift);
                cell = I_OR(cell, I_LEFT(q, 8 * i));
            }
            I_STORE(cells + k / MRN_CELL * rows * MRN_CELL, cell);
        }
    }
}
