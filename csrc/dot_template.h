/* A layer of dot products, written once for all instruction sets that keep sums in vectors; dot.h explains
 * the cells. The including file defines NAME, TARGET, LANES, STRIP_VECTORS, TILE_ROWS, TILES, LANE_UNITS,
 * LANE_VECTORS, LANE_TILES, V_LOAD, V_STORE, V_SET and V_MAX as for dense_template.h (kernels_generic.c), and
 *   PANEL_STRIPS, STAGED                 strips of a panel, bytes of a staged group: as in mrn_dots
 *   I_LOAD(p), I_SET(i)           the same for LANES of int32_t; a cell is one, too
 *   WEIGHTS, TAKE_WEIGHTS(cells)  the weights of LANES cells, taken apart as DOT wants them
 *   VALUES                        the staged numbers of LANES groups, likewise
 *   VALUE(at)                     those of one group, in every lane
 *   VALUES_OF_LANES(at, half)     those of LANES rows; what is STAGED beyond a cell comes `half` bytes later
 *   SUM                           a vector of LANES sums
 *   DOT(sum, values, weights)     sum + the products of a cell
 *   FIRST(bias, row, unit)        what sums begin with; row and unit are `first` of dot.h
 *   LAST(sum, zero, total, scale, unit_scale, bias)  the float32 that they end as: zero and scale are what
 *                                 staging found out of the row, the others are of the unit
 *   RANGES(x, x_stride, rows, inputs, about, row), STAGE(x, inputs, groups, about, row, cells)  of
 * dot_stage.h STAGE_LANES(x, inputs, rows, about, cells)  of dot_lanes.h */

