/* The parts of a step of training on every instruction set: activations, losses, normalisation, rescaling and
 * optimizers against plain loops in double, odd sizes, guard pages on both sides of every array; what is
 * refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels.h"
#include "../mrn.h"
#include "../train.h"
#include "check.h"
#include "guard.h"
#include "twin.h"

enum { MOST = 20 }; /* arrays of one test */

static uint64_t seed = 88172645463325252ull;
static guarded arrays[MOST];
static size_t used;

static float *array(size_t count, float factor) {
    arrays[used] = guard(count * sizeof(float), (int)(next_random(&seed) & 1), sizeof(float));
    float *values = (float *)(void *)arrays[used++].block;
    for (size_t i = 0; i < count; i++)
        values[i] = next_float(&seed) * factor;
    return values;
}

static void give_back(void) {
    while (used)
        unguard(arrays[--used]);
}

static const mrn_trainer *trainer;
static const char *isa_name;

static void near(const char *what, double found, double wanted, double bound) {
    CHECK(fabs(found - wanted) <= bound * (1 + fabs(wanted)), "%s, %s: %.9g, wanted %.9g", isa_name, what,
          found, wanted);
}

/* ---- Activations: the derivative against a central difference of the twin */

static void test_activation(uint32_t activation, size_t rows, size_t units) {
    const int sloped = mrn_activation_sloped(activation);
    float *x = array(rows * units, 4), *bias = array(units, 1), *slope = sloped ? array(units, 1) : NULL;
    float *y = array(rows * units, 1), *kept = array(rows * units, 1), *dy = array(rows * units, 1);
    float *dx = array(rows * units, 1), *dbias = array(units, 1), *dslope = array(units, 1);
    for (size_t u = 0; sloped && u < units; u++)
        slope[u] = fabsf(slope[u]) + 0.1F; /* elu's must be positive */
    const mrn_activation_pass pass = {
        .activation = activation,
        .rows = rows,
        .units = units,
        .x = x,
        .y = y,
        .bias = bias,
        .slope = slope,
        .kept = kept,
        .dy = dy,
        .dx = dx,
        .dbias = dbias,
        .dslope = activation == MRN_ACTIVATION_prelu ? dslope : NULL,
    };
    CHECK(mrn_train_forward(trainer, &pass) == MRN_OK && mrn_train_backward(trainer, &pass) == MRN_OK, "run");
    for (size_t u = 0; u < units; u++) {
        double sum = 0, slopes = 0;
        for (size_t r = 0; r < rows; r++) {
            const size_t i = r * units + u;
            const double z = (double)(x[i] + bias[u]), s = slope ? (double)slope[u] : 0, h = 1e-5;
            near("activation", (double)y[i], activate(activation, s, z), 2e-6);
            if (fabs(z) > 1e-4) {
                const double change = activate(activation, s, z + h) - activate(activation, s, z - h);
                near("derivative", (double)dx[i], (double)dy[i] * change / (2 * h), 3e-6);
            }
            sum += (double)dx[i];
            slopes += (double)dy[i] * (z < 0 ? z : 0);
        }
        near("dbias", (double)dbias[u], sum, 1e-5);
        if (pass.dslope)
            near("dslope", (double)dslope[u], slopes, 1e-5);
    }
    give_back();
}

/* ---- Losses */

