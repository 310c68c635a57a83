/* format.c - the list of formats (format.h). */
#include "format.h"

static const struct format_ops *const formats[] = {
#ifdef DISK_HAS_QCOW2
    &qcow2_format,
#endif
    &cow_format,
#ifdef DISK_HAS_LUKS
    &luks_format,
#endif
    NULL,
};

const struct format_ops *format_find(const char *name)
{
    for (unsigned i = 0; formats[i]; i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return NULL;
}

const struct format_ops *format_guess(const void *head, size_t length)
{
    for (unsigned i = 0; formats[i]; i++)
        if (formats[i]->probe(head, length))
            return formats[i];
    return NULL;
}

char *format_list(char *text, size_t size)
{
    *text = 0;
    for (unsigned i = 0; formats[i]; i++) {
        size_t used = strlen(text);

        snprintf(text + used, size - used, "%s%s", i ? ", " : "", formats[i]->name);
    }
    return text;
}

void format_snapshots_free(struct format_snapshot *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

void format_names_clear(struct format_names *n)
{
    free(n->backing_file);
    free(n->backing_format);
    free(n->data_file);
    *n = (struct format_names){0};
}

static struct format_fact *add(struct format_info *i, const char *key)
{
    struct format_fact *f;

    if (i->count >= FORMAT_FACTS_MAX)
        return NULL;
    f = &i->facts[i->count++];
    *f = (struct format_fact){.key = key};
    return f;
}

void format_fact_text(struct format_info *i, const char *key, const char *fmt, ...)
{
    struct format_fact *f = add(i, key);
    va_list ap;

    if (!f)
        return;
    f->kind = FACT_TEXT;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
}

static void add_number(struct format_info *i, const char *key, unsigned kind, uint64_t number)
{
    struct format_fact *f = add(i, key);

    if (f) {
        f->kind = kind;
        f->number = number;
    }
}

void format_fact_number(struct format_info *i, const char *key, uint64_t number)
{
    add_number(i, key, FACT_NUMBER, number);
}

void format_fact_bytes(struct format_info *i, const char *key, uint64_t bytes)
{
    add_number(i, key, FACT_BYTES, bytes);
}

void format_fact_flag(struct format_info *i, const char *key, bool value)
{
    add_number(i, key, FACT_FLAG, value);
}
