/*
 * vhost_test.c - a small frontend drives the vhost-user-blk server: requests, hostile rings, a
 * frontend that comes back, requests that a dead server left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <queztl/disk.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MEMORY = 1 << 20, USER = 0x10000000, GPA = 0x40000000, SIZE = 64, DATA = 0x10000 };
enum { DESC = 0, AVAIL = 0x1000, USED = 0x2000 };
enum { WAIT_MS = 10000 };

struct frontend {
    struct qz_disk *disk;
    struct qz_disk_server *server;
    char path[64];
    int listener, fd, memfd, kick, call;
    uint8_t *memory;
    uint16_t next, seen;
    int inflight_fd;
    uint64_t inflight_size;
};

struct wire {
    uint32_t request, flags, size;
};

/* ---- the protocol */

static void tell_fd(struct frontend *f, uint32_t request, const void *payload, uint32_t n, int fd)
{
    struct wire w = {request, 1, n};
    struct iovec iov[2] = {{&w, sizeof(w)}, {(void *)(uintptr_t)payload, n}};
    union {
        struct cmsghdr h;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)),
                       .cmsg_level = SOL_SOCKET,
                       .cmsg_type = SCM_RIGHTS}};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};

    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.h), &fd, sizeof(fd));
        h.msg_control = &control;
        h.msg_controllen = sizeof(control);
    }
    assert_int_equal(sendmsg(f->fd, &h, MSG_NOSIGNAL), sizeof(w) + n);
}

static void tell(struct frontend *f, uint32_t request, uint64_t value, int fd)
{
    tell_fd(f, request, &value, sizeof(value), fd);
}

static void hear(struct frontend *f, void *payload, uint32_t n, int *fd)
{
    struct wire w;
    union {
        struct cmsghdr h;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov[2] = {{&w, sizeof(w)}, {payload, n}};
    struct msghdr h = {.msg_iov = iov,
                       .msg_iovlen = 2,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};

    ssize_t got;

    do /* the kernel interrupts a thread to finish the io_uring that it closed */
        got = recvmsg(f->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    assert_int_equal(got, sizeof(w) + n);
    assert_int_equal(w.size, n);
    if (fd)
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(*fd));
}

static uint64_t ask(struct frontend *f, uint32_t request)
{
    uint64_t value;

    tell_fd(f, request, NULL, 0, -1);
    hear(f, &value, sizeof(value), NULL);
    return value;
}

static void connect_to_server(struct frontend *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};

    strcpy(a.sun_path, f->path);
    f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(f->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

static void show_memory(struct frontend *f)
{
    struct {
        uint32_t count, padding;
        uint64_t gpa, size, user, offset;
    } table = {1, 0, GPA, MEMORY, USER, 0};

    tell_fd(f, 5, &table, sizeof(table), f->memfd);
}

static void start_ring(struct frontend *f, uint32_t size, uint16_t base, uint64_t desc)
{
    struct {
        uint32_t index, num;
    } num = {0, size}, at = {0, base};
    struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } addr = {0, 0, USER + desc, USER + USED, USER + AVAIL, 0};

    tell_fd(f, 8, &num, sizeof(num), -1);
    tell_fd(f, 10, &at, sizeof(at), -1);
    tell_fd(f, 9, &addr, sizeof(addr), -1);
    tell(f, 13, 0, f->call);
    tell(f, 12, 0, f->kick);
    num.num = 1;
    tell_fd(f, 18, &num, sizeof(num), -1);
}

static uint16_t stop_ring(struct frontend *f)
{
    struct {
        uint32_t index, num;
    } state = {0, 0};

    tell_fd(f, 11, &state, sizeof(state), -1);
    hear(f, &state, sizeof(state), NULL);
    return (uint16_t)state.num;
}

static void negotiate(struct frontend *f)
{
    uint64_t features = ask(f, 1), protocol;

    assert_true(features & QZ_BIT(30));
    protocol = ask(f, 15);
    assert_true(protocol & QZ_BIT(9));
    tell(f, 16, QZ_BIT(0) | QZ_BIT(9) | QZ_BIT(12), -1);
    tell(f, 2, QZ_BIT(32) | QZ_BIT(30) | QZ_BIT(28) | QZ_BIT(9),
         -1); /* FLUSH: writes may be cached */
    show_memory(f);
}

static void set_up(struct frontend *f, const char *options)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct qz_disk_vhost_options o = {.queues = 2, .serial = "serial number"};
    struct qz_error err = {0};

    memset(f, 0, sizeof(*f));
    snprintf(f->path, sizeof(f->path), "/tmp/qz-vhost-test-%d", getpid());
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->path);
    unlink(f->path);
    if (qz_disk_open(&f->disk, options, &err) < 0)
        fail_msg("%s", err.text);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(f->listener, 1), 0);
    if (qz_disk_serve_vhost_user(&f->server, f->disk, f->listener, &o, &err) < 0)
        fail_msg("%s", err.text);
    f->memfd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->memfd, MEMORY), 0);
    f->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
    f->kick = eventfd(0, EFD_CLOEXEC);
    f->call = eventfd(0, EFD_CLOEXEC);
    connect_to_server(f);
    negotiate(f);
}

