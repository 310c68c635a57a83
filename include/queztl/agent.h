/*
 * agent.h - what queztl-agent, the program inside a guest, and those on the host who talk to it
 * agree upon.
 *
 * The agent listens on vsock, port QZ_AGENT_PORT, for the host only (context id 2). The port is one
 * that only root may listen on, so that no other program of the guest can take the agent's place.
 * From the host: connect to the socket PATH of --vsock CID,PATH and say "CONNECT 902\n".
 *
 * Each request is one line of JSON, each answer is one line, in the order of the requests:
 * {"ok":true,"data":{...}} or {"ok":false,"error":"..."}. A line has at most QZ_AGENT_LINE_MAX
 * bytes, its end included; the agent ends a connection on which a longer one comes, or none for
 * QZ_AGENT_IDLE_S. It serves QZ_AGENT_CLIENTS_MAX connections at a time; others are told so, and
 * closed.
 *
 *   {"cmd":"ping"}
 *       data: "agent" its version, "uptime_s" and "boot_id" of the guest.
 *
 *   {"cmd":"identity","hostname":NAME,"interfaces":[{"was":MAC,"mac":MAC},...]}
 *       The guest becomes another machine: its host name (1 to 64 characters, labels of letters,
 *       digits and '-' with dots between them), and the address of each network interface that has
 *       `was`. Both may be left out. What is so already is left alone, so a request may be
 * repeated. When something changed, the executables in the agent's identity.d run, in the order of
 *       their names, with QUEZTL_HOSTNAME, and QUEZTL_INTERFACES as "eth0=52:54:00:12:34:56 ...".
 *       data: "complete": all of it was done; "hostname": DONE; "interfaces", in the order of the
 *       request: {"mac":MAC,"name":NAME,"done":DONE}; "hooks": {"name":NAME,"done":DONE}.
 *       DONE is "changed" ("ok" for a hook), "already", or what went wrong, as "failed: REASON".
 */
#ifndef QUEZTL_AGENT_H
#define QUEZTL_AGENT_H

enum {
    QZ_AGENT_PORT = 902,
    QZ_AGENT_LINE_MAX = 16384,
    QZ_AGENT_CLIENTS_MAX = 8,
    QZ_AGENT_IDLE_S = 60,
    QZ_AGENT_HOSTNAME_MAX = 64,
    QZ_AGENT_INTERFACES_MAX = 32,
};

#endif
