/*
 * pflash.c - flash memory with the Intel command set (pflash.h).
 *
 * Theory of operation. While the store is read as an array, which is nearly always, it is mapped
 * into the guest read-only: reads cost nothing, and each write leaves the guest as MMIO, because a
 * region on the bus lies behind the mapping. A command takes the mapping away, so that reads come
 * here too and see status or identification, until the guest goes back to the array. The code is
 * mapped the same way and takes no commands at all.
 *
 * The store's bytes are a private copy in memory; each program and erase goes to the file first and
 * to the copy when that worked, otherwise the status says that it failed. Programming only clears
 * bits, as flash does.
 *
 * One deviation from the datasheet is QEMU's, and OVMF recognises flash by it: after Clear Status
 * the whole register reads 0, the ready bit included, until the next operation is done.
 */
#include "devices/pflash.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cpu/accel.h"

QZ_SYSCALLS(vcpu, "pwrite64");

#define TOP (4ull << 30)

enum command {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_2 = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_LOCK = 0x60,
    CMD_READ_STATUS = 0x70,
    CMD_READ_ID = 0x90,
    CMD_CFI_QUERY = 0x98,
    CMD_CONFIRM = 0xd0,
    CMD_BUFFERED = 0xe8,
    CMD_READ_ARRAY = 0xff,
};

enum {
    STATUS_LOCKED = 1 << 1,
    STATUS_PROGRAM_FAILED = 1 << 4,
    STATUS_ERASE_FAILED = 1 << 5,
    STATUS_READY = 1 << 7
};
enum { ID_MANUFACTURER = 0x89, ID_DEVICE = 0x18 };
enum { BUFFER_SIZE = 256, CFI_LEN = 0x40 };

/* What reads see. */
enum mode { READ_ARRAY, READ_STATUS, READ_ID, READ_CFI };

/* Which part of a command the next write is. */
enum step {
    STEP_COMMAND,
    STEP_PROGRAM,
    STEP_ERASE,
    STEP_LOCK,
    STEP_COUNT,
    STEP_FILL,
    STEP_CONFIRM
};

struct image {
    uint64_t base, size;
    uint8_t *data;
    const char *name;
    bool mapped; /* in the guest */
};

struct pflash {
    struct machine *machine;
    pthread_mutex_t lock; /* taken by the bus */
    struct image code, vars;
    char vars_name[256];
    int fd; /* of the store; -1: none */
    enum mode mode;
    enum step step;
    uint8_t status;
    uint8_t cfi[CFI_LEN];
    struct { /* buffered write */
        uint64_t start;
        unsigned count, filled;
        uint8_t data[BUFFER_SIZE];
        bool given[BUFFER_SIZE];
    } buffer;
};

/* ---- mapping
 * ------------------------------------------------------------------------------------------- */

static void show(struct pflash *f, struct image *i)
{
    struct accel_vm *vm = f->machine->accel;

    if (i->mapped || !vm || !i->size)
        return;
    if (vm->ops->memory_map(vm, i->base, i->size, i->data, true) < 0) {
        /* Slower, but the same to the guest: its reads come to the bus. Instructions cannot be
         * fetched so. */
        qz_guest_warn("pflash: cannot map %s into the guest", i->name);
        return;
    }
    i->mapped = true;
}

static void hide(struct pflash *f, struct image *i)
{
    struct accel_vm *vm = f->machine->accel;

    if (i->mapped && vm && vm->ops->memory_unmap(vm, i->base, i->size) < 0)
        qz_guest_warn("pflash: cannot unmap %s", i->name);
    else
        i->mapped = false;
}

static void set_mode(struct pflash *f, enum mode mode)
{
    f->mode = mode;
    if (mode == READ_ARRAY)
        show(f, &f->vars);
    else
        hide(f, &f->vars);
}

static void to_array(struct pflash *f)
{
    f->step = STEP_COMMAND;
    set_mode(f, READ_ARRAY);
}

