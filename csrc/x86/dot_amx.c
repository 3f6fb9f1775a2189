/* bfloat16, int8 and float32-split on AMX: C (16 rows x 16 units) += A (rows x 64 bytes) * B (64 bytes x
 * units), for two tiles of rows and two strips at a time, so that each tile that is loaded is used twice.
 *
 * The instructions are written out, not intrinsics: those of gcc 12 do not tell the compiler which memory
 * they read. The tiles are configured at the start of a call and released at its end, so that no other user
 * of them in this process meets ours, and no task switch saves them for nothing.
 *
 * A strip pair's weights for BLOCK_TILES tiles of inputs fit the first-level cache; all rows pass by them
 * before the next ones are looked at. Sums wait in y meanwhile. So a row's sums are taken in one order,
 * whatever the batch. */
#include "../cpu.h"

#if defined(MRN_X86)

#define TARGET                                                                                               \
    __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,amx-tile,amx-int8,amx-bf16")))
#define SET(x) x##_amx
#include "dot_avx512.h"

enum {
    TILE_ROWS = 16,
    LINE = 64,                    /* bytes of a row of a tile */
    TILE_CELLS = LINE / MRN_CELL, /* groups of inputs that a tile spans */
    BLOCK_TILES = 15,             /* 2 strips of them are 30 KiB; a multiple of the planes of a split */
};

typedef enum operation { BFLOAT16, INT8, SPLIT } operation;

