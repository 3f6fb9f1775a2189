/* What this build knows by name or number: statuses, activations, instruction sets. */
#include <string.h>

#include "cpu.h"
#include "dispatch.h"
#include "kernels.h"
#include "mrn.h"

static const struct {
    int code;
    const char *name, *message;
} statuses[] = {
#define MRN_STATUS(name, code, message) {(code), #name, message},
#include "status.def"
#undef MRN_STATUS
};

static const struct {
    const char *name;
    unsigned features;
    const mrn_kernels *kernels;
} isas[] = {
#define MRN_ISA(name, features) {#name, (features), &mrn_kernels_##name},
#include "isa.def"
#undef MRN_ISA
};

static const char *const activations[] = {
#define MRN_ACTIVATION(id, name) [id] = #name,
#include "activations.def"
#undef MRN_ACTIVATION
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *mrn_status_name(int status) {
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (statuses[i].code == status)
            return statuses[i].name;
    return "E_UNKNOWN";
}

const char *mrn_status_message(int status) {
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (statuses[i].code == status)
            return statuses[i].message;
    return "a status that this library does not know";
}

size_t mrn_activation_count(void) { return COUNT(activations); }

const char *mrn_activation_name(size_t activation) {
    return activation < COUNT(activations) ? activations[activation] : NULL;
}

size_t mrn_isa_count(void) { return COUNT(isas); }

const char *mrn_isa_name(size_t isa) { return isa < COUNT(isas) ? isas[isa].name : NULL; }

int mrn_isa_usable(size_t isa) {
    return isa < COUNT(isas) && (isas[isa].features & ~mrn_cpu_features()) == 0;
}

int mrn_isa_choose(const char *highest, size_t *isa) {
    size_t limit = COUNT(isas) - 1;
    if (isa == NULL)
        return MRN_E_ARGUMENT;
    if (highest != NULL) {
        for (limit = 0; limit < COUNT(isas) && strcmp(isas[limit].name, highest) != 0; limit++)
            ;
        if (limit == COUNT(isas))
            return MRN_E_ISA;
    }
    while (!mrn_isa_usable(limit)) /* ends at 0: generic needs nothing */
        limit--;
    *isa = limit;
    return MRN_OK;
}

const mrn_kernels *mrn_kernels_of(size_t isa) { return mrn_isa_usable(isa) ? isas[isa].kernels : NULL; }
