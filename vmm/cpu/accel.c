/*
 * accel.c - the accelerators of this build, and the choice among them by measuring.
 */
#include "cpu/accel.h"

const struct accel_ops *const accel_all[] = {&accel_kvm, &accel_jit, NULL};

static int find_named(const char *name, const struct accel_ops **ops, struct qz_error *err)
{
    char known[128] = "auto";

    for (unsigned i = 0; accel_all[i]; i++) {
        const size_t used = strlen(known);

        if (strcmp(accel_all[i]->name, name) == 0) {
            *ops = accel_all[i];
            return 0;
        }
        snprintf(known + used, sizeof(known) - used, ", %s", accel_all[i]->name);
    }
    return qz_fail(err, -EINVAL, "accelerator '%s' is not known: %s", name, known);
}

/* Asked for by name, an accelerator only has to be there: its user may know why it is worth the
 * wait. */
static int choose_named(const char *name, const struct accel_ops **ops, struct accel_probe *probe,
                        struct qz_error *err)
{
    const struct accel_ops *found = NULL;
    int r = find_named(name, &found, err);

    if (r < 0)
        return r;
    r = found->probe(probe);
    if (r < 0 || !probe->present)
        return qz_fail(err, -ENODEV, "accelerator %s: %s", name, probe->reason);
    *ops = found;
    return 0;
}

int accel_choose(const char *name, const struct accel_ops **ops, struct accel_probe *probe,
                 struct qz_error *err)
{
    char reasons[400] = "";

    memset(probe, 0, sizeof(*probe));
    if (strcmp(name, "auto") != 0)
        return choose_named(name, ops, probe, err);

    for (unsigned i = 0; accel_all[i]; i++) {
        const size_t used = strlen(reasons);

        memset(probe, 0, sizeof(*probe));
        if (accel_all[i]->probe(probe) == 0 && probe->usable) {
            *ops = accel_all[i];
            return 0;
        }
        snprintf(reasons + used, sizeof(reasons) - used, "%s%s", used ? "; " : "", probe->reason);
    }
    return qz_fail(err, -ENODEV, "no accelerator of this host runs a kernel at speed: %s", reasons);
}
