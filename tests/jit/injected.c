/*
 * injected.c - the comparison finds every bug of inject.c, and nothing without one.
 *
 *     jit-injected PROGRAM CHILD COUNT
 *
 * PROGRAM is the comparison with inject.c in it. It ends with 1 where sequences differ, with 3
 * where the engine crashed or hung.
 */
#include <queztl/base.h>

#include <fcntl.h>
#include <sys/wait.h>

enum { NOTHING = 0, DIFFERS = 1, CRASHED = 3, FAILED = -1 };

static const char *const injections[] = {
    "liveness",      /* CF counts as overwritten everywhere */
    "flags-save",    /* flags are not saved at the end of a block */
    "flags-load",    /* ADC and SBB do not get the guest's carry */
    "put-register",  /* r10 keeps its old value */
    "use-register",  /* r10 is read for r11 */
    "segment",       /* the bases of FS and GS are left out */
    "access-size",   /* accesses across the end of a page are not noticed */
    "access-kind",   /* writes need no permission to write */
    "canonical",     /* indirect branches go anywhere */
    "condition",     /* JNZ for JZ */
    "distance",      /* branches lead one byte too far */
    "return",        /* RET drops a word too many */
    "immediate",     /* ADD adds one more */
    "operation",     /* SUB for SBB */
    "high-byte",     /* AH for CH */
    "stack",         /* the wrong register is pushed and popped */
    "vector",        /* the wrong xmm register */
    "alignment",     /* operands that are not aligned are taken */
    "row-size",      /* several accesses across the end of a page are not noticed */
    "row-kind",      /* several writes need no permission to write */
    "row-place",     /* an access among several goes to the next word */
    "row-alignment", /* operands among several that are not aligned are taken */
    "row-lead",      /* the TLB is filled for another place than the first access's */
    "stale-code",    /* writes to code do not count */
    "jump-cache",    /* indirect branches find what was there before */
    "emitted-byte",  /* OR for XOR in the finished code */
    NULL,
};

static _Noreturn void become(char *const argv[], const char *bug)
{
    const int nothing = open("/dev/null", O_WRONLY);

    if (bug && setenv("QZ_INJECT", bug, 1) < 0)
        _exit(127);
    dup2(nothing, STDOUT_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

static int run_with(const char *program, const char *child, const char *count, const char *bug)
{
    char *const argv[] = {(char *)program, "--child",      (char *)child, "--count",
                          (char *)count,   "--first-only", NULL};
    pid_t pid;
    int status;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        become(argv, bug);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return FAILED;
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    unsigned missed = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: %s PROGRAM CHILD COUNT\n", argv[0]);
        return 2;
    }
    if (run_with(argv[1], argv[2], argv[3], NULL) != NOTHING) {
        printf("no bug: differs nevertheless\n");
        return 1;
    }
    for (unsigned n = 0; injections[n]; n++) {
        const int result = run_with(argv[1], argv[2], argv[3], injections[n]);
        const bool caught = result == DIFFERS || result == CRASHED;

        printf("%-14s %s\n", injections[n],
               result == DIFFERS   ? "caught"
               : result == CRASHED ? "caught: the engine crashed"
                                   : "MISSED");
        missed += !caught;
    }
    return missed ? 1 : 0;
}
