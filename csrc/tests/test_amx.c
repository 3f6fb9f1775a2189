/* The kernels for AMX on a machine without it: the tile instructions raise SIGILL there, and a handler does
 * what the Intel manual (SDM, volume 2, "Intel AMX Instruction Set Reference") says they do, sums in its
 * order, denormals taken for zero. So the code that is tested is the machine code that will run. On a machine
 * with AMX nothing is trapped and the CPU itself is tested. Then all of test_precision.c runs, with fewer
 * networks. */
#include "../cpu.h"

unsigned mrn_cpu_features(void);

#if defined(MRN_X86) && defined(__linux__)

#include <cpuid.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

enum { TILES = 8, TILE_LINES = 16, TILE_LINE = 64 };

static struct tile_unit {
    unsigned char data[TILES][TILE_LINES][TILE_LINE];
    size_t lines[TILES], line_bytes[TILES];
    int configured;
    unsigned long seen;
} tmul;

static float flushed(float number) {
    return fabsf(number) < 1.17549435e-38F ? copysignf(0, number) : number;
}

static float bfloat16_at(const unsigned char *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return flushed(number);
}

/* C += A * B for A's lines, in 4-byte elements: K of them in a line of A, N in one of C. */
static void dot(unsigned c, unsigned a, unsigned b, int of_bfloat16) {
    const size_t depth = tmul.line_bytes[a] / 4, width = tmul.line_bytes[c] / 4;
    CHECK(c != a && c != b && a != b, "tiles must differ");
    CHECK(tmul.lines[c] && tmul.lines[c] == tmul.lines[a] && depth == tmul.lines[b] &&
              tmul.line_bytes[b] == tmul.line_bytes[c],
          "tiles %u, %u, %u do not fit together", c, a, b);
    for (size_t m = 0; m < tmul.lines[c]; m++)
        for (size_t n = 0; n < width; n++) {
            unsigned char *at = &tmul.data[c][m][4 * n];
            const unsigned char *row = tmul.data[a][m];
            if (of_bfloat16) {
                float even = 0, odd = 0, sum;
                for (size_t k = 0; k < depth; k++) {
                    const unsigned char *pair = &tmul.data[b][k][4 * n];
                    even = flushed(fmaf(bfloat16_at(row + 4 * k), bfloat16_at(pair), even));
                    odd = flushed(fmaf(bfloat16_at(row + 4 * k + 2), bfloat16_at(pair + 2), odd));
                }
                memcpy(&sum, at, sizeof sum);
                sum = flushed(flushed(sum) + flushed(even + odd));
                memcpy(at, &sum, sizeof sum);
            } else {
                uint32_t sum;
                memcpy(&sum, at, sizeof sum);
                for (size_t k = 0; k < 4 * depth; k++)
                    sum += (uint32_t)(row[k] * (int8_t)tmul.data[b][k / 4][4 * n + k % 4]);
                memcpy(at, &sum, sizeof sum);
            }
        }
}

static void configure(const unsigned char *config) {
    CHECK(config[0] == 1 && config[1] == 0, "palette %u, start row %u", config[0], config[1]);
    for (size_t i = 2; i < 16; i++)
        CHECK(config[i] == 0, "reserved byte %zu", i);
    memset(&tmul.data, 0, sizeof tmul.data);
    for (size_t t = 0; t < 16; t++) {
        uint16_t bytes;
        memcpy(&bytes, config + 16 + 2 * t, sizeof bytes);
        const unsigned lines = config[48 + t];
        CHECK(t < TILES ? lines <= TILE_LINES && bytes <= TILE_LINE && !lines == !bytes : lines + bytes == 0,
              "tile %zu has %u lines of %u bytes", t, lines, bytes);
        if (t < TILES)
            tmul.lines[t] = lines, tmul.line_bytes[t] = bytes;
    }
    tmul.configured = 1;
}

static void copy_lines(unsigned tile, unsigned char *memory, long stride, int store) {
    CHECK(tmul.configured && tmul.lines[tile], "tile %u is not configured", tile);
    if (!store)
        memset(tmul.data[tile], 0, sizeof tmul.data[tile]);
    for (size_t line = 0; line < tmul.lines[tile]; line++, memory += stride)
        memcpy(store ? memory : tmul.data[tile][line], store ? tmul.data[tile][line] : memory,
               tmul.line_bytes[tile]);
}

