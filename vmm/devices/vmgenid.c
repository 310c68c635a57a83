/*
 * vmgenid.c - the virtual machine generation identifier (vmgenid.h).
 *
 * The page lies outside of RAM and is the monitor's own, so that it is at the same address whoever
 * boots the guest, and no loader of tables has to place it. It is mapped read-only: the guest reads
 * it as memory, cached, as the specification wants; what it writes there goes nowhere, over the
 * bus.
 */
#include "devices/vmgenid.h"

#include <sys/mman.h>

#include "devices/acpi_pm.h"

QZ_SYSCALLS(main, "getrandom");

enum { ID_SIZE = 16 };

struct vmgenid {
    struct machine *machine;
    struct acpi_pm *pm;
    uint8_t *page; /* the identifier is its beginning */
    bool on_bus, mapped;
};

static uint64_t page_read(void *device, uint64_t offset, unsigned size)
{
    const struct vmgenid *id = device;
    uint64_t v = 0;

    memcpy(&v, id->page + offset, size);
    return v;
}

static int fill(struct vmgenid *id, struct qz_error *err)
{
    uint8_t fresh[ID_SIZE];

    if (machine_random(id->machine, fresh, ID_SIZE) != ID_SIZE)
        return qz_fail(err, -EIO, "generation identifier: no random bytes: %s", strerror(errno));
    memcpy(id->page, fresh, ID_SIZE);
    return 0;
}

int vmgenid_renew(struct vmgenid *id, struct qz_error *err)
{
    const int r = fill(id, err);

    if (r == 0)
        acpi_pm_event(id->pm, ACPI_GPE_VMGENID);
    return r;
}

void vmgenid_state(struct vmgenid *id, struct qz_state *s)
{
    qz_state_group(s, "vmgenid");
    qz_state_data(s, "id", id->page, ID_SIZE);
    qz_state_end(s);
}

static int attach(struct vmgenid *id, struct qz_error *err)
{
    static const struct bus_ops ops = {page_read, NULL};
    struct accel_vm *vm = id->machine->accel;
    int r = bus_add(id->machine->mmio, &(struct bus_region){VMGENID_BASE, VMGENID_PAGE, &ops, id,
                                                            NULL, "generation identifier"});

    if (r < 0)
        return qz_fail(err, r, "generation identifier: its address 0x%llx is taken", VMGENID_BASE);
    id->on_bus = true;
    if (vm && vm->ops->memory_map) {
        r = vm->ops->memory_map(vm, VMGENID_BASE, VMGENID_PAGE, id->page, true);
        if (r < 0)
            return qz_fail(err, r, "generation identifier: %s does not map it: %s", vm->ops->name,
                           strerror(-r));
        id->mapped = true;
    }
    return 0;
}

int vmgenid_new(struct vmgenid **out, struct machine *m, struct acpi_pm *pm, struct qz_error *err)
{
    struct vmgenid *id = calloc(1, sizeof(*id));
    void *page =
        mmap(NULL, VMGENID_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r;

    if (!id || page == MAP_FAILED) {
        free(id);
        if (page != MAP_FAILED)
            munmap(page, VMGENID_PAGE);
        return qz_fail(err, -ENOMEM, "generation identifier: no memory");
    }
    *id = (struct vmgenid){.machine = m, .pm = pm, .page = page};
    r = fill(id, err);
    if (r == 0)
        r = attach(id, err);
    if (r < 0)
        vmgenid_free(id);
    else
        *out = id;
    return r;
}

void vmgenid_free(struct vmgenid *id)
{
    if (!id)
        return;
    if (id->on_bus)
        bus_remove(id->machine->mmio, VMGENID_BASE, VMGENID_PAGE);
    if (id->mapped)
        id->machine->accel->ops->memory_unmap(id->machine->accel, VMGENID_BASE, VMGENID_PAGE);
    munmap(id->page, VMGENID_PAGE);
    free(id);
}
