/* The dense layer, written once for all instruction sets. kernels_generic.c says what the including file
 * defines; kernels.h explains the packed weights.
 *
 * A tile is R rows by S strips, its sums in registers from the bias to the activation's floor. Its strips lie
 * side by side in a panel of several, one after the other where a panel is one strip. */

static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const size_t R, const size_t S, const float *weight, size_t weight_stride, size_t strip_stride,
           const float *bias, const float *x, size_t x_stride, size_t inputs, float floor, float *y,
           size_t y_stride) {
    vec sum[TILE_ROWS][MRN_PANEL_STRIPS * STRIP_VECTORS];
    const size_t V = S * STRIP_VECTORS;

    UNROLL for (size_t v = 0; v < V; v++) {
        const vec b = V_LOAD(bias + v * LANES);
        UNROLL for (size_t r = 0; r < R; r++) sum[r][v] = b;
    }
    for (size_t k = 0; k < inputs; k++, weight += weight_stride, x++) {
        vec w[MRN_PANEL_STRIPS * STRIP_VECTORS];
        UNROLL for (size_t v = 0; v < V; v++) w[v] =
            V_LOAD(weight + v / STRIP_VECTORS * strip_stride + v % STRIP_VECTORS * LANES);
        UNROLL for (size_t r = 0; r < R; r++) {
            const vec value = V_SET(x[r * x_stride]);
            UNROLL for (size_t v = 0; v < V; v++) sum[r][v] = V_FMA(value, w[v], sum[r][v]);
        }
    }
    const vec low = V_SET(floor);
    UNROLL for (size_t r = 0; r < R; r++) {
        UNROLL for (size_t v = 0; v < V; v++) V_STORE(y + r * y_stride + v * LANES, V_MAX(low, sum[r][v]));
    }
}

#define TILE(R, S)                                                                                           \
    static TARGET void NAME(tile_##R##x##S)(const float *weight, size_t weight_stride, size_t strip_stride,  \
                                            const float *bias, const float *x, size_t x_stride,              \
                                            size_t inputs, float floor, float *y, size_t y_stride) {         \
        NAME(tile)(R, S, weight, weight_stride, PANEL_STRIPS > 1 ? MRN_STRIP : strip_stride, bias, x,        \
                   x_stride, inputs, floor, y, y_stride);                                                    \
    }
TILES(TILE)
#undef TILE

typedef void NAME(tile_function)(const float *weight, size_t weight_stride, size_t strip_stride,
                                 const float *bias, const float *x, size_t x_stride, size_t inputs,
                                 float floor, float *y, size_t y_stride);

/* By rows - 1 and strips - 1; NULL where so many sums would not fit into the registers. */
#define TILE(R, S) [(R) - 1][(S) - 1] = NAME(tile_##R##x##S),
static NAME(tile_function) *const NAME(tiles)[TILE_ROWS][MRN_PANEL_STRIPS] = {TILES(TILE)};
#undef TILE

static const struct {
    float floor;
    void (*pass)(float *y, size_t rows, size_t width, const float *slope);
    void (*lanes)(float *y, size_t units, size_t rows, const float *slope);
} NAME(activations)[] = {
#define MRN_ACTIVATION(id, name, floor, pass, sloped) [id] = {(floor), NAME(pass_##pass), NAME(lanes_##pass)},
#include "activations.def"
#undef MRN_ACTIVATION
};

static TARGET void NAME(dense)(const mrn_dense *layer, const float *x, size_t x_stride, size_t rows,
                               float *y) {
    const size_t width = layer->strips * MRN_STRIP;
    const float floor = NAME(activations)[layer->activation].floor;
    const float *weight = layer->weight;

    for (size_t first = 0; first < layer->strips; first += MRN_PANEL_STRIPS) {
        const size_t left = layer->strips - first;
        const size_t strips = left < MRN_PANEL_STRIPS ? left : MRN_PANEL_STRIPS;
        const size_t weight_stride = PANEL_STRIPS > 1 ? strips * MRN_STRIP : MRN_STRIP;
        const size_t strip_stride = PANEL_STRIPS > 1 ? MRN_STRIP : MRN_STRIP * layer->inputs;
        for (size_t row = 0, r; row < rows; row += r) {
            const size_t tiles = (rows - row + TILE_ROWS - 1) / TILE_ROWS;
            r = (rows - row + tiles - 1) / tiles; /* even tiles: 4 + 4 rows, not 6 + 2 */
            for (size_t s = 0, n; s < strips; s += n) {
                for (n = strips - s; !NAME(tiles)[r - 1][n - 1]; n--) /* ends: there is a tile for 1 strip */
                    ;
                NAME(tile_function) *const tile = NAME(tiles)[r - 1][n - 1];
                const size_t unit = (first + s) * MRN_STRIP;
                tile(weight + s * strip_stride, weight_stride, strip_stride, layer->bias + unit,
                     x + row * x_stride, x_stride, layer->inputs, floor, y + row * width + unit, width);
            }
        }
        weight += strips * MRN_STRIP * layer->inputs;
    }
    NAME(activations)[layer->activation].pass(y, rows, width, layer->slope);
}

