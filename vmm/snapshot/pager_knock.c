/* pager_knock.c - a machine at a pager's door (pager.h). */
#include <sys/socket.h>

#include "snapshot/pager.h"

int pager_knock(int door, const struct pager_hello *hello, int userfault, int channel)
{
    const int fds[PAGER_HELLO_FDS] = {userfault, channel};
    char control[CMSG_SPACE(sizeof(fds))] = {0};
    struct iovec from = {(void *)hello, sizeof(*hello)};
    struct msghdr msg = {.msg_iov = &from,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(c), fds, sizeof(fds));
    return sendmsg(door, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}
