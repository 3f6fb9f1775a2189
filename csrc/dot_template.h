/* A layer of dot products, written once for all instruction sets that keep sums in vectors; dot.h explains
 * the cells. The including file defines NAME, TARGET, LANES, STRIP_VECTORS, TILE_ROWS and TILES as for
 * dense_template.h, and WEIGHTS, GET_WEIGHTS(p)  the cells of LANES units, taken apart as DOT wants them
 *   VALUE, GET_VALUE(p)      one cell of a row, in every lane, likewise
 *   SUM                      a vector of LANES sums
 *   DOT(sum, value, weights) sum + the products of a cell
 *   FIRST(layer, unit)       what the sums of LANES units begin with
 *   LAST(layer, unit, row, sum)  the float32 that they end as, for a row of which staging found out *row
 *   RANGE(x, inputs), STAGE(x, inputs, groups, cells, row)  of dot_stage.h, for one row */

static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const size_t R, const size_t S, const mrn_dot_layer *layer, size_t unit,
           const unsigned char *weight, size_t weight_stride, const unsigned char *cells,
           const mrn_dot_row *row, float *y, size_t y_stride) {
    SUM sum[TILE_ROWS][MRN_PANEL_STRIPS * STRIP_VECTORS];
    const size_t V = S * STRIP_VECTORS, depth = layer->groups * MRN_CELL;
    (void)row; /* not every LAST looks at it */

    UNROLL for (size_t v = 0; v < V; v++) {
        const SUM first = FIRST(layer, unit + v * LANES);
        UNROLL for (size_t r = 0; r < R; r++) sum[r][v] = first;
    }
    for (const unsigned char *end = cells + depth; cells != end; cells += MRN_CELL, weight += weight_stride) {
        WEIGHTS w[MRN_PANEL_STRIPS * STRIP_VECTORS];
        UNROLL for (size_t v = 0; v < V; v++) w[v] = GET_WEIGHTS(weight + v * LANES * MRN_CELL);
        UNROLL for (size_t r = 0; r < R; r++) {
            const VALUE value = GET_VALUE(cells + r * depth);
            UNROLL for (size_t v = 0; v < V; v++) sum[r][v] = DOT(sum[r][v], value, w[v]);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) {
        UNROLL for (size_t v = 0; v < V; v++)
            V_STORE(y + r * y_stride + v * LANES, LAST(layer, unit + v * LANES, row + r, sum[r][v]));
    }
}

#define TILE(R, S)                                                                                           \
    static TARGET void NAME(tile_##R##x##S)(                                                                 \
        const mrn_dot_layer *layer, size_t unit, const unsigned char *weight, size_t weight_stride,          \
        const unsigned char *cells, const mrn_dot_row *row, float *y, size_t y_stride) {                     \
        NAME(tile)(R, S, layer, unit, weight, weight_stride, cells, row, y, y_stride);                       \
    }
TILES(TILE)
#undef TILE

typedef void NAME(tile_function)(const mrn_dot_layer *layer, size_t unit, const unsigned char *weight,
                                 size_t weight_stride, const unsigned char *cells, const mrn_dot_row *row,
                                 float *y, size_t y_stride);

/* By rows - 1 and strips - 1; NULL where so many sums would not fit into the registers. */
#define TILE(R, S) [(R) - 1][(S) - 1] = NAME(tile_##R##x##S),
static NAME(tile_function) *const NAME(tiles)[TILE_ROWS][MRN_PANEL_STRIPS] = {TILES(TILE)};
#undef TILE

static TARGET void NAME(dense)(const mrn_dot_layer *layer, const float *x, size_t x_stride, size_t rows,
                               float *y, void *stage) {
    mrn_dot_row *about = stage;
    unsigned char *cells = mrn_dot_cells(stage, rows);
    const size_t depth = layer->groups * MRN_CELL, width = layer->strips * MRN_STRIP;
    const unsigned char *weight = layer->weight;

    for (size_t row = 0, end; row < rows; row = end) {
        end = rows - row < MRN_DOT_STAGED ? rows : row + MRN_DOT_STAGED;
        for (size_t r = row; r < end; r++)
            about[r] = RANGE(x + r * x_stride, layer->inputs);
        for (size_t r = row; r < end; r++)
            STAGE(x + r * x_stride, layer->inputs, layer->groups, cells + r * depth, about + r);
    }
    for (size_t first = 0; first < layer->strips; first += MRN_PANEL_STRIPS) {
        const size_t left = layer->strips - first;
        const size_t strips = left < MRN_PANEL_STRIPS ? left : MRN_PANEL_STRIPS;
        for (size_t row = 0, r; row < rows; row += r) {
            const size_t tiles = (rows - row + TILE_ROWS - 1) / TILE_ROWS;
            r = (rows - row + tiles - 1) / tiles; /* even tiles, as in dense_template.h */
            for (size_t s = 0, n; s < strips; s += n) {
                for (n = strips - s; !NAME(tiles)[r - 1][n - 1]; n--) /* ends: there is a tile for 1 strip */
                    ;
                const size_t unit = (first + s) * MRN_STRIP;
                NAME(tiles)
                [r - 1][n - 1](layer, unit, weight + s *MRN_STRIP *MRN_CELL, strips *MRN_STRIP *MRN_CELL,
                               cells + row *depth, about + row, y + row *width + unit, width);
            }
        }
        weight += strips * MRN_STRIP * MRN_CELL * layer->groups;
    }
}
