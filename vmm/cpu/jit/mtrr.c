/*
 * mtrr.c - memory-type range registers and the page attribute table (SDM vol 3 §12.11, §12.12).
 *
 * They are kept and checked, and change nothing: all guest memory is cached by the host.
 */
#include "cpu/jit/msr_internal.h"

enum {
    MSR_MTRR_CAP = 0xfe,
    MSR_MTRR_BASE0 = 0x200,
    MSR_MTRR_LAST = 0x20f,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    CAP_FIXED = 1 << 8,
    CAP_WC = 1 << 10,
    VARIABLE = 8,
    DEF_TYPE_BITS = 0xcff,
    MASK_VALID = 1 << 11,
};

/* In the order of jit_msrs.mtrr_fixed. */
static const uint16_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

static bool is_type(unsigned type)
{
    return type <= 6 && type != 2 && type != 3;
}

static bool are_types(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8)
        if (!is_type(value & 0xff) && !(pat && (value & 0xff) == 7))
            return false;
    return true;
}

static uint64_t *fixed_register(struct jit_cpu *cpu, uint32_t index)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(fixed); i++)
        if (fixed[i] == index)
            return &cpu->msrs->mtrr_fixed[i];
    return NULL;
}

static bool is_variable(uint32_t index)
{
    return index >= MSR_MTRR_BASE0 && index <= MSR_MTRR_LAST;
}

static uint64_t *variable_register(struct jit_cpu *cpu, uint32_t index)
{
    const unsigned n = (index - MSR_MTRR_BASE0) / 2;

    return index & 1 ? &cpu->msrs->mtrr_mask[n] : &cpu->msrs->mtrr_base[n];
}

enum msr_result mtrr_read(struct jit_cpu *cpu, uint32_t index, uint64_t *value)
{
    const uint64_t *fixed_one = fixed_register(cpu, index);

    if (fixed_one)
        *value = *fixed_one;
    else if (is_variable(index))
        *value = *variable_register(cpu, index);
    else if (index == MSR_MTRR_CAP)
        *value = VARIABLE | CAP_FIXED | CAP_WC;
    else if (index == MSR_MTRR_DEF_TYPE)
        *value = cpu->msrs->mtrr_def_type;
    else if (index == MSR_PAT)
        *value = cpu->msrs->pat;
    else
        return MSR_NONE;
    return MSR_DONE;
}

static enum msr_result variable_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    const uint64_t low = index & 1 ? MASK_VALID : 0xff;

    if (value >> cpu->physical_bits || (value & 0xfff & ~low))
        return MSR_REFUSED;
    if (!(index & 1) && !is_type(value & 0xff))
        return MSR_REFUSED;
    *variable_register(cpu, index) = value;
    return MSR_DONE;
}

enum msr_result mtrr_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t *fixed_one = fixed_register(cpu, index);

    if (is_variable(index))
        return variable_write(cpu, index, value);
    if (fixed_one) {
        if (!are_types(value, false))
            return MSR_REFUSED;
        *fixed_one = value;
    } else if (index == MSR_MTRR_DEF_TYPE) {
        if ((value & ~(uint64_t)DEF_TYPE_BITS) || !is_type(value & 0xff))
            return MSR_REFUSED;
        cpu->msrs->mtrr_def_type = value;
    } else if (index == MSR_PAT) {
        if (!are_types(value, true))
            return MSR_REFUSED;
        cpu->msrs->pat = value;
    } else {
        return index == MSR_MTRR_CAP ? MSR_REFUSED : MSR_NONE;
    }
    return MSR_DONE;
}
