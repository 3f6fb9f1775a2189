/* The parts of a step of training: their descriptions are checked here, the kernels compute. */
#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "train.h"

#define MRN_LOSS(id, name, row) #name,
static const char *const losses[] = {
#include "losses.def"
};
#undef MRN_LOSS

#define MRN_OPTIMIZER(id, name, slots) {#name, (slots)},
static const struct {
    const char *name;
    size_t slots;
} optimizers[] = {
#include "optimizers.def"
};
#undef MRN_OPTIMIZER

size_t mrn_loss_count(void) {
    return sizeof losses / sizeof *losses;
}

const char *mrn_loss_name(size_t loss) {
    return loss < mrn_loss_count() ? losses[loss] : NULL;
}

size_t mrn_optimizer_count(void) {
    return sizeof optimizers / sizeof *optimizers;
}

const char *mrn_optimizer_name(size_t optimizer) {
    return optimizer < mrn_optimizer_count() ? optimizers[optimizer].name : NULL;
}

int mrn_trainer_open(size_t isa, const mrn_trainer **trainer) {
    if (!trainer)
        return MRN_E_ARGUMENT;
    if (!mrn_isa_usable(isa))
        return MRN_E_ISA;
    *trainer = mrn_trainer_of(isa);
    return MRN_OK;
}

static int outside(const int64_t *rows, size_t count, size_t table_rows) {
    for (size_t i = 0; i < count; i++)
        if (rows[i] < 0 || (uint64_t)rows[i] >= table_rows)
            return 1;
    return 0;
}

int mrn_train_gather(const void *table, size_t table_rows, size_t row_bytes, const int64_t *rows,
                     size_t count, void *out) {
    if (!table || !rows || !out)
        return MRN_E_ARGUMENT;
    if (outside(rows, count, table_rows))
        return MRN_E_RANGE;
    const unsigned char *from = table;
    unsigned char *to = out;
    for (size_t i = 0; i < count; i++, to += row_bytes)
        memcpy(to, from + (size_t)rows[i] * row_bytes, row_bytes);
    return MRN_OK;
}

int mrn_train_rescale(const mrn_trainer *trainer, const mrn_rescaling_pass *pass) {
    if (!trainer || !pass || !pass->units || !pass->y || !pass->bytes == !pass->floats)
        return MRN_E_ARGUMENT;
    if (pass->numbers ? outside(pass->numbers, pass->rows, pass->table_rows) : pass->rows > pass->table_rows)
        return MRN_E_RANGE;
    trainer->rescale(pass);
    return MRN_OK;
}

static int keeps(uint32_t activation) {
    return activation == MRN_ACTIVATION_prelu || activation == MRN_ACTIVATION_silu ||
           activation == MRN_ACTIVATION_gelu || activation == MRN_ACTIVATION_gelu_tanh;
}

static int wrong(const mrn_activation_pass *pass) {
    return !pass->units || !pass->y || pass->activation >= mrn_activation_count() ||
           pass->activation == MRN_ACTIVATION_softmax ||
           !pass->slope != !mrn_activation_sloped(pass->activation) ||
           (!pass->kept && keeps(pass->activation));
}

int mrn_train_forward(const mrn_trainer *trainer, const mrn_activation_pass *pass) {
    if (!trainer || !pass || wrong(pass) || !pass->x)
        return MRN_E_ARGUMENT;
    trainer->forward(pass);
    return MRN_OK;
}

int mrn_train_backward(const mrn_trainer *trainer, const mrn_activation_pass *pass) {
    if (!trainer || !pass || wrong(pass) || !pass->dy || !pass->dx ||
        (pass->dslope && pass->activation != MRN_ACTIVATION_prelu))
        return MRN_E_ARGUMENT;
    trainer->backward(pass);
    return MRN_OK;
}

int mrn_train_normalize(const mrn_trainer *trainer, const mrn_normalization_pass *pass) {
    if (!trainer || !pass || !pass->units || !pass->x || !pass->y || !pass->mean || !pass->inverse ||
        !pass->moving_mean || !pass->moving_variance)
        return MRN_E_ARGUMENT;
    if (pass->rows)
        trainer->normalize(pass);
    return MRN_OK;
}

int mrn_train_standardize(const mrn_trainer *trainer, const mrn_normalization_pass *pass) {
    if (!trainer || !pass || !pass->units || !pass->x || !pass->y || !pass->mean || !pass->inverse)
        return MRN_E_ARGUMENT;
    trainer->standardize(pass);
    return MRN_OK;
}

int mrn_train_normalize_back(const mrn_trainer *trainer, const mrn_normalization_pass *pass) {
    if (!trainer || !pass || !pass->units || !pass->x || !pass->mean || !pass->inverse || !pass->dy)
        return MRN_E_ARGUMENT;
    if (pass->rows)
        trainer->normalize_back(pass);
    return MRN_OK;
}

int mrn_train_drop(const mrn_trainer *trainer, const mrn_dropout_pass *pass) {
    if (!trainer || !pass || !pass->seed || !pass->from || !pass->to)
        return MRN_E_ARGUMENT;
    trainer->drop(pass);
    return MRN_OK;
}

int mrn_train_loss(const mrn_trainer *trainer, const mrn_loss_pass *pass) {
    if (!trainer || !pass || !pass->sum || pass->loss >= mrn_loss_count() || !pass->units || !pass->outputs ||
        !pass->losses)
        return MRN_E_ARGUMENT;
    if (pass->loss == MRN_LOSS_sparse_categorical_crossentropy) {
        if (!pass->classes)
            return MRN_E_ARGUMENT;
        for (size_t r = 0; r < pass->rows; r++)
            if (pass->classes[r] < 0 || (uint64_t)pass->classes[r] >= pass->units)
                return MRN_E_RANGE;
    } else if (!pass->targets)
        return MRN_E_ARGUMENT;
    trainer->loss(pass);
    return MRN_OK;
}

int mrn_train_update(const mrn_trainer *trainer, const mrn_update *update) {
    if (!trainer || !update || update->optimizer >= mrn_optimizer_count() || !update->parameters ||
        !update->gradients)
        return MRN_E_ARGUMENT;
    for (size_t s = 0; s < optimizers[update->optimizer].slots; s++)
        if (!update->slots[s])
            return MRN_E_ARGUMENT;
    trainer->update(update);
    return MRN_OK;
}

int mrn_train_squares(const mrn_trainer *trainer, const float *values, size_t count, double *sum) {
    if (!trainer || !values || !sum)
        return MRN_E_ARGUMENT;
    *sum = trainer->squares(values, count);
    return MRN_OK;
}
