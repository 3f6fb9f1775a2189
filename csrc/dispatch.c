/* The lists of the .def files as functions, and the choice of an instruction set. */
#include "mrn.h"
#include "cpu.h"
#include "dot.h"
#include "kernels.h"
#include "train.h"

#include <math.h> /* INFINITY */

const char *mrn_status_name(int status) {
    switch (status) {
#define MRN_STATUS(name, code, message)                                                                      \
    case code:                                                                                               \
        return #name;
#include "status.def"
#undef MRN_STATUS
    default:
        return "E_UNKNOWN";
    }
}

const char *mrn_status_message(int status) {
    switch (status) {
#define MRN_STATUS(name, code, message)                                                                      \
    case code:                                                                                               \
        return message;
#include "status.def"
#undef MRN_STATUS
    default:
        return "a status that this library does not know";
    }
}

#define MRN_ACTIVATION(id, name, floor, pass, sloped) {#name, (floor), (sloped)},
static const struct {
    const char *name;
    float floor;
    int sloped;
} activations[] = {
#include "activations.def"
};
#undef MRN_ACTIVATION

size_t mrn_activation_count(void) {
    return sizeof activations / sizeof *activations;
}

const char *mrn_activation_name(size_t activation) {
    return activation < mrn_activation_count() ? activations[activation].name : NULL;
}

int mrn_activation_sloped(uint32_t activation) {
    return activations[activation].sloped;
}

float mrn_activation_floor(uint32_t activation) {
    return activations[activation].floor;
}

/* The kernels that isa.def names; sets share some, which are then declared again. */
#define MRN_ISA(name, features, float32, bfloat16, int8, split)                                              \
    extern const mrn_kernels mrn_kernels_##float32;                                                          \
    extern const mrn_trainer mrn_trainer_##float32;                                                          \
    extern const mrn_dots mrn_dots_##bfloat16, mrn_dots_##int8, mrn_dots_##split;
#include "isa.def"
#undef MRN_ISA

const mrn_dots mrn_dots_none = {0, 0, 0, 0, NULL, NULL};

#define MRN_ISA(name, features, float32, bfloat16, int8, split)                                              \
    {#name,                                                                                                  \
     (features),                                                                                             \
     &mrn_kernels_##float32,                                                                                 \
     &mrn_trainer_##float32,                                                                                 \
     {[MRN_PRECISION_float32] = &mrn_dots_none,                                                              \
      [MRN_PRECISION_float32_split] = &mrn_dots_##split,                                                     \
      [MRN_PRECISION_bfloat16] = &mrn_dots_##bfloat16,                                                       \
      [MRN_PRECISION_int8] = &mrn_dots_##int8}},
static const struct {
    const char *name;
    unsigned features;
    const mrn_kernels *kernels;
    const mrn_trainer *trainer;
    const mrn_dots *dots[MRN_PRECISION_int8 + 1];
} isas[] = {
#include "isa.def"
};
#undef MRN_ISA

size_t mrn_isa_count(void) {
    return sizeof isas / sizeof *isas;
}

const char *mrn_isa_name(size_t isa) {
    return isa < mrn_isa_count() ? isas[isa].name : NULL;
}

int mrn_isa_usable(size_t isa) {
    return isa < mrn_isa_count() && (isas[isa].features & ~mrn_cpu_features()) == 0;
}

/* strcmp, which a freestanding environment need not have. */
static int equal(const char *a, const char *b) {
    for (; *a && *a == *b; a++, b++)
        ;
    return *a == *b;
}

int mrn_isa_choose(const char *highest, size_t *isa) {
    if (!isa)
        return MRN_E_ARGUMENT;
    size_t bound = mrn_isa_count() - 1;
    if (highest) {
        bound = 0;
        while (bound < mrn_isa_count() && !equal(isas[bound].name, highest))
            bound++;
        if (bound == mrn_isa_count())
            return MRN_E_ISA;
    }
    const unsigned missing = ~mrn_cpu_features();
    while (isas[bound].features & missing) /* ends: generic needs nothing */
        bound--;
    *isa = bound;
    return MRN_OK;
}

const mrn_kernels *mrn_kernels_of(size_t isa) {
    return isas[isa].kernels;
}

const mrn_trainer *mrn_trainer_of(size_t isa) {
    return isas[isa].trainer;
}

const mrn_dots *mrn_dots_of(size_t isa, size_t precision) {
    const mrn_dots *dots = isas[isa].dots[precision];
    return dots->dense ? dots : NULL;
}

int mrn_precision_usable(size_t precision, size_t isa) {
    return precision < mrn_precision_count() && mrn_isa_usable(isa) &&
           (precision == MRN_PRECISION_float32 || mrn_dots_of(isa, precision));
}
