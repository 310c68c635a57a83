/* run_identity.c - see run_identity.h. */
#include "run_identity.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "guest_tell.h"
#include "machine_identity.h"
#include "machine_start.h"
#include "vsock_ids.h"

#define AGENT_LIMIT_NS INT64_C(90000000000) /* programs of the guest may take a minute of it */
#define START_NS       INT64_C(3000000000)

static void typed_identity(struct machine_identity *i, const struct vm_config *c, const char *name,
                           const json_t *options)
{
    const char *had = option_nth(options, "--name", 0);

    *i = (struct machine_identity){.nets = c->nets, .id_lock = -1};
    if (name && (!had || strcmp(had, name)))
        hostname_from(i->hostname, sizeof(i->hostname), name);
    for (unsigned k = 0; k < c->nets; k++) {
        const uint8_t *m = c->net[k].mac;

        if (c->net[k].has_mac)
            snprintf(i->mac[k], MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
                     m[4], m[5]);
    }
}

/* Stays open in the machine. Two machines with an id that was typed are no error of ours. */
static void keep_id(uint64_t cid)
{
    const int fd = vsock_id_take_exactly(cid, NULL);

    if (fd < 0)
        return;
    fcntl(fd, F_DUPFD, HANDED_FIRST + HANDED_MAX);
    close(fd);
}

/* A grandchild, which the machine need not look after. It goes when the machine does. */
static int leave_behind(struct agent_call *call, struct qz_error *err)
{
    const pid_t child = fork();
    int null;

    if (child < 0)
        return qz_fail(err, -errno, "no process for the guest's identity: %s", strerror(errno));
    if (child > 0)
        return waitpid(child, NULL, 0) < 0 ? -errno : 0;
    if (fork() != 0)
        _exit(0);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    closefrom(STDERR_FILENO + 1);
    guest_tell(call, AGENT_LIMIT_NS);
    _exit(0);
}

int run_identity(const struct vm_config *c, const char *name, const json_t *description,
                 struct qz_error *err)
{
    const json_t *options = json_object_get(description, "options");
    const char *agent = json_string_value(json_object_get(description, "agent")),
               *was = vsock_path(option_nth(options, "--vsock", 0));
    struct agent_call *call = calloc(1, sizeof(*call));
    struct machine_identity i;
    int r = 0;

    if (!call)
        return qz_fail(err, -ENOMEM, "no memory");
    if (c->vsock_path)
        keep_id(c->vsock_cid);
    typed_identity(&i, c, name, options);
    call->path = c->vsock_path ? c->vsock_path : was;
    call->pid = getpid();
    call->starting_ns = agent && !strcmp(agent, "ok") ? AGENT_LIMIT_NS : START_NS;
    call->line = identity_request(&i, json_object_get(description, "nets"));
    if (call->line && call->path && (!agent || strcmp(agent, "none")))
        r = leave_behind(call, err);
    else if (call->line)
        qz_warn("the guest has no agent (or the machine no --vsock): it keeps its host name and "
                "addresses");
    free(call->line);
    free(call);
    return r;
}
