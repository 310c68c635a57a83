/* guest_tell.h - telling one guest who it is, through its agent. */
#ifndef TOOLS_GUEST_TELL_H
#define TOOLS_GUEST_TELL_H

#include "agent_client.h"

/* Asks, and says on standard error what went wrong. */
void guest_tell(struct agent_call *call, int64_t limit_ns);

#endif