/* ---- contents
 * ------------------------------------------------------------------------------------------ */

/* To the file, then to memory. Sets the status. */
static void store(struct pflash *f, uint64_t offset, const uint8_t *data, size_t len,
                  uint8_t failure)
{
    ssize_t n;

    do
        n = pwrite(f->fd, data, len, (off_t)offset);
    while (n < 0 && errno == EINTR);
    f->status |= STATUS_READY;
    if (n != (ssize_t)len) {
        qz_guest_warn("%s: cannot write: %s", f->vars_name,
                      n < 0 ? strerror(errno) : "short write");
        f->status |= failure;
        return;
    }
    memcpy(f->vars.data + offset, data, len);
}

static void program(struct pflash *f, uint64_t offset, const uint8_t *data, size_t len)
{
    uint8_t cleared[BUFFER_SIZE];

    for (size_t i = 0; i < len; i++)
        cleared[i] = f->vars.data[offset + i] & data[i];
    store(f, offset, cleared, len, STATUS_PROGRAM_FAILED);
}

static void erase(struct pflash *f, uint64_t offset)
{
    uint8_t blank[PFLASH_BLOCK];

    memset(blank, 0xff, sizeof(blank));
    store(f, QZ_ALIGN_DOWN(offset, PFLASH_BLOCK), blank, sizeof(blank), STATUS_ERASE_FAILED);
}

/* A wrong second half of a command: both failure bits (P30 datasheet, status register). */
static void sequence_error(struct pflash *f)
{
    f->status |= STATUS_READY | STATUS_PROGRAM_FAILED | STATUS_ERASE_FAILED;
    f->step = STEP_COMMAND;
    set_mode(f, READ_STATUS);
}

/* ---- commands
 * ------------------------------------------------------------------------------------------ */

static void command(struct pflash *f, uint8_t c)
{
    static const struct {
        uint8_t command;
        enum mode mode;
        enum step next;
    } commands[] = {
        {CMD_PROGRAM, READ_STATUS, STEP_PROGRAM}, {CMD_PROGRAM_2, READ_STATUS, STEP_PROGRAM},
        {CMD_ERASE, READ_STATUS, STEP_ERASE},     {CMD_LOCK, READ_STATUS, STEP_LOCK},
        {CMD_BUFFERED, READ_STATUS, STEP_COUNT},  {CMD_READ_STATUS, READ_STATUS, STEP_COMMAND},
        {CMD_READ_ID, READ_ID, STEP_COMMAND},     {CMD_CFI_QUERY, READ_CFI, STEP_COMMAND},
    };

    if (c == CMD_CLEAR_STATUS)
        f->status = 0;
    if (c == CMD_BUFFERED)
        f->status |= STATUS_READY; /* a buffer is free */
    for (size_t i = 0; i < QZ_ARRAY_LEN(commands); i++) {
        if (commands[i].command == c) {
            f->step = commands[i].next;
            set_mode(f, commands[i].mode);
            return;
        }
    }
    to_array(f); /* read array, clear status, and what is no command */
}

static void fill(struct pflash *f, uint64_t offset, uint8_t v)
{
    if (f->buffer.filled == 0)
        f->buffer.start = QZ_ALIGN_DOWN(offset, BUFFER_SIZE);
    if (offset < f->buffer.start || offset - f->buffer.start >= BUFFER_SIZE)
        return sequence_error(f); /* a buffer is one aligned piece of flash */
    f->buffer.data[offset - f->buffer.start] = v;
    f->buffer.given[offset - f->buffer.start] = true;
    if (++f->buffer.filled == f->buffer.count)
        f->step = STEP_CONFIRM;
}

static void program_buffer(struct pflash *f)
{
    uint8_t all[BUFFER_SIZE];

    for (unsigned i = 0; i < BUFFER_SIZE; i++)
        all[i] = f->buffer.given[i] ? f->buffer.data[i] : 0xff; /* leaves the bits as they are */
    program(f, f->buffer.start, all, BUFFER_SIZE);
}

