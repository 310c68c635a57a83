/*
 * fw_cfg.c - the firmware configuration device (fw_cfg.h).
 *
 * Theory of operation. An item is a run of bytes under a 16-bit key; selecting one sets the read
 * position to its start. Bytes come out one at a time at the data port, or in bulk by DMA: the
 * guest puts a request into its memory and writes that address to port 0x514, high half first,
 * big-endian; the low half starts the transfer, which is over when the write returns. Reading
 * behind an item's end gives zeros. Files have keys from 0x20 up, found by the directory at key
 * 0x19.
 */
#include "devices/fw_cfg.h"

enum {
    PORT_BASE = 0x510, /* selector and data overlap: 16-bit writes select, bytes are data */
    PORT_DMA = 0x514,
    KEY_SIGNATURE = 0x00,
    KEY_ID = 0x01,
    KEY_RAM_SIZE = 0x03,
    KEY_NOGRAPHIC = 0x04,
    KEY_CPUS = 0x05,
    KEY_BOOT_MENU = 0x0e,
    KEY_MAX_CPUS = 0x0f,
    KEY_DIRECTORY = 0x19,
    KEY_FILES = 0x20,
    KEYS = KEY_FILES + FW_CFG_FILES_MAX,
    ID_TRADITIONAL = 1,
    ID_DMA = 2,
    ENTRY_SIZE = 64, /* of the directory: size, key, reserved, name */
    DMA_ERROR = 1,
    DMA_READ = 2,
    DMA_SKIP = 4,
    DMA_SELECT = 8,
    DMA_WRITE = 16,
    DMA_LENGTH_MAX =
        32 << 20, /* of one request; more than any item, little enough to be done in one exit */
};

struct request { /* in guest memory, big-endian */
    uint32_t control, length;
    uint64_t address;
};

struct item {
    uint8_t *data; /* owned */
    uint32_t len;
    bool writable;
    void (*written)(void *context, const void *data, size_t len);
    void *context;
};

struct fw_cfg {
    struct machine *machine;
    pthread_mutex_t lock;
    struct item item[KEYS];
    unsigned files;
    uint16_t selected;
    uint32_t position;
    uint32_t dma_high;
};

/* ---- items
 * -------------------------------------------------------------------------------------------- */

static int set_item(struct fw_cfg *fw, unsigned key, const void *data, size_t len)
{
    struct item *i = &fw->item[key];
    uint8_t *copy = calloc(1, len ? len : 1);

    if (!copy)
        return -ENOMEM;
    if (data && len)
        memcpy(copy, data, len);
    free(i->data);
    i->data = copy;
    i->len = len;
    return 0;
}

static char *entry_name(struct fw_cfg *fw, unsigned file)
{
    return (char *)fw->item[KEY_DIRECTORY].data + 4 + file * ENTRY_SIZE + 8;
}

/* lock held. The directory is big-endian. */
static int add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
    struct item *dir = &fw->item[KEY_DIRECTORY];
    uint8_t *bigger, *e;
    int r;

    if (!name[0] || strlen(name) > FW_CFG_NAME_MAX)
        return -ENAMETOOLONG;
    if (len > FW_CFG_FILE_SIZE_MAX)
        return -EFBIG;
    for (unsigned i = 0; i < fw->files; i++)
        if (!strcmp(entry_name(fw, i), name))
            return -EEXIST;
    if (fw->files == FW_CFG_FILES_MAX)
        return -ENOSPC;
    bigger = realloc(dir->data, dir->len + ENTRY_SIZE);
    if (!bigger)
        return -ENOMEM;
    dir->data = bigger;
    r = set_item(fw, KEY_FILES + fw->files, data, len);
    if (r < 0)
        return r;
    e = dir->data + dir->len;
    memset(e, 0, ENTRY_SIZE);
    qz_store_be32(e, len);
    qz_store_be16(e + 4, KEY_FILES + fw->files);
    strcpy((char *)e + 8, name);
    dir->len += ENTRY_SIZE;
    qz_store_be32(dir->data, ++fw->files);
    return 0;
}

int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
    QZ_LOCKED(&fw->lock);

    return add_file(fw, name, data, len);
}

int fw_cfg_add_writable_file(struct fw_cfg *fw, const char *name, size_t len,
                             void (*written)(void *context, const void *data, size_t len),
                             void *context)
{
    QZ_LOCKED(&fw->lock);
    int r = add_file(fw, name, NULL, len);

    if (r == 0) {
        struct item *i = &fw->item[KEY_FILES + fw->files - 1];

        i->writable = true;
        i->written = written;
        i->context = context;
    }
    return r;
}

