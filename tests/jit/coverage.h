/* coverage.h - how often each instruction form was executed on all three CPUs. */
#ifndef TESTS_JIT_COVERAGE_H
#define TESTS_JIT_COVERAGE_H

#include "rig.h"

struct coverage {
    uint64_t executed[FORMS_MAX]; /* to its end */
    uint64_t faulted[FORMS_MAX];  /* an exception is what it did */
    uint64_t vector[256];
};

/* A sequence that came out the same everywhere. */
void coverage_add(struct coverage *v, const struct sequence *s, const struct forms *forms,
                  const struct outcome *o);
/* Forms that were never executed, then, with `all`, every one of them. Returns how many were never
 * met at all. */
unsigned coverage_print(const struct coverage *v, const struct forms *forms, bool all);

#endif
