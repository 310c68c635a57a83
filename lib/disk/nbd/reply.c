/* reply.c - replies to NBD requests, simple and structured. */
#include "job.h"

#define MAGIC_SIMPLE     0x67446698u
#define MAGIC_STRUCTURED 0x668e33efu

enum { CHUNK_DONE = 1 };
enum { CHUNK_OFFSET_DATA = 1, CHUNK_BLOCK_STATUS = 5, CHUNK_ERROR = 0x8001 };

/* The protocol has its own numbers, which are Linux's for these. */
static uint32_t error_number(int result)
{
    switch (-result) {
    case 0:
    case EPERM:
    case ENOMEM:
    case EINVAL:
    case ENOSPC:
    case EOVERFLOW:
        return (uint32_t)-result;
    case EROFS:
        return EPERM;
    case EDQUOT:
    case EFBIG:
        return ENOSPC;
    case ENOTSUP:
        return 95;
    case ESHUTDOWN:
        return 108;
    }
    return EIO;
}

static void simple(struct job *j, int result)
{
    qz_store_be32(j->head, MAGIC_SIMPLE);
    qz_store_be32(j->head + 4, error_number(result));
    qz_store_be64(j->head + 8, j->cookie);
    j->head_bytes = 16;
}

/* extra: bytes of the payload that stand in the head too. */
static void structured(struct job *j, uint16_t type, size_t extra)
{
    qz_store_be32(j->head, MAGIC_STRUCTURED);
    qz_store_be16(j->head + 4, CHUNK_DONE);
    qz_store_be16(j->head + 6, type);
    qz_store_be64(j->head + 8, j->cookie);
    qz_store_be32(j->head + 16, (uint32_t)(extra + j->data_bytes));
    j->head_bytes = 20 + extra;
}

static void build(struct job *j, int result)
{
    bool wants_chunks = j->command == CMD_READ || j->command == CMD_BLOCK_STATUS;

    if (result < 0 || (j->command != CMD_READ && j->command != CMD_BLOCK_STATUS))
        j->data_bytes = 0;
    if (!j->t->c->structured || !wants_chunks) {
        simple(j, result);
    } else if (result < 0) {
        qz_store_be32(j->head + 20, error_number(result));
        qz_store_be16(j->head + 24, 0);
        structured(j, CHUNK_ERROR, 6);
    } else if (j->command == CMD_READ) {
        qz_store_be64(j->head + 20, j->offset);
        structured(j, CHUNK_OFFSET_DATA, 8);
    } else {
        qz_store_be32(j->head + 20, NBD_CONTEXT_ALLOCATION);
        structured(j, CHUNK_BLOCK_STATUS, 4);
    }
}

void job_reply(struct job *j, int result)
{
    struct transfer *t = j->t;

    build(j, result);
    j->next = NULL;
    *t->out_last = j;
    t->out_last = &j->next;
}
