/* command.c - command tables: parsing, help, man page, completion (<queztl/command.h>). */
#include <queztl/command.h>

static const char *const common[] = {"help", "version", "man", "completion"};

static const struct qz_option *find_option(const struct qz_option *options, const char *name,
                                           size_t len)
{
    for (; options && options->name; options++)
        if (strlen(options->name) == len && !strncmp(options->name, name, len))
            return options;
    return NULL;
}

int qz_options_parse(const struct qz_option *options, int argc, char **argv, void *target,
                     struct qz_error *err)
{
    int i = 1;

    while (i < argc && argv[i][0] == '-' && argv[i][1]) {
        const char *name = argv[i] + 2, *equals, *value = NULL;
        const struct qz_option *o;
        size_t len;

        if (!strcmp(argv[i], "--"))
            return i;
        if (argv[i][1] != '-')
            return qz_fail(err, -EINVAL, "unknown option %s (options are written --name)", argv[i]);
        equals = strchr(name, '=');
        len = equals ? (size_t)(equals - name) : strlen(name);
        o = find_option(options, name, len);
        if (!o)
            return qz_fail(err, -EINVAL, "unknown option --%.*s", (int)len, name);
        if (o->arg && equals)
            value = equals + 1;
        else if (o->arg && ++i < argc)
            value = argv[i];
        if (o->arg && !value)
            return qz_fail(err, -EINVAL, "--%s needs a value: %s", o->name, o->arg);
        if (!o->arg && equals)
            return qz_fail(err, -EINVAL, "--%s takes no value", o->name);
        if (o->set(target, value, err) < 0) {
            qz_error_prefix(err, "--%s", o->name);
            return -EINVAL;
        }
        i++;
    }
    return i;
}

int qz_operands_parse(const struct qz_option *options, int argc, char **argv, void *target,
                      char **operand, int least, int most, const char *missing,
                      struct qz_error *err)
{
    int found = 0, i = qz_options_parse(options, argc, argv, target, err);

    while (i >= 0 && i < argc && found < most) {
        operand[found++] = argv[i];
        argc -= i; /* the operand stands where a command's name does */
        argv += i;
        i = qz_options_parse(options, argc, argv, target, err);
    }
    if (i < 0)
        return i;
    if (i < argc)
        return qz_fail(err, -EINVAL, "%s is too much", argv[i]);
    return found < least ? qz_fail(err, -EINVAL, "%s", missing) : 0;
}

int qz_complain(const char *program, int code, const struct qz_error *err)
{
    fprintf(stderr, "%s: %s\n", program, err->text);
    if (code == QZ_EXIT_USAGE)
        fprintf(stderr, "%s --help shows what it takes\n", program);
    return code;
}

static bool is_single(const struct qz_program *p)
{
    return p->commands[0].name == NULL;
}

static void print_options(FILE *f, const struct qz_option *o)
{
    for (; o && o->name; o++) {
        char left[80];
        const char *line = o->help;
        int width;

        snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        width = strlen(left) <= 24 ? 24 : 0;
        fprintf(f, "  %-*s%s", width, left, width ? "  " : "\n                            ");
        for (;;) {
            size_t n = strcspn(line, "\n");

            fprintf(f, "%.*s\n", (int)n, line);
            if (!line[n])
                break;
            line += n + 1;
            fprintf(f, "                            ");
        }
    }
}

static void help_command(const struct qz_program *p, const struct qz_command *c)
{
    printf("Usage: %s%s%s%s%s%s\n\n%s\n", p->name, c->name ? " " : "", c->name ? c->name : "",
           c->options ? " [OPTIONS]" : "", c->operands ? " " : "", c->operands ? c->operands : "",
           c->summary);
    if (c->options) {
        printf("\nOptions:\n");
        print_options(stdout, c->options);
    }
    if (c->details)
        printf("\n%s\n", c->details);
}

static void help_program(const struct qz_program *p)
{
    if (is_single(p)) {
        help_command(p, &p->commands[0]);
    } else {
        printf("Usage: %s COMMAND [OPTIONS] ...\n\n%s\n\nCommands:\n", p->name, p->summary);
        for (const struct qz_command *c = p->commands; c->summary; c++)
            printf("  %-12s %s\n", c->name, c->summary);
        printf("\n%s COMMAND --help tells more about one of them.\n", p->name);
    }
    printf("\nAlso: --version, --man (the manual page), --completion bash|zsh|fish\n");
}

/* roff takes a leading dot or quote as a request, and a bare dash as a hyphen. */
static void roff(const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((c == text || c[-1] == '\n') && (*c == '.' || *c == '\''))
            fputs("\\&", stdout);
        if (*c == '-')
            fputs("\\-", stdout);
        else if (*c == '\\')
            fputs("\\e", stdout);
        else
            putchar(*c);
    }
}