#define TILE_LOAD(tile, at, stride)                                                                          \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(at), "r"(stride) : "memory")
#define TILE_STORE(tile, at, stride)                                                                         \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(at), "r"(stride) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
#define TILE_DOT(operation, c, a, b)                                                                         \
    if ((operation) == INT8)                                                                                 \
        __asm__ volatile("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :);                                  \
    else                                                                                                     \
        __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

/* What ldtilecfg reads. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 0-3: sums of (first, second) rows x (first, second) strip; 4, 5: rows; 6, 7: weights. */
static TARGET void configure(size_t first, size_t second) {
    const uint8_t r = (uint8_t)first, s = (uint8_t)second;
    const uint16_t second_bytes = s ? LINE : 0;
    const tile_config config = {
        .palette = 1,
        .row_bytes = {LINE, LINE, second_bytes, second_bytes, LINE, second_bytes, LINE, LINE},
        .rows = {r, r, s, s, r, s, TILE_ROWS, TILE_ROWS},
    };
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

/* Where the staged rows, the weights and the sums of a block begin, and how far it is from one of them to the
 * next. */
typedef struct operands {
    const unsigned char *a, *b;
    float *c;
    size_t a_stride, b_stride, c_stride; /* bytes */
    size_t a_plane, b_plane;
    size_t tiles; /* of inputs */
    int begins;   /* whether the sums begin here */
} operands;

/* R tiles of rows by S strips. */
static inline __attribute__((always_inline)) TARGET void block(const operation op, const size_t R,
                                                               const size_t S, const operands *o) {
    const size_t second = TILE_ROWS * o->a_stride, step = TILE_CELLS * o->b_stride;
    float *const c = o->c, *const below = c + TILE_ROWS * o->c_stride / sizeof *c;
    const unsigned char *a = o->a, *b = o->b;

#define FOR_EACH_SUM(DO)                                                                                     \
    DO(0, c);                                                                                                \
    if (S > 1)                                                                                               \
        DO(1, c + MRN_STRIP);                                                                                \
    if (R > 1)                                                                                               \
        DO(2, below);                                                                                        \
    if (R > 1 && S > 1)                                                                                      \
    DO(3, below + MRN_STRIP)
#define ZERO(tile, at) TILE_ZERO(tile)
#define LOAD(tile, at) TILE_LOAD(tile, at, o->c_stride)
#define STORE(tile, at) TILE_STORE(tile, at, o->c_stride)
#define ROWS(plane)                                                                                          \
    TILE_LOAD(4, a + (plane) * o->a_plane, o->a_stride);                                                     \
    if (R > 1)                                                                                               \
    TILE_LOAD(5, a + (plane) * o->a_plane + second, o->a_stride)
#define WEIGHTS(plane)                                                                                       \
    TILE_LOAD(6, b + (plane) * o->b_plane, o->b_stride);                                                     \
    if (S > 1)                                                                                               \
    TILE_LOAD(7, b + (plane) * o->b_plane + LINE, o->b_stride)
#define DOTS                                                                                                 \
    TILE_DOT(op, 0, 4, 6);                                                                                   \
    if (S > 1) {                                                                                             \
        TILE_DOT(op, 1, 4, 7);                                                                               \
    }                                                                                                        \
    if (R > 1) {                                                                                             \
        TILE_DOT(op, 2, 5, 6);                                                                               \
    }                                                                                                        \
    if (R > 1 && S > 1) {                                                                                    \
        TILE_DOT(op, 3, 5, 7);                                                                               \
    }

    if (o->begins) {
        FOR_EACH_SUM(ZERO);
    } else {
        FOR_EACH_SUM(LOAD);
    }
    for (size_t tile = 0; tile < o->tiles; tile++, a += LINE, b += step) {
        if (op == SPLIT) { /* one operand changes from each product of terms to the next */
            ROWS(2);
            WEIGHTS(0);
            DOTS;
            ROWS(1);
            DOTS;
            WEIGHTS(1);
            DOTS;
            ROWS(0);
            DOTS;
            WEIGHTS(0);
            DOTS;
            WEIGHTS(2);
            DOTS;
        } else {
            ROWS(0);
            WEIGHTS(0);
            DOTS;
        }
    }
    FOR_EACH_SUM(STORE);
#undef FOR_EACH_SUM
#undef ZERO
#undef LOAD
#undef STORE
#undef ROWS
#undef WEIGHTS
#undef DOTS
}

static inline __attribute__((always_inline)) TARGET void any_block(const operation op, size_t row_tiles,
                                                                   size_t strips, const operands *o) {
    if (row_tiles > 1 && strips > 1)
        block(op, 2, 2, o);
    else if (row_tiles > 1)
        block(op, 2, 1, o);
    else if (strips > 1)
        block(op, 1, 2, o);
    else
        block(op, 1, 1, o);
}

/* From sums to results, in place. */
static inline __attribute__((always_inline)) TARGET void finish(const operation op,
                                                                const mrn_dot_layer *layer, size_t unit,
                                                                size_t strips, mrn_dot_rows about, size_t row,
                                                                size_t rows, float *y, size_t width) {
    for (size_t r = 0; r < rows; r++, y += width)
        for (size_t s = 0; s < strips; s++) {
            float *at = y + s * MRN_STRIP;
            const size_t u = unit + s * MRN_STRIP;
            __m512 sum = _mm512_loadu_ps(at);
            if (op == INT8) {
                sum = last_s8_amx(_mm512_castps_si512(sum), I_SET(about.zero[row + r]),
                                  I_LOAD(layer->sum + u), V_SET(about.scale[row + r]),
                                  V_LOAD(layer->scale + u), V_LOAD(layer->bias + u));
            } else {
                if (op == SPLIT)
                    sum = _mm512_scalef_ps(
                        sum, _mm512_add_ps(V_SET(about.scale[row + r]), V_LOAD(layer->scale + u)));
                sum = _mm512_add_ps(sum, V_LOAD(layer->bias + u));
            }
            V_STORE(at, V_MAX(V_SET(layer->floor), sum));
        }
}

/* ---- Staging for float32-split ---- */

static inline TARGET __m512i round_amx(__m512 number) {
    const __m512i bits = _mm512_castps_si512(number);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
}

/* x = 2^scale times the sum of three bfloat16, the largest of the row in [1, 2); returns scale, which is NaN
 * for a row that is not finite: its cells are zeros. */
static TARGET float stage_split(const float *x, size_t inputs, size_t groups, unsigned char *cells) {
    const size_t plane = groups * MRN_CELL;
    const __m512i sign = _mm512_set1_epi32((int32_t)0x80000000U);
    __m512i size = _mm512_setzero_si512();
    for (size_t k = 0; k < inputs; k += LANES) {
        const __mmask16 inside = lanes_from_amx(k, inputs);
        const __m512i bits = _mm512_maskz_loadu_epi32(inside, x + k);
        size = _mm512_max_epi32(size, _mm512_andnot_si512(sign, bits));
    }
    const int32_t largest = _mm512_reduce_max_epi32(size);
    if (largest >= 0x7f800000) {
        memset(cells, 0, plane * 3);
        return NAN;
    }
    const __m512 exponent = _mm512_getexp_ps(_mm512_castsi512_ps(_mm512_set1_epi32(largest)));
    const float scale = largest ? _mm512_cvtss_f32(exponent) : 0;
    for (size_t k = 0; k < groups * 2; k += LANES) { /* groups are a multiple of 16 */
        const __mmask16 inside = lanes_from_amx(k, inputs);
        __m512 rest = _mm512_scalef_ps(_mm512_maskz_loadu_ps(inside, x + k), _mm512_set1_ps(-scale));
        for (size_t term = 0; term < 3; term++) {
            const __m512i part = round_amx(rest);
            _mm256_storeu_si256((__m256i *)(void *)(cells + term * plane + k * 2),
                                _mm512_cvtepi32_epi16(part));
            rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(_mm512_slli_epi32(part, 16)));
        }
    }
    return scale;
}

/* A row that holds an infinity or NaN: in float32, from the weights that the three terms make, in the order
 * of the float32 kernels, so that it ends as it does there. */
static TARGET void split_row(const mrn_dot_layer *layer, const float *x, float *y) {
    for (size_t strip = 0; strip < layer->strips; strip++) {
        const size_t first = strip / PANEL_STRIPS * PANEL_STRIPS, left = layer->strips - first;
        const size_t stride = (left < PANEL_STRIPS ? left : PANEL_STRIPS) * LINE;
        const size_t plane = layer->groups * stride;
        const unsigned char *at = layer->weight + first * LINE * layer->groups * 3 + (strip - first) * LINE;
        const __m512 scale = _mm512_loadu_ps(layer->scale + strip * MRN_STRIP);
        __m512 sum = _mm512_loadu_ps(layer->bias + strip * MRN_STRIP);
        for (size_t k = 0; k < layer->inputs; k++) {
            const unsigned char *cells = at + k / 2 * stride;
            __m512 weight = _mm512_setzero_ps();
            for (size_t term = 3; term-- > 0;) { /* smallest first: exact */
                const __m512i both = I_LOAD(cells + term * plane);
                const __m512i part = k % 2 ? _mm512_and_si512(both, _mm512_set1_epi32((int32_t)0xffff0000U))
                                           : _mm512_slli_epi32(both, 16);
                weight = _mm512_add_ps(weight, _mm512_castsi512_ps(part));
            }
            sum = _mm512_fmadd_ps(_mm512_set1_ps(x[k]), _mm512_scalef_ps(weight, scale), sum);
        }
        V_STORE(y + strip * MRN_STRIP, V_MAX(V_SET(layer->floor), sum));
    }
}

/* ---- A layer ---- */

static inline __attribute__((always_inline)) TARGET void dense(const operation op, const mrn_dot_layer *layer,
                                                               const float *x, size_t x_stride, size_t rows,
                                                               float *y, void *stage) {
    const size_t planes = op == SPLIT ? 3 : 1, plane = layer->groups * MRN_CELL;
    const size_t row_bytes = mrn_dot_row_bytes(layer->groups, planes);
    const size_t width = layer->strips * MRN_STRIP, tiles = layer->groups / TILE_CELLS;
    const mrn_dot_rows about = mrn_dot_records(stage, rows);
    unsigned char *cells = mrn_dot_cells(stage, rows);

    for (size_t row = 0; op == INT8 && row < rows; row += MRN_DOT_STAGED)
        wide_ranges_s8_amx(x + row * x_stride, x_stride,
                           rows - row < MRN_DOT_STAGED ? rows - row : MRN_DOT_STAGED, layer->inputs, about,
                           row);
    for (size_t row = 0; row < rows; row++) {
        const float *from = x + row * x_stride;
        unsigned char *to = cells + row * row_bytes;
        if (op == SPLIT)
            about.scale[row] = stage_split(from, layer->inputs, layer->groups, to);
        else if (op == INT8)
            wide_stage_s8_amx(from, layer->inputs, layer->groups, about.inverse[row], about.zero[row], to);
        else
            wide_stage_bf16_amx(from, layer->inputs, layer->groups, to);
    }
    const size_t whole = rows / MRN_DOT_ROWS * MRN_DOT_ROWS, rest = rows - whole;
    for (size_t part = 0; part < 2; part++) { /* pairs of whole tiles of rows, then what is left */
        const size_t begin = part ? whole : 0, end = part ? rows : whole;
        if (begin == end)
            continue;
        const size_t first = part && rest < TILE_ROWS ? rest : TILE_ROWS;
        const size_t second = part ? rest - first : TILE_ROWS;
        configure(first, second);
        const unsigned char *panel = layer->weight;
        for (size_t strip = 0; strip < layer->strips; strip += PANEL_STRIPS) {
            const size_t left = layer->strips - strip;
            const size_t strips = left < PANEL_STRIPS ? left : PANEL_STRIPS;
            for (size_t s = 0; s < strips; s += 2) {
                const size_t n = strips - s < 2 ? 1 : 2, unit = (strip + s) * MRN_STRIP;
                for (size_t tile = 0, count; tile < tiles; tile += count) {
                    count = tiles - tile < BLOCK_TILES / planes ? tiles - tile : BLOCK_TILES / planes;
                    for (size_t row = begin; row < end; row += first + second) {
                        const operands o = {
                            .a = cells + row * row_bytes + tile * LINE,
                            .b = panel + (tile * TILE_CELLS * strips + s) * LINE,
                            .c = y + row * width + unit,
                            .a_stride = row_bytes,
                            .b_stride = strips * LINE,
                            .c_stride = width * sizeof *y,
                            .a_plane = plane,
                            .b_plane = plane * strips * MRN_STRIP,
                            .tiles = count,
                            .begins = tile == 0,
                        };
                        any_block(op, second ? 2 : 1, n, &o);
                        if (tile + count == tiles)
                            finish(op, layer, unit, n, about, row, first + second, o.c, width);
                    }
                }
            }
            panel += strips * LINE * layer->groups * planes;
        }
    }
    __asm__ volatile("tilerelease" : :);
    for (size_t row = 0; op == SPLIT && row < rows; row++)
        if (about.scale[row] != about.scale[row])
            split_row(layer, x + row * x_stride, y + row * width);
}

#define DENSE(name, op)                                                                                      \
    static TARGET void dense_##name##_amx(const mrn_dot_layer *layer, const float *x, size_t x_stride,       \
                                          size_t rows, float *y, void *stage) {                              \
        dense(op, layer, x, x_stride, rows, y, stage);                                                       \
    }                                                                                                        \
    const mrn_dots mrn_dots_##name##_amx = {                                                                 \
        TILE_CELLS, PANEL_STRIPS, ((op) == SPLIT ? 3 : 1) * MRN_CELL, 0, dense_##name##_amx, NULL};
DENSE(bf16, BFLOAT16)
DENSE(s8, INT8)
DENSE(split, SPLIT)

#else
typedef int mrn_nothing_here; /* ISO C wants a declaration */
#endif
