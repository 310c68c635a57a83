/*
 * config_parts.h - options of one subject each, for the table in config.c: setters as struct
 * qz_option wants them, on a struct vm_config, and what must make sense together when all were
 * read.
 */
#ifndef VMM_CONFIG_PARTS_H
#define VMM_CONFIG_PARTS_H

#include "vm/config.h"

enum { BALLOON_PRESSURE = 5 /* percent, unless said */ };

/* ---- config_memory.c */
int config_set_memory(void *config, const char *v, struct qz_error *err);
int config_set_merge(void *config, const char *v, struct qz_error *err);
int config_set_hugepages(void *config, const char *v, struct qz_error *err);
int config_set_balloon(void *config, const char *v, struct qz_error *err);
/* Fills in the least memory that is left, too. */
int config_check_balloon(struct vm_config *c, struct qz_error *err);
int config_check_pages(const struct vm_config *c, struct qz_error *err);

/* ---- config_net.c */
int config_set_net(void *config, const char *v, struct qz_error *err);
int config_set_vsock(void *config, const char *v, struct qz_error *err);

#endif