static void test_loss(uint32_t loss, size_t rows, size_t units, float smoothing) {
    float *outputs = array(rows * units, 5), *targets = array(rows * units, 1), *weights = array(rows, 2);
    float *losses = array(rows, 1), *gradient = array(rows * units, 1), *z = array(rows * units, 1);
    guarded block = guard(rows * sizeof(int64_t), 1, sizeof(int64_t));
    int64_t *classes = (int64_t *)(void *)block.block;
    const int sparse = loss == MRN_LOSS_sparse_categorical_crossentropy;
    for (size_t r = 0; r < rows; r++)
        classes[r] = (int64_t)(next_random(&seed) % units);
    memcpy(z, outputs, rows * units * sizeof *z);
    double sum = 0;
    mrn_loss_pass pass = {
        .loss = loss,
        .smoothing = smoothing,
        .delta = 0.7F,
        .rows = rows,
        .units = units,
        .outputs = outputs,
        .classes = sparse ? classes : NULL,
        .targets = sparse ? NULL : targets,
        .weights = weights,
        .losses = losses,
        .gradient = gradient,
        .sum = &sum,
    };
    CHECK(mrn_train_loss(trainer, &pass) == MRN_OK, "loss");
    double wanted_sum = 0;
    for (size_t r = 0; r < rows; r++) {
        const double weight = (double)weights[r], share = weight / (double)rows, s = (double)smoothing;
        double most = -INFINITY, total = 0, value = 0;
        for (size_t u = 0; u < units; u++)
            most = (double)z[r * units + u] > most ? (double)z[r * units + u] : most;
        for (size_t u = 0; u < units; u++)
            total += exp((double)z[r * units + u] - most);
        for (size_t u = 0; u < units; u++) {
            const size_t i = r * units + u;
            const double v = (double)z[i], hard = sparse ? (size_t)classes[r] == u : (double)targets[i];
            double t = hard * (1 - s) + s / (double)units, slope, n = (double)units;
            const double e = v - hard;
            switch (loss) {
            case MRN_LOSS_sparse_categorical_crossentropy:
            case MRN_LOSS_categorical_crossentropy: {
                const double p = exp(v - most) / total;
                near("probability", (double)outputs[i], p, 1e-6);
                value -= t * (v - most);
                slope = p - t;
                n = 1;
                break;
            }
            case MRN_LOSS_binary_crossentropy:
                t = hard * (1 - s) + s / 2;
                value += fmax(v, 0) + log1p(exp(-fabs(v))) - v * t;
                slope = 1 / (1 + exp(-v)) - t;
                break;
            case MRN_LOSS_mean_squared_error:
                value += e * e;
                slope = 2 * e;
                break;
            case MRN_LOSS_mean_absolute_error:
                value += fabs(e);
                slope = e > 0 ? 1 : -1;
                break;
            default:
                slope = fmin(fmax(e, -(double)pass.delta), (double)pass.delta);
                value += slope * (e - slope / 2);
            }
            near("gradient", (double)gradient[i] / share, slope / n, 1e-5);
        }
        value = loss <= MRN_LOSS_categorical_crossentropy ? value + log(total) : value / (double)units;
        near("loss", (double)losses[r], value * weight, 1e-5);
        wanted_sum += value * weight;
    }
    near("sum", sum, wanted_sum, 1e-5);
    if (sparse) {
        classes[rows / 2] = (int64_t)units;
        CHECK(mrn_train_loss(trainer, &pass) == MRN_E_RANGE, "a class out of range");
        classes[rows / 2] = -1;
        CHECK(mrn_train_loss(trainer, &pass) == MRN_E_RANGE, "a negative class");
    }
    unguard(block);
    give_back();
}

/* ---- Batch normalisation: gradients against the closed form in double */

static void test_normalization(size_t rows, size_t units) {
    float *x = array(rows * units, 3), *y = array(rows * units, 1), *dy = array(rows * units, 1);
    float *dx = array(rows * units, 1), *gamma = array(units, 1), *beta = array(units, 1);
    float *mean = array(units, 1), *inverse = array(units, 1), *mm = array(units, 1), *mv = array(units, 1);
    float *dgamma = array(units, 1), *dbeta = array(units, 1), *mm0 = array(units, 1), *mv0 = array(units, 1);
    memcpy(mm0, mm, units * sizeof *mm);
    memcpy(mv0, mv, units * sizeof *mv);
    const mrn_normalization_pass pass = {
        .rows = rows,
        .units = units,
        .x = x,
        .y = y,
        .gamma = gamma,
        .beta = beta,
        .mean = mean,
        .inverse = inverse,
        .moving_mean = mm,
        .moving_variance = mv,
        .share = 0.25F,
        .epsilon = 0.01F,
        .dy = dy,
        .dx = dx,
        .dgamma = dgamma,
        .dbeta = dbeta,
    };
    CHECK(mrn_train_normalize(trainer, &pass) == MRN_OK && mrn_train_normalize_back(trainer, &pass) == MRN_OK,
          "run");
    const double n = (double)rows;
    for (size_t u = 0; u < units; u++) {
        double m = 0, v = 0, sum = 0, product = 0;
        for (size_t r = 0; r < rows; r++)
            m += (double)x[r * units + u] / n;
        for (size_t r = 0; r < rows; r++)
            v += pow((double)x[r * units + u] - m, 2) / n;
        const double inv = 1 / sqrt(v + 0.01), g = (double)gamma[u];
        for (size_t r = 0; r < rows; r++) {
            const size_t i = r * units + u;
            const double normal = ((double)x[i] - m) * inv;
            near("normalised", (double)y[i], g * normal + (double)beta[u], 1e-5);
            sum += (double)dy[i];
            product += (double)dy[i] * normal;
        }
        near("dbeta", (double)dbeta[u], sum, 1e-5);
        near("dgamma", (double)dgamma[u], product, 1e-5);
        near("moving mean", (double)mm[u], (double)mm0[u] * 0.75 + m * 0.25, 1e-5);
        near("moving variance", (double)mv[u], (double)mv0[u] * 0.75 + v * 0.25, 1e-5);
        for (size_t r = 0; r < rows; r++) {
            const size_t i = r * units + u;
            const double normal = ((double)x[i] - m) * inv;
            near("dx", (double)dx[i], g * inv * ((double)dy[i] - sum / n - normal * product / n), 3e-5);
        }
    }
    CHECK(mrn_train_standardize(trainer, &pass) == MRN_OK, "standardize");
    for (size_t i = 0; i < rows * units; i++) { /* backward has left mean and inverse */
        const size_t u = i % units;
        const double normal = ((double)x[i] - (double)mean[u]) * (double)inverse[u];
        near("standardised", (double)y[i], (double)gamma[u] * normal + (double)beta[u], 1e-6);
    }
    give_back();
}

