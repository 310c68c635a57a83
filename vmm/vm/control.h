/*
 * control.h - the control socket: JSON lines over a unix stream socket.
 *
 * One request a line, {"cmd":"info"}, and one answer a line: {"ok":true,"data":{...}} or
 * {"ok":false,"error":"..."}. Only the user who runs the machine (and root) may connect.
 * docs/control.md lists the commands.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "vm/vm.h"

struct control;

/* Makes the socket (mode 0600); it is removed by control_free(). */
int control_new(struct control **c, struct qz_loop *loop, struct vm *vm, const char *path,
                struct qz_error *err);
void control_free(struct control *c);

#endif