static void write_byte(struct pflash *f, uint64_t offset, uint8_t v)
{
    switch (f->step) {
    case STEP_COMMAND:
        return command(f, v);
    case STEP_PROGRAM:
        f->step = STEP_COMMAND;
        return program(f, offset, &v, 1);
    case STEP_ERASE:
        if (v != CMD_CONFIRM)
            return v == CMD_READ_ARRAY ? to_array(f) : sequence_error(f);
        f->step = STEP_COMMAND;
        return erase(f, offset);
    case STEP_LOCK: /* lock (01), unlock (d0), lock down (2f): accepted; nothing is ever locked */
        if (v != 0x01 && v != CMD_CONFIRM && v != 0x2f)
            return v == CMD_READ_ARRAY ? to_array(f) : sequence_error(f);
        f->status |= STATUS_READY;
        f->step = STEP_COMMAND;
        return;
    case STEP_COUNT: /* bytes less one */
        memset(&f->buffer, 0, sizeof(f->buffer));
        f->buffer.count = v + 1u;
        f->step = STEP_FILL;
        return;
    case STEP_FILL:
        return fill(f, offset, v);
    case STEP_CONFIRM:
        if (v != CMD_CONFIRM)
            return sequence_error(f);
        f->step = STEP_COMMAND;
        return program_buffer(f);
    }
}

static uint8_t read_byte(const struct pflash *f, uint64_t offset)
{
    switch (f->mode) {
    case READ_STATUS:
        return f->status;
    case READ_ID: /* third: the block's lock state, unlocked */
        return offset % PFLASH_BLOCK == 0   ? ID_MANUFACTURER
               : offset % PFLASH_BLOCK == 1 ? ID_DEVICE
                                            : 0;
    case READ_CFI:
        return offset % PFLASH_BLOCK < CFI_LEN ? f->cfi[offset % PFLASH_BLOCK] : 0;
    case READ_ARRAY:
        break;
    }
    return f->vars.data[offset];
}

static uint64_t vars_read(void *device, uint64_t offset, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)read_byte(device, offset + i) << i * 8;
    return v;
}

static void vars_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pflash *f = device;

    /* The chip is a byte wide: a wide write is a command in its lowest byte, or that many bytes of
     * data. */
    if (f->step == STEP_PROGRAM) {
        uint8_t bytes[8];

        qz_store_le64(bytes, value);
        f->step = STEP_COMMAND;
        return program(f, offset, bytes, size);
    }
    if (f->step != STEP_FILL)
        size = 1;
    for (unsigned i = 0; i < size && (i == 0 || f->step == STEP_FILL); i++)
        write_byte(f, offset + i, value >> i * 8);
}

static uint64_t code_read(void *device, uint64_t offset, unsigned size)
{
    struct pflash *f = device;
    uint64_t v = 0;

    memcpy(&v, f->code.data + offset, size);
    return v;
}

/* ---- state
 * --------------------------------------------------------------------------------------------- */

static void buffer_state(struct pflash *f, struct qz_state *s)
{
    uint8_t given[BUFFER_SIZE];

    for (unsigned i = 0; i < BUFFER_SIZE; i++)
        given[i] = f->buffer.given[i];
    qz_state_group(s, "buffer");
    QZ_STATE(s, "start", f->buffer.start, f->vars.size - BUFFER_SIZE);
    QZ_STATE(s, "count", f->buffer.count, BUFFER_SIZE);
    QZ_STATE(s, "filled", f->buffer.filled, BUFFER_SIZE);
    qz_state_data(s, "data", f->buffer.data, BUFFER_SIZE);
    qz_state_data(s, "given", given, BUFFER_SIZE);
    for (unsigned i = 0; i < BUFFER_SIZE; i++)
        f->buffer.given[i] = given[i];
    if (f->buffer.start % BUFFER_SIZE || f->buffer.filled > f->buffer.count)
        qz_state_refuse(s, "what no command leaves");
    qz_state_end(s);
}

