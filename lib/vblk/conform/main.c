/*
 * main.c - vblk_conform: the conformance checks against a vhost-user-blk server.
 *
 *     vblk_conform [SOCKET]        without one: a qemu-storage-daemon of its own. Ends with 1 when
 * a check failed. It writes to the device.
 */
#include "../user/qsd.h"
#include "../user/session.h"
#include "conform.h"

static int check_all(struct vblk_session *s)
{
    static const char *const words[] = {"passed", "FAILED", "skipped"};
    struct conform c = {.dev = s->dev, .data = qz_vblk_user_alloc(s->user, CONFORM_DATA, 4096)};
    unsigned counts[3] = {0};

    for (unsigned i = 0; i < conform_check_count; i++) {
        const struct conform_check *k = &conform_checks[i];
        enum conform_result r = k->run(&c);

        counts[r]++;
        printf("%-8s %-8s %s%s%s\n", words[r], k->section, k->demand,
               r == CONFORM_FAILED ? ": " : "", r == CONFORM_FAILED ? c.why : "");
    }
    printf("%u passed, %u failed, %u skipped\n", counts[0], counts[1], counts[2]);
    return counts[1] != 0;
}

int main(int argc, char **argv)
{
    struct vblk_settings settings;
    struct vblk_session s;
    struct qz_error err = {0};
    struct qsd qsd = {0};
    int rc = argc > 1 ? 0 : qsd_start(&qsd, 16 << 20, 1, &err);

    if (rc < 0 && argc < 2) {
        printf("skipped: %s\n", err.text);
        qsd_end(&qsd);
        return 77;
    }
    settings_default(&settings);
    rc = session_open(&s, argc > 1 ? argv[1] : qsd.socket, &settings, &err);
    if (rc == 0) {
        rc = check_all(&s);
        session_close(&s);
    } else {
        fprintf(stderr, "vblk_conform: %s\n", err.text);
        rc = 1;
    }
    if (argc < 2)
        qsd_end(&qsd);
    return rc;
}
