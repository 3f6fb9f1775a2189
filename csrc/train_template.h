/* The parts of a step of training, written once for all instruction sets; kernels_generic.c says what the
 * including file defines. Their descriptions are in mrn.h; train.c has checked them.
 *
 * A row need not fill whole vectors: PART(n) of one is loaded, computed and stored. Bodies are inlined with n
 * = LANES, where that costs nothing, and once more with what is left over. */
#include <float.h>

#define ALWAYS __attribute__((always_inline)) static inline TARGET

ALWAYS vec NAME(load)(const float *p, size_t n) {
    return n == LANES ? V_LOAD(p) : V_LOAD_PART(p, n);
}

ALWAYS void NAME(store)(float *p, vec v, size_t n) {
    if (n == LANES)
        V_STORE(p, v);
    else
        V_STORE_PART(p, v, n);
}

/* The lanes from n on become 0. */
ALWAYS vec NAME(first)(vec v, size_t n) {
    return n == LANES ? v : V_FIRST(v, n);
}

ALWAYS float NAME(lane_sum)(vec v) {
    vec strip[STRIP_VECTORS];
    for (size_t i = 0; i < STRIP_VECTORS; i++)
        strip[i] = V_SET(0.0F);
    strip[0] = v;
    return NAME(strip_sum)(strip);
}

/* body(i, n) for the n numbers from i on, until all `count` are done */
#define EACH_PART(count, body)                                                                               \
    do {                                                                                                     \
        size_t i_ = 0;                                                                                       \
        for (; i_ + LANES <= (count); i_ += LANES)                                                           \
            body(i_, LANES);                                                                                 \
        if (i_ < (count))                                                                                    \
            body(i_, (count) - i_);                                                                          \
    } while (0)

/* ---- Gathering ----------------------------------------------------------------------------------------- */

/* Plain loops, which all compilers turn into vectors; nothing is contracted, so that all sets give the same
 * bits. */
static TARGET void NAME(rescale)(const mrn_rescaling_pass *p) {
    const float scale = p->scale, offset = p->offset;
    const size_t units = p->units;
    for (size_t r = 0; r < p->rows; r++) {
        const size_t from = (p->numbers ? (size_t)p->numbers[r] : r) * units;
        float *const restrict y = p->y + r * units;
        if (p->bytes) {
            const uint8_t *const restrict x = p->bytes + from;
            for (size_t u = 0; u < units; u++)
                y[u] = (float)x[u] * scale + offset;
        } else {
            const float *const restrict x = p->floats + from;
            for (size_t u = 0; u < units; u++)
                y[u] = x[u] * scale + offset;
        }
    }
}

/* ---- Activations --------------------------------------------------------------------------------------- */

/* up_NAME(x, slope, kept): the activation, and what backward needs beside it. down_NAME(dy, y, slope, kept):
 * the gradient. */
#define UP(name) ALWAYS vec NAME(up_##name)(vec x, vec slope, vec * kept)
#define DOWN(name) ALWAYS vec NAME(down_##name)(vec dy, vec y, vec slope, vec kept)
#define IGNORE_UP (void)slope, (void)kept
#define IGNORE_DOWN (void)slope, (void)kept

UP(linear) {
    IGNORE_UP;
    return x;
}

UP(relu) {
    IGNORE_UP;
    return V_MAX(V_SET(0.0F), x);
}
DOWN(relu) {
    IGNORE_DOWN;
    return V_IF_LESS(V_SET(0.0F), y, dy, V_SET(0.0F));
}

UP(sigmoid) {
    IGNORE_UP;
    return NAME(sigmoid)(x);
}
DOWN(sigmoid) {
    IGNORE_DOWN;
    return V_MUL(dy, V_MUL(y, V_SUB(V_SET(1.0F), y)));
}

UP(tanh) {
    IGNORE_UP;
    return NAME(tanh)(x);
}
DOWN(tanh) {
    IGNORE_DOWN;
    return V_MUL(dy, V_SUB(V_SET(1.0F), V_MUL(y, y)));
}

UP(leaky_relu) {
    (void)kept;
    return NAME(prelu)(x, slope);
}
DOWN(leaky_relu) {
    (void)kept;
    return V_IF_LESS(V_SET(0.0F), y, dy, V_MUL(dy, slope));
}

UP(elu) {
    (void)kept;
    return NAME(elu)(x, slope);
}
DOWN(elu) {
    (void)kept;
    return V_MUL(dy, V_IF_LESS(V_SET(0.0F), y, V_SET(1.0F), V_ADD(y, slope)));
}

