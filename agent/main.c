/* main.c - queztl-agent: its options, then server.c for the rest of its life. */
#include <queztl/command.h>
#include <signal.h>
#include <sys/mman.h>

#include "server.h"

#define HOOKS_LIMIT_NS INT64_C(60000000000)

struct config {
    uint64_t port;
    const char *hooks;
};

static int set_port(void *t, const char *v, struct qz_error *err)
{
    return qz_parse_u64(v, "port", 1, UINT32_MAX - 1, &((struct config *)t)->port, err);
}

static int set_hooks(void *t, const char *v, struct qz_error *err)
{
    ((struct config *)t)->hooks = v;
    return 0;
}

static const struct qz_option options[] = {
    {"port", "N", "vsock port to listen on (default 902, which the host's tools expect)", set_port},
    {"identity-dir", "DIR",
     "programs to run when the identity has changed (default /etc/queztl/identity.d)", set_hooks},
    {0},
};

static int run(int argc, char **argv)
{
    struct config c = {.port = QZ_AGENT_PORT, .hooks = "/etc/queztl/identity.d"};
    struct agent a = {.idle_ns = QZ_AGENT_IDLE_S * INT64_C(1000000000)};
    struct qz_error err = {0};
    int i = qz_options_parse(options, argc, argv, &c, &err), listener;

    if (i >= 0 && i < argc)
        i = qz_fail(&err, -EINVAL, "\"%s\": there are no operands", argv[i]);
    if (i < 0)
        return qz_complain("queztl-agent", QZ_EXIT_USAGE, &err);
    signal(SIGPIPE, SIG_IGN);
    a.places = (struct identity_places){"/etc/hostname", c.hooks, HOOKS_LIMIT_NS};
    a.lock_fd = memfd_create("queztl-agent", MFD_CLOEXEC);
    if (a.lock_fd < 0)
        qz_fail(&err, -errno, "no file in memory: %s", strerror(errno));
    else if ((listener = server_listen((unsigned)c.port, &err)) >= 0)
        server_run(&a, listener, &err);
    return qz_complain("queztl-agent", QZ_EXIT_FAILED, &err);
}

int main(int argc, char **argv)
{
    static const struct qz_command commands[] = {
        {NULL, "serves this guest's host over vsock", NULL,
         "Run it as root in a guest whose machine has --vsock. The host gives a clone its host "
         "name "
         "and\nnetwork addresses through it; then it runs the executables in identity.d, with "
         "QUEZTL_HOSTNAME\nand QUEZTL_INTERFACES (\"eth0=52:54:00:12:34:56 ...\") in the "
         "environment.",
         options, run},
        {0},
    };
    static const struct qz_program program = {"queztl-agent", "the program inside a guest",
                                              commands};

    return qz_program_run(&program, argc, argv);
}