/* ---- Rescaling: bytes and floats, with numbers of rows and without; all sets give the same bits */

static void test_rescaling(size_t rows, size_t units) {
    const size_t table_rows = rows + 3;
    float *floats = array(table_rows * units, 300), *y = array(rows * units, 1);
    guarded block = guard(table_rows * units, 1, 1),
            order = guard(rows * sizeof(int64_t), 0, sizeof(int64_t));
    unsigned char *bytes = block.block;
    int64_t *numbers = (int64_t *)(void *)order.block;
    for (size_t i = 0; i < table_rows * units; i++)
        bytes[i] = (unsigned char)next_random(&seed);
    for (size_t r = 0; r < rows; r++)
        numbers[r] = (int64_t)(next_random(&seed) % table_rows);
    for (int kind = 0; kind < 4; kind++) {
        const mrn_rescaling_pass pass = {
            .rows = rows,
            .units = units,
            .table_rows = table_rows,
            .bytes = kind & 1 ? bytes : NULL,
            .floats = kind & 1 ? NULL : floats,
            .numbers = kind & 2 ? numbers : NULL,
            .y = y,
            .scale = 0.011F,
            .offset = -0.81F,
        };
        CHECK(mrn_train_rescale(trainer, &pass) == MRN_OK, "rescale");
        for (size_t i = 0; i < rows * units; i++) {
            const size_t from = (kind & 2 ? (size_t)numbers[i / units] : i / units) * units + i % units;
            const float product = (kind & 1 ? (float)bytes[from] : floats[from]) * 0.011F,
                        wanted = product - 0.81F;
            CHECK(y[i] == wanted, "%s, number %zu: %.9g, wanted %.9g", isa_name, i, (double)y[i],
                  (double)wanted);
        }
    }
    mrn_rescaling_pass wrong = {
        .rows = rows, .units = units, .table_rows = table_rows, .bytes = bytes, .numbers = numbers, .y = y};
    numbers[rows / 2] = (int64_t)table_rows;
    CHECK(mrn_train_rescale(trainer, &wrong) == MRN_E_RANGE, "above");
    numbers[rows / 2] = -1;
    CHECK(mrn_train_rescale(trainer, &wrong) == MRN_E_RANGE, "below");
    wrong.numbers = NULL;
    wrong.table_rows = rows - 1;
    CHECK(mrn_train_rescale(trainer, &wrong) == MRN_E_RANGE, "more rows than the table has");
    wrong.floats = floats;
    CHECK(mrn_train_rescale(trainer, &wrong) == MRN_E_ARGUMENT, "two tables");
    wrong.floats = NULL;
    wrong.bytes = NULL;
    CHECK(mrn_train_rescale(trainer, &wrong) == MRN_E_ARGUMENT, "no table");
    unguard(block);
    unguard(order);
    give_back();
}

/* ---- Optimizers: one step against the formula in double */