UP(selu) {
    IGNORE_UP;
    return NAME(selu)(x);
}
DOWN(selu) {
    IGNORE_DOWN;
    return V_MUL(dy, V_IF_LESS(V_SET(0.0F), y, V_SET(1.05070099F), V_ADD(y, V_SET(1.75809934F))));
}

UP(softplus) {
    IGNORE_UP;
    return NAME(softplus)(x);
}
/* The sigmoid of x is 1 - e^-y. */
DOWN(softplus) {
    IGNORE_DOWN;
    return V_MUL(dy, V_SUB(V_SET(0.0F), NAME(expm1)(V_SUB(V_SET(0.0F), y))));
}

/* Slopes may have any sign, so that the outputs do not tell on which side x was: it is kept. */
UP(prelu) {
    *kept = x;
    return NAME(prelu)(x, slope);
}
DOWN(prelu) {
    (void)y;
    return V_IF_LESS(kept, V_SET(0.0F), V_MUL(dy, slope), dy);
}

/* x gate(x) is not monotone: its derivative is kept. */
UP(silu) {
    (void)slope;
    const vec one = V_SET(1.0F), gate = NAME(sigmoid)(x);
    *kept = V_MUL(gate, V_FMA(x, V_SUB(one, gate), one));
    return NAME(silu)(x);
}
DOWN(silu) {
    (void)slope, (void)y;
    return V_MUL(dy, kept);
}

/* gate' = gate (1 - gate) u' with u as in gelu_tanh; beyond 11 the gate is 0 or 1. */
UP(gelu_tanh) {
    (void)slope;
    const vec one = V_SET(1.0F), z = V_MAX(V_SET(-11.0F), V_MIN(V_SET(11.0F), x)), square = V_MUL(z, z);
    const vec gate = NAME(sigmoid)(V_MUL(z, V_FMA(square, V_SET(0.0713548163F), V_SET(1.59576912F))));
    const vec inner = V_FMA(square, V_SET(0.214064449F), V_SET(1.59576912F));
    *kept = V_MUL(gate, V_FMA(V_MUL(z, inner), V_SUB(one, gate), one));
    return NAME(gelu_tanh)(x);
}
DOWN(gelu_tanh) {
    (void)slope, (void)y;
    return V_MUL(dy, kept);
}

/* Phi(x) + x phi(x); Phi is gelu(x) / x, near 0 its tangent. */
UP(gelu) {
    (void)slope;
    const vec y = NAME(gelu)(x), size = V_ABS(x), density = V_SET(0.398942280F);
    const vec below = V_IF_LESS(size, V_SET(1e-3F), V_FMA(density, x, V_SET(0.5F)), V_DIV(y, x));
    const vec z = V_MIN(V_SET(14.4F), size); /* beyond, the density is 0 */
    const vec bell = V_MUL(density, NAME(exp)(V_MUL(V_SET(-0.5F), V_MUL(z, z))));
    *kept = V_FMA(V_MAX(V_SET(-14.4F), V_MIN(V_SET(14.4F), x)), bell, below);
    return y;
}
DOWN(gelu) {
    (void)slope, (void)y;
    return V_MUL(dy, kept);
}

/* Along the rows: bias and slopes change from column to column. KEEPS is constant, so that its branches
 * vanish. */
