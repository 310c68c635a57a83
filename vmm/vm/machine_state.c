/*
 * machine_state.c - the parts of a machine, saved and loaded in the order in which they need each
 * other (machine_state.h).
 *
 * Clock first, since timers are armed by it; the PCI bus before the devices, whose registers it
 * places; interrupt controllers after every device, because their lines rise while they are loaded
 * and what the controllers made of that is replaced; then the vCPUs, and the paravirtual clock,
 * which is counted from theirs.
 */
#include "vm/machine_state.h"

#include "cpu/cpu_features.h"
#include "cpu/x86.h"
#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/isa_ports.h"
#include "devices/pci.h"
#include "devices/pflash.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/vmgenid.h"
#include "machine/hpet.h"
#include "machine/pit.h"
#include "snapshot/state_file.h"

enum { FEATURES_MAX = 4095, TSC_MATTERS = 1000 }; /* a guest keeps time to the thousandth part */

/* ---- the parts ---- */

static void clock_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    vm_clock_state(vm->machine.clock, s);
}

static void pci_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    pci_bus_state(vm->machine.pci, s);
}

static void platform_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    struct pc *pc = &vm->pc;

    acpi_pm_state(pc->pm, s);
    pit_state(pc->pit, s);
    hpet_state(pc->hpet, s);
    rtc_state(pc->rtc, s);
    serial_state(pc->serial, s);
    isa_ports_state(pc->ports, s);
    fw_cfg_state(pc->fw_cfg, s);
    vmgenid_state(pc->vmgenid, s);
    if (pc->pflash)
        pflash_state(pc->pflash, s);
}

static void virtio_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    virtio_pci_state(vm->pc.virtio[i].transport, s);
}

static void interrupts_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    irq_fabric_state(vm->machine.irq, s);
}

/* What a guest was given and this CPU lacks. */
static void check_features(const struct cpuid_table *table, const char *words, struct qz_state *s)
{
    enum feature_loss loss;
    char exposed[200] = "";
    const char *word;
    size_t len;

    for (word = words; (word = cpu_feature_lacking(table, word, &len, &loss)); word += len) {
        const size_t used = strlen(exposed);

        if (loss == LOSS_BREAKS)
            qz_state_refuse(s,
                            "the guest was given the CPU feature %.*s, which the CPU here does not "
                            "have: --cpu portable is for machines that move",
                            (int)QZ_MIN(len, (size_t)32), word);
        else if (loss == LOSS_EXPOSES)
            snprintf(exposed + used, sizeof(exposed) - used, " %.*s", (int)len, word);
    }
    if (*exposed && !qz_state_failed(s))
        qz_warn(
            "until it is booted again, the guest leaves out protections that the CPU it began on "
            "did not need:%s",
            exposed);
}

/* The features that the guest was told of: it uses them wherever it goes on. */
static void features_state(const struct cpuid_table *table, struct qz_state *s)
{
    char words[FEATURES_MAX + 1] = "";
    size_t len;

    if (cpu_feature_names(table, words, sizeof(words)) < 0)
        return qz_state_refuse(s, "more than %d characters of CPU features", FEATURES_MAX);
    len = strlen(words);
    qz_state_data_of(s, "features", words, &len, FEATURES_MAX);
    words[len] = '\0';
    if (words[strspn(words, "abcdefghijklmnopqrstuvwxyz0123456789_ ")])
        return qz_state_refuse(s, "names of CPU features with strange characters");
    if (qz_state_loading(s) && !qz_state_failed(s))
        check_features(table, words, s);
}

