/* The activations that need more than a floor, written once for all instruction sets.
 * kernels_generic.c says what the including file defines.
 *
 * Errors against float64, held by tests/test_dense.c at every 4999th float32 there is:
 *   sigmoid    3 ulp; below -88, where it is under 1e-38, an absolute 1e-38
 *   tanh       2 ulp
 *   leaky_relu, prelu  half a ulp: one rounded product
 *   elu, selu  3 ulp
 *   gelu       4 ulp; under 1e-36 an absolute 1e-43
 *   gelu_tanh  4 + 3 |u| ulp, where it is x / (1 + e^-u); under 1e-36 an absolute 1e-43
 *   silu       3 ulp; under 1e-36 an absolute 1e-43
 *   softplus   3 ulp; under 1e-36 an absolute 1e-43
 *   softmax    6 + units / 16 ulp, and 1 ulp for each unit that a logit is below the highest (their
 *              difference is rounded before exp sees it); under 1e-38 an absolute 1e-38
 * NaN gives NaN; an infinity gives the limit.
 */

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2. ln 2 is split in two, the first part with 15 bits
 * behind the point, so that n * LN2_HIGH is exact. n comes out of the low bits of x / ln 2 + 1.5 * 2^23,
 * which is `shifted`. */
static inline TARGET vec NAME(exp_reduce)(vec x, vec *shifted) {
    const vec magic = V_SET(12582912.0F);
    *shifted = V_FMA(x, V_SET(1.44269502F), magic);
    const vec n = V_SUB(*shifted, magic);
    const vec r = V_FMA(n, V_SET(-0.693145752F), x);
    return V_FMA(n, V_SET(-1.42860677e-06F), r);
}

/* e^r - 1 = r + r^2 q(r); q minimises the largest relative error of e^r (3e-9): least squares over 4000
 * Chebyshev points, reweighted by the error (Lawson), in float64. */
static inline TARGET vec NAME(exp_less_one)(vec r) {
    vec q = V_SET(0.00138145988F);
    q = V_FMA(q, r, V_SET(0.00836871658F));
    q = V_FMA(q, r, V_SET(0.041668389F));
    q = V_FMA(q, r, V_SET(0.166665211F));
    q = V_FMA(q, r, V_SET(0.49999994F));
    return V_FMA(V_MUL(r, r), q, r);
}

/* 2^n is applied in two halves, so that the result may be a denormal or infinity. */
static inline TARGET vec NAME(exp)(vec x) {
    vec shifted;
    const vec r = NAME(exp_reduce)(V_MIN(V_SET(90.0F), V_MAX(V_SET(-105.0F), x)), &shifted);
    return V_SCALE(V_ADD(NAME(exp_less_one)(r), V_SET(1.0F)), shifted);
}

/* The same, but what ends as 0 does not go through denormals, which are slow: in a softmax every unit that
 * fills up a strip is -infinity. */
