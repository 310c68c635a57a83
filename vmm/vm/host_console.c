/*
 * host_console.c - the person's side of the console (host_console.h).
 *
 * Standard input and output are opened anew through /proc, so that making them non-blocking does
 * not change the descriptions shared with the shell; a socket cannot be opened that way and is used
 * as it is.
 */
#include "vm/host_console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include "devices/virtio/devices.h"

QZ_SYSCALLS(main, "ioctl");

struct host_console {
    struct terminal *terminal;
    int in_fd, out_fd, tty_fd; /* tty_fd: whose settings were changed, -1 none */
    struct termios saved;
};

/* A non-blocking twin of a standard descriptor; -1 when it is closed or cannot be had. Files never
 * block, and who shares one's position (standard error after 2>&1) is to go on sharing it. */
static int reopen(int fd, int flags)
{
    char path[32];
    struct stat st;
    int twin;

    if (fstat(fd, &st) < 0)
        return -1;
    if (S_ISREG(st.st_mode))
        return fcntl(fd, F_DUPFD_CLOEXEC, 3);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    twin = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    return twin >= 0 ? twin : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void make_raw(struct host_console *c)
{
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &c->saved) < 0)
        return;
    raw = c->saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST | ONLCR; /* the monitor's own messages still start at the left edge */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0)
        c->tty_fd = STDIN_FILENO;
}

int host_console_open(struct host_console **out, struct qz_loop *loop, const char *where,
                      void (*quit)(void *context), void *context, struct qz_error *err)
{
    struct host_console *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return qz_fail(err, -ENOMEM, "console: no memory");
    c->in_fd = c->out_fd = c->tty_fd = -1;
    *out = c;
    if (!strcmp(where, "none"))
        return 0;
    if (!strcmp(where, "stdio")) {
        c->in_fd = reopen(STDIN_FILENO, O_RDONLY);
        c->out_fd = reopen(STDOUT_FILENO, O_WRONLY);
        make_raw(c);
    } else {
        c->out_fd =
            open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
        if (c->out_fd < 0)
            return qz_fail(err, -errno, "console %s: cannot open: %s", where, strerror(errno));
    }
    r = terminal_new(&c->terminal, loop, c->in_fd, c->out_fd, err);
    if (r == 0 && c->tty_fd >= 0)
        terminal_set_escape(c->terminal, quit, context);
    return r;
}

void host_console_restore(const struct host_console *c)
{
    if (c->tty_fd >= 0)
        tcsetattr(c->tty_fd, TCSANOW, &c->saved);
}

void host_console_free(struct host_console *c)
{
    if (!c)
        return;
    terminal_free(c->terminal);
    host_console_restore(c);
    if (c->in_fd >= 0)
        close(c->in_fd);
    if (c->out_fd >= 0)
        close(c->out_fd);
    free(c);
}

struct terminal *host_console_terminal(struct host_console *c)
{
    return c->terminal;
}

void host_console_resized(struct host_console *c, struct virtio_device *console)
{
    struct winsize size;

    if (console && c->tty_fd >= 0 && ioctl(c->tty_fd, TIOCGWINSZ, &size) == 0)
        virtio_console_resize(console, size.ws_col, size.ws_row);
}