static void test_update(uint32_t optimizer, size_t count) {
    float *p = array(count, 2), *g = array(count, 1), *average = array(count, 1), *slots[3], *before[5];
    before[3] = array(count, 1);
    before[4] = array(count, 1);
    memcpy(before[3], p, count * sizeof *p);
    memcpy(before[4], average, count * sizeof *p);
    for (size_t k = 0; k < 3; k++) {
        slots[k] = array(count, 1);
        before[k] = array(count, 1);
        for (size_t i = 0; i < count; i++) /* a square, a mean that is smaller, ... */
            before[k][i] = slots[k][i] = k == 1 && optimizer >= MRN_OPTIMIZER_rmsprop_centered &&
                                                 optimizer <= MRN_OPTIMIZER_rmsprop_centered_momentum
                                             ? slots[k][i] * 0.1F
                                             : fabsf(slots[k][i]) + 0.1F;
    }
    const mrn_update update = {
        .optimizer = optimizer,
        .rate = 0.01F,
        .count = count,
        .parameters = p,
        .gradients = g,
        .slots = {slots[0], slots[1], slots[2]},
        .average = average,
        .scale = 0.5F,
        .limit = 0.4F,
        .decay = 0.03F,
        .share = 0.2F,
        .share_1 = 0.1F,
        .share_2 = 0.05F,
        .momentum = 0.8F,
        .epsilon = 0.001F,
        .ahead = 0.02F,
        .correction = 1.5F,
    };
    CHECK(mrn_train_update(trainer, &update) == MRN_OK, "update");
    for (size_t i = 0; i < count; i++) {
        const double G = fmin(fmax((double)g[i] * 0.5, -(double)0.4F), (double)0.4F), rate = (double)0.01F;
        const double P = (double)before[3][i] * (1 - (double)0.03F), e = (double)0.001F;
        double a = (double)before[0][i], b = (double)before[1][i], c = (double)before[2][i], step;
        switch (optimizer) {
        case MRN_OPTIMIZER_sgd:
            step = rate * G;
            break;
        case MRN_OPTIMIZER_momentum:
            a = a * 0.8 - rate * G;
            step = -a;
            break;
        case MRN_OPTIMIZER_nesterov:
            a = a * 0.8 - rate * G;
            step = rate * G - 0.8 * a;
            break;
        case MRN_OPTIMIZER_adagrad:
            a += G * G;
            step = rate * G / sqrt(a + e);
            break;
        case MRN_OPTIMIZER_rmsprop:
        case MRN_OPTIMIZER_rmsprop_momentum:
        case MRN_OPTIMIZER_rmsprop_centered:
        case MRN_OPTIMIZER_rmsprop_centered_momentum: {
            const int centered = optimizer >= MRN_OPTIMIZER_rmsprop_centered;
            double *velocity = optimizer == MRN_OPTIMIZER_rmsprop_momentum            ? &b
                               : optimizer == MRN_OPTIMIZER_rmsprop_centered_momentum ? &c
                                                                                      : NULL;
            a += (G * G - a) * 0.05;
            if (centered)
                b += (G - b) * 0.05;
            step = rate * G / sqrt(a - (centered ? b * b : 0) + e);
            if (velocity)
                step = *velocity = *velocity * 0.8 + step;
            break;
        }
        case MRN_OPTIMIZER_adam:
        case MRN_OPTIMIZER_amsgrad:
            a = a * 0.9 + G;
            b = b * 0.95 + G * G;
            if (optimizer == MRN_OPTIMIZER_amsgrad)
                c = fmax(c, b);
            step = rate * a / (sqrt(optimizer == MRN_OPTIMIZER_amsgrad ? c : b) + e);
            break;
        case MRN_OPTIMIZER_adamax:
            a += (G - a) * 0.1;
            b = fmax(b * 0.95, fabs(G));
            step = rate * a / (b + e);
            break;
        default:
            a += (G - a) * 0.1;
            b += (G * G - b) * 0.05;
            step = (rate * G + 0.02 * a) / (sqrt(b * 1.5) + e);
        }
        near(mrn_optimizer_name(optimizer), (double)p[i], P - step, 1e-6);
        near("slot 0", (double)slots[0][i], a, 1e-6);
        near("slot 1", (double)slots[1][i], b, 1e-6);
        near("slot 2", (double)slots[2][i], c, 1e-6);
        near("average", (double)average[i], (double)before[4][i] * 0.8 + (P - step) * 0.2, 1e-6);
    }
    give_back();
}

/* ---- Gathering, dropping, summing */