static void end(struct frontend *f)
{
    struct qz_error err;

    close(f->fd);
    qz_disk_server_stop(f->server);
    assert_int_equal(qz_disk_close(f->disk, &err), 0);
    close(f->listener);
    close(f->memfd);
    close(f->kick);
    close(f->call);
    munmap(f->memory, MEMORY);
    unlink(f->path);
}

/* ---- the ring */

static struct vring_desc *desc(struct frontend *f, unsigned i)
{
    return (struct vring_desc *)(f->memory + DESC) + i;
}

static struct vring_avail *avail(struct frontend *f)
{
    return (struct vring_avail *)(f->memory + AVAIL);
}

static struct vring_used *used(struct frontend *f)
{
    return (struct vring_used *)(f->memory + USED);
}

static void offer(struct frontend *f, uint16_t head)
{
    avail(f)->ring[f->next++ % SIZE] = head;
    __atomic_store_n(&avail(f)->idx, f->next, __ATOMIC_SEQ_CST);
}

static void kick(struct frontend *f)
{
    uint64_t one = 1;

    assert_int_equal(write(f->kick, &one, sizeof(one)), sizeof(one));
}

/* Waits until the server has used one more. */
static bool wait_used(struct frontend *f, int ms)
{
    while ((uint16_t)__atomic_load_n(&used(f)->idx, __ATOMIC_ACQUIRE) == f->seen) {
        struct pollfd p = {f->call, POLLIN, 0};
        uint64_t count;
        int r = poll(&p, 1, ms);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return false;
        assert_int_equal(read(f->call, &count, sizeof(count)), sizeof(count));
    }
    f->seen++;
    return true;
}

/* Chain 0-1-2: header, data, status, at DATA. */
static void build(struct frontend *f, unsigned first, uint32_t type, uint64_t sector, uint32_t n,
                  bool device_writes)
{
    struct virtio_blk_outhdr h = {type, 0, sector};
    uint64_t at = DATA + first * 0x2000;

    memcpy(f->memory + at, &h, sizeof(h));
    f->memory[at + 0x1fff] = 0xee;
    *desc(f, first) = (struct vring_desc){GPA + at, 16, VRING_DESC_F_NEXT, (uint16_t)(first + 1)};
    *desc(f, first + 1) = (struct vring_desc){
        GPA + at + 0x800, n,
        (uint16_t)(VRING_DESC_F_NEXT | (device_writes ? VRING_DESC_F_WRITE : 0)),
        (uint16_t)(first + 2)};
    *desc(f, first + 2) = (struct vring_desc){GPA + at + 0x1fff, 1, VRING_DESC_F_WRITE, 0};
}

static uint8_t *data_of(struct frontend *f, unsigned first)
{
    return f->memory + DATA + first * 0x2000 + 0x800;
}

static uint8_t status_of(struct frontend *f, unsigned first)
{
    return f->memory[DATA + first * 0x2000 + 0x1fff];
}

static uint8_t run(struct frontend *f, uint32_t type, uint64_t sector, uint32_t n, bool reads)
{
    build(f, 0, type, sector, n, reads);
    offer(f, 0);
    kick(f);
    assert_true(wait_used(f, WAIT_MS));
    return status_of(f, 0);
}

/* ---- cases */

