/* machine.h - programs that are started, waited for and killed, and machines whose console is
 * judged. */
#ifndef SNAPSHOT_MACHINE_H
#define SNAPSHOT_MACHINE_H

#include <queztl/base.h>
#include <queztl/command.h>
#include <sys/types.h>

#include "stream.h"

enum { WORDS_MAX = 40, PATH_ROOM = 256 };
#define PATIENCE_NS INT64_C(120000000000) /* a busy host is no failure */

/* Says why, kills everything that was started, and ends the process. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The processes that this one started, and those whose parent ended, all killed and gone. */
void kill_all(void);
/* All of them but one. */
void kill_orphans(pid_t but);
/* This process is the parent of those who lose theirs, and takes them along when it is ended. */
void adopt_orphans(void);

void pause_ns(int64_t ns);

/* ---- programs: words end with NULL; their output goes to `log` */

pid_t program_start(char *const *words, const char *log);
/* Its exit code, or 128 and the signal's number. Fails when it does not end. */
int program_end(pid_t pid);
/* Starts it and waits; fails when it ends with another code, and shows its output. */
void program_run(int wanted, const char *log, char *const *words);
int program_code(const char *log, char *const *words);
/* Waits for the processes that load memory; they hold their snapshot open. */
void pagers_end(bool killed);
/* Killed at once (SIGKILL) and waited for. */
void program_kill(pid_t pid);

/* ---- machines */

struct machine {
    pid_t pid;
    char socket[PATH_ROOM], console[PATH_ROOM], log[PATH_ROOM];
    size_t judged;     /* bytes of its console that were looked at */
    uint64_t position; /* what the guest says next */
};

/* Begins to say the stream at some position, which is found out. */
void machine_begins(struct machine *m);
/* What it said, and so many lines from now on, are the next ones. */
void machine_goes_on(struct machine *m, unsigned lines);
/* It was sent back: where to. */
struct moment machine_jumps(struct machine *m);
/* What it has said up to now is the stream; no wait. */
void machine_judge(struct machine *m);
/* One verb on its control socket; 0 or what it refused with. */
int machine_ask(const struct machine *m, const char *verb);
/* Waits until its control socket answers. */
void machine_answers(const struct machine *m);
/* Its pager is gone: true: it has all of its memory and lives on; false: it ended as it must, and
 * said nothing wrong before. */
bool machine_survives(struct machine *m);
/* Ends in good order, or fails. */
void machine_stop(struct machine *m);

#endif
