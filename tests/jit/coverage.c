/* coverage.c - see coverage.h. */
#include "coverage.h"

/* Where it goes on is not to be told from the items. */
static bool goes_anywhere(const struct item *item, const struct forms *forms)
{
    unsigned op;

    if (item->form == NO_FORM || item->rel)
        return false;
    op = forms->form[item->form].op;
    return op >= OP_JMP && op <= OP_IRET;
}

/*
 * What was executed, as far as the items tell: those before the end, under no branch that could
 * have jumped over them, up to the first indirect one.
 */
void coverage_add(struct coverage *v, const struct sequence *s, const struct forms *forms,
                  const struct outcome *o)
{
    const unsigned end = sequence_item_at(s, o->regs.rip);
    int jumped_to = 0;

    v->vector[o->vector & 0xff]++;
    for (unsigned k = 0; k < s->count && k < end; k++) {
        const struct item *item = &s->item[k];

        if ((int)k >= jumped_to && item->form != NO_FORM)
            v->executed[item->form]++;
        if (item->rel && item->target > (int)k + 1 && item->target > jumped_to)
            jumped_to = item->target;
        if (goes_anywhere(item, forms))
            break;
    }
    if (end < s->count && s->item[end].form != NO_FORM)
        v->faulted[s->item[end].form]++;
}

unsigned coverage_print(const struct coverage *v, const struct forms *forms, bool all)
{
    unsigned never = 0, only_faults = 0;
    char text[80];

    for (unsigned n = 0; n < forms->count; n++) {
        never += !v->executed[n] && !v->faulted[n];
        only_faults += !v->executed[n] && v->faulted[n];
    }
    printf("%s code: %u instruction forms, %u only raised exceptions, %u never executed\n",
           forms->width == CODE_64 ? "64-bit" : "32-bit", forms->count, only_faults, never);
    for (unsigned n = 0; n < forms->count; n++)
        if (all || (!v->executed[n] && !v->faulted[n]))
            printf("  %-40s %10llu executed %8llu raised\n",
                   form_name(&forms->form[n], text, sizeof(text)),
                   (unsigned long long)v->executed[n], (unsigned long long)v->faulted[n]);
    return never;
}
