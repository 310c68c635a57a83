/* vm_report.c - what a machine says of itself: state, phases of its start, counters (vm.h). */
#include "vm/vm_disks.h"

QZ_SYSCALLS(main, "pread64");

static const char *state_name(enum vm_state s)
{
    static const char *const names[] = {"paused", "running", "resetting", "ended"};

    return names[s];
}

static void read_text(int fd, char *text, size_t size)
{
    const ssize_t n = fd < 0 ? 0 : pread(fd, text, size - 1, 0);

    text[QZ_MAX(n, (ssize_t)0)] = '\0';
}

/* The kernel's figures of this process: one that Linux 5.19 has, and lines of 6.4's. */
static json_t *merged(struct vm *vm)
{
    static const struct {
        const char *line, *name;
    } figures[] = {{"ksm_zero_pages ", "zero_pages"}, {"ksm_process_profit ", "profit_bytes"}};
    char text[512];
    json_t *o = json_object();

    read_text(vm->merging_fd, text, sizeof(text));
    if (*text)
        json_object_set_new(o, "pages", json_integer(strtoll(text, NULL, 10)));
    read_text(vm->ksm_stat_fd, text, sizeof(text));
    for (unsigned i = 0; i < QZ_ARRAY_LEN(figures); i++) {
        const char *at = strstr(text, figures[i].line);

        if (at)
            json_object_set_new(o, figures[i].name,
                                json_integer(strtoll(at + strlen(figures[i].line), NULL, 10)));
    }
    return o;
}

static json_t *balloon(struct vm *vm)
{
    json_t *figures = pc_balloon_metrics(&vm->pc);

    balloon_auto_report(vm->balloon, figures);
    return figures;
}

json_t *vm_info(struct vm *vm)
{
    json_t *o = json_object(), *loading = vm_loading_info(vm->loading);
    char buf[32], kept[200];
    const char *disk = pc_disk_kept(&vm->pc, kept, sizeof(kept));

    json_object_set_new(o, "name", json_string(vm->config.name));
    json_object_set_new(o, "version", json_string(QUEZTL_VERSION));
    json_object_set_new(o, "pid", json_integer(getpid()));
    json_object_set_new(o, "state", json_string(state_name(vm->state)));
    if (vm->state == VM_PAUSED && disk)
        json_object_set_new(
            o, "paused_by",
            json_pack("{s:s,s:s,s:s}", "cause", "disk", "disk", disk, "error", kept));
    json_object_set_new(o, "accel", json_string(vm->machine.accel->ops->name));
    json_object_set_new(o, "cpu_model", json_string(cpu_model_name(vm->config.model)));
    json_object_set_new(o, "irqchip", json_string(vm->config.own_lapic ? "user" : "split"));
    json_object_set_new(o, "cpus", json_integer(vm->machine.cpus));
    json_object_set_new(o, "memory_bytes", json_integer(vm->machine.memory.size));
    json_object_set_new(o, "memory",
                        json_string(qz_format_size(vm->machine.memory.size, buf, sizeof(buf))));
    json_object_set_new(o, "merge", json_boolean(vm->config.pages.merge));
    json_object_set_new(o, "hugepages", json_string(memory_pages_name(vm->config.pages.pages)));
    json_object_set_new(o, "resets", json_integer(vm->resets));
    json_object_set_new(o, "landlock_abi", json_integer(vm->landlock_abi));
    if (vm->boot.protocol)
        json_object_set_new(o, "boot",
                            json_pack("{s:s,s:s,s:I}", "protocol", vm->boot.protocol, "compression",
                                      vm->boot.compression, "kernel_bytes",
                                      (json_int_t)vm->boot.kernel_bytes));
    json_object_set_new(
        o, "phases_us",
        json_pack("{s:I,s:I,s:I,s:I,s:I}", "built", (json_int_t)(vm->built_ns - vm->born_ns) / 1000,
                  "confined", (json_int_t)(vm->confined_ns - vm->born_ns) / 1000, "loaded",
                  (json_int_t)(vm->loaded_ns - vm->born_ns) / 1000, "resumed",
                  (json_int_t)(vm->resumed_ns - vm->born_ns) / 1000, "first_exit",
                  (json_int_t)(vm->first_exit_ns ? vm->first_exit_ns - vm->born_ns : 0) / 1000));
    json_object_set_new(o, "balloon", balloon(vm));
    if (loading)
        json_object_set_new(o, "loading", loading);
    json_object_set_new(o, "devices", pc_info(&vm->pc));
    json_object_set_new(o, "disks", vm_disks_info(vm));
    return o;
}

json_t *vm_metrics(struct vm *vm)
{
    static const char *const kinds[EXIT_KINDS] = {
        [EXIT_PIO] = "pio",
        [EXIT_MMIO] = "mmio",
        [EXIT_HALT] = "halt",
        [EXIT_KICKED] = "kicked",
        [EXIT_IRQ_WINDOW] = "irq_window",
        [EXIT_RDMSR] = "rdmsr",
        [EXIT_WRMSR] = "wrmsr",
        [EXIT_IOAPIC_EOI] = "ioapic_eoi",
        [EXIT_SHUTDOWN] = "shutdown",
        [EXIT_DEBUG] = "debug",
        [EXIT_FAIL] = "fail",
    };
    json_t *o = pc_metrics(&vm->pc), *exits = json_object(),
           *loading = vm_loading_metrics(vm->loading);
    uint64_t count[EXIT_KINDS];
    unsigned long long pages = 0;
    char text[128] = "";

    json_object_set_new(o, "balloon", balloon(vm));
    if (vm->config.pages.merge)
        json_object_set_new(o, "merged", merged(vm));
    vcpu_group_exits(vm->vcpus, count);
    for (int i = 0; i < EXIT_KINDS; i++)
        json_object_set_new(exits, kinds[i], json_integer(count[i]));
    json_object_set_new(o, "exits", exits);
    if (loading)
        json_object_set_new(o, "loading", loading);
    if (pread(vm->statm_fd, text, sizeof(text) - 1, 0) > 0 && sscanf(text, "%*u %llu", &pages) == 1)
        json_object_set_new(o, "resident_bytes", json_integer(pages * 4096));
    json_object_set_new(o, "uptime_ns", json_integer(vm_clock_now(vm->machine.clock)));
    return o;
}

json_t *vm_snapshot_info(struct vm *vm, const struct vm_snapshot *s)
{
    const struct accel_ops *ops = vm->machine.accel->ops;

    return json_pack("{s:I,s:I,s:I,s:s,s:i,s:O,s:O,s:O}", "paused_us",
                     (json_int_t)s->paused_ns / 1000, "memory", (json_int_t)vm->machine.memory.size,
                     "layer_chunk", (json_int_t)vm->last.memory->chunk, "accelerator", ops->name,
                     "tsc_khz", (int)ops->tsc_khz(vm->machine.accel), "options", vm->options,
                     "command", vm->command, "disks", vm->last.disks);
}
