/* userfault.c - see userfault.h. */
#include "snapshot/userfault.h"

#include <fcntl.h>
#include <glob.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef USERFAULTFD_IOC_NEW /* Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define HUGE_PAGES "/sys/kernel/mm/transparent_hugepage"

int userfault_new(struct qz_error *err)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), device;

    if (fd >= 0)
        return fd;
    device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
    }
    return fd >= 0 ? fd
                   : qz_fail(err, -EPERM,
                             "this user has no userfaultfd: sysctl vm.unprivileged_userfaultfd=1, "
                             "or give access to /dev/userfaultfd");
}

/* "always [never] ...": the word in brackets is one of those by which a file in memory whose user
 * asked for nothing gets small pages only. No such file, no huge pages. */
static bool has_small_pages(const char *path)
{
    static const char *const good[] = {"[never]", "[advise]", "[deny]", "[inherit]"};
    char text[128] = "";
    QZ_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return true;
    for (size_t i = 0; i < QZ_ARRAY_LEN(good); i++)
        if (strstr(text, good[i]))
            return true;
    return false;
}

/* A huge page would come whole, zeros and all, when one byte of it is needed. */
static int check_huge_pages(struct qz_error *err)
{
    glob_t found;
    bool small = has_small_pages(HUGE_PAGES "/shmem_enabled");

    if (small && glob(HUGE_PAGES "/hugepages-*/shmem_enabled", GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; small && i < found.gl_pathc; i++)
            small = has_small_pages(found.gl_pathv[i]);
        globfree(&found);
    }
    return small ? 0
                 : qz_fail(err, -ENOTSUP,
                           "this host gives files in memory huge pages: echo advise "
                           ">%s/shmem_enabled",
                           HUGE_PAGES);
}

int userfault_check(struct qz_error *err)
{
    QZ_AUTO_FD int fd = userfault_new(err);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};

    if (fd < 0)
        return fd;
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return qz_fail(err, -ENOTSUP,
                       "this kernel's userfaultfd does not know files in memory: Linux 4.11 does");
    return check_huge_pages(err);
}
