/*
 * virtio_blk_fuzz.c - any driver against the block device over a disk in memory, which checks that
 * no request leaves the disk (test_blk.c). Requests end when the input says so, in the middle of
 * resets too. Aborts when a reset does not end, when a request of ours is not answered afterwards,
 * or when one is answered that the device must refuse.
 */
#include "devices/virtio/test_blk.h"
#include "devices/virtio/test_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECTORS = 64, QUEUES = 2, RING = 16, STEPS_MAX = 2000 };

#define OFFERED                                                                                    \
    (QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_CONFIG_WCE) | QZ_BIT(VIRTIO_BLK_F_DISCARD) | \
     QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES) | QZ_BIT(VIRTIO_BLK_F_MQ) | QZ_BIT(VIRTIO_F_RING_RESET))

static struct blk_rig rig;
static struct memory_disk disk;
static struct vfuzz f;

static void make_rig(void)
{
    struct virtio_blk_options o = {.queues = QUEUES, .queue_size = RING, .serial = "fuzz"};
    struct qz_error err;

    memory_disk_init(&disk, SECTORS * BLK_SECTOR);
    if (blk_rig_open(&rig, &disk.b, &o, &err) < 0)
        abort();
}

/* A request in order but for one number or another. */
static void plausible(void)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,
                                     VIRTIO_BLK_T_FLUSH,   VIRTIO_BLK_T_GET_ID,
                                     VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
    static uint8_t bytes[8 * BLK_SECTOR];
    static struct blk_io io; /* the driver keeps its own copy of what it points to */
    uint32_t type = types[vfuzz_take(&f, 1) % QZ_ARRAY_LEN(types)];
    unsigned q = (unsigned)vfuzz_take(&f, 1) % QUEUES, len = (unsigned)vfuzz_take(&f, 1) % 8;
    uint64_t sector = vfuzz_take(&f, 1);

    if (sector >= 128)
        sector = vfuzz_take(&f, 8);
    if (type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES) {
        for (unsigned i = 0; i < len; i++) {
            qz_store_le64(bytes + 16 * i, vfuzz_take(&f, 1));
            qz_store_le32(bytes + 16 * i + 8, (uint32_t)vfuzz_take(&f, 1));
            qz_store_le32(bytes + 16 * i + 12, (uint32_t)vfuzz_take(&f, 1) & 3);
        }
        len *= 16;
    } else {
        len = len * BLK_SECTOR + (unsigned)(vfuzz_take(&f, 1) == 255);
    }
    if (rig.t->q[q].enabled && len <= sizeof(bytes))
        blk_submit(&rig, &io, q, type, sector, bytes, len);
}

static void medium(uint8_t how)
{
    disk.hold = how & 1;
    disk.inside_queue = how & 2;
    disk.result = how & 4 ? -EIO : 0;
    if (how & 8)
        memory_disk_release_one(&disk);
    if (!disk.hold)
        memory_disk_release(&disk);
}

static void still_works(void)
{
    uint8_t out[BLK_SECTOR], in[BLK_SECTOR] = {0};

    memset(out, 0xa5, sizeof(out));
    for (unsigned q = 0; q < QUEUES; q++) {
        if (blk_request(&rig, q, VIRTIO_BLK_T_OUT, SECTORS - 1, out, sizeof(out)) ||
            blk_request(&rig, q, VIRTIO_BLK_T_IN, SECTORS - 1, in, sizeof(in)) ||
            memcmp(in, out, sizeof(in)) ||
            blk_request(&rig, q, VIRTIO_BLK_T_IN, SECTORS, in, sizeof(in)) != VIRTIO_BLK_S_IOERR)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!rig.t)
        make_rig();
    memset(disk.data, 0, SECTORS * BLK_SECTOR);
    vfuzz_begin(&f, rig.t, OFFERED, data, size);
    for (unsigned n = 0; n < STEPS_MAX && f.p < f.end; n++) {
        uint8_t op = (uint8_t)vfuzz_take(&f, 1);

        if (op < 96)
            plausible();
        else if (op < 128)
            medium((uint8_t)vfuzz_take(&f, 1));
        else
            vfuzz_step(&f, op);
    }
    medium(0);
    vfuzz_end(&f, OFFERED);
    still_works();
    return 0;
}