static void cpu_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    QZ_AUTO_FREE struct vcpu_state *v = NULL;
    struct accel_vm *accel = vm->machine.accel;
    enum feature_loss loss;
    size_t len;
    int r;

    if (posix_memalign((void **)&v, 64, sizeof(*v)))
        return qz_state_refuse(s, "no memory");
    memset(v, 0, sizeof(*v));
    r = qz_state_loading(s) ? 0 : vcpu_group_save(vm->vcpus, i, v);
    if (r == 0) {
        vcpu_registers_state(v, s);
        /* One of the features that may be lost (check_features) has a bit that is refused then. */
        if (cpu_feature_lacking(accel->ops->cpuid(accel), "auto_ibrs", &len, &loss))
            v->efer &= ~(uint64_t)EFER_AUTOIBRS;
        if (qz_state_loading(s) && !qz_state_failed(s))
            r = vcpu_group_load(vm->vcpus, i, v);
    }
    if (r < 0)
        qz_state_refuse(s, "%s does not %s it: %s", accel->ops->name,
                        qz_state_loading(s) ? "take" : "give", strerror(-r));
}

/* A counter of another frequency makes the guest's timers early or late: it is told, once. */
static void check_tsc(uint32_t khz, uint32_t here)
{
    const uint32_t apart = khz > here ? khz - here : here - khz;

    if (khz && here && apart > khz / TSC_MATTERS)
        qz_warn("the guest learned that its time-stamp counter runs at %u MHz, here it runs at %u: "
                "its timers are %s by %u %% until it is booted again",
                khz / 1000, here / 1000, here > khz ? "early" : "late",
                (unsigned)(100ull * apart / khz));
}

static void machine_part(struct vm *vm, unsigned i, struct qz_state *s)
{
    struct accel_vm *accel = vm->machine.accel;
    const uint32_t here = accel->ops->tsc_khz(accel);
    uint32_t khz = here;
    uint64_t pv_clock = 0;
    int r = qz_state_loading(s) ? 0 : accel->ops->pv_clock_get(accel, &pv_clock);

    features_state(accel->ops->cpuid(accel), s);
    QZ_STATE_ANY(s, "tsc_khz", khz);
    QZ_STATE(s, "pv_clock", pv_clock, INT64_MAX);
    pthread_mutex_lock(&vm->lock);
    qz_state_data_of(s, "exit_text", vm->exit_text, &vm->exit_text_len, sizeof(vm->exit_text) - 1);
    pthread_mutex_unlock(&vm->lock);
    if (qz_state_loading(s) && !qz_state_failed(s)) {
        check_tsc(khz, here);
        r = accel->ops->pv_clock_set(accel, pv_clock);
    }
    if (r < 0)
        qz_state_refuse(s, "the paravirtual clock: %s", strerror(-r));
}

/* ---- all of them ---- */

struct part {
    char name[STATE_FILE_NAME];
    void (*state)(struct vm *vm, unsigned i, struct qz_state *s);
    unsigned i;
};

static void add(struct part *parts, unsigned *n,
                void (*state)(struct vm *, unsigned, struct qz_state *), const char *name,
                unsigned i)
{
    parts[*n] = (struct part){.state = state, .i = i};
    snprintf(parts[(*n)++].name, STATE_FILE_NAME, "%s", name);
}

static unsigned list_parts(const struct vm *vm, struct part parts[STATE_FILE_SECTIONS])
{
    char name[STATE_FILE_NAME];
    unsigned n = 0;

    add(parts, &n, clock_part, "clock", 0);
    add(parts, &n, pci_part, "pci", 0);
    add(parts, &n, platform_part, "platform", 0);
    for (unsigned i = 0; i < vm->pc.virtio_count; i++) {
        snprintf(name, sizeof(name), "virtio-%u-%s", i, vm->pc.virtio[i].kind);
        add(parts, &n, virtio_part, name, i);
    }
    add(parts, &n, interrupts_part, "interrupts", 0);
    for (unsigned i = 0; i < vm->machine.cpus; i++) {
        snprintf(name, sizeof(name), "cpu-%u", i);
        add(parts, &n, cpu_part, name, i);
    }
    add(parts, &n, machine_part, "machine", 0);
    return n;
}
_Static_assert(5 + PC_VIRTIO_MAX + VM_CPUS_MAX <= STATE_FILE_SECTIONS, "each part is a section");