/* The selected item, or an empty one. */
static struct item *selected(struct fw_cfg *fw)
{
    static struct item none;

    return fw->selected < KEYS ? &fw->item[fw->selected] : &none;
}

static void select_key(struct fw_cfg *fw, uint16_t key)
{
    fw->selected = key;
    fw->position = 0;
}

static uint8_t next_byte(struct fw_cfg *fw)
{
    struct item *i = selected(fw);

    return fw->position < i->len ? i->data[fw->position++] : 0;
}

/* ---- DMA
 * -----------------------------------------------------------------------------------------------
 */

/* Moves len bytes between the selected item and guest memory; to the guest, or from it. */
static int transfer(struct fw_cfg *fw, uint64_t address, uint32_t len, bool from_guest)
{
    struct item *i = selected(fw);
    uint32_t there = QZ_MIN(len, i->len - fw->position);
    struct mem_span span;

    if (len == 0)
        return 0;
    if (len > DMA_LENGTH_MAX || mem_span(&fw->machine->memory, gpa(address), len, &span) < 0)
        return -EFAULT;
    if (from_guest && (!i->writable || there < len))
        return -EACCES;
    if (from_guest) {
        memcpy(i->data + fw->position, span.data, len);
    } else {
        if (there)
            memcpy(span.data, i->data + fw->position, there);
        memset(span.data + there, 0, len - there);
        machine_written(fw->machine, span.data, len);
    }
    fw->position += there;
    return 0;
}

/* lock held. Returns the request's result for its control field; *wrote: the item whose file was
 * written to. */
static uint32_t run_request(struct fw_cfg *fw, const struct request *q, struct item **wrote)
{
    int r = 0;

    if (q->control & DMA_SELECT)
        select_key(fw, q->control >> 16);
    if (q->control & DMA_READ) {
        r = transfer(fw, q->address, q->length, false);
    } else if (q->control & DMA_WRITE) {
        r = transfer(fw, q->address, q->length, true);
        if (r == 0 && q->length)
            *wrote = selected(fw);
    } else if (q->control & DMA_SKIP) {
        fw->position += QZ_MIN(q->length, selected(fw)->len - fw->position);
    }
    return r < 0 ? DMA_ERROR : 0;
}

static void start_dma(struct fw_cfg *fw, uint64_t address)
{
    QZ_AUTO_FREE uint8_t *copy = NULL;
    struct item *wrote = NULL, file = {0};
    struct request q;
    uint8_t result[4];

    if (mem_read(&fw->machine->memory, gpa(address), &q, sizeof(q)) < 0) {
        qz_guest_warn("fw_cfg: DMA request at 0x%llx, which is not RAM",
                      (unsigned long long)address);
        return; /* nowhere to put an error */
    }
    q = (struct request){qz_load_be32(&q.control), qz_load_be32(&q.length),
                         qz_load_be64(&q.address)};
    {
        QZ_LOCKED(&fw->lock);

        qz_store_be32(result, run_request(fw, &q, &wrote));
        if (wrote && wrote->written && (copy = malloc(wrote->len))) {
            file = *wrote;
            memcpy(copy, file.data, file.len);
        }
    }
    mem_write(&fw->machine->memory, gpa(address), result, sizeof(result));
    if (copy)
        file.written(file.context, copy, file.len);
}

/* ---- ports
 * --------------------------------------------------------------------------------------------- */

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    struct fw_cfg *fw = device;
    QZ_LOCKED(&fw->lock);

    return size == 1 ? next_byte(fw) : 0;
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *fw = device;
    QZ_LOCKED(&fw->lock);

    /* Bytes written to the data port are ignored, as everywhere since DMA does it. */
    if (size == 2)
        select_key(fw, (uint16_t)value);
}

/* Says that DMA is there. */
static uint64_t dma_read(void *device, uint64_t offset, unsigned size)
{
    static const char signature[8] = "QEMU CFG";
    uint64_t v = 0;

    memcpy(&v, signature + offset, size);
    return v;
}

static void dma_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *fw = device;
    uint64_t address;

    /* By register halves, or both at once; nothing else means anything. */
    if (size == 4 && offset == 0) {
        QZ_LOCKED(&fw->lock);

        fw->dma_high = __builtin_bswap32((uint32_t)value);
        return;
    }
    if (size == 8) {
        address = __builtin_bswap64(value);
    } else if (size == 4 && offset == 4) {
        QZ_LOCKED(&fw->lock);

        address = (uint64_t)fw->dma_high << 32 | __builtin_bswap32((uint32_t)value);
        fw->dma_high = 0;
    } else {
        return;
    }
    start_dma(fw, address);
}

