/*
 * commands.h - what virtioctl asks of a running driver, carried out in the thread that owns it.
 *
 * The answer is JSON: the result itself, or {"error": TEXT, "code": ERRNO}.
 */
#ifndef VBLK_COMMANDS_H
#define VBLK_COMMANDS_H

#include "session.h"

#include <jansson.h>

/* Carries out a command line, "queue-reset 1". NULL: it goes on, and *flush has to be submitted on
 * queue *queue; its end is the answer. */
json_t *command_run(struct vblk_session *s, const char *line, bool *flush, unsigned *queue);
json_t *command_error(int code, const char *text);
json_t *command_done(const char *what);

#endif