static void man_page(const struct qz_program *p)
{
    printf(".TH %s 1 \"\" \"Queztl %s\" \"Queztl\"\n.SH NAME\n%s \\- ", p->name, QUEZTL_VERSION,
           p->name);
    roff(p->summary);
    printf("\n.SH SYNOPSIS\n");
    for (const struct qz_command *c = p->commands; c->summary; c++) {
        printf(".B %s %s\n", p->name, c->name ? c->name : "");
        if (c->options)
            printf("[OPTIONS]\n");
        roff(c->operands ? c->operands : "");
        printf("\n.br\n");
    }
    printf(".SH DESCRIPTION\n");
    for (const struct qz_command *c = p->commands; c->summary; c++) {
        if (c->name)
            printf(".SS %s\n", c->name);
        roff(c->summary);
        printf("\n");
        for (const struct qz_option *o = c->options; o && o->name; o++) {
            printf(".TP\n.B \\-\\-");
            roff(o->name);
            printf(" %s\n", o->arg ? o->arg : "");
            roff(o->help);
            printf("\n");
        }
        if (c->details) {
            printf(".PP\n");
            roff(c->details);
            printf("\n");
        }
    }
    printf(".SH EXIT STATUS\n0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 refused, 6 "
           "daemon unreachable,\n"
           "70 guest panicked, 124 timeout\n");
}

static void words(const struct qz_command *c)
{
    for (const struct qz_option *o = c->options; o && o->name; o++)
        printf(" --%s", o->name);
    printf(" --help");
}

static int completion(const struct qz_program *p, const char *shell)
{
    if (!strcmp(shell, "fish")) {
        for (const struct qz_command *c = p->commands; c->summary; c++) {
            if (c->name)
                printf("complete -c %s -n __fish_use_subcommand -a %s -d '%s'\n", p->name, c->name,
                       c->summary);
            for (const struct qz_option *o = c->options; o && o->name; o++)
                printf("complete -c %s%s%s%s -l %s%s\n", p->name,
                       c->name ? " -n '__fish_seen_subcommand_from " : "", c->name ? c->name : "",
                       c->name ? "'" : "", o->name, o->arg ? " -r" : "");
        }
        return QZ_EXIT_OK;
    }
    if (strcmp(shell, "bash") && strcmp(shell, "zsh")) {
        fprintf(stderr, "%s: completion exists for bash, zsh and fish, not for \"%s\"\n", p->name,
                shell);
        return QZ_EXIT_USAGE;
    }
    if (!strcmp(shell, "zsh"))
        printf("autoload -U +X bashcompinit && bashcompinit\n");
    printf("_%s() {\n    local words=\"\"\n    case \"${COMP_WORDS[1]}\" in\n", p->name);
    for (const struct qz_command *c = p->commands; c->summary; c++) {
        if (!c->name)
            continue;
        printf("    %s) words=\"", c->name);
        words(c);
        printf("\" ;;\n");
    }
    printf("    *) words=\"");
    for (const struct qz_command *c = p->commands; c->summary; c++)
        if (c->name)
            printf("%s ", c->name);
        else
            words(c);
    printf("\" ;;\n    esac\n    COMPREPLY=($(compgen -W \"$words\" -- "
           "\"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"
           "complete -o default -F _%s %s\n",
           p->name, p->name);
    return QZ_EXIT_OK;
}

/* Which of the common options argv[1] is, or -1. */
static int common_option(const char *arg)
{
    for (size_t i = 0; arg && i < QZ_ARRAY_LEN(common); i++)
        if (!strncmp(arg, "--", 2) && !strcmp(arg + 2, common[i]))
            return (int)i;
    return -1;
}

int qz_program_run(const struct qz_program *p, int argc, char **argv)
{
    struct qz_error err;

    switch (argc > 1 ? common_option(argv[1]) : -1) {
    case 0:
        help_program(p);
        return QZ_EXIT_OK;
    case 1:
        printf("%s %s\n", p->name, QUEZTL_VERSION);
        return QZ_EXIT_OK;
    case 2:
        man_page(p);
        return QZ_EXIT_OK;
    case 3:
        return completion(p, argc > 2 ? argv[2] : "");
    }
    if (is_single(p))
        return p->commands[0].run(argc, argv);
    if (argc < 2) {
        help_program(p);
        return QZ_EXIT_USAGE;
    }
    for (const struct qz_command *c = p->commands; c->summary; c++) {
        if (strcmp(c->name, argv[1]))
            continue;
        if (argc > 2 && common_option(argv[2]) == 0) {
            help_command(p, c);
            return QZ_EXIT_OK;
        }
        return c->run(argc - 1, argv + 1);
    }
    qz_fail(&err, -EINVAL, "no command \"%s\"", argv[1]);
    return qz_complain(p->name, QZ_EXIT_USAGE, &err);
}