static inline TARGET vec NAME(exp_or_zero)(vec x) {
    const vec lowest = V_SET(-104.0F), zero = V_SET(0.0F);
    return V_IF_LESS(x, lowest, zero, NAME(exp)(V_IF_LESS(x, lowest, zero, x)));
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

/* The slope below 0: one a unit. */
static inline TARGET vec NAME(prelu)(vec x, vec slope) {
    return V_IF_LESS(x, V_SET(0.0F), V_MUL(slope, x), x);
}

/* e^x - 1 for x < 0, 0 above: 2^n (e^r - 1) + (2^n - 1); nothing is lost where x is small, because n is 0
 * there. */
static inline TARGET vec NAME(expm1)(vec x) {
    vec shifted;
    const vec r = NAME(exp_reduce)(V_MIN(V_SET(0.0F), V_MAX(V_SET(-30.0F), x)), &shifted);
    const vec power = V_SCALE(V_SET(1.0F), shifted);
    return V_FMA(power, NAME(exp_less_one)(r), V_SUB(power, V_SET(1.0F)));
}

static inline TARGET vec NAME(elu)(vec x, vec slope) {
    return V_IF_LESS(x, V_SET(0.0F), V_MUL(slope, NAME(expm1)(x)), x);
}

/* Klambauer et al. 2017: scale 1.05070098735548, scale * alpha 1.75809934084738. */
static inline TARGET vec NAME(selu)(vec x) {
    return V_IF_LESS(x, V_SET(0.0F), V_MUL(V_SET(1.75809934F), NAME(expm1)(x)), V_MUL(V_SET(1.05070099F), x));
}

/* x / (1 + e^-u) as max(x, 0) - |x| e / (1 + e) with e = e^-|u|: nothing overflows, and far below 0 nothing
 * is lost. `size` is |x|, bounded so that infinity times 0 does not come up. */
static inline TARGET vec NAME(gate)(vec x, vec size, vec e) {
    return V_SUB(V_MAX(V_SET(0.0F), x), V_MUL(size, V_DIV(e, V_ADD(V_SET(1.0F), e))));
}

static inline TARGET vec NAME(silu)(vec x) {
    const vec size = V_MIN(V_SET(105.0F), V_ABS(x));
    return NAME(gate)(x, size, NAME(exp)(V_SUB(V_SET(0.0F), size)));
}

/* Hendrycks and Gimpel 2016: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x / (1 + e^-u) with
 * u = 2 sqrt(2 / pi) (x + 0.044715 x^3). */
static inline TARGET vec NAME(gelu_tanh)(vec x) {
    const vec size = V_MIN(V_SET(11.0F), V_ABS(x));
    const vec cube = V_FMA(V_MUL(size, size), V_SET(-0.0713548163F), V_SET(-1.59576912F));
    return NAME(gate)(x, size, NAME(exp)(V_MUL(size, cube)));
}

/* x Phi(x) = max(x, 0) - |x| Phi(-|x|), and a Phi(-a) = e^(-a^2 / 2) u p(u) with u = a / (2.5 + a); p found
 * as q above (relative error 2e-8) for a up to 14.6. a^2 is split into a part that is exact (a's first 12
 * bits, Veltkamp) and a small rest, or its rounding would be multiplied by a^2 / 2. */
static inline TARGET vec NAME(gelu)(vec x) {
    const vec a = V_MIN(V_SET(14.4F), V_ABS(x)), half = V_SET(-0.5F);
    const vec wide = V_MUL(V_SET(4097.0F), a), high = V_SUB(wide, V_SUB(wide, a));
    const vec rest = V_MUL(V_SUB(a, high), V_ADD(a, high));
    vec shifted;
    const vec r = NAME(exp_reduce)(V_MUL(half, V_MUL(high, high)), &shifted);
    const vec e = V_ADD(NAME(exp_less_one)(V_FMA(half, rest, r)), V_SET(1.0F));
    const vec u = V_DIV(a, V_ADD(V_SET(2.5F), a));
    vec p = V_SET(-0.0805687755F);
    p = V_FMA(p, u, V_SET(0.282935947F));
    p = V_FMA(p, u, V_SET(-0.319027007F));
    p = V_FMA(p, u, V_SET(0.143514827F));
    p = V_FMA(p, u, V_SET(-0.152955055F));
    p = V_FMA(p, u, V_SET(0.0571680479F));
    p = V_FMA(p, u, V_SET(0.291631907F));
    p = V_FMA(p, u, V_SET(0.169633582F));
    p = V_FMA(p, u, V_SET(-1.24339354F));
    p = V_FMA(p, u, V_SET(1.25F));
    return V_SUB(V_MAX(V_SET(0.0F), x), V_SCALE(V_MUL(V_MUL(u, p), e), shifted));
}

/* log(1 + e^x) = max(x, 0) + log1p(e^-|x|), and log1p(e) = 2 atanh(s) = 2 s + s^3 l(s^2) with s = e / (2 + e)
 * <= 1 / 3; l found as q above (relative error 4e-9). */
static inline TARGET vec NAME(softplus)(vec x) {
    const vec two = V_SET(2.0F), e = NAME(exp)(V_SUB(V_SET(0.0F), V_ABS(x)));
    const vec s = V_DIV(e, V_ADD(two, e)), z = V_MUL(s, s);
    vec l = V_SET(0.280119866F);
    l = V_FMA(l, z, V_SET(0.280018061F));
    l = V_FMA(l, z, V_SET(0.400215268F));
    l = V_FMA(l, z, V_SET(0.666664183F));
    return V_ADD(V_MAX(V_SET(0.0F), x), V_FMA(V_MUL(s, z), l, V_MUL(two, s)));
}

/* A pass is over (rows, width) numbers with the slopes along a row; lanes hold (units, rows). */
#define EACH(name)                                                                                           \
    static TARGET void NAME(pass_##name)(float *y, size_t rows, size_t width, const float *slope) {          \
        (void)slope;                                                                                         \
        for (float *end = y + rows * width; y != end; y += LANES)                                            \
            V_STORE(y, NAME(name)(V_LOAD(y)));                                                               \
    }                                                                                                        \
    static TARGET void NAME(lanes_##name)(float *y, size_t units, size_t rows, const float *slope) {         \
        NAME(pass_##name)(y, units, rows, slope);                                                            \
    }
EACH(sigmoid)
EACH(tanh)
EACH(selu)
EACH(gelu)
EACH(gelu_tanh)
EACH(silu)
EACH(softplus)
#undef EACH

#define EACH_SLOPED(name)                                                                                    \
    static TARGET void NAME(pass_##name)(float *y, size_t rows, size_t width, const float *slope) {          \
        for (; rows; rows--, y += width)                                                                     \
            for (size_t i = 0; i < width; i += LANES)                                                        \
                V_STORE(y + i, NAME(name)(V_LOAD(y + i), V_LOAD(slope + i)));                                \
    }                                                                                                        \
    static TARGET void NAME(lanes_##name)(float *y, size_t units, size_t rows, const float *slope) {         \
        for (const float *end = slope + units; slope != end; slope++)                                        \
            for (size_t i = 0; i < rows; i += LANES, y += LANES)                                             \
                V_STORE(y, NAME(name)(V_LOAD(y), V_SET(*slope)));                                            \
    }
EACH_SLOPED(prelu)
EACH_SLOPED(elu)
#undef EACH_SLOPED

/* Row by row, less the row's maximum first. A NaN in the row, or an infinite maximum, makes the whole row
 * NaN. */
static TARGET void NAME(pass_softmax)(float *y, size_t rows, size_t width, const float *slope) {
    (void)slope;
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
                const vec e = NAME(exp_or_zero)(V_SUB(V_LOAD(y + i + v * LANES), highest));
                V_STORE(y + i + v * LANES, e);
                part[v] = V_ADD(part[v], e);
            }
        const vec total = V_SET(NAME(strip_sum)(part));
        for (size_t i = 0; i < width; i += LANES)
            V_STORE(y + i, V_DIV(V_LOAD(y + i), total));
    }
}

