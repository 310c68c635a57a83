/*
 * userfault.h - pages that are not there yet, as the kernel tells of them (userfaultfd(2)).
 */
#ifndef VMM_USERFAULT_H
#define VMM_USERFAULT_H

#include <queztl/base.h>

/*
 * A userfaultfd of this process that sees faults of the kernel, too: KVM, io_uring and system calls
 * reach guest memory from there. -EPERM: this user may have none.
 */
int userfault_new(struct qz_error *err);
/* Whether files in memory can be filled page by page under who reads them, here and now. */
int userfault_check(struct qz_error *err);

#endif