/* ---- state
 * --------------------------------------------------------------------------------------------- */

void fw_cfg_state(struct fw_cfg *fw, struct qz_state *s)
{
    QZ_LOCKED(&fw->lock);

    qz_state_group(s, "fw_cfg");
    QZ_STATE_ANY(s, "selected", fw->selected);
    QZ_STATE(s, "position", fw->position, selected(fw)->len);
    QZ_STATE_ANY(s, "dma_high", fw->dma_high);
    for (unsigned i = 0; i < KEYS; i++)
        if (fw->item[i].writable) {
            qz_state_group_at(s, "item", i);
            qz_state_data(s, "data", fw->item[i].data, fw->item[i].len);
            qz_state_end(s);
        }
    qz_state_end(s);
    if (qz_state_loading(s) && qz_state_failed(s))
        select_key(fw, 0); /* the old position is not the new item's */
}

/* ---- life
 * ---------------------------------------------------------------------------------------------- */

static int add_items(struct fw_cfg *fw)
{
    /* One byte for each of S0 to S5: bit 7 supported, the rest SLP_TYP as in the ICH9; only S0 and
     * S5 are there. */
    static const uint8_t system_states[6] = {0x80, 0, 0, 1, 2, 0x80};
    const struct machine *m = fw->machine;
    uint8_t v[8] = {0};
    int r;

    qz_store_le32(v, ID_TRADITIONAL | ID_DMA);
    if ((r = set_item(fw, KEY_SIGNATURE, "QEMU", 4)) < 0 || (r = set_item(fw, KEY_ID, v, 4)) < 0)
        return r;
    qz_store_le64(v, m->memory.size);
    if ((r = set_item(fw, KEY_RAM_SIZE, v, 8)) < 0)
        return r;
    qz_store_le64(v, m->cpus);
    if ((r = set_item(fw, KEY_CPUS, v, 2)) < 0 || (r = set_item(fw, KEY_MAX_CPUS, v, 2)) < 0)
        return r;
    qz_store_le64(v, 1);
    if ((r = set_item(fw, KEY_NOGRAPHIC, v, 2)) < 0)
        return r;
    qz_store_le64(v, 0);
    if ((r = set_item(fw, KEY_BOOT_MENU, v, 2)) < 0 || (r = set_item(fw, KEY_DIRECTORY, v, 4)) < 0)
        return r;
    return fw_cfg_add_file(fw, "etc/system-states", system_states, sizeof(system_states));
}

int fw_cfg_new(struct fw_cfg **out, struct machine *m, struct qz_error *err)
{
    static const struct bus_ops ports = {port_read, port_write}, dma = {dma_read, dma_write};
    struct fw_cfg *fw = calloc(1, sizeof(*fw));
    int r;

    if (!fw)
        return qz_fail(err, -ENOMEM, "fw_cfg: no memory");
    fw->machine = m;
    pthread_mutex_init(&fw->lock, NULL);
    if ((r = add_items(fw)) < 0 ||
        (r = bus_add(m->pio, &(struct bus_region){PORT_BASE, 2, &ports, fw, NULL, "fw_cfg"})) < 0 ||
        (r = bus_add(m->pio, &(struct bus_region){PORT_DMA, 8, &dma, fw, NULL, "fw_cfg dma"})) <
            0) {
        fw_cfg_free(fw);
        return qz_fail(err, r, "fw_cfg: %s", strerror(-r));
    }
    *out = fw;
    return 0;
}

void fw_cfg_free(struct fw_cfg *fw)
{
    if (!fw)
        return;
    bus_remove(fw->machine->pio, PORT_BASE, 2);
    bus_remove(fw->machine->pio, PORT_DMA, 8);
    for (unsigned i = 0; i < KEYS; i++)
        free(fw->item[i].data);
    pthread_mutex_destroy(&fw->lock);
    free(fw);
}

void fw_cfg_reset(struct fw_cfg *fw)
{
    QZ_LOCKED(&fw->lock);

    select_key(fw, 0);
    fw->dma_high = 0;
    for (unsigned i = 0; i < KEYS; i++)
        if (fw->item[i].writable)
            memset(fw->item[i].data, 0, fw->item[i].len);
}
