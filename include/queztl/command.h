/*
 * command.h - one table describes a program: its commands and their options.
 *
 * Parsing, --help, --version, the man page (--man) and shell completion (--completion
 * bash|zsh|fish) all come from that table, so they cannot disagree.
 */
#ifndef QUEZTL_COMMAND_H
#define QUEZTL_COMMAND_H

#include <queztl/base.h>

/* Exit codes that every program keeps to. */
enum {
    QZ_EXIT_OK = 0,
    QZ_EXIT_FAILED = 1,
    QZ_EXIT_USAGE = 2,
    QZ_EXIT_NOT_FOUND = 3,
    QZ_EXIT_CONFLICT = 4,
    QZ_EXIT_REFUSED = 5,
    QZ_EXIT_UNREACHABLE = 6,
    QZ_EXIT_GUEST_PANIC = 70,
    QZ_EXIT_TIMEOUT = 124,
};

struct qz_option {
    const char *name; /* long name without dashes */
    const char *arg;  /* what the value is called in the help, NULL for a switch */
    const char *help; /* one line; continuation lines after \n */
    /* Takes the value (NULL for a switch) into target; fills err on a bad one. May be called
     * repeatedly. */
    int (*set)(void *target, const char *value, struct qz_error *err);
};

struct qz_command {
    const char *name;                  /* NULL: the program itself, when it has no sub-commands */
    const char *summary;               /* one line */
    const char *operands;              /* "[IMAGE] [-- CMD...]", may be NULL */
    const char *details;               /* paragraphs for help and man page, may be NULL */
    const struct qz_option *options;   /* ends with an entry whose name is NULL; may be NULL */
    int (*run)(int argc, char **argv); /* argv[0]: the command's name; returns an exit code */
};

struct qz_program {
    const char *name, *summary;
    const struct qz_command *commands; /* ends with an entry whose summary is NULL */
};

/* Handles --help, --version, --man, --completion and unknown commands, then calls the command. For
 * main(). */
int qz_program_run(const struct qz_program *p, int argc, char **argv);

/*
 * Parses the options of one command: "--name value" or "--name=value". Stops at "--" or at the
 * first operand; returns the index of the first operand ("--" itself included), or -EINVAL with err
 * filled.
 */
int qz_options_parse(const struct qz_option *options, int argc, char **argv, void *target,
                     struct qz_error *err);

/*
 * The same with `least` to `most` operands, which may stand before, between and behind the options;
 * those that are not there are left as they are. 0, or -EINVAL with err filled; missing: what is to
 * be said when they are too few.
 */
int qz_operands_parse(const struct qz_option *options, int argc, char **argv, void *target,
                      char **operand, int least, int most, const char *missing,
                      struct qz_error *err);

/* Prints "program: text" and, for a usage error, where help is. Returns code. */
int qz_complain(const char *program, int code, const struct qz_error *err);

#endif