/* The sum of the powers of units i, i + 16, i + 32, ...: what one lane of a strip holds in pass_softmax. */
static inline TARGET vec NAME(every_strip)(const float *y, size_t i, size_t units, size_t rows) {
    vec sum = V_SET(0.0F);
    for (; i < units; i += MRN_STRIP)
        sum = V_ADD(sum, V_LOAD(y + i * rows));
    return sum;
}

/* The same bits as pass_softmax: its sums are folded in the same order, 16, 8, 4, 2, 1. */
static TARGET void NAME(lanes_softmax)(float *y, size_t units, size_t rows, const float *slope) {
    (void)slope;
    for (float *end = y + rows; y != end; y += LANES) {
        vec highest = V_LOAD(y), part[MRN_STRIP / 2];
        for (size_t u = 1; u < units; u++)
            highest = V_MAX(highest, V_LOAD(y + u * rows));
        for (size_t u = 0; u < units; u++)
            V_STORE(y + u * rows, NAME(exp)(V_SUB(V_LOAD(y + u * rows), highest)));
        for (size_t i = 0; i < MRN_STRIP / 2; i++)
            part[i] = V_ADD(NAME(every_strip)(y, i, units, rows),
                            NAME(every_strip)(y, i + MRN_STRIP / 2, units, rows));
        for (size_t half = MRN_STRIP / 4; half; half /= 2)
            for (size_t i = 0; i < half; i++)
                part[i] = V_ADD(part[i], part[i + half]);
        for (size_t u = 0; u < units; u++)
            V_STORE(y + u * rows, V_DIV(V_LOAD(y + u * rows), part[0]));
    }
}

static TARGET void NAME(pass_none)(float *y, size_t rows, size_t width, const float *slope) {
    (void)y, (void)rows, (void)width, (void)slope;
}

static TARGET void NAME(lanes_none)(float *y, size_t units, size_t rows, const float *slope) {
    (void)y, (void)units, (void)rows, (void)slope;
}
