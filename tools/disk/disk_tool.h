/* disk_tool.h - what the commands of queztl-disk share. */
#ifndef TOOLS_DISK_TOOL_H
#define TOOLS_DISK_TOOL_H

#include <jansson.h>
#include <queztl/command.h>
#include <queztl/disk.h>

extern const struct qz_option create_options[], info_options[], check_options[], resize_options[],
    snapshot_options[], map_options[], convert_options[], compare_options[], bench_options[],
    serve_options[];
int disk_create(int argc, char **argv);
int disk_info(int argc, char **argv);
int disk_check(int argc, char **argv);
int disk_resize(int argc, char **argv);
int disk_snapshot(int argc, char **argv);
int disk_map(int argc, char **argv);
int disk_convert(int argc, char **argv);
int disk_compare(int argc, char **argv);
int disk_bench(int argc, char **argv);
int disk_serve(int argc, char **argv);

/* Prints the error; the exit code that fits it. */
int disk_failed(const struct qz_error *err);
/* Parses options into target and counts the operands that follow: their index, or -1 after having
 * complained (the exit code is QZ_EXIT_USAGE). */
int disk_parse(const struct qz_option *options, int argc, char **argv, void *target, int least,
               int most);

/* Threads that unpack compressed clusters, as many as there are processors, at most four. */
void disk_start_helpers(void);

/* "IMAGE" as a person typed it, with more options behind it; free() it. NULL: no memory. */
char *disk_text(const char *image, const char *more);
/* The same, for commands that only read: a format that was not said is looked for. */
char *disk_text_to_read(const char *image, const char *more);
/* Whether the text has this key. */
bool disk_text_has(const char *image, const char *key);

/* ---- printing */

enum print_format { PRINT_TABLE, PRINT_JSON, PRINT_YAML };
int print_format_set(enum print_format *f, const char *value, struct qz_error *err);
/* JSON or YAML of v, which is taken. */
void print_value(enum print_format f, json_t *v);

/* A bar on standard error, when that is a terminal; done and all in any unit. Not more often drawn
 * than ten times a second. */
struct progress {
    const char *what;
    int64_t started, drawn;
    bool shown;
};
void progress_begin(struct progress *p, const char *what);
void progress_show(struct progress *p, uint64_t done, uint64_t all);
void progress_end(struct progress *p);

#endif