static int save_parts(struct vm *vm, const struct part *parts, unsigned n, struct qz_state **states,
                      struct state_section *sections, struct qz_error *err)
{
    for (unsigned i = 0; i < n; i++) {
        states[i] = qz_state_save();
        if (!states[i])
            return qz_fail(err, -ENOMEM, "no memory");
        parts[i].state(vm, parts[i].i, states[i]);
        if (qz_state_finish(states[i], err) < 0)
            return qz_error_prefix(err, "%s", parts[i].name);
        memcpy(sections[i].name, parts[i].name, STATE_FILE_NAME);
        sections[i].data = qz_state_bytes(states[i], &sections[i].len);
    }
    return 0;
}

int machine_state_save(struct vm *vm, void **bytes, size_t *len, struct qz_error *err)
{
    QZ_AUTO_FREE struct part *parts = calloc(STATE_FILE_SECTIONS, sizeof(*parts));
    QZ_AUTO_FREE struct qz_state **states = calloc(STATE_FILE_SECTIONS, sizeof(struct qz_state *));
    QZ_AUTO_FREE struct state_section *sections = calloc(STATE_FILE_SECTIONS, sizeof(*sections));
    unsigned n;
    int r;

    if (!parts || !states || !sections)
        return qz_fail(err, -ENOMEM, "no memory");
    n = list_parts(vm, parts);
    r = save_parts(vm, parts, n, states, sections, err);
    if (r == 0)
        r = state_file_pack(sections, n, bytes, len, err);
    for (unsigned i = 0; i < n; i++)
        qz_state_free(states[i]);
    return r;
}

/* The sections of a file and the parts of this machine; *n: how many. */
static int match_parts(struct vm *vm, const void *bytes, size_t len, struct state_file *file,
                       struct part parts[STATE_FILE_SECTIONS], unsigned *n, struct qz_error *err)
{
    int r = state_file_parse(bytes, len, file, err);

    if (r < 0)
        return r;
    *n = list_parts(vm, parts);
    if (*n != file->count)
        return qz_fail(err, -EINVAL,
                       "%u sections, but this machine has %u parts: the snapshot is of "
                       "another machine",
                       file->count, *n);
    for (unsigned i = 0; i < *n; i++)
        if (!state_file_find(file, parts[i].name))
            return qz_fail(err, -EINVAL,
                           "section %s is missing: the snapshot is of another machine",
                           parts[i].name);
    return 0;
}

int machine_state_check(struct vm *vm, const void *bytes, size_t len, struct qz_error *err)
{
    QZ_AUTO_FREE struct part *parts = calloc(STATE_FILE_SECTIONS, sizeof(*parts));
    QZ_AUTO_FREE struct state_file *file = calloc(1, sizeof(*file));
    unsigned n;

    return parts && file ? match_parts(vm, bytes, len, file, parts, &n, err)
                         : qz_fail(err, -ENOMEM, "no memory");
}

static int load_part(struct vm *vm, const struct part *p, const struct state_file *file,
                     struct qz_error *err)
{
    const struct state_section *section = state_file_find(file, p->name);
    struct qz_state *s = qz_state_load(section->data, section->len);
    int r;

    if (!s)
        return qz_fail(err, -ENOMEM, "no memory");
    p->state(vm, p->i, s);
    r = qz_state_finish(s, err);
    qz_state_free(s);
    return r < 0 ? qz_error_prefix(err, "%s", p->name) : 0;
}

int machine_state_load(struct vm *vm, const void *bytes, size_t len, struct qz_error *err)
{
    QZ_AUTO_FREE struct part *parts = calloc(STATE_FILE_SECTIONS, sizeof(*parts));
    QZ_AUTO_FREE struct state_file *file = calloc(1, sizeof(*file));
    unsigned n;
    int r;

    if (!parts || !file)
        return qz_fail(err, -ENOMEM, "no memory");
    r = match_parts(vm, bytes, len, file, parts, &n, err);
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = load_part(vm, &parts[i], file, err);
    return r;
}
