/*
 * code_cache.c - executable memory with its writable twin (code_cache.h).
 */
#include "cpu/jit/code_cache.h"

#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 16 };

int code_cache_new(struct code_cache *c, size_t code, size_t data)
{
    *c = (struct code_cache){.fd = -1, .size = code, .data_size = data};
    c->fd = memfd_create("queztl-code", MFD_CLOEXEC);
    if (c->fd < 0 || ftruncate(c->fd, code + data) < 0)
        goto fail;
    c->write = mmap(NULL, code + data, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (c->write == MAP_FAILED) {
        c->write = NULL;
        goto fail;
    }
    c->run = mmap(NULL, code, PROT_READ | PROT_EXEC, MAP_SHARED, c->fd, 0);
    if (c->run == MAP_FAILED) {
        c->run = NULL;
        goto fail;
    }
    c->data = c->write + code;
    return 0;

fail:;
    int r = -errno;

    code_cache_free(c);
    return r;
}

void code_cache_free(struct code_cache *c)
{
    if (c->run)
        munmap(c->run, c->size);
    if (c->write)
        munmap(c->write, c->size + c->data_size);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct code_cache){.fd = -1};
}

bool code_cache_begin(struct code_cache *c, struct emitter *e, size_t most)
{
    if (c->size - c->used < most)
        return false;
    *e = (struct emitter){
        .p = c->write + c->used,
        .end = c->write + c->used + most,
        .to_run = c->run - c->write,
    };
    return true;
}

uint8_t *code_cache_commit(struct code_cache *c, const struct emitter *e)
{
    uint8_t *at = c->run + c->used;

    c->used = QZ_MIN(QZ_ALIGN_UP((size_t)(e->p - c->write), (size_t)ALIGNMENT), c->size);
    return at;
}

void *code_cache_data(struct code_cache *c, size_t bytes)
{
    void *p = c->data + c->data_used;

    bytes = QZ_ALIGN_UP(bytes, (size_t)8);
    if (c->data_size - c->data_used < bytes)
        return NULL;
    c->data_used += bytes;
    return p;
}

void code_cache_keep(struct code_cache *c)
{
    c->kept = c->used;
}

void code_cache_reset(struct code_cache *c)
{
    c->used = c->kept;
    c->data_used = 0;
}
