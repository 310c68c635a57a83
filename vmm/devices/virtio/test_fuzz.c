/* test_fuzz.c - a driver that does anything at any time (test_fuzz.h). */
#include "devices/virtio/test_fuzz.h"

#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

enum { PIECES_MAX = 4, PIECE_MAX = 2048, QUEUE_RESET = 58, DESC = 16 };

uint64_t vfuzz_take(struct vfuzz *f, unsigned bytes)
{
    uint8_t b[8] = {0};
    unsigned n = (unsigned)QZ_MIN((size_t)QZ_MIN(bytes, 8u), (size_t)(f->end - f->p));

    memcpy(b, f->p, n);
    f->p += n;
    return qz_load_le64(b);
}

static void negotiate(struct vfuzz *f, uint64_t features, bool packed)
{
    f->t->tm->msi_count = 0;
    if (vtest_reset(f->t) < 0)
        abort();
    vtest_negotiate(f->t, features, packed);
}

void vfuzz_begin(struct vfuzz *f, struct vtest *t, uint64_t features, const uint8_t *data,
                 size_t size)
{
    struct vtest_machine *tm = t->tm;
    uint64_t mask;

    if (!f->t)
        f->memory_top = tm->memory_top;
    f->t = t;
    f->p = data;
    f->end = data + size;
    if (mem_discard(&tm->m.memory, gpa(0), tm->m.memory.low_size) < 0)
        abort();
    mask = vfuzz_take(f, 2);
    t->indirect = mask & 1;
    f->packed = mask & 2;
    f->features = features & ~(mask & 0xfffc);
    tm->memory_top = f->memory_top;
    negotiate(f, f->features, f->packed);
}

/* Lengths that devices look at: a header's, a sector's, one more or less, and any. */
static uint32_t length(struct vfuzz *f)
{
    static const uint16_t usual[] = {1, 4, 8, 12, 15, 16, 17, 44, 511, 512, 513, 1024};
    uint8_t b = (uint8_t)vfuzz_take(f, 1);

    return b < 192 ? usual[b % QZ_ARRAY_LEN(usual)] : (uint32_t)vfuzz_take(f, 2) % PIECE_MAX;
}

static void offer(struct vfuzz *f, unsigned q)
{
    static uint8_t out_bytes[PIECES_MAX][PIECE_MAX], in_bytes[PIECES_MAX][PIECE_MAX];
    uint8_t shape = (uint8_t)vfuzz_take(f, 1);
    unsigned outs = shape & 3, ins = shape >> 2 & 3;
    struct iovec out[PIECES_MAX], in[PIECES_MAX];

    if (!outs && !ins)
        ins = 1;
    for (unsigned i = 0; i < outs; i++) {
        out[i] = (struct iovec){out_bytes[i], length(f)};
        memset(out_bytes[i], 0, out[i].iov_len);
        for (unsigned k = 0; k < 4 && k * 8 < out[i].iov_len && (shape & 16); k++)
            qz_store_le64(out_bytes[i] + k * 8, vfuzz_take(f, 8));
    }
    for (unsigned i = 0; i < ins; i++)
        in[i] = (struct iovec){in_bytes[i], length(f)};
    if (f->t->q[q].enabled)
        vtest_submit(f->t, q, out, outs, in, ins);
}

/* A number in one of the queue's rings, or in the memory behind requests, where tables lie. */
static void poke(struct vfuzz *f, const struct vtest_queue *q, uint8_t where)
{
    uint64_t base[] = {q->desc.v, q->driver.v, q->device_area.v, f->t->arena};
    uint64_t span[] = {q->size * DESC, 8 + 2 * q->size, 8 + 8 * q->size, 4096};
    unsigned size = 1u << (where >> 2 & 3);
    uint64_t at = base[where & 3] + vfuzz_take(f, 2) % span[where & 3];
    uint64_t v = vfuzz_take(f, size);
    uint8_t *p = vtest_mem(f->t->tm, gpa(at), size);

    if (p)
        memcpy(p, &v, size);
}

/* The next request is said to be there, whatever lies in the ring. */
static void bump(struct vfuzz *f, const struct vtest_queue *q)
{
    uint8_t *p = vtest_mem(f->t->tm, q->driver, 4);
    uint16_t head = (uint16_t)(vfuzz_take(f, 1) % q->size), idx;

    if (!p || f->t->packed)
        return;
    idx = qz_load_le16(p + 2);
    qz_store_le16(p + 4 + 2 * (idx & (q->size - 1)), head);
    qz_store_le16(p + 2, (uint16_t)(idx + 1));
}

/* While the device resets, its registers take nothing: then this one keeps what it had. */
static bool registers_work(struct vtest *t)
{
    bool works;

    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    works = vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SELECT, 2) == 0;
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, UINT16_MAX);
    return works && vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SELECT, 2) == UINT16_MAX;
}

/* A reset of one queue or of the device; when that has ended already, a new start. */
static void reset(struct vfuzz *f, unsigned q, bool device)
{
    struct vtest *t = f->t;

    if (device && vtest_status(t)) {
        vtest_set_status(t, 0);
    } else if (device) {
        negotiate(f, f->features, f->packed);
    } else if (vtest_status(t) & VIRTIO_CONFIG_S_DRIVER_OK && registers_work(t)) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        if (vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2))
            vtest_common_write(t, QUEUE_RESET, 2, 1);
        else if (t->features >> VIRTIO_F_RING_RESET & 1)
            vtest_restart_queue(t, q);
    }
}

void vfuzz_step(struct vfuzz *f, uint8_t kind)
{
    unsigned qi = (unsigned)vfuzz_take(f, 1) % f->t->queue_count;
    struct vtest_queue *q = &f->t->q[qi];
    uint64_t at;

    switch (kind & 7) {
    case 0:
    case 1:
        offer(f, qi);
        break;
    case 2:
        poke(f, q, (uint8_t)vfuzz_take(f, 1));
        break;
    case 3:
        bump(f, q);
        break;
    case 4:
        vtest_mmio_write(f->t->tm, q->notify, 2, qi);
        break;
    case 5:
        vtest_run(f->t->tm, 0);
        if (f->t->q[qi].enabled)
            vtest_poll(f->t, qi); /* what came back may be nonsense: the rings were written to */
        break;
    case 6: /* the transport's registers; resets often */
        at = vfuzz_take(f, 1);
        if (at >= 160)
            reset(f, qi, at >= 224);
        else
            vtest_common_write(f->t, at % 64, 1u << (vfuzz_take(f, 1) & 3), vfuzz_take(f, 4));
        break;
    default:
        at = vfuzz_take(f, 1);
        vtest_mmio_write(f->t->tm, f->t->device_config + at % 80, 1u << (at & 3), vfuzz_take(f, 4));
        vtest_mmio_read(f->t->tm, f->t->device_config + at % 80, 8);
    }
}

void vfuzz_end(struct vfuzz *f, uint64_t features)
{
    f->t->indirect = false;
    f->t->tm->memory_top = f->memory_top;
    negotiate(f, features, false);
    if (vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET)
        abort();
}
