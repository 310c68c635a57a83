/*
 * terminal.h - the host's end of a guest console: standard input and output, a file, or nothing.
 *
 * Several devices (16550, virtio console) may share one terminal: all of them write. What is typed
 * goes to the one that has the focus: of those that the guest listens to, the one that wrote last.
 * Nothing here blocks: when the host side is slow, write takes less than it was given and the
 * device keeps the rest (UART: transmitter not empty; virtio: buffer not returned).
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <queztl/loop.h>

struct terminal;

struct terminal_client {
    /* Typed bytes, on the terminal's loop; returns how many were taken (0: full, call terminal_pull
     * later). */
    size_t (*receive)(struct terminal_client *c, const uint8_t *data, size_t len);
    /* Room for output again after a short write, on the terminal's loop. May be NULL. */
    void (*writable)(struct terminal_client *c);
    struct terminal *terminal;
    struct terminal_client *next;
    bool waiting;   /* wants writable() */
    bool listening; /* terminal_listen() */
};

/* Puts a terminal on descriptors (either may be -1); they stay the caller's. */
int terminal_new(struct terminal **t, struct qz_loop *loop, int in_fd, int out_fd,
                 struct qz_error *err);
/* On: terminal_write() waits until everything is taken, so that a deterministic machine sees
 * nothing of how slow the host's side is. Off: who waits now goes on. Any thread. */
void terminal_wait_for_reader(struct terminal *t, bool on);
void terminal_free(struct terminal *t); /* flushes what it can without blocking */

void terminal_attach(struct terminal *t, struct terminal_client *c); /* before the loop runs */
void terminal_focus(struct terminal_client *c); /* input goes to c; any thread */
/* The guest began or ceased to read from c; any thread. */
void terminal_listen(struct terminal_client *c, bool listening);
size_t terminal_write(struct terminal_client *c, const void *data, size_t len); /* any thread */
void terminal_pull(struct terminal_client *c); /* c has room for input again; any thread */

/* From now on Ctrl-A x in the input calls quit (on the loop); Ctrl-A Ctrl-A sends one Ctrl-A. */
void terminal_set_escape(struct terminal *t, void (*quit)(void *context), void *context);

#endif