/* VEX.128 0F38 W0 with the operation in the opcode and the prefix. */
static void on_illegal(int number, siginfo_t *info, void *context) {
    static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)(uintptr_t)r[REG_RIP];
    CHECK(at[0] == 0xc4 && (at[1] & 0x1f) == 2 && (at[2] & 0x84) == 0,
          "not a tile instruction: %02x %02x %02x %02x", at[0], at[1], at[2], at[3]);
    const unsigned opcode = at[3], modrm = at[4], prefix = at[2] & 3, mode = modrm >> 6; /* NP, 66, F3, F2 */
    const unsigned reg = modrm >> 3 & 7, rm = modrm & 7, other = ~(unsigned)at[2] >> 3 & 15;
    const unsigned char *end = at + 5;
    unsigned char *memory = NULL;
    long stride = 0;
    (void)number, (void)info;
    if (mode != 3) {
        unsigned base = rm;
        if (rm == 4) { /* a SIB byte */
            const unsigned sib = *end++, index = (sib >> 3 & 7) | (at[1] & 0x40 ? 0 : 8);
            base = sib & 7;
            stride = index == 4 ? 0 : (long)r[registers[index]] << (sib >> 6);
        }
        CHECK(!(mode == 0 && base == 5), "an address without a base");
        base |= at[1] & 0x20 ? 0 : 8;
        long displacement = 0;
        if (mode == 1)
            displacement = (signed char)*end++;
        if (mode == 2) {
            int32_t wide;
            memcpy(&wide, end, sizeof wide);
            end += sizeof wide;
            displacement = wide;
        }
        memory = (unsigned char *)(uintptr_t)(r[registers[base]] + displacement);
    }
    if (opcode == 0x49 && prefix == 0 && mode != 3)
        configure(memory + stride);
    else if (opcode == 0x49 && prefix == 0 && modrm == 0xc0)
        memset(&tmul, 0, offsetof(struct tile_unit, seen));
    else if (opcode == 0x49 && prefix == 3 && mode == 3) {
        CHECK(tmul.configured && tmul.lines[reg], "tile %u is not configured", reg);
        memset(tmul.data[reg], 0, sizeof tmul.data[reg]);
    } else if (opcode == 0x4b && (prefix == 3 || prefix == 2) && mode != 3 && rm == 4)
        copy_lines(reg, memory, stride, prefix == 2);
    else if (opcode == 0x5c && prefix == 2 && mode == 3)
        dot(reg, rm, other, 1);
    else if (opcode == 0x5e && prefix == 1 && mode == 3)
        dot(reg, rm, other, 0);
    else
        CHECK(0, "unknown tile instruction %u.%02x %02x", prefix, opcode, modrm);
    tmul.seen++;
    r[REG_RIP] = (greg_t)(uintptr_t)end;
}

/* In place of cpu.c: everything that this CPU has, and AMX where it has AVX-512. */
unsigned mrn_cpu_features(void) {
    unsigned features = 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        features = MRN_CPU_AVX2_FMA | MRN_CPU_AVX512 | MRN_CPU_AMX;
    return features;
}

#define main test_precision
#define NETWORKS 40
#include "test_precision.c"
#undef main

/* float32-split beside float64: not further off than a float32 matrix product, on what it is for and on what
 * it is not: rows of denormals, of the largest numbers, and of both; infinities and NaN as float32 has them.
 */