#define FORWARD(name, keeps)                                                                                 \
    ALWAYS void NAME(forward_part_##name)(const mrn_activation_pass *p, size_t r, size_t c, size_t n) {      \
        const size_t i = r * p->units + c;                                                                   \
        const vec bias = p->bias ? NAME(load)(p->bias + c, n) : V_SET(0.0F);                                 \
        const vec slope = p->slope ? NAME(load)(p->slope + c, n) : V_SET(0.0F);                              \
        vec kept = slope;                                                                                    \
        const vec x = V_ADD(NAME(load)(p->x + i, n), bias);                                                  \
        NAME(store)(p->y + i, NAME(up_##name)(x, slope, &kept), n);                                          \
        if (keeps)                                                                                           \
            NAME(store)(p->kept + i, kept, n);                                                               \
    }                                                                                                        \
    static TARGET void NAME(forward_##name)(const mrn_activation_pass *p) {                                  \
        for (size_t r = 0; r < p->rows; r++) {                                                               \
            size_t c = 0;                                                                                    \
            for (; c + LANES <= p->units; c += LANES)                                                        \
                NAME(forward_part_##name)(p, r, c, LANES);                                                   \
            if (c < p->units)                                                                                \
                NAME(forward_part_##name)(p, r, c, p->units - c);                                            \
        }                                                                                                    \
    }
FORWARD(linear, 0)
FORWARD(relu, 0)
FORWARD(sigmoid, 0)
FORWARD(tanh, 0)
FORWARD(leaky_relu, 0)
FORWARD(elu, 0)
FORWARD(selu, 0)
FORWARD(softplus, 0)
FORWARD(prelu, 1)
FORWARD(silu, 1)
FORWARD(gelu_tanh, 1)
FORWARD(gelu, 1)
#undef FORWARD

enum {
    NAME(COLUMNS) = 4
}; /* vectors whose columns are summed together: two cache lines or more of each row */

/* Down the columns, so that their sums stay in registers. */
#define BACKWARD(name, keeps)                                                                                \
    ALWAYS void NAME(backward_part_##name)(const mrn_activation_pass *p, size_t c, size_t vectors,           \
                                           size_t n) {                                                       \
        vec bias[NAME(COLUMNS)], slopes[NAME(COLUMNS)], slope[NAME(COLUMNS)];                                \
        UNROLL for (size_t v = 0; v < vectors; v++) {                                                        \
            bias[v] = slopes[v] = V_SET(0.0F);                                                               \
            slope[v] = p->slope ? NAME(load)(p->slope + c + v * LANES, n) : V_SET(0.0F);                     \
        }                                                                                                    \
        for (size_t r = 0; r < p->rows; r++) {                                                               \
            UNROLL for (size_t v = 0; v < vectors; v++) {                                                    \
                const size_t i = r * p->units + c + v * LANES;                                               \
                const vec kept = (keeps) ? NAME(load)(p->kept + i, n) : slope[v];                            \
                const vec above = NAME(load)(p->dy + i, n);                                                  \
                const vec dx = NAME(down_##name)(above, NAME(load)(p->y + i, n), slope[v], kept);            \
                NAME(store)(p->dx + i, dx, n);                                                               \
                bias[v] = V_ADD(bias[v], dx);                                                                \
                if (keeps)                                                                                   \
                    slopes[v] = V_FMA(above, V_MIN(V_SET(0.0F), kept), slopes[v]);                           \
            }                                                                                                \
        }                                                                                                    \
        UNROLL for (size_t v = 0; v < vectors; v++) {                                                        \
            if (p->dbias)                                                                                    \
                NAME(store)(p->dbias + c + v * LANES, bias[v], n);                                           \
            if (p->dslope)                                                                                   \
                NAME(store)(p->dslope + c + v * LANES, slopes[v], n);                                        \
        }                                                                                                    \
    }                                                                                                        \
    static TARGET void NAME(backward_##name)(const mrn_activation_pass *p) {                                 \
        size_t c = 0;                                                                                        \
        for (; c + NAME(COLUMNS) * LANES <= p->units; c += NAME(COLUMNS) * LANES)                            \
            NAME(backward_part_##name)(p, c, NAME(COLUMNS), LANES);                                          \
        for (; c + LANES <= p->units; c += LANES)                                                            \
            NAME(backward_part_##name)(p, c, 1, LANES);                                                      \
        if (c < p->units)                                                                                    \
            NAME(backward_part_##name)(p, c, 1, p->units - c);                                               \
    }
BACKWARD(relu, 0)
BACKWARD(sigmoid, 0)
BACKWARD(tanh, 0)
BACKWARD(leaky_relu, 0)
BACKWARD(elu, 0)
BACKWARD(selu, 0)
BACKWARD(softplus, 0)
BACKWARD(prelu, 1)
BACKWARD(silu, 1)
BACKWARD(gelu_tanh, 1)
BACKWARD(gelu, 1)
#undef BACKWARD

/* The sums of the columns, and a copy where one is wanted. */
ALWAYS void NAME(backward_part_linear)(const mrn_activation_pass *p, size_t c, size_t n) {
    vec sum = V_SET(0.0F);
    for (size_t r = 0; r < p->rows; r++) {
        const vec dy = NAME(load)(p->dy + r * p->units + c, n);
        sum = V_ADD(sum, dy);
        if (p->dx != p->dy)
            NAME(store)(p->dx + r * p->units + c, dy, n);
    }
    if (p->dbias)
        NAME(store)(p->dbias + c, sum, n);
}
static TARGET void NAME(backward_linear)(const mrn_activation_pass *p) {
#define BODY(c, n) NAME(backward_part_linear)(p, c, n)
    EACH_PART(p->units, BODY);
#undef BODY
}

/* Never called (train.c): softmax works on rows. */
static void NAME(forward_softmax)(const mrn_activation_pass *p) {
    (void)p;
}
static void NAME(backward_softmax)(const mrn_activation_pass *p) {
    (void)p;
}

#define MRN_ACTIVATION(id, name, floor, pass, sloped) [id] = {NAME(forward_##name), NAME(backward_##name)},
static const struct {
    void (*forward)(const mrn_activation_pass *), (*backward)(const mrn_activation_pass *);
} NAME(activation_passes)[] = {
#include "activations.def"
};
#undef MRN_ACTIVATION

static void NAME(forward)(const mrn_activation_pass *p) {
    NAME(activation_passes)[p->activation].forward(p);
}

static void NAME(backward)(const mrn_activation_pass *p) {
    NAME(activation_passes)[p->activation].backward(p);
}

/* ---- Batch normalisation ------------------------------------------------------------------------------- */

/* Some columns, with a mean and an inverse deviation. */
ALWAYS void NAME(standardize_columns)(const mrn_normalization_pass *p, size_t c, size_t n, vec mean,
                                      vec inverse) {
    const vec factor = p->gamma ? V_MUL(inverse, NAME(load)(p->gamma + c, n)) : inverse;
    const vec beta = p->beta ? NAME(load)(p->beta + c, n) : V_SET(0.0F);
    for (size_t r = 0; r < p->rows; r++) {
        const size_t i = r * p->units + c;
        NAME(store)(p->y + i, V_FMA(V_SUB(NAME(load)(p->x + i, n), mean), factor, beta), n);
    }
}

static TARGET void NAME(standardize)(const mrn_normalization_pass *p) {
#define BODY(c, n)                                                                                           \
    NAME(standardize_columns)(p, c, n, NAME(load)(p->mean + (c), n), NAME(load)(p->inverse + (c), n))
    EACH_PART(p->units, BODY);
#undef BODY
}

/* Some columns at a time, which stay in the first cache for all three looks at them. */
ALWAYS void NAME(normalize_part)(const mrn_normalization_pass *p, size_t c, size_t n) {
    const vec rows = V_SET((float)p->rows), share = V_SET(p->share);
    vec mean = V_SET(0.0F), variance = V_SET(0.0F);
    for (size_t r = 0; r < p->rows; r++)
        mean = V_ADD(mean, NAME(load)(p->x + r * p->units + c, n));
    mean = V_DIV(mean, rows);
    for (size_t r = 0; r < p->rows; r++) {
        const vec away = V_SUB(NAME(load)(p->x + r * p->units + c, n), mean);
        variance = V_FMA(away, away, variance);
    }
    variance = V_DIV(variance, rows);
    const vec inverse = V_DIV(V_SET(1.0F), V_SQRT(V_ADD(variance, V_SET(p->epsilon))));
    NAME(standardize_columns)(p, c, n, mean, inverse);
    const vec moving_mean = NAME(load)(p->moving_mean + c, n);
    const vec moving_variance = NAME(load)(p->moving_variance + c, n);
    NAME(store)(p->moving_mean + c, V_FMA(V_SUB(mean, moving_mean), share, moving_mean), n);
    NAME(store)(p->moving_variance + c, V_FMA(V_SUB(variance, moving_variance), share, moving_variance), n);
    NAME(store)(p->mean + c, mean, n);
    NAME(store)(p->inverse + c, inverse, n);
}

static TARGET void NAME(normalize)(const mrn_normalization_pass *p) {
#define BODY(c, n) NAME(normalize_part)(p, c, n)
    EACH_PART(p->units, BODY);
#undef BODY
}

/* dx = gamma inverse (dy - mean(dy) - normalized mean(dy normalized)) */
ALWAYS void NAME(normalize_back_part)(const mrn_normalization_pass *p, size_t c, size_t n) {
    const vec rows = V_SET((float)p->rows), mean = NAME(load)(p->mean + c, n);
    const vec inverse = NAME(load)(p->inverse + c, n);
    vec dbeta = V_SET(0.0F), dgamma = V_SET(0.0F);
    for (size_t r = 0; r < p->rows; r++) {
        const size_t i = r * p->units + c;
        const vec dy = NAME(load)(p->dy + i, n);
        const vec normalized = V_MUL(V_SUB(NAME(load)(p->x + i, n), mean), inverse);
        dbeta = V_ADD(dbeta, dy);
        dgamma = V_FMA(dy, normalized, dgamma);
    }
    if (p->dgamma)
        NAME(store)(p->dgamma + c, dgamma, n);
    if (p->dbeta)
        NAME(store)(p->dbeta + c, dbeta, n);
    if (!p->dx)
        return;
    const vec factor = p->gamma ? V_MUL(inverse, NAME(load)(p->gamma + c, n)) : inverse;
    const vec shift = V_DIV(dbeta, rows), tilt = V_DIV(dgamma, rows);
    for (size_t r = 0; r < p->rows; r++) {
        const size_t i = r * p->units + c;
        const vec normalized = V_MUL(V_SUB(NAME(load)(p->x + i, n), mean), inverse);
        const vec dx = V_SUB(V_SUB(NAME(load)(p->dy + i, n), shift), V_MUL(normalized, tilt));
        NAME(store)(p->dx + i, V_MUL(dx, factor), n);
    }
}

static TARGET void NAME(normalize_back)(const mrn_normalization_pass *p) {
#define BODY(c, n) NAME(normalize_back_part)(p, c, n)
    EACH_PART(p->units, BODY);
#undef BODY
}

/* ---- Dropout ------------------------------------------------------------------------------------------- */

/* A random number from the place and the seed: two rounds of a 32-bit mixing of multiplications and shifts
 * (constants of Ellis' "lowbias32", 2018), one half of the seed before each. All compilers turn this plain
 * loop into vectors. */
static TARGET void NAME(drop)(const mrn_dropout_pass *p) {
    const uint32_t low = (uint32_t)*p->seed, high = (uint32_t)(*p->seed >> 32), threshold = p->threshold;
    const float *const from = p->from, scale = p->scale;
    float *const to = p->to;
    for (size_t i = 0; i < p->count; i++) {
        uint32_t h = (uint32_t)i + low;
        h = (h ^ h >> 16) * 0x7feb352dU;
        h = (h ^ h >> 15) * 0x846ca68bU;
        h = (h ^ h >> 16) + high;
        h = (h ^ h >> 16) * 0x7feb352dU;
        h = (h ^ h >> 15) * 0x846ca68bU;
        h ^= h >> 16;
        const float kept = from[i] * scale;
        to[i] = h < threshold ? 0.0F : kept;
    }
}

/* ---- Losses -------------------------------------------------------------------------------------------- */

/* ln x for x >= 1: x = 2^n m, ln m = 2 atanh(s) with s = (m - 1) / (m + 1) <= 1 / 3, whose series is cut
 * where its rest is under 1e-9. NaN gives NaN. */
static inline double NAME(log)(float x) {
    uint32_t pattern;
    if (!(x >= 1.0F))
        return (double)x;
    memcpy(&pattern, &x, sizeof pattern);
    const double n = (double)(pattern >> 23) - 127.0;
    pattern = (pattern & 0x007fffffU) | 0x3f800000U;
    memcpy(&x, &pattern, sizeof x);
    const double s = ((double)x - 1.0) / ((double)x + 1.0), z = s * s;
    double a = 1.0 / 15.0;
    a = a * z + 1.0 / 13.0;
    a = a * z + 1.0 / 11.0;
    a = a * z + 1.0 / 9.0;
    a = a * z + 1.0 / 7.0;
    a = a * z + 1.0 / 5.0;
    a = a * z + 1.0 / 3.0;
    return n * 0.69314718055994530942 + 2.0 * (s + s * z * a);
}

static inline TARGET float NAME(row_max)(const float *z, size_t units) {
    if (units < LANES) {
        float highest = z[0];
        for (size_t u = 1; u < units; u++)
            highest = z[u] > highest ? z[u] : highest;
        return highest;
    }
    vec strip[STRIP_VECTORS];
    vec highest = V_LOAD(z + units - LANES); /* the last ones, which may be seen twice */
    for (size_t u = 0; u + LANES <= units; u += LANES)
        highest = V_MAX(highest, V_LOAD(z + u));
    for (size_t v = 0; v < STRIP_VECTORS; v++)
        strip[v] = highest;
    return NAME(strip_max)(strip);
}

/* loss = ln sum e^(z - max) - sum t (z - max), its gradient softmax(z) - t; t is smoothed. */
static TARGET void NAME(row_crossentropy)(const mrn_loss_pass *p, size_t r, float weight) {
    const size_t units = p->units;
    float *const z = p->outputs + r * units;
    float *const gradient = p->gradient ? p->gradient + r * units : NULL;
    const float *const targets = p->classes ? NULL : p->targets + r * units;
    const float hard = 1.0F - p->smoothing, soft = p->smoothing / (float)units;
    const float most = NAME(row_max)(z, units);
    const vec highest = V_SET(most);
    const float chosen = p->classes ? z[p->classes[r]] : 0.0F;
    vec total = V_SET(0.0F), matched = V_SET(0.0F);
#define BODY(i, n)                                                                                           \
    do {                                                                                                     \
        const vec away = NAME(first)(V_SUB(NAME(load)(z + (i), n), highest), n);                             \
        const vec power = NAME(first)(NAME(exp)(away), n);                                                   \
        const vec t = targets ? V_FMA(NAME(load)(targets + (i), n), V_SET(hard), V_SET(soft)) : V_SET(soft); \
        NAME(store)(z + (i), power, n);                                                                      \
        total = V_ADD(total, power);                                                                         \
        matched = V_FMA(t, away, matched);                                                                   \
    } while (0)
    EACH_PART(units, BODY);
#undef BODY
    const float sum = NAME(lane_sum)(total), factor = weight / (float)p->rows;
    double loss = NAME(log)(sum) - (double)(targets || p->smoothing > 0 ? NAME(lane_sum)(matched) : 0.0F);
    if (p->classes)
        loss -= (double)hard * ((double)chosen - (double)most);
    p->losses[r] = (float)loss * weight;
    const vec share = V_SET(1.0F / sum);
#define BODY(i, n)                                                                                           \
    do {                                                                                                     \
        const vec probability = V_MUL(NAME(load)(z + (i), n), share);                                        \
        const vec t = targets ? V_FMA(NAME(load)(targets + (i), n), V_SET(hard), V_SET(soft)) : V_SET(soft); \
        NAME(store)(z + (i), probability, n);                                                                \
        if (gradient)                                                                                        \
            NAME(store)(gradient + (i), V_MUL(V_SUB(probability, t), V_SET(factor)), n);                     \
    } while (0)
    EACH_PART(units, BODY);
#undef BODY
    if (gradient && p->classes)
        gradient[p->classes[r]] = (z[p->classes[r]] - soft - hard) * factor;
}

/* part_NAME(p, z, t, slope): the loss of each output, its derivative, and what becomes of the output */
ALWAYS vec NAME(part_binary)(const mrn_loss_pass *p, vec *z, vec t, vec *slope) {
    const vec logit = *z;
    t = V_FMA(t, V_SET(1.0F - p->smoothing), V_SET(0.5F * p->smoothing));
    *z = NAME(sigmoid)(logit);
    *slope = V_SUB(*z, t);
    return V_SUB(NAME(softplus)(logit), V_MUL(logit, t));
}

ALWAYS vec NAME(part_squared)(const mrn_loss_pass *p, vec *z, vec t, vec *slope) {
    (void)p;
    const vec error = V_SUB(*z, t);
    *slope = V_ADD(error, error);
    return V_MUL(error, error);
}

ALWAYS vec NAME(part_absolute)(const mrn_loss_pass *p, vec *z, vec t, vec *slope) {
    (void)p;
    const vec error = V_SUB(*z, t), zero = V_SET(0.0F);
    *slope = V_IF_LESS(zero, error, V_SET(1.0F), V_IF_LESS(error, zero, V_SET(-1.0F), zero));
    return V_ABS(error);
}

ALWAYS vec NAME(part_huber)(const mrn_loss_pass *p, vec *z, vec t, vec *slope) {
    const vec error = V_SUB(*z, t);
    *slope = V_MIN(V_SET(p->delta), V_MAX(V_SET(-p->delta), error));
    return V_MUL(*slope, V_FMA(V_SET(-0.5F), *slope, error));
}

/* The mean over the outputs of a row. */
#define ROW(name)                                                                                            \
    static TARGET void NAME(row_##name)(const mrn_loss_pass *p, size_t r, float weight) {                    \
        const size_t units = p->units;                                                                       \
        const vec factor = V_SET(weight / (float)p->rows / (float)units);                                    \
        vec total = V_SET(0.0F);                                                                             \
        size_t u = 0;                                                                                        \
        for (; u + LANES <= units; u += LANES)                                                               \
            total = V_ADD(total, NAME(row_part_##name)(p, r * units + u, factor, LANES));                    \
        if (u < units)                                                                                       \
            total = V_ADD(total, NAME(row_part_##name)(p, r * units + u, factor, units - u));                \
        p->losses[r] = NAME(lane_sum)(total) / (float)units * weight;                                        \
    }
#define ROW_PART(name)                                                                                       \
    ALWAYS vec NAME(row_part_##name)(const mrn_loss_pass *p, size_t i, vec factor, size_t n) {               \
        vec z = NAME(load)(p->outputs + i, n), slope;                                                        \
        const vec loss = NAME(part_##name)(p, &z, NAME(load)(p->targets + i, n), &slope);                    \
        NAME(store)(p->outputs + i, z, n);                                                                   \
        if (p->gradient)                                                                                     \
            NAME(store)(p->gradient + i, V_MUL(slope, factor), n);                                           \
        return NAME(first)(loss, n);                                                                         \
    }                                                                                                        \
    ROW(name)
ROW_PART(binary)
ROW_PART(squared)
ROW_PART(absolute)
ROW_PART(huber)
#undef ROW_PART
#undef ROW

#define MRN_LOSS(id, name, row) [id] = NAME(row_##row),
static void (*const NAME(loss_rows)[])(const mrn_loss_pass *p, size_t r, float weight) = {
#include "losses.def"
};
#undef MRN_LOSS

static void NAME(loss)(const mrn_loss_pass *p) {
    double sum = 0;
    for (size_t r = 0; r < p->rows; r++) {
        NAME(loss_rows)[p->loss](p, r, p->weights ? p->weights[r] : 1.0F);
        sum += (double)p->losses[r];
    }
    *p->sum = sum;
}

/* ---- Optimizers ---------------------------------------------------------------------------------------- */

/* step_NAME(u, p, g, s): the new parameters; s[0], s[1], ... are what is kept, in the order of the slots. */
#define RULE(name) ALWAYS vec NAME(step_##name)(const mrn_update *u, vec p, vec g, vec *s)

/* a moved by a share of the way to b */
ALWAYS vec NAME(follow)(vec a, vec b, float share) {
    return V_FMA(V_SUB(b, a), V_SET(share), a);
}

/* a less a share of itself, plus b */
ALWAYS vec NAME(add_up)(vec a, vec b, float share) {
    return V_ADD(V_FMA(a, V_SET(-share), a), b);
}

RULE(sgd) {
    (void)s;
    return V_SUB(p, V_MUL(g, V_SET(u->rate)));
}

RULE(momentum) {
    s[0] = V_SUB(V_MUL(s[0], V_SET(u->momentum)), V_MUL(g, V_SET(u->rate)));
    return V_ADD(p, s[0]);
}

RULE(nesterov) {
    const vec step = V_MUL(g, V_SET(u->rate));
    s[0] = V_SUB(V_MUL(s[0], V_SET(u->momentum)), step);
    return V_FMA(s[0], V_SET(u->momentum), V_SUB(p, step));
}

RULE(adagrad) {
    s[0] = V_FMA(g, g, s[0]);
    return V_SUB(p, V_DIV(V_MUL(g, V_SET(u->rate)), V_SQRT(V_ADD(s[0], V_SET(u->epsilon)))));
}

/* Slots: square, mean if centred, velocity if there is momentum. */
ALWAYS vec NAME(rmsprop_any)(const mrn_update *u, vec p, vec g, vec *square, vec *mean, vec *velocity) {
    *square = NAME(follow)(*square, V_MUL(g, g), u->share_2);
    vec size = *square;
    if (mean) {
        *mean = NAME(follow)(*mean, g, u->share_2);
        size = V_SUB(size, V_MUL(*mean, *mean));
    }
    vec step = V_DIV(V_MUL(g, V_SET(u->rate)), V_SQRT(V_ADD(size, V_SET(u->epsilon))));
    if (velocity) {
        *velocity = V_FMA(*velocity, V_SET(u->momentum), step);
        step = *velocity;
    }
    return V_SUB(p, step);
}
RULE(rmsprop) {
    return NAME(rmsprop_any)(u, p, g, s, NULL, NULL);
}
RULE(rmsprop_momentum) {
    return NAME(rmsprop_any)(u, p, g, s, NULL, s + 1);
}
RULE(rmsprop_centered) {
    return NAME(rmsprop_any)(u, p, g, s, s + 1, NULL);
}
RULE(rmsprop_centered_momentum) {
    return NAME(rmsprop_any)(u, p, g, s, s + 1, s + 2);
}

/* Slots: m / (1 - beta_1), v / (1 - beta_2) and its maximum. */
RULE(adam) {
    s[0] = NAME(add_up)(s[0], g, u->share_1);
    s[1] = NAME(add_up)(s[1], V_MUL(g, g), u->share_2);
    return V_SUB(p, V_DIV(V_MUL(s[0], V_SET(u->rate)), V_ADD(V_SQRT(s[1]), V_SET(u->epsilon))));
}
RULE(amsgrad) {
    s[0] = NAME(add_up)(s[0], g, u->share_1);
    s[1] = NAME(add_up)(s[1], V_MUL(g, g), u->share_2);
    s[2] = V_MAX(s[2], s[1]);
    return V_SUB(p, V_DIV(V_MUL(s[0], V_SET(u->rate)), V_ADD(V_SQRT(s[2]), V_SET(u->epsilon))));
}

/* Slots: mean, largest. */
RULE(adamax) {
    s[0] = NAME(follow)(s[0], g, u->share_1);
    s[1] = V_MAX(NAME(add_up)(s[1], V_SET(0.0F), u->share_2), V_ABS(g));
    return V_SUB(p, V_DIV(V_MUL(s[0], V_SET(u->rate)), V_ADD(s[1], V_SET(u->epsilon))));
}

/* Slots: mean, square. */
RULE(nadam) {
    s[0] = NAME(follow)(s[0], g, u->share_1);
    s[1] = NAME(follow)(s[1], V_MUL(g, g), u->share_2);
    const vec step = V_FMA(s[0], V_SET(u->ahead), V_MUL(g, V_SET(u->rate)));
    const vec size = V_SQRT(V_MUL(s[1], V_SET(u->correction)));
    return V_SUB(p, V_DIV(step, V_ADD(size, V_SET(u->epsilon))));
}

#define MRN_OPTIMIZER(id, name, slot_count)                                                                  \
    ALWAYS void NAME(update_part_##name)(const mrn_update *u, size_t i, size_t n) {                          \
        vec g = V_MUL(NAME(load)(u->gradients + i, n), V_SET(u->scale)), s[3];                               \
        g = V_MIN(V_SET(u->limit), V_MAX(V_SET(-u->limit), g));                                              \
        UNROLL for (int k = 0; k < (slot_count); k++) s[k] = NAME(load)(u->slots[k] + i, n);                 \
        vec p = NAME(load)(u->parameters + i, n);                                                            \
        p = V_FMA(p, V_SET(-u->decay), p);                                                                   \
        p = NAME(step_##name)(u, p, g, s);                                                                   \
        NAME(store)(u->parameters + i, p, n);                                                                \
        UNROLL for (int k = 0; k < (slot_count); k++) NAME(store)(u->slots[k] + i, s[k], n);                 \
        if (u->average) {                                                                                    \
            const vec average = NAME(load)(u->average + i, n);                                               \
            NAME(store)(u->average + i, V_FMA(V_SUB(p, average), V_SET(u->share), average), n);              \
        }                                                                                                    \
    }                                                                                                        \
    static TARGET void NAME(update_##name)(const mrn_update *update) {                                       \
        const mrn_update copy = *update, *const u = &copy; /* no store may change it */                      \
        size_t i = 0;                                                                                        \
        for (; i + LANES <= u->count; i += LANES)                                                            \
            NAME(update_part_##name)(u, i, LANES);                                                           \
        if (i < u->count)                                                                                    \
            NAME(update_part_##name)(u, i, u->count - i);                                                    \
    }
#include "optimizers.def"
#undef MRN_OPTIMIZER

#define MRN_OPTIMIZER(id, name, slots) [id] = NAME(update_##name),
static void (*const NAME(updates)[])(const mrn_update *u) = {
#include "optimizers.def"
};
#undef MRN_OPTIMIZER

static void NAME(update)(const mrn_update *u) {
    NAME(updates)[u->optimizer](u);
}

enum { NAME(RUN) = 64 }; /* vectors whose squares are summed in float32 before they go on in double */

static TARGET double NAME(squares)(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i += NAME(RUN) * LANES) {
        const size_t run = count - i < NAME(RUN) * LANES ? count - i : NAME(RUN) * LANES;
        const float *const from = values + i;
        vec part = V_SET(0.0F);
#define BODY(j, n)                                                                                           \
    do {                                                                                                     \
        const vec v = NAME(load)(from + (j), n);                                                             \
        part = V_FMA(v, v, part);                                                                            \
    } while (0)
        EACH_PART(run, BODY);
#undef BODY
        double found = (double)NAME(lane_sum)(part);
        if (found > (double)FLT_MAX) { /* the square of a large number is no float32 */
            found = 0;
            for (size_t j = 0; j < run; j++)
                found += (double)from[j] * (double)from[j];
        }
        sum += found;
    }
    return sum;
}

#undef UP
#undef DOWN
#undef IGNORE_UP
#undef IGNORE_DOWN
#undef RULE
#undef EACH_PART
#undef ALWAYS
