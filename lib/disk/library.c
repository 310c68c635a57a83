/* library.c - opening libraries at run time (library.h). */
#include "library.h"

#include <dlfcn.h>

int library_open(const char *library, const char *package, const struct library_function *f,
                 size_t count, struct qz_error *err)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        return qz_fail(err, -ELIBACC, "this disk needs %s: %s (Debian's package is %s)", library,
                       dlerror(), package);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(f[i].library, library))
            continue;
        *f[i].function = dlsym(handle, f[i].name);
        if (!*f[i].function)
            return qz_fail(err, -ELIBBAD,
                           "%s has no function %s: install the version this was built for", library,
                           f[i].name);
    }
    return 0;
}
