/*
 * kvm_cpuid.c - CPUID between KVM's form and ours.
 *
 * KVM_GET_SUPPORTED_CPUID tells what the kernel can virtualize, with two gaps that are ours to
 * fill: the brand string, which is only a name, and features of the interrupt chip, which depend on
 * who emulates it.
 */
#include <cpuid.h>

#include "cpu/kvm/kvm_internal.h"

enum { KVM_ENTRIES_MAX = 256 };

#define PV_FEATURES 0x40000001u

union cpuid_buffer {
    struct kvm_cpuid2 head;
    uint8_t bytes[sizeof(struct kvm_cpuid2) + KVM_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2)];
};

static struct cpuid_entry *find(struct cpuid_table *t, uint32_t leaf)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->entry[i].leaf == leaf)
            return &t->entry[i];
    return NULL;
}

/*
 * Pieces of KVM's paravirtual interface that live in its local APIC are void when that is ours.
 * Messages with 15-bit destinations are the machine's own doing in either mode.
 */
static void adapt_pv_features(struct cpuid_table *t, bool own_lapic)
{
    struct cpuid_entry *pv = find(t, PV_FEATURES);
    const uint32_t in_lapic =
        1u << 6 /* PV_EOI */ | 1u << 7 /* PV_UNHALT */ | 1u << 11 /* PV_SEND_IPI */;

    if (!pv)
        return;
    pv->eax |= 1u << 15; /* MSI_EXT_DEST_ID */
    if (own_lapic)
        pv->eax &= ~in_lapic;
}

static void read_brand(struct cpuid_table *t)
{
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
        struct cpuid_entry e = {.leaf = leaf};

        if (find(t, leaf) || t->count == CPUID_MAX_ENTRIES ||
            !__get_cpuid(leaf, &e.eax, &e.ebx, &e.ecx, &e.edx))
            continue;
        t->entry[t->count++] = e;
    }
}

int kvm_read_supported_cpuid(int kvm_fd, const struct accel_config *config, struct cpuid_table *out,
                             struct qz_error *err)
{
    QZ_AUTO_FREE union cpuid_buffer *buffer = calloc(1, sizeof(*buffer));

    if (!buffer)
        return qz_fail(err, -ENOMEM, "out of memory");
    buffer->head.nent = KVM_ENTRIES_MAX;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &buffer->head) != 0)
        return qz_fail(err, -errno, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));

    out->count = 0;
    for (unsigned i = 0; i < buffer->head.nent && i < KVM_ENTRIES_MAX; i++) {
        const struct kvm_cpuid_entry2 *e = &buffer->head.entries[i];

        if ((e->eax | e->ebx | e->ecx | e->edx) == 0)
            continue; /* says nothing, and KVM lists a hundred of these */
        if (out->count == CPUID_MAX_ENTRIES)
            return qz_fail(err, -E2BIG, "KVM offers more than %d CPUID leaves", CPUID_MAX_ENTRIES);
        out->entry[out->count++] = (struct cpuid_entry){
            .leaf = e->function,
            .subleaf = e->index,
            .subleaf_matters = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = e->eax,
            .ebx = e->ebx,
            .ecx = e->ecx,
            .edx = e->edx,
        };
    }
    read_brand(out);
    adapt_pv_features(out, config->own_lapic);
    return 0;
}

int kvm_write_cpuid(int vcpu_fd, const struct cpuid_table *table)
{
    QZ_AUTO_FREE union cpuid_buffer *buffer = calloc(1, sizeof(*buffer));

    if (!buffer)
        return -ENOMEM;
    buffer->head.nent = table->count;
    for (unsigned i = 0; i < table->count; i++) {
        const struct cpuid_entry *e = &table->entry[i];

        buffer->head.entries[i] = (struct kvm_cpuid_entry2){
            .function = e->leaf,
            .index = e->subleaf,
            .flags = e->subleaf_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = e->eax,
            .ebx = e->ebx,
            .ecx = e->ecx,
            .edx = e->edx,
        };
    }
    return ioctl(vcpu_fd, KVM_SET_CPUID2, &buffer->head) == 0 ? 0 : -errno;
}
