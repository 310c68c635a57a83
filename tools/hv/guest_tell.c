/* guest_tell.c - see guest_tell.h. */
#include "guest_tell.h"

void guest_tell(struct agent_call *call, int64_t limit_ns)
{
    agent_call_all(call, 1, limit_ns);
    if (call->said == AGENT_NONE) {
        qz_warn("the guest has no agent: it keeps its host name and addresses");
    } else if (call->said != AGENT_OK) {
        qz_warn("the guest's agent: %s", call->text);
    } else if (!json_is_true(json_object_get(call->data, "complete"))) {
        QZ_AUTO_FREE char *what = json_dumps(call->data, JSON_COMPACT);

        qz_warn("the guest's identity is not complete: %s", what ? what : "");
    }
    json_decref(call->data);
    call->data = NULL;
}
