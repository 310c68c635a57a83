/* power-button.c - waits for the ACPI power button and ends the guest cleanly. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
    struct pollfd fds[16];
    int n = 0;
    DIR *d = opendir("/dev/input");
    struct dirent *e;

    while (d && (e = readdir(d)) && n < 16) {
        char path[300];

        snprintf(path, sizeof(path), "/dev/input/%s", e->d_name);
        if (!strncmp(e->d_name, "event", 5) && (fds[n].fd = open(path, O_RDONLY)) >= 0)
            fds[n++].events = POLLIN;
    }
    while (n && poll(fds, n, -1) > 0)
        for (int i = 0; i < n; i++) {
            struct input_event ev;

            if (fds[i].revents && read(fds[i].fd, &ev, sizeof(ev)) == sizeof(ev) && ev.type == EV_KEY &&
                ev.code == KEY_POWER && ev.value) {
                sync();
                reboot(RB_POWER_OFF);
            }
        }
    return 1;
}
