/* The portable reference: plain C11, four floats at a time, multiply and add rounded one by one. */
#include <string.h>

#define ISA generic
#define TARGET
#define V 4
#define TILE 4

typedef struct {
    float lane[V];
} vec;

#define EACH(expression)                                                                                     \
    vec r;                                                                                                   \
    for (int i = 0; i < V; i++)                                                                              \
        r.lane[i] = (expression);                                                                            \
    return r;

static inline vec VSET(float f) { EACH(f) }
static inline vec VZERO(void) { EACH(0.0f) }
static inline vec VLOAD(const float *p) { EACH(p[i]) }
static inline void VSTORE(float *p, vec v) { memcpy(p, v.lane, sizeof v.lane); }
static inline vec VFMA(vec a, vec b, vec c) { EACH(a.lane[i] * b.lane[i] + c.lane[i]) }
static inline vec VADD(vec a, vec b) { EACH(a.lane[i] + b.lane[i]) }
static inline vec VSUB(vec a, vec b) { EACH(a.lane[i] - b.lane[i]) }
static inline vec VMUL(vec a, vec b) { EACH(a.lane[i] * b.lane[i]) }
static inline vec VDIV(vec a, vec b) { EACH(a.lane[i] / b.lane[i]) }
static inline vec VMIN(vec a, vec b) { EACH(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]) }
static inline vec VMAX(vec a, vec b) { EACH(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]) }

/* Adding and taking away 1.5 * 2^23 leaves no fraction bits: rounds to nearest even for |x| < 2^22. */
static inline vec VROUND(vec a) { EACH((a.lane[i] + 12582912.0f) - 12582912.0f) }

static inline float pow2(float n) {
    const unsigned bits = n != n ? 0x7fc00000u : (unsigned)((int)n + 127) << 23; /* NaN has no integer */
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}
static inline vec VPOW2(vec n) { EACH(pow2(n.lane[i])) }

static inline vec VABS_LESS(vec a, float limit, vec x, vec y) {
    EACH((a.lane[i] < 0.0f ? -a.lane[i] : a.lane[i]) < limit ? x.lane[i] : y.lane[i])
}

#include "kernels_template.h"