static void test_rest(void) {
    float *table = array(5 * 7, 1), *out = array(3 * 7, 1), *big = array(5000, 3), *to = array(5000, 1);
    const int64_t rows[3] = {4, 0, 4}, low[1] = {-1}, high[1] = {5};
    CHECK(mrn_train_gather(table, 5, 7 * sizeof *table, rows, 3, out) == MRN_OK, "gather");
    for (size_t i = 0; i < 3; i++)
        CHECK(memcmp(out + i * 7, table + rows[i] * 7, 7 * sizeof *out) == 0, "row %zu", i);
    CHECK(mrn_train_gather(table, 5, 7 * sizeof *table, low, 1, out) == MRN_E_RANGE, "below");
    CHECK(mrn_train_gather(table, 5, 7 * sizeof *table, high, 1, out) == MRN_E_RANGE, "above");
    for (size_t count = 0; count <= 5000; count += count < 40 ? 1 : 997) {
        double sum, wanted = 0;
        CHECK(mrn_train_squares(trainer, big, count, &sum) == MRN_OK, "squares");
        for (size_t i = 0; i < count; i++)
            wanted += (double)big[i] * (double)big[i];
        near("squares", sum, wanted, 1e-6);
    }
    const float large = big[4999];
    for (size_t i = 0; i < 5000; i += 4999) {
        double sum;
        big[i] = 1e30F;
        CHECK(mrn_train_squares(trainer, big, 5000, &sum) == MRN_OK, "squares");
        near("squares no float32 holds", sum / 1e60, i ? 2 : 1, 1e-6);
    }
    big[4999] = large;
    big[0] = large;
    const uint64_t number = 0x123456789abcdefULL;
    const mrn_dropout_pass pass = {
        .seed = &number, .count = 5000, .from = big, .to = to, .threshold = 1U << 30, .scale = 4.0F / 3};
    CHECK(mrn_train_drop(trainer, &pass) == MRN_OK, "drop");
    size_t dropped = 0;
    for (size_t i = 0; i < 5000; i++) {
        if (to[i] == 0)
            dropped++;
        CHECK(to[i] == 0 || to[i] == big[i] * (4.0F / 3), "number %zu", i);
    }
    CHECK(dropped > 1100 && dropped < 1400, "%zu of 5000 dropped", dropped);
    give_back();
}

static void test_refusals(void) {
    const mrn_trainer *none;
    float x[4] = {0};
    CHECK(mrn_trainer_open(mrn_isa_count(), &none) == MRN_E_ISA, "no such set");
    CHECK(mrn_trainer_open(0, NULL) == MRN_E_ARGUMENT, "no place");
    CHECK(mrn_train_squares(NULL, x, 4, &(double){0}) == MRN_E_ARGUMENT, "no trainer");
    mrn_activation_pass pass = {.activation = MRN_ACTIVATION_relu, .rows = 1, .units = 4, .x = x, .y = x};
    CHECK(mrn_train_forward(trainer, &pass) == MRN_OK, "whole");
    CHECK(mrn_train_backward(trainer, &pass) == MRN_E_ARGUMENT, "no dy");
    pass.activation = MRN_ACTIVATION_softmax;
    CHECK(mrn_train_forward(trainer, &pass) == MRN_E_ARGUMENT, "softmax");
    pass.activation = MRN_ACTIVATION_prelu;
    CHECK(mrn_train_forward(trainer, &pass) == MRN_E_ARGUMENT, "no slopes");
    pass.activation = MRN_ACTIVATION_gelu;
    CHECK(mrn_train_forward(trainer, &pass) == MRN_E_ARGUMENT, "nothing kept");
    pass.activation = 1000;
    CHECK(mrn_train_forward(trainer, &pass) == MRN_E_ARGUMENT, "unknown");
    const mrn_update update = {.optimizer = MRN_OPTIMIZER_adam, .parameters = x, .gradients = x};
    CHECK(mrn_train_update(trainer, &update) == MRN_E_ARGUMENT, "no slots");
    CHECK(mrn_loss_name(mrn_loss_count()) == NULL && mrn_optimizer_name(mrn_optimizer_count()) == NULL,
          "lists end");
}

int main(void) {
    static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 10, 15, 16, 17, 31, 33, 64, 70, 130};
    for (size_t isa = 0; isa < mrn_isa_count(); isa++) {
        if (!mrn_isa_usable(isa))
            continue;
        isa_name = mrn_isa_name(isa);
        CHECK(mrn_trainer_open(isa, &trainer) == MRN_OK, "open");
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const size_t units = sizes[s], rows = 1 + s * 3 % 11;
            for (uint32_t a = 0; a < mrn_activation_count(); a++)
                if (a != MRN_ACTIVATION_softmax)
                    test_activation(a, rows, units);
            for (uint32_t l = 0; l < mrn_loss_count(); l++)
                if (units > 1 || l > MRN_LOSS_categorical_crossentropy) {
                    test_loss(l, rows, units, 0);
                    test_loss(l, rows, units, 0.2F);
                }
            test_normalization(rows + 2, units);
            test_rescaling(rows, units);
            for (uint32_t o = 0; o < mrn_optimizer_count(); o++)
                test_update(o, units);
        }
        test_rest();
        test_refusals();
    }
    puts("training: ok");
    return 0;
}
