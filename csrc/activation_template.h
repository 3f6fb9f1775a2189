/* The activations that need more than a floor, written once for all instruction sets.
 * kernels_generic.c says what the including file defines.
 *
 * Errors against float64, held by tests/test_dense.c over all of float32:
 *   sigmoid  3 ulp; below -88, where it is under 1e-38, an absolute 1e-38
 *   tanh     2 ulp
 *   softmax  6 + units / 16 ulp, and 1 ulp for each unit that a logit is below the highest (their difference
 * is rounded before exp sees it); under 1e-38 an absolute 1e-38 NaN gives NaN.
 */

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2. ln 2 is split in two, the first part with 15 bits
 * behind the point, so that n * LN2_HIGH is exact. e^r = 1 + r + r^2 q(r); q minimises the largest relative
 * error (3e-9): least squares over 4000 Chebyshev points, reweighted by the error (Lawson), in float64. n
 * comes out of the low bits of x / ln 2 + 1.5 * 2^23, and 2^n is applied in two halves, so that the result
 * may be a denormal or infinity. */
static inline TARGET vec NAME(exp)(vec x) {
    const vec magic = V_SET(12582912.0F);
    x = V_MIN(V_SET(90.0F), V_MAX(V_SET(-105.0F), x));
    const vec shifted = V_FMA(x, V_SET(1.44269502F), magic);
    const vec n = V_SUB(shifted, magic);
    vec r = V_FMA(n, V_SET(-0.693145752F), x);
    r = V_FMA(n, V_SET(-1.42860677e-06F), r);
    vec q = V_SET(0.00138145988F);
    q = V_FMA(q, r, V_SET(0.00836871658F));
    q = V_FMA(q, r, V_SET(0.041668389F));
    q = V_FMA(q, r, V_SET(0.166665211F));
    q = V_FMA(q, r, V_SET(0.49999994F));
    const vec e = V_ADD(V_FMA(V_MUL(r, r), q, r), V_SET(1.0F));
    return V_SCALE(e, shifted);
}

static inline TARGET vec NAME(sigmoid)(vec x) {
    const vec one = V_SET(1.0F);
    return V_DIV(one, V_ADD(one, NAME(exp)(V_SUB(V_SET(-0.0F), x))));
}

/* |x| < 0.625: x + x^3 p(x^2), p found as q above (relative error 4e-9); else 1 - 2 / (e^2|x| + 1), with the
 * sign. */
static inline TARGET vec NAME(tanh)(vec x) {
    const vec one = V_SET(1.0F), size = V_ABS(x), z = V_MUL(x, x);
    vec p = V_SET(-0.00570498547F);
    p = V_FMA(p, z, V_SET(0.0206390861F));
    p = V_FMA(p, z, V_SET(-0.0537397154F));
    p = V_FMA(p, z, V_SET(0.133314416F));
    p = V_FMA(p, z, V_SET(-0.333332807F));
    const vec small = V_FMA(V_MUL(z, p), x, x);
    const vec e = NAME(exp)(V_ADD(size, size));
    const vec large = V_SUB(one, V_DIV(V_SET(2.0F), V_ADD(e, one)));
    return V_IF_LESS(size, V_SET(0.625F), small, V_COPY_SIGN(large, x));
}

#define EACH(name)                                                                                           \
    static TARGET void NAME(pass_##name)(float *y, size_t rows, size_t width) {                              \
        for (float *end = y + rows * width; y != end; y += LANES)                                            \
            V_STORE(y, NAME(name)(V_LOAD(y)));                                                               \
    }
EACH(sigmoid)
EACH(tanh)
#undef EACH

/* Row by row, less the row's maximum first. A NaN in the row, or an infinite maximum, makes the whole row
 * NaN. */
static TARGET void NAME(pass_softmax)(float *y, size_t rows, size_t width) {
    for (; rows; rows--, y += width) {
        vec part[STRIP_VECTORS];
        for (size_t v = 0; v < STRIP_VECTORS; v++)
            part[v] = V_LOAD(y + v * LANES);
        for (size_t i = MRN_STRIP; i < width; i += MRN_STRIP)
            for (size_t v = 0; v < STRIP_VECTORS; v++)
                part[v] = V_MAX(part[v], V_LOAD(y + i + v * LANES));
        const vec highest = V_SET(NAME(strip_max)(part));
        for (size_t v = 0; v < STRIP_VECTORS; v++)
            part[v] = V_SET(0.0F);
        for (size_t i = 0; i < width; i += MRN_STRIP)
            for (size_t v = 0; v < STRIP_VECTORS; v++) {
                const vec e = NAME(exp)(V_SUB(V_LOAD(y + i + v * LANES), highest));
                V_STORE(y + i + v * LANES, e);
                part[v] = V_ADD(part[v], e);
            }
        const vec total = V_SET(NAME(strip_sum)(part));
        for (size_t i = 0; i < width; i += LANES)
            V_STORE(y + i, V_DIV(V_LOAD(y + i), total));
    }
}

static TARGET void NAME(pass_none)(float *y, size_t rows, size_t width) {
    (void)y, (void)rows, (void)width;
}