static void test_requests(void **state)
{
    struct frontend f;
    struct virtio_blk_discard_write_zeroes range = {8, 8, 1};

    set_up(&f, "memory:1MiB");
    start_ring(&f, SIZE, 0, DESC);
    memset(data_of(&f, 0), 0x77, 4096);
    assert_int_equal(run(&f, VIRTIO_BLK_T_OUT, 8, 4096, false), VIRTIO_BLK_S_OK);
    memset(data_of(&f, 0), 0, 4096);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_OK);
    assert_true(data_of(&f, 0)[0] == 0x77 && data_of(&f, 0)[4095] == 0x77);
    assert_int_equal(used(&f)->ring[1].len, 4097);
    memcpy(data_of(&f, 0), &range, sizeof(range));
    assert_int_equal(run(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(range), false), VIRTIO_BLK_S_OK);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_OK);
    assert_true(data_of(&f, 0)[0] == 0 && data_of(&f, 0)[4095] == 0);
    assert_int_equal(run(&f, VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
    assert_string_equal((char *)data_of(&f, 0), "serial number");
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 2047, 1024, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, UINT64_MAX, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 0, 511, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(run(&f, 99, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
    range.num_sectors = 0;
    memcpy(data_of(&f, 0), &range, sizeof(range));
    assert_int_equal(run(&f, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), false), VIRTIO_BLK_S_UNSUPP);
    range.flags = 0;
    memcpy(data_of(&f, 0), &range, sizeof(range));
    assert_int_equal(run(&f, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(run(&f, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    assert_int_equal(stop_ring(&f), f.next);
    end(&f);
}

static void test_config(void **state)
{
    struct frontend f;
    struct {
        uint32_t offset, size, flags;
        uint8_t bytes[60];
    } config = {0, 60, 0, {0}};

    set_up(&f, "memory:1MiB");
    assert_int_equal(ask(&f, 17), 2);
    tell_fd(&f, 24, &config, sizeof(config), -1);
    hear(&f, &config, sizeof(config), NULL);
    assert_int_equal(qz_load_le64(config.bytes), 2048);
    assert_int_equal(qz_load_le16(config.bytes + 34), 2); /* num_queues */
    assert_int_equal(config.bytes[32], 1);                /* wce */
    end(&f);
}

static void test_errors_and_delays(void **state)
{
    struct frontend f;

    set_up(&f, "memory:1MiB,inject=write:error=EIO:count=1;read:delay=5ms");
    start_ring(&f, SIZE, 0, DESC);
    assert_int_equal(run(&f, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(run(&f, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 5; i++) {
        build(&f, i * 3, VIRTIO_BLK_T_IN, i, 512, true);
        offer(&f, (uint16_t)(i * 3));
    }
    kick(&f);
    assert_true(wait_used(&f, WAIT_MS)); /* the first is late, so all were taken */
    stop_ring(&f);                       /* answers when all are done */
    assert_int_equal(used(&f)->idx, 7);
    end(&f);
}

/* After each the ring is dead and the server is not. */
static void test_hostile_rings(void **state)
{
    struct frontend f;

    set_up(&f, "memory:1MiB");
    for (unsigned i = 0; i < 9; i++) {
        memset(f.memory, 0, MEMORY);
        f.next = f.seen = 0;
        start_ring(&f, SIZE, 0, DESC);
        build(&f, 0, VIRTIO_BLK_T_IN, 0, 512, true);
        switch (i) {
        case 0:
            desc(&f, 2)->next = 0; /* a circle */
            desc(&f, 2)->flags |= VRING_DESC_F_NEXT;
            break;
        case 1:
            desc(&f, 1)->addr = GPA + MEMORY - 1;
            break;
        case 2:
            desc(&f, 1)->addr = UINT64_MAX - 100;
            break;
        case 3:
            desc(&f, 0)->next = 60000;
            break;
        case 4:
            desc(&f, 0)->flags = VRING_DESC_F_INDIRECT;
            desc(&f, 0)->len = 17;
            break;
        case 5:
            desc(&f, 0)->len = 8; /* half a header */
            desc(&f, 1)->flags &= (uint16_t)~VRING_DESC_F_NEXT;
            desc(&f, 1)->flags &= (uint16_t)~VRING_DESC_F_WRITE;
            break;
        case 6:
            desc(&f, 0)->flags |= VRING_DESC_F_WRITE;
            desc(&f, 1)->flags &= (uint16_t)~VRING_DESC_F_WRITE;
            break;
        case 7:
            f.next = 200;
            break;
        case 8: /* an indirect table that names itself */
            desc(&f, 0)->addr = GPA + DESC;
            desc(&f, 0)->len = 32;
            desc(&f, 0)->flags = VRING_DESC_F_INDIRECT;
            break;
        }
        offer(&f, 0);
        kick(&f);
        assert_false(wait_used(&f, 30));
        stop_ring(&f);
    }
    memset(f.memory, 0, MEMORY);
    f.next = f.seen = 0;
    start_ring(&f, SIZE, 0, DESC);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    end(&f);
}

/* Each of these ends the connection and nothing else. */
static void test_hostile_messages(void **state)
{
    struct frontend f;
    uint8_t junk[64];

    set_up(&f, "memory:1MiB");
    for (unsigned i = 0; i < 8; i++) {
        char byte;
        ssize_t n;

        switch (i) {
        case 0:
            tell(&f, 77, 0, -1);
            break;
        case 1:
            tell(&f, 2, UINT64_MAX, -1);
            break;
        case 2: {
            struct wire w = {1, 1, 1 << 30};

            assert_int_equal(send(f.fd, &w, sizeof(w), 0), sizeof(w));
            break;
        }
        case 3:
            memset(junk, 0xff, sizeof(junk));
            assert_int_equal(send(f.fd, junk, sizeof(junk), 0), sizeof(junk));
            break;
        case 4:
            start_ring(&f, 7, 0, DESC);
            break;
        case 5:
            start_ring(&f, SIZE, 0, MEMORY - 8);
            break;
        case 6: {
            struct {
                uint32_t count, padding;
                uint64_t gpa, size, user, offset;
            } table = {1, 0, GPA, 1ull << 40, USER, 0};

            tell_fd(&f, 5, &table, sizeof(table), f.memfd);
            break;
        }
        case 7:
            tell(&f, 12, 55, f.kick);
            break;
        }
        do
            n = recv(f.fd, &byte, 1, 0);
        while (n < 0 && errno == EINTR);
        assert_true(n == 0 || (n < 0 && errno == ECONNRESET)); /* the server hung up */
        close(f.fd);
        connect_to_server(&f);
        negotiate(&f);
    }
    start_ring(&f, SIZE, 0, DESC);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    end(&f);
}

static void inflight(struct frontend *f, uint32_t request)
{
    struct {
        uint64_t size, offset;
        uint16_t queues, ring;
        uint32_t padding;
    } p = {f->inflight_size, 0, 1, SIZE, 0};

    tell_fd(f, request, &p, sizeof(p), request == 32 ? f->inflight_fd : -1);
    if (request == 31) {
        hear(f, &p, sizeof(p), &f->inflight_fd);
        f->inflight_size = p.size;
    }
}

/* What a server had taken and not answered when it died is done by the next. */
static void test_inflight(void **state)
{
    struct frontend f;
    uint8_t *region;

    set_up(&f, "memory:1MiB");
    inflight(&f, 31);
    inflight(&f, 32);
    start_ring(&f, SIZE, 0, DESC);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    stop_ring(&f);
    close(f.fd);
    /* As if heads 3 and 6 had been taken, 6 first. */
    region = mmap(NULL, f.inflight_size, PROT_READ | PROT_WRITE, MAP_SHARED, f.inflight_fd, 0);
    for (unsigned i = 3; i <= 6; i += 3) {
        build(&f, i, VIRTIO_BLK_T_OUT, i, 512, false);
        memset(data_of(&f, i), (int)i, 512);
        offer(&f, (uint16_t)i);
        region[16 + 16 * i] = 1;
        region[16 + 16 * i + 8] = i == 3 ? 9 : 8;
    }
    connect_to_server(&f);
    negotiate(&f);
    inflight(&f, 32);
    start_ring(&f, SIZE, 1, DESC); /* what the used index says */
    assert_true(wait_used(&f, WAIT_MS));
    assert_true(wait_used(&f, WAIT_MS));
    assert_int_equal(used(&f)->ring[1].id, 6);
    assert_int_equal(used(&f)->ring[2].id, 3);
    assert_int_equal(region[16 + 16 * 3], 0);
    assert_int_equal(run(&f, VIRTIO_BLK_T_IN, 6, 512, true), VIRTIO_BLK_S_OK);
    assert_int_equal(data_of(&f, 0)[0], 6);
    munmap(region, f.inflight_size);
    close(f.inflight_fd);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),          cmocka_unit_test(test_config),
        cmocka_unit_test(test_errors_and_delays), cmocka_unit_test(test_hostile_rings),
        cmocka_unit_test(test_hostile_messages),  cmocka_unit_test(test_inflight),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
