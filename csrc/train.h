/* Between train.c, which checks, and the kernels, which compute the parts of a step of training: one table
 * for each set of float32 kernels. mrn.h says what each part does. */
#ifndef MRN_TRAIN_H
#define MRN_TRAIN_H

#include "mrn.h"

enum mrn_optimizer {
#define MRN_OPTIMIZER(id, name, slots) MRN_OPTIMIZER_##name = (id),
#include "optimizers.def"
#undef MRN_OPTIMIZER
};

enum mrn_loss {
#define MRN_LOSS(id, name, row) MRN_LOSS_##name = (id),
#include "losses.def"
#undef MRN_LOSS
};

struct mrn_trainer {
    void (*forward)(const mrn_activation_pass *pass);
    void (*backward)(const mrn_activation_pass *pass);
    void (*rescale)(const mrn_rescaling_pass *pass);
    void (*normalize)(const mrn_normalization_pass *pass);
    void (*standardize)(const mrn_normalization_pass *pass);
    void (*normalize_back)(const mrn_normalization_pass *pass);
    void (*drop)(const mrn_dropout_pass *pass);
    void (*loss)(const mrn_loss_pass *pass);
    void (*update)(const mrn_update *update);
    double (*squares)(const float *values, size_t count);
};

/* The kernels of instruction set `isa` (a number of isa.def, below mrn_isa_count()). */
const mrn_trainer *mrn_trainer_of(size_t isa);

#endif
