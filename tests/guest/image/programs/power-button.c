/*
 * power-button.c - waits for the ACPI power button and powers the guest off.
 *
 *     power-button      reads every input device that has a power key; ends with 1 when there is
 * none
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "programs.h"

enum { DEVICES_MAX = 16 };

static int has_power_key(int fd)
{
    unsigned char keys[KEY_MAX / 8 + 1] = {0};

    return ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
           keys[KEY_POWER / 8] & 1 << KEY_POWER % 8;
}

static int open_buttons(struct pollfd *fds)
{
    DIR *d = opendir("/dev/input");
    struct dirent *e;
    int n = 0;

    while (d && n < DEVICES_MAX && (e = readdir(d))) {
        char path[sizeof("/dev/input/") + sizeof(e->d_name)];
        int fd;

        snprintf(path, sizeof(path), "/dev/input/%s", e->d_name);
        if (strncmp(e->d_name, "event", 5) || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
            continue;
        if (has_power_key(fd))
            fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        else
            close(fd);
    }
    if (d)
        closedir(d);
    return n;
}

int power_button(int argc, char **argv)
{
    struct pollfd fds[DEVICES_MAX];
    int n = open_buttons(fds);

    (void)argc, (void)argv;
    while (n && poll(fds, n, -1) > 0)
        for (int i = 0; i < n; i++) {
            struct input_event ev;

            if (!fds[i].revents)
                continue;
            if (read(fds[i].fd, &ev, sizeof(ev)) != sizeof(ev))
                return 1;
            if (ev.type == EV_KEY && ev.code == KEY_POWER && ev.value) {
                sync();
                reboot(RB_POWER_OFF);
            }
        }
    return 1;
}