/* The store's bytes: in the file too, which is this machine's own. */
static void contents_state(struct pflash *f, struct qz_state *s)
{
    const uint8_t status = f->status;
    uint8_t *data = malloc(f->vars.size);

    if (!data) {
        qz_state_refuse(s, "no memory for the variable store");
        return;
    }
    memcpy(data, f->vars.data, f->vars.size);
    qz_state_data(s, "contents", data, f->vars.size);
    if (qz_state_loading(s) && !qz_state_failed(s)) {
        f->status = 0;
        store(f, 0, data, f->vars.size, STATUS_PROGRAM_FAILED);
        if (f->status & STATUS_PROGRAM_FAILED)
            qz_state_refuse(s, "%s: cannot be written", f->vars_name);
        f->status = status;
    }
    free(data);
}

void pflash_state(struct pflash *f, struct qz_state *s)
{
    QZ_LOCKED(&f->lock);

    qz_state_group(s, "pflash");
    QZ_STATE(s, "mode", f->mode, READ_CFI);
    QZ_STATE(s, "step", f->step, STEP_CONFIRM);
    QZ_STATE_ANY(s, "status", f->status);
    if (f->vars.size) {
        buffer_state(f, s);
        contents_state(f, s);
    }
    qz_state_end(s);
    if (!qz_state_loading(s))
        return;
    if (qz_state_failed(s))
        to_array(f);
    else
        set_mode(f, f->mode);
}

/* ---- life
 * ---------------------------------------------------------------------------------------------- */

static uint8_t log2_up(uint64_t v)
{
    uint8_t n = 0;

    while (1ull << n < v)
        n++;
    return n;
}

static void fill_cfi(struct pflash *f)
{
    uint64_t blocks = f->vars.size / PFLASH_BLOCK;
    uint8_t *c = f->cfi;

    memcpy(c + 0x10, "QRY\x01\x00\x31", 6); /* Intel extended command set, its table at 0x31 */
    c[0x1b] = 0x45;                         /* supply 4.5 to 5.5 V */
    c[0x1c] = 0x55;
    c[0x1f] = 7; /* typical times: byte 2^7 us, buffer 2^7 us, block 2^10 ms; at most 2^4 of that */
    c[0x20] = 7;
    c[0x21] = 10;
    c[0x23] = c[0x24] = c[0x25] = 4;
    c[0x27] = log2_up(f->vars.size);
    c[0x28] = 2; /* x8 and x16 */
    c[0x2a] = log2_up(BUFFER_SIZE);
    c[0x2c] = 1; /* one region of equal blocks */
    qz_store_le16(c + 0x2d, blocks - 1);
    qz_store_le16(c + 0x2f, PFLASH_BLOCK / 256);
    memcpy(c + 0x31, "PRI10", 5);
}

static int open_image(const char *what, const char *path, int flags, int *fd, uint64_t *size,
                      struct qz_error *err)
{
    struct stat st;

    *fd = open(path, flags | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) < 0)
        return qz_fail(err, -errno, "%s %s: %s", what, path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return qz_fail(err, -EINVAL, "%s %s: not a regular file", what, path);
    if (st.st_size == 0 || st.st_size % PFLASH_BLOCK || (uint64_t)st.st_size > PFLASH_SIZE_MAX)
        return qz_fail(
            err, -EINVAL,
            "%s %s: %lld bytes is no size of a flash image (blocks of 4 KiB, at most 16 MiB)", what,
            path, (long long)st.st_size);
    *size = st.st_size;
    return 0;
}

