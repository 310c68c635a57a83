/* clone_list.c - see clone_list.h. */
#include "clone_list.h"

#include "agent_client.h"

#define AGENT_LIMIT_NS INT64_C(90000000000) /* programs of the guest may take a minute of it */

/* ---- identities, through the agents ---- */

/* Whether asking is of use: a guest without an agent at that moment has none now. */
static bool has_agent(const json_t *description)
{
    const char *agent = json_string_value(json_object_get(description, "agent"));

    return option_nth(json_object_get(description, "options"), "--vsock", 0) &&
           (!agent || strcmp(agent, "none"));
}

/* A word for the list; what went wrong is said, too. */
static const char *agent_word(const struct clone *k, const struct agent_call *call)
{
    const bool complete = json_is_true(json_object_get(call->data, "complete"));

    if (call->said == AGENT_NONE)
        return "none";
    if (call->said == AGENT_OK && complete)
        return "ok";
    if (call->said == AGENT_OK) {
        QZ_AUTO_FREE char *what = json_dumps(call->data, JSON_COMPACT);

        fprintf(stderr, "%s: its identity is not complete: %s\n", k->name, what ? what : "");
    } else {
        fprintf(stderr, "%s: the guest's agent: %s\n", k->name, call->text);
    }
    return "error";
}

void clones_hand_over(struct clone *clones, unsigned count, const json_t *description)
{
    QZ_AUTO_FREE struct agent_call *calls = NULL;
    const json_t *nets = json_object_get(description, "nets");

    for (unsigned i = 0; i < count; i++)
        clones[i].agent = "none";
    if (count && has_agent(description))
        calls = calloc(count, sizeof(*calls));
    for (unsigned i = 0; calls && i < count; i++) {
        calls[i].path = clones[i].identity.vsock;
        calls[i].pid = clones[i].pid;
        calls[i].line = identity_request(&clones[i].identity, nets);
    }
    if (calls)
        agent_call_all(calls, count, AGENT_LIMIT_NS);
    for (unsigned i = 0; calls && i < count; i++) {
        clones[i].agent = agent_word(&clones[i], &calls[i]);
        json_decref(calls[i].data);
        free(calls[i].line);
    }
}

/* ---- the list ---- */

static json_t *addresses(const struct machine_identity *i)
{
    json_t *list = json_array();

    for (unsigned k = 0; k < i->nets; k++)
        if (*i->mac[k])
            json_array_append_new(list, json_string(i->mac[k]));
    return list;
}

static void print_json(const struct clone *clones, unsigned count)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < count; i++) {
        const struct machine_identity *own = &clones[i].identity;
        json_t *o = json_pack("{s:s,s:i,s:s,s:s,s:o,s:s}", "name", clones[i].name, "pid",
                              (int)clones[i].pid, "control", clones[i].socket, "console",
                              clones[i].console, "nets", addresses(own), "agent", clones[i].agent);

        if (own->cid)
            json_object_set_new(
                o, "vsock",
                json_pack("{s:I,s:s}", "cid", (json_int_t)own->cid, "path", own->vsock));
        json_array_append_new(list, o);
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static void print_table(const struct clone *clones, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct clone *k = &clones[i];
        const struct machine_identity *own = &k->identity;

        printf("%s\t%d\t%s\t", k->name, k->pid, k->socket);
        for (unsigned n = 0; n < own->nets; n++)
            printf("%s%s", n ? "," : "", *own->mac[n] ? own->mac[n] : "-");
        if (own->cid)
            printf("\t%llu\t%s", (unsigned long long)own->cid, own->vsock);
        else
            printf("\t-\t-");
        printf("\tagent: %s\n", k->agent);
    }
}

void clones_print(const struct clone *clones, unsigned count, bool json)
{
    (json ? print_json : print_table)(clones, count);
}