static void test_split(void) {
    enum { INPUTS = 300, UNITS = 40, CASES = 12 };
    static float weight[INPUTS * UNITS], x[CASES * INPUTS], y[CASES * UNITS], plain[CASES * UNITS];
    size_t amx, avx512;
    CHECK(mrn_isa_choose("amx", &amx) == MRN_OK && mrn_isa_choose("avx512", &avx512) == MRN_OK, "choose");
    const float sizes[CASES] = {1, 1e-30F, 1e30F, 1e-42F, 3.4e38F, 1e-38F, 1, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < INPUTS * UNITS; i++)
        weight[i] = next_float(&seed) * (i % UNITS == 7 ? 1e-40F : i % UNITS == 8 ? 1e30F : 0.05F);
    for (size_t i = 0; i < CASES * INPUTS; i++)
        x[i] = next_float(&seed) * sizes[i / INPUTS];
    x[7 * INPUTS + 3] = INFINITY;
    x[8 * INPUTS + 4] = -INFINITY, x[8 * INPUTS + 5] = INFINITY;
    x[9 * INPUTS + 6] = NAN;
    for (size_t k = 0; k < INPUTS; k++)
        x[10 * INPUTS + k] = k % 3 ? 1e-40F : x[10 * INPUTS + k]; /* small beside large */
    memset(x + 11 * INPUTS, 0, INPUTS * sizeof *x);
    const mrn_layer layer = {.weight = weight, .inputs = INPUTS, .units = UNITS};
    mrn_network network = {.layers = &layer, .layer_count = 1, .columns = INPUTS};
    run(&network, UNITS, avx512, x, CASES, plain, 1);
    network.precision = MRN_PRECISION_float32_split;
    run(&network, UNITS, amx, x, CASES, y, 1);
    double worst[2] = {0, 0};
    for (size_t row = 0; row < CASES; row++)
        for (size_t u = 0; u < UNITS; u++) {
            const float found = y[row * UNITS + u], beside = plain[row * UNITS + u];
            double sum = 0, size = 0, largest_x = 0, largest_w = 0;
            for (size_t k = 0; k < INPUTS; k++) {
                const double a = x[row * INPUTS + k], w = weight[k * UNITS + u];
                sum += a * w, size += fabs(a * w);
                largest_x = fmax(largest_x, fabs(a)), largest_w = fmax(largest_w, fabs(w));
            }
            if (row >= 7 && row <= 9) {
                CHECK(same(found, beside), "row %zu: %g, float32 has %g", row, found, beside);
                continue;
            }
            if (fabs(sum) > 3e38 || size > 1e38) {
                CHECK(isinf(found) ? fabs(sum) > 3.3e38 : fabs(found - sum) <= 1e-6 * size,
                      "row %zu: %g, wanted %g", row, found, sum);
                continue;
            }
            /* 2^-110 of the largest product is what flushed denormals may cost; 2^-149 a step of denormal
             * results */
            CHECK(fabs(found - sum) <= 4e-7 * size + 0x1p-110 * largest_x * largest_w + 0x1p-149,
                  "row %zu, unit %zu: %.9g, wanted %.9g", row, u, found, sum);
            if (row == 0 && u != 7 && u != 8 && size > 0) {
                worst[0] = fmax(worst[0], fabs(found - sum) / size);
                worst[1] = fmax(worst[1], fabs(beside - sum) / size);
            }
        }
    printf("  float32-split: error %.2g of the sum of sizes; float32 %.2g\n", worst[0], worst[1]);
    CHECK(worst[0] <= worst[1], "less exact than float32");
}

/* More inputs than one block of weights holds: sums wait in memory between two of them. */
static void test_deep_bfloat16(void) {
    enum { INPUTS = 1100, UNITS = 50, COUNT = 37 };
    static uint16_t weight[INPUTS * UNITS];
    static float x[COUNT * INPUTS], y[COUNT * UNITS];
    size_t amx;
    CHECK(mrn_isa_choose("amx", &amx) == MRN_OK, "choose");
    for (size_t i = 0; i < INPUTS * UNITS; i++)
        weight[i] = nearest(next_float(&seed));
    fill(x, COUNT * INPUTS, 1);
    const mrn_layer layer = {.weight = weight, .inputs = INPUTS, .units = UNITS};
    const mrn_network network = {
        .layers = &layer, .layer_count = 1, .columns = INPUTS, .precision = MRN_PRECISION_bfloat16};
    run(&network, UNITS, amx, x, COUNT, y, 1);
    for (size_t row = 0; row < COUNT; row++)
        for (size_t u = 0; u < UNITS; u++) {
            double wanted, bound;
            layer_exact(&layer, MRN_PRECISION_bfloat16, x + row * INPUTS, u, &wanted, &bound);
            CHECK(fabs(y[row * UNITS + u] - wanted) <= bound, "row %zu: %.9g, wanted %.9g", row,
                  y[row * UNITS + u], wanted);
        }
}

int main(void) {
    if (!mrn_cpu_features()) {
        puts("  no AVX-512 here: skipped");
        return 0;
    }
    unsigned eax, ebx, ecx, edx;
    const int real = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && edx >> 24 & 1;
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    CHECK(!real || syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0, "the permission to use AMX");
    const struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGILL, &action, NULL) == 0, "sigaction");
    test_split();
    test_deep_bfloat16();
    test_precision();
    CHECK(real || tmul.seen > 1000, "the tile kernels did not run");
    printf("  %lu tile instructions %s\n", tmul.seen, real ? "trapped" : "emulated");
    return 0;
}

#else

#include <stdio.h>

int main(void) {
    puts("  not Linux on x86-64: skipped");
    return 0;
}

#endif
