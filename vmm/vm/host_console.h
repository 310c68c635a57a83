/*
 * host_console.h - where the guest's console meets the host: the person's terminal, pipes, a file,
 * or nothing.
 *
 * A real terminal is put into raw mode, so that keys such as Ctrl-C reach the guest, and restored
 * at the end; Ctrl-A x ends the machine from the keyboard.
 */
#ifndef VMM_HOST_CONSOLE_H
#define VMM_HOST_CONSOLE_H

#include "machine/terminal.h"

struct host_console;
struct virtio_device;

/* where: "stdio", "none" or a file to write to. quit: what Ctrl-A x does, on the loop. */
int host_console_open(struct host_console **c, struct qz_loop *loop, const char *where,
                      void (*quit)(void *context), void *context, struct qz_error *err);
void host_console_free(struct host_console *c);
/* The terminal as it was, for a process that ends without freeing anything. Any thread. */
void host_console_restore(const struct host_console *c);
struct terminal *host_console_terminal(struct host_console *c); /* NULL for "none" */
/* The window changed: tells the guest's virtio console. */
void host_console_resized(struct host_console *c, struct virtio_device *console);

#endif