static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const size_t R, const size_t S, const mrn_dot_layer *layer, size_t unit,
           const unsigned char *weight, size_t line, size_t strip_stride, const unsigned char *staged,
           mrn_dot_rows about, size_t row, float *y, size_t y_stride) {
    SUM sum[TILE_ROWS][MRN_PANEL_STRIPS * STRIP_VECTORS];
    const size_t V = S * STRIP_VECTORS, depth = layer->groups * STAGED;
    (void)about, (void)row; /* not every FIRST and LAST looks at them */

    UNROLL for (size_t r = 0; r < R; r++) {
        UNROLL for (size_t v = 0; v < V; v++) {
            sum[r][v] = FIRST(V_LOAD(layer->bias + unit + v * LANES), I_SET(about.first[row + r]),
                              I_LOAD(layer->first + unit + v * LANES));
        }
    }
    for (const unsigned char *end = staged + depth; staged != end; staged += STAGED, weight += line) {
        WEIGHTS w[MRN_PANEL_STRIPS * STRIP_VECTORS];
        UNROLL for (size_t v = 0; v < V; v++) w[v] = TAKE_WEIGHTS(
            I_LOAD(weight + v / STRIP_VECTORS * strip_stride + v % STRIP_VECTORS * LANES * MRN_CELL));
        UNROLL for (size_t r = 0; r < R; r++) {
            const VALUES value = VALUE(staged + r * depth);
            UNROLL for (size_t v = 0; v < V; v++) sum[r][v] = DOT(sum[r][v], value, w[v]);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) {
        UNROLL for (size_t v = 0; v < V; v++) {
            V_STORE(y + r * y_stride + v * LANES,
                    V_MAX(V_SET(layer->floor),
                          LAST(sum[r][v], I_SET(about.zero[row + r]), I_LOAD(layer->sum + unit + v * LANES),
                               V_SET(about.scale[row + r]), V_LOAD(layer->scale + unit + v * LANES),
                               V_LOAD(layer->bias + unit + v * LANES))));
        }
    }
}

#define TILE(R, S)                                                                                           \
    static TARGET void NAME(tile_##R##x##S)(const mrn_dot_layer *layer, size_t unit,                         \
                                            const unsigned char *weight, size_t line, size_t strip_stride,   \
                                            const unsigned char *staged, mrn_dot_rows about, size_t row,     \
                                            float *y, size_t y_stride) {                                     \
        NAME(tile)(R, S, layer, unit, weight, line, PANEL_STRIPS > 1 ? MRN_STRIP * MRN_CELL : strip_stride,  \
                   staged, about, row, y, y_stride);                                                         \
    }
TILES(TILE)
#undef TILE

typedef void NAME(tile_function)(const mrn_dot_layer *layer, size_t unit, const unsigned char *weight,
                                 size_t line, size_t strip_stride, const unsigned char *staged,
                                 mrn_dot_rows about, size_t row, float *y, size_t y_stride);

/* By rows - 1 and strips - 1; NULL where so many sums would not fit into the registers. */
#define TILE(R, S) [(R) - 1][(S) - 1] = NAME(tile_##R##x##S),
static NAME(tile_function) *const NAME(tiles)[TILE_ROWS][MRN_PANEL_STRIPS] = {TILES(TILE)};
#undef TILE

static TARGET void NAME(dense)(const mrn_dot_layer *layer, const float *x, size_t x_stride, size_t rows,
                               float *y, void *stage) {
    const mrn_dot_rows about = mrn_dot_records(stage, rows);
    unsigned char *staged = mrn_dot_cells(stage, rows);
    const size_t depth = layer->groups * STAGED, width = layer->strips * MRN_STRIP;
    const unsigned char *weight = layer->weight;
    for (size_t row = 0, end; row < rows; row = end) {
        end = rows - row < MRN_DOT_STAGED ? rows : row + MRN_DOT_STAGED;
        RANGES(x + row * x_stride, x_stride, end - row, layer->inputs, about, row);
        for (size_t r = row; r < end; r++)
            STAGE(x + r * x_stride, layer->inputs, layer->groups, about, r, staged + r * depth);
    }
    for (size_t first = 0; first < layer->strips; first += MRN_PANEL_STRIPS) {
        const size_t left = layer->strips - first, strips = left < MRN_PANEL_STRIPS ? left : MRN_PANEL_STRIPS;
        const size_t line = (PANEL_STRIPS > 1 ? strips : 1) * MRN_STRIP * MRN_CELL;
        const size_t strip_stride = (PANEL_STRIPS > 1 ? 1 : layer->groups) * MRN_STRIP * MRN_CELL;
        for (size_t row = 0, r; row < rows; row += r) {
            const size_t tiles = (rows - row + TILE_ROWS - 1) / TILE_ROWS;
            r = (rows - row + tiles - 1) / tiles; /* even tiles, as in dense_template.h */
            for (size_t s = 0, n; s < strips; s += n) {
                for (n = strips - s; !NAME(tiles)[r - 1][n - 1]; n--) /* ends: there is a tile for 1 strip */
                    ;
                NAME(tile_function) *const tile = NAME(tiles)[r - 1][n - 1];
                const size_t unit = (first + s) * MRN_STRIP;
                tile(layer, unit, weight + s * strip_stride, line, strip_stride, staged + row * depth, about,
                     row, y + row * width + unit, width);
            }
        }
        weight += strips * MRN_STRIP * MRN_CELL * layer->groups;
    }
}

/* U units of V vectors of rows: as NAME(tile), but each weight goes to every lane and each lane is a row. */
static inline __attribute__((always_inline)) TARGET void
NAME(lane_tile)(const size_t U, const size_t V, const mrn_dot_layer *layer, size_t unit,
                const unsigned char *weight, size_t line, const unsigned char *staged, size_t rows,
                mrn_dot_rows about, size_t row, float *y) {
    SUM sum[LANE_UNITS][LANE_VECTORS];
    (void)about, (void)row;

    UNROLL for (size_t u = 0; u < U; u++) {
        UNROLL for (size_t v = 0; v < V; v++) sum[u][v] =
            FIRST(V_SET(layer->bias[unit + u]), I_LOAD(about.first + row + v * LANES),
                  I_SET(layer->first[unit + u]));
    }
    for (size_t g = 0; g < layer->groups; g++, weight += line, staged += rows * STAGED) {
        VALUES value[LANE_VECTORS];
        UNROLL for (size_t v = 0; v < V; v++) value[v] =
            VALUES_OF_LANES(staged + v * LANES * MRN_CELL, rows * MRN_CELL);
        UNROLL for (size_t u = 0; u < U; u++) {
            const WEIGHTS w = TAKE_WEIGHTS(I_SET(mrn_dot_cell(weight + u * MRN_CELL)));
            UNROLL for (size_t v = 0; v < V; v++) sum[u][v] = DOT(sum[u][v], value[v], w);
        }
    }
    UNROLL for (size_t u = 0; u < U; u++) {
        UNROLL for (size_t v = 0; v < V; v++) {
            V_STORE(y + u * rows + v * LANES,
                    V_MAX(V_SET(layer->floor),
                          LAST(sum[u][v], I_LOAD(about.zero + row + v * LANES), I_SET(layer->sum[unit + u]),
                               V_LOAD(about.scale + row + v * LANES), V_SET(layer->scale[unit + u]),
                               V_SET(layer->bias[unit + u]))));
        }
    }
}

#define TILE(U)                                                                                              \
    static TARGET void NAME(lane_tile_##U)(const mrn_dot_layer *layer, size_t unit,                          \
                                           const unsigned char *weight, size_t line,                         \
                                           const unsigned char *staged, size_t rows, mrn_dot_rows about,     \
                                           size_t row, float *y, size_t vectors) {                           \
        if (vectors == LANE_VECTORS)                                                                         \
            NAME(lane_tile)(U, LANE_VECTORS, layer, unit, weight, line, staged, rows, about, row, y);        \
        else                                                                                                 \
            NAME(lane_tile)(U, 1, layer, unit, weight, line, staged, rows, about, row, y);                   \
    }
LANE_TILES(TILE)
#undef TILE

#define TILE(U) [(U) - 1] = NAME(lane_tile_##U),
static void (*const NAME(lane_tiles)[])(const mrn_dot_layer *layer, size_t unit, const unsigned char *weight,
                                        size_t line, const unsigned char *staged, size_t rows,
                                        mrn_dot_rows about, size_t row, float *y,
                                        size_t vectors) = {LANE_TILES(TILE)};
#undef TILE

static TARGET void NAME(lanes)(const mrn_dot_layer *layer, const float *x, size_t rows, float *y,
                               void *stage) {
    const mrn_dot_rows about = mrn_dot_records(stage, rows);
    unsigned char *staged = mrn_dot_cells(stage, rows);
    const unsigned char *weight = layer->weight;

    STAGE_LANES(x, layer->inputs, rows, about, staged);
    for (size_t first = 0; first < layer->strips; first += PANEL_STRIPS) {
        const size_t left = layer->strips - first;
        const size_t line = (left < PANEL_STRIPS ? left : PANEL_STRIPS) * MRN_STRIP;
        const size_t start = first * MRN_STRIP, end = start + line;
        const size_t units = (end < layer->units ? end : layer->units) - start;
        for (size_t unit = 0, n; unit < units; unit += n) {
            const size_t tiles = (units - unit + LANE_UNITS - 1) / LANE_UNITS;
            n = (units - unit + tiles - 1) / tiles;
            for (size_t row = 0, vectors; row < rows; row += vectors * LANES) {
                vectors = rows - row >= LANE_VECTORS * LANES ? LANE_VECTORS : 1;
                NAME(lane_tiles)
                [n - 1](layer, start + unit, weight + unit *MRN_CELL, line *MRN_CELL, staged + row *MRN_CELL,
                        rows, about, row, y + (start + unit) *rows + row, vectors);
            }
        }
        weight += line * MRN_CELL * layer->groups;
    }
}
