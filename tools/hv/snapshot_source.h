/*
 * snapshot_source.h - where machines can go on from: the folder of a snapshot, or a machine that
 * runs and is frozen for it.
 */
#ifndef TOOLS_SNAPSHOT_SOURCE_H
#define TOOLS_SNAPSHOT_SOURCE_H

#include <jansson.h>
#include <queztl/base.h>

struct snapshot_source {
    json_t
        *description;  /* "options", "command", "memory" (bytes) and what else it tells of itself */
    int state, memory; /* sealed files in memory, as queztl-vmm --snapshot fd: takes them */
    int pager;         /* the door of whoever loads the latter; -1: it is all there */
    char how[160];     /* a folder's memory is loaded */
};

/* When a folder's memory is read: as machines need it, before they begin, or as is best here. */
enum snapshot_load { SNAPSHOT_LOAD_AUTO, SNAPSHOT_LOAD_LAZY, SNAPSHOT_LOAD_EAGER };
int snapshot_load_parse(const char *text, enum snapshot_load *load, struct qz_error *err);

/*
 * `where`: a folder, or a machine's control socket. -ENOENT: neither is there. tag: for a machine,
 * what its disks' new images are called after.
 */
int snapshot_source_open(struct snapshot_source *s, const char *where, const char *tag,
                         enum snapshot_load load, struct qz_error *err);
/* A folder only. */
int snapshot_source_load(struct snapshot_source *s, const char *folder, enum snapshot_load load,
                         struct qz_error *err);
/* Freezes the machine behind this control socket. Its disks go on in images beside those that they
 * wrote to. */
int snapshot_source_freeze(struct snapshot_source *s, const char *socket_path, const char *tag,
                           struct qz_error *err);
void snapshot_source_close(struct snapshot_source *s);

#endif
