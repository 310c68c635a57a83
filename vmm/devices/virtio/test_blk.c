/* test_blk.c - a disk in memory and a small block driver (test_blk.h). */
#include "devices/virtio/test_blk.h"

/* ---- a disk in memory -------------------------------------------------------------------------
 */

static struct memory_disk *disk_of(struct block_backend *b)
{
    return QZ_CONTAINER_OF(b, struct memory_disk, b);
}

static const struct block_info *disk_info(struct block_backend *b)
{
    return &disk_of(b)->info;
}

static int disk_attach(struct block_backend *b, unsigned lane, struct qz_loop *loop)
{
    return 0;
}

static void move(struct memory_disk *m, struct block_request *r)
{
    uint8_t *p = m->data + r->offset;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < r->iov_count; i++)
        bytes += r->iov[i].iov_len;
    if (bytes != r->length)
        abort();
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->op == BLOCK_READ)
            memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
        else
            memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
        p += r->iov[i].iov_len;
    }
}

/* What the seam promises is checked here: an abort is a mistake of the device. */
static void end(struct memory_disk *m, struct block_request *r)
{
    bool ranged = r->op != BLOCK_FLUSH;

    if (ranged && (r->offset % BLK_SECTOR || r->length % BLK_SECTOR || !r->length ||
                   r->offset > m->info.capacity || r->length > m->info.capacity - r->offset))
        abort();
    if (m->info.readonly && ranged && r->op != BLOCK_READ)
        abort();
    if (m->result == 0) {
        if (r->op == BLOCK_READ || r->op == BLOCK_WRITE)
            move(m, r);
        else if (ranged)
            memset(m->data + r->offset, 0, r->length);
    }
    m->done[r->op]++;
    r->done(r, m->result);
}

static void disk_queue(struct block_backend *b, struct block_request *r)
{
    struct memory_disk *m = disk_of(b);

    if (m->inside_queue) {
        end(m, r);
        return;
    }
    r->next = NULL;
    *m->end = r;
    m->end = &r->next;
    m->waiting++;
}

bool memory_disk_release_one(struct memory_disk *m)
{
    struct block_request *r = m->first;

    if (!r)
        return false;
    m->first = r->next;
    if (!m->first)
        m->end = &m->first;
    m->waiting--;
    end(m, r);
    return true;
}

void memory_disk_release(struct memory_disk *m)
{
    while (memory_disk_release_one(m))
        ;
}

static void disk_submit(struct block_backend *b, unsigned lane)
{
    struct memory_disk *m = disk_of(b);

    if (!m->hold)
        memory_disk_release(m);
}

static void disk_free(struct block_backend *b)
{
    if (disk_of(b)->waiting) /* block_backend.h: nothing in flight */
        abort();
    disk_of(b)->freed = true;
}

static int disk_lifetime(struct block_backend *b, struct qz_disk_lifetime *l)
{
    *l = (struct qz_disk_lifetime){1, 3, 5};
    return 0;
}

static int disk_resize(struct block_backend *b, uint64_t capacity, struct qz_error *err)
{
    struct memory_disk *m = disk_of(b);
    uint8_t *data = realloc(m->data, capacity);

    if (!data)
        abort();
    memset(data + m->info.capacity, 0, capacity - m->info.capacity);
    m->data = data;
    m->info.capacity = capacity;
    return 0;
}

static const struct block_backend_ops disk_ops = {
    disk_info, disk_attach, disk_queue, disk_submit, disk_lifetime, disk_resize,
    NULL,      NULL,        NULL,       NULL,        disk_free};

void memory_disk_init(struct memory_disk *m, uint64_t capacity)
{
    *m = (struct memory_disk){
        .b.ops = &disk_ops,
        .info = {.capacity = capacity, .block_size = 4096, .discard = true, .write_zeroes = true},
        .data = calloc(1, capacity),
    };
    m->end = &m->first;
    if (!m->data)
        abort();
}

void memory_disk_destroy(struct memory_disk *m)
{
    free(m->data);
}

/* ---- machine, device, driver ------------------------------------------------------------------
 */

int blk_rig_open(struct blk_rig *r, struct block_backend *backend,
                 const struct virtio_blk_options *options, struct qz_error *err)
{
    struct virtio_blk_options o = options ? *options : (struct virtio_blk_options){.queues = 1};
    int code;

    o.backend = backend;
    o.label = "disk test";
    r->tm = vtest_machine_new(0);
    code = virtio_blk_new(&r->d, &r->tm->m, r->tm->m.main_loop, &o, err);
    if (code == 0)
        code = virtio_pci_new(&r->vp, r->d, err);
    if (code < 0) {
        vtest_machine_free(r->tm);
        return code;
    }
    r->t = vtest_open(r->tm, VIRTIO_ID_BLOCK);
    return r->t ? 0 : qz_fail(err, -ENODEV, "no block device on the bus");
}

void blk_rig_close(struct blk_rig *r)
{
    vtest_close(r->t);
    virtio_pci_free(r->vp);
    vtest_machine_free(r->tm);
}

int blk_submit(struct blk_rig *r, struct blk_io *io, unsigned q, uint32_t type, uint64_t sector,
               void *data, size_t len)
{
    bool to_disk = type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD ||
                   type == VIRTIO_BLK_T_WRITE_ZEROES || type == VIRTIO_BLK_T_SECURE_ERASE;
    struct iovec out[2] = {{io->header, BLK_HEADER}, {data, len}};
    unsigned ins = 0;

    memset(io->header, 0, BLK_HEADER);
    qz_store_le32(io->header, type);
    qz_store_le64(io->header + 8, sector);
    io->status = 0xff;
    io->q = q;
    if (!to_disk && len)
        io->in[ins++] = (struct iovec){data, len};
    io->in[ins++] = (struct iovec){&io->status, 1};
    io->token = vtest_submit(r->t, q, out, to_disk && len ? 2 : 1, io->in, ins);
    if (io->token >= 0)
        vtest_kick(r->t, q);
    return io->token < 0 ? io->token : 0;
}

int blk_wait(struct blk_rig *r, struct blk_io *io)
{
    int code = vtest_wait(r->t, io->q, io->token, &io->written);

    return code < 0 ? code : io->status;
}

int blk_request(struct blk_rig *r, unsigned q, uint32_t type, uint64_t sector, void *data,
                size_t len)
{
    struct blk_io io;
    int code = blk_submit(r, &io, q, type, sector, data, len);

    return code < 0 ? code : blk_wait(r, &io);
}
