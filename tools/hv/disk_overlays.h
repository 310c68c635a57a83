/*
 * disk_overlays.h - overlays for the disks of a snapshot: for the machine that is frozen and goes
 * on in them, and for each machine that begins from it.
 */
#ifndef TOOLS_DISK_OVERLAYS_H
#define TOOLS_DISK_OVERLAYS_H

#include <jansson.h>
#include <queztl/base.h>

enum { OVERLAYS_MAX = 16 };

struct overlays {
    struct overlay {
        unsigned disk; /* by position */
        char *path;    /* absolute */
        int fd;
        bool unnamed; /* it had that name */
    } item[OVERLAYS_MAX];
    unsigned count;
};

/*
 * `disks` is the list that a machine gives of them ("info", or a snapshot's description); those
 * that can be written get an overlay each, empty, upon the image named there. Beside the image that
 * the machine was given at first: NAME.TAG.qcow2, or NAME.TAG-2.qcow2 and so on; in `folder`:
 * NAME.diskN.qcow2 (-EEXIST: there is one); or in $TMPDIR and without a name: what is written there
 * is gone with the machine.
 */
int overlays_beside(struct overlays *o, const json_t *disks, const char *tag, struct qz_error *err);
int overlays_in(struct overlays *o, const json_t *disks, const char *folder, const char *name,
                struct qz_error *err);
int overlays_unnamed(struct overlays *o, const json_t *disks, struct qz_error *err);
/*
 * For going back: upon the images that `bases` (a list alike) names. Beside the image that the
 * machine was given at first (`disks`, its "info"), or without a name for disks that have none.
 */
int overlays_back(struct overlays *o, const json_t *disks, const json_t *bases,
                  struct qz_error *err);
/* Closes them. remove: and takes the files away, which nobody will use. */
void overlays_end(struct overlays *o, bool remove);

/*
 * The value of --disk for an overlay that is open as descriptor `fd` there: what was said of the
 * disk, but for its image. The caller's to free; NULL: no memory.
 */
char *overlay_option(const struct overlay *o, const char *was, int fd);

#endif
