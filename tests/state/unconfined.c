/* unconfined.c - in the place of vm/confine.c where a monitor is part of a test: its process is not
 * only a monitor, and sanitizers make system calls of their own. */
#include "vm/confine.h"

int confine_process(const struct confine_path *paths, unsigned count, int *landlock_abi,
                    struct qz_error *err)
{
    *landlock_abi = 0;
    return 0;
}

int confine_thread(enum confine_thread type, enum confine_mode mode, struct qz_error *err)
{
    return 0;
}

/* The words of options stay until the program ends (vm/config.h). */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
    return "leak:vm_config_parse\n";
}
