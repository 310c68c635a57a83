/*
 * vsock.c - the guest's end of the vsock tests.
 *     vsock send CID PORT TEXT     connects, sends TEXT, prints what comes back
 *     vsock echo PORT              serves one connection: sends back what it reads
 */
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int send_text(unsigned cid, unsigned port, const char *text)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    char buf[4096];
    ssize_t n;

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || write(fd, text, strlen(text)) < 0) {
        perror("vsock send");
        return 1;
    }
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        fwrite(buf, 1, n, stdout);
    return n < 0;
}

static int echo(unsigned port)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), peer;
    char buf[4096];
    ssize_t n;

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
        perror("vsock echo");
        return 1;
    }
    puts("listening");
    fflush(stdout);
    peer = accept(fd, NULL, NULL);
    while ((n = read(peer, buf, sizeof(buf))) > 0)
        if (write(peer, buf, n) != n)
            return 1;
    return n < 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "send"))
        return send_text(atoi(argv[2]), atoi(argv[3]), argv[4]);
    if (argc == 3 && !strcmp(argv[1], "echo"))
        return echo(atoi(argv[2]));
    fprintf(stderr, "usage: vsock send CID PORT TEXT | vsock echo PORT\n");
    return 2;
}
