/* queztl-hv.h - the commands of queztl-hv, one file each. */
#ifndef TOOLS_QUEZTL_HV_H
#define TOOLS_QUEZTL_HV_H

#include "vm/config.h"

extern const struct qz_option hv_doctor_options[], hv_snapshot_options[], hv_snapshots_options[],
    hv_clone_options[], hv_restore_options[];

int hv_run(int argc, char **argv);
int hv_snapshot(int argc, char **argv);
int hv_snapshots(int argc, char **argv);
int hv_restore(int argc, char **argv);
int hv_clone(int argc, char **argv);
int hv_doctor(int argc, char **argv);

#endif
