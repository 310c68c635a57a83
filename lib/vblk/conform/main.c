/*
 * main.c - vblk_conform: the conformance checks against vhost-user-blk servers.
 *
 *     vblk_conform [SOCKET]
 *
 * Without a socket: qemu-storage-daemon and our own server, the latter also without packed rings
 * and read-only. Prints each demand with its result and the coverage. Ends with 1 when a check
 * failed. It writes to the device.
 */
#include "../user/own_server.h"
#include "../user/qsd.h"
#include "../user/session.h"
#include "conform.h"

enum { IMAGE = 16 << 20 };

/* What QEMU's daemon is known to do otherwise: libvhost-user reads a table only in the first
 * descriptor of a chain. It is told, and is no failure of this run. */
static const char *const known_of_qsd[] = {
    "descriptors may be followed by one that refers to a table", NULL};
static const char *const known_of_none[] = {NULL};

static bool is_known(const char *const *known, const char *text)
{
    for (; *known; known++)
        if (!strcmp(*known, text))
            return true;
    return false;
}

static bool notified(struct conform *c)
{
    const struct vblk_session *s = c->arg;
    uint64_t count;

    return read(qz_vblk_user_event_fd(s->user, 0), &count, sizeof(count)) > 0;
}

static unsigned check_all(struct vblk_session *s, const char *const *known)
{
    static const char *const words[] = {"passed", "FAILED", "skipped", "no check"};
    struct conform c = {.dev = s->dev,
                        .data = qz_vblk_user_alloc(s->user, CONFORM_DATA, 4096),
                        .notified = notified,
                        .arg = s};
    unsigned counts[CONFORM_RESULTS] = {0}, unknown = 0;

    for (unsigned i = 0; i < conform_demand_count; i++) {
        const struct conform_demand *d = &conform_demands[i];
        enum conform_result r = conform_run(&c, d);
        bool tell = r == CONFORM_FAILED || r == CONFORM_UNCHECKED;

        counts[r]++;
        unknown += r == CONFORM_FAILED && !is_known(known, d->text);
        printf("  %-8s %-9s %s%s%s\n", words[r], d->section, d->text, tell ? ": " : "",
               tell ? c.why : "");
    }
    printf("  %u demands: %u passed, %u failed, %u do not apply here, %u have no check\n",
           conform_demand_count, counts[CONFORM_PASSED], counts[CONFORM_FAILED],
           counts[CONFORM_SKIPPED], counts[CONFORM_UNCHECKED]);
    return unknown;
}

/* 0, or 1 when something failed. */
static int run(const char *name, const char *socket, bool packed, const char *const *known)
{
    struct vblk_settings settings;
    struct vblk_session s;
    struct qz_error err = {0};
    unsigned failures;

    settings_default(&settings);
    printf("%s\n", name);
    if (session_open(&s, socket, &settings, &err) < 0 ||
        (!packed && qz_vblk_set_feature(s.dev, VBLK_F_RING_PACKED, false) < 0)) {
        fprintf(stderr, "vblk_conform: %s\n", err.text);
        return 1;
    }
    failures = check_all(&s, known);
    session_close(&s);
    return failures != 0;
}

static int run_own(const char *name, bool packed, const char *options)
{
    struct own_server o;
    struct qz_error err = {0};
    int rc = own_server_start(&o, IMAGE, 1, options, &err);

    if (rc < 0)
        fprintf(stderr, "vblk_conform: %s\n", err.text);
    else
        rc = run(name, o.socket, packed, known_of_none);
    own_server_end(&o);
    return rc != 0;
}

static int run_qsd(void)
{
    struct qsd qsd;
    struct qz_error err = {0};
    int rc = qsd_start(&qsd, IMAGE, 1, &err);

    if (rc < 0)
        printf("skipped: %s\n", err.text);
    else
        rc = run("qemu-storage-daemon", qsd.socket, true, known_of_qsd);
    qsd_end(&qsd);
    return rc > 0;
}

int main(int argc, char **argv)
{
    int rc = 0;

    if (argc > 1)
        return run(argv[1], argv[1], true, known_of_none);
    rc |= run_own("our server, packed", true, "");
    rc |= run_own("our server, split", false, "");
    rc |= run_own("our server, read-only", true, ",readonly");
    return rc | run_qsd();
}