static int load_image(struct image *i, int fd, const char *what, const char *path,
                      struct qz_error *err)
{
    uint64_t done = 0;
    void *p = mmap(NULL, i->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return qz_fail(err, -ENOMEM, "%s %s: no memory", what, path);
    i->data = p;
    while (done < i->size) {
        ssize_t n = pread(fd, i->data + done, i->size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qz_fail(err, n < 0 ? -errno : -EIO, "%s %s: %s", what, path,
                           n < 0 ? strerror(errno) : "became shorter while it was read");
        done += n;
    }
    return 0;
}

static int open_code(struct pflash *f, const char *path, struct qz_error *err)
{
    QZ_AUTO_FD int fd = -1;
    int r = open_image("firmware", path, O_RDONLY, &fd, &f->code.size, err);
    void *p;

    if (r < 0)
        return r;
    /* Mapped from the file: machines with the same firmware share its pages. */
    p = mmap(NULL, f->code.size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return qz_fail(err, -errno, "firmware %s: cannot map: %s", path, strerror(errno));
    f->code.data = p;
    f->code.base = TOP - f->code.size;
    f->code.name = "firmware";
    return 0;
}

static int open_vars(struct pflash *f, const char *path, struct qz_error *err)
{
    const char *what = "firmware variables";
    int r;

    snprintf(f->vars_name, sizeof(f->vars_name), "%s %s", what, path);
    r = open_image(what, path, O_RDWR, &f->fd, &f->vars.size, err);
    if (r < 0)
        return r;
    if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
        return qz_fail(err, -errno, "%s: %s", f->vars_name,
                       errno == EWOULDBLOCK
                           ? "in use by another machine (each needs a copy of its own)"
                           : strerror(errno));
    if (f->code.size + f->vars.size > PFLASH_SIZE_MAX)
        return qz_fail(err, -EINVAL, "%s: more than 16 MiB together with the firmware",
                       f->vars_name);
    f->vars.base = f->code.base - f->vars.size;
    f->vars.name = "the variable store";
    fill_cfi(f);
    return load_image(&f->vars, f->fd, what, path, err);
}

static int attach(struct pflash *f, struct qz_error *err)
{
    static const struct bus_ops code_ops = {code_read, NULL}, vars_ops = {vars_read, vars_write};
    struct bus *mmio = f->machine->mmio;
    int r = bus_add(
        mmio, &(struct bus_region){f->code.base, f->code.size, &code_ops, f, NULL, "firmware"});

    if (r == 0 && f->vars.size)
        r = bus_add(mmio, &(struct bus_region){f->vars.base, f->vars.size, &vars_ops, f, &f->lock,
                                               "firmware variables"});
    if (r < 0)
        return qz_fail(err, r, "pflash: something else lies below 4 GiB already");
    show(f, &f->code);
    show(f, &f->vars);
    if (f->machine->accel && !f->code.mapped)
        return qz_fail(err, -EIO, "pflash: the accelerator cannot map the firmware");
    return 0;
}

int pflash_new(struct pflash **out, struct machine *m, const char *code_path, const char *vars_path,
               struct qz_error *err)
{
    struct pflash *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return qz_fail(err, -ENOMEM, "pflash: no memory");
    f->machine = m;
    f->fd = -1;
    f->status = STATUS_READY;
    pthread_mutex_init(&f->lock, NULL);
    r = open_code(f, code_path, err);
    if (r == 0 && vars_path)
        r = open_vars(f, vars_path, err);
    if (r == 0)
        r = attach(f, err);
    if (r < 0)
        pflash_free(f);
    else
        *out = f;
    return r;
}

void pflash_free(struct pflash *f)
{
    struct image *images[2];

    if (!f)
        return;
    images[0] = &f->code;
    images[1] = &f->vars;
    for (size_t i = 0; i < QZ_ARRAY_LEN(images); i++) {
        if (!images[i]->data)
            continue;
        bus_remove(f->machine->mmio, images[i]->base, images[i]->size);
        hide(f, images[i]);
        munmap(images[i]->data, images[i]->size);
    }
    if (f->fd >= 0)
        close(f->fd);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void pflash_reset(struct pflash *f)
{
    QZ_LOCKED(&f->lock);

    f->status = STATUS_READY;
    to_array(f);
}
