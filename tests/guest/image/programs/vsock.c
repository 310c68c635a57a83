/*
 * vsock.c - the guest's end of a vsock connection.
 *
 *     vsock send CID PORT     connects, sends standard input, prints what comes back until the peer
 *                             closes
 *     vsock echo PORT         says "listening", then serves one connection: sends back what it
 * reads vsock cid               the context id of this guest
 */
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs.h"

static int copy(int from, int to)
{
    static char buf[65536];
    ssize_t n;

    while ((n = read(from, buf, sizeof(buf))) > 0)
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(to, buf + done, n - done)) < 0)
                return -1;
    return n < 0 ? -1 : 0;
}

static int connect_and_send(unsigned cid, unsigned port)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), status = 1, r;
    pid_t sender;

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        perror("vsock send: connect");
        return 1;
    }
    /* Both directions at once: a peer that echoes would otherwise fill the buffers and stop us
     * both. */
    sender = fork();
    if (sender == 0) {
        r = copy(STDIN_FILENO, fd);
        shutdown(fd, SHUT_WR);
        _exit(r < 0);
    }
    r = copy(fd, STDOUT_FILENO);
    if (sender > 0)
        waitpid(sender, &status, 0);
    if (r < 0 || status)
        perror("vsock send");
    return r < 0 || status;
}

static int echo(unsigned port)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), peer;

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
        perror("vsock echo");
        return 1;
    }
    puts("listening");
    fflush(stdout);
    peer = accept(fd, NULL, NULL);
    return peer < 0 || copy(peer, peer) < 0;
}

/* The context id that the kernel has read from the device. */
static int print_cid(void)
{
    int fd = open("/dev/vsock", O_RDONLY);
    unsigned cid;

    if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0) {
        perror("vsock cid");
        return 1;
    }
    printf("%u\n", cid);
    return 0;
}

int vsock(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "cid"))
        return print_cid();
    if (argc == 4 && !strcmp(argv[1], "send"))
        return connect_and_send(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
    if (argc == 3 && !strcmp(argv[1], "echo"))
        return echo(strtoul(argv[2], NULL, 10));
    fprintf(stderr, "usage: vsock send CID PORT | vsock echo PORT | vsock cid\n");
    return 2;
}