static TARGET void NAME(activate)(uint32_t activation, const float *slope, float *y, size_t rows,
                                  size_t width) {
    NAME(activations)[activation].pass(y, rows, width, slope);
}

static TARGET void NAME(activate_lanes)(uint32_t activation, const float *slope, float *y, size_t units,
                                        size_t rows) {
    NAME(activations)[activation].lanes(y, units, rows, slope);
}

/* U units of V vectors of rows, as NAME(tile), but each weight goes to every lane and each lane is a row. */
static inline __attribute__((always_inline)) TARGET void
NAME(lane_tile)(const size_t U, const size_t V, const float *weight, size_t weight_stride, const float *bias,
                const float *x, size_t rows, size_t inputs, float floor, float *y) {
    vec sum[LANE_UNITS][LANE_VECTORS];

    UNROLL for (size_t u = 0; u < U; u++) {
        UNROLL for (size_t v = 0; v < V; v++) sum[u][v] = V_SET(bias[u]);
    }
    for (size_t k = 0; k < inputs; k++, weight += weight_stride, x += rows) {
        vec value[LANE_VECTORS];
        UNROLL for (size_t v = 0; v < V; v++) value[v] = V_LOAD(x + v * LANES);
        UNROLL for (size_t u = 0; u < U; u++) {
            const vec w = V_SET(weight[u]);
            UNROLL for (size_t v = 0; v < V; v++) sum[u][v] = V_FMA(value[v], w, sum[u][v]);
        }
    }
    const vec low = V_SET(floor);
    UNROLL for (size_t u = 0; u < U; u++) {
        UNROLL for (size_t v = 0; v < V; v++) V_STORE(y + u * rows + v * LANES, V_MAX(low, sum[u][v]));
    }
}

#define TILE(U)                                                                                              \
    static TARGET void NAME(lane_tile_##U)(const float *weight, size_t weight_stride, const float *bias,     \
                                           const float *x, size_t rows, size_t inputs, float floor,          \
                                           float *y, size_t vectors) {                                       \
        if (vectors == LANE_VECTORS)                                                                         \
            NAME(lane_tile)(U, LANE_VECTORS, weight, weight_stride, bias, x, rows, inputs, floor, y);        \
        else                                                                                                 \
            NAME(lane_tile)(U, 1, weight, weight_stride, bias, x, rows, inputs, floor, y);                   \
    }
LANE_TILES(TILE)
#undef TILE

#define TILE(U) [(U) - 1] = NAME(lane_tile_##U),
static void (*const NAME(lane_tiles)[])(const float *weight, size_t weight_stride, const float *bias,
                                        const float *x, size_t rows, size_t inputs, float floor, float *y,
                                        size_t vectors) = {LANE_TILES(TILE)};
#undef TILE

static TARGET void NAME(lanes)(const mrn_dense *layer, const float *x, size_t rows, float *y) {
    const float floor = NAME(activations)[layer->activation].floor;
    const float *weight = layer->weight;

    for (size_t first = 0; first < layer->strips; first += PANEL_STRIPS) {
        const size_t left = layer->strips - first;
        const size_t stride = (left < PANEL_STRIPS ? left : PANEL_STRIPS) * MRN_STRIP;
        const size_t start = first * MRN_STRIP, end = start + stride;
        const size_t units = (end < layer->units ? end : layer->units) - start;
        for (size_t unit = 0, n; unit < units; unit += n) {
            const size_t tiles = (units - unit + LANE_UNITS - 1) / LANE_UNITS;
            n = (units - unit + tiles - 1) / tiles;
            for (size_t row = 0, vectors; row < rows; row += vectors * LANES) {
                vectors = rows - row >= LANE_VECTORS * LANES ? LANE_VECTORS : 1;
                NAME(lane_tiles)
                [n - 1](weight + unit, stride, layer->bias + start + unit, x + row, rows, layer->inputs,
                        floor, y + (start + unit) *rows + row, vectors);
            }
        }
        weight += stride * layer->inputs;
    }
    NAME(activations)[layer->activation].lanes(y, layer->units, rows, layer->slope);
}
