/*
 * virtioctl.c - asks a running driver, or drives a vhost-user device itself for one command.
 *
 *     virtioctl queue-stats --control /run/app.vblk            a process that runs the driver
 *     virtioctl device-info --socket /run/disk.sock            a vhost-user-blk server, by a driver
 * of its own
 *
 *     virtioctl queue-stats --monitor /run/vm.sock             a driver on a bare machine in a
 * virtual machine, by its monitor's control socket
 *
 * Called as virtio-device-info and so on it is that command.
 */
#include "../user/commands.h"
#include "../user/control.h"

#include <poll.h>
#include <queztl/command.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ANSWER_MS = 30000, LOOK_MS = 2, ANSWER_MAX = 1 << 20 };
enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_YAML };

struct target {
    const char *control, *monitor, *socket, *config;
    enum format format;
};

static int set_control(void *t, const char *value, struct qz_error *err)
{
    ((struct target *)t)->control = value;
    return 0;
}
static int set_monitor(void *t, const char *value, struct qz_error *err)
{
    ((struct target *)t)->monitor = value;
    return 0;
}
static int set_socket(void *t, const char *value, struct qz_error *err)
{
    ((struct target *)t)->socket = value;
    return 0;
}
static int set_config(void *t, const char *value, struct qz_error *err)
{
    ((struct target *)t)->config = value;
    return 0;
}
static int set_format(void *t, const char *value, struct qz_error *err)
{
    static const char *const names[] = {"table", "json", "yaml"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(names); i++)
        if (!strcmp(value, names[i])) {
            ((struct target *)t)->format = i;
            return 0;
        }
    return qz_fail(err, -EINVAL, "--format: '%s' is none of table, json, yaml", value);
}

static const struct qz_option options[] = {
    {"control", "PATH", "control socket of a process that runs the driver", set_control},
    {"monitor", "PATH", "control socket of a virtual machine whose guest is the driver",
     set_monitor},
    {"socket", "PATH", "socket of a vhost-user-blk server, which this program then drives itself",
     set_socket},
    {"config", "FILE", "settings for --socket, [virtio_block] in TOML", set_config},
    {"format", "FORMAT", "table (default), json or yaml", set_format},
    {0},
};

/* ---- asking ---- */

/* A connection, a line said, and what comes back until the other side ends or a line is whole. */
static int converse(const char *path, const char *line, bool whole_line, json_t **reply,
                    struct qz_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    QZ_AUTO_FREE char *text = malloc(ANSWER_MAX);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t len = 0;
    ssize_t n;

    if (fd < 0 || !text)
        return qz_fail(err, -ENOMEM, "%s: %s", path, strerror(errno));
    if (strlen(path) >= sizeof(addr.sun_path))
        return qz_fail(err, -EINVAL, "%s: the socket's name is too long", path);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return qz_fail(err, -ENOTCONN, "%s: no driver answers: %s", path, strerror(errno));
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        return qz_fail(err, -ENOTCONN, "%s: %s", path, strerror(errno));
    do {
        if (poll(&p, 1, ANSWER_MS) != 1)
            return qz_fail(err, -ETIMEDOUT, "%s: the driver does not answer", path);
        n = recv(fd, text + len, ANSWER_MAX - len, 0);
        len += n > 0 ? (size_t)n : 0;
    } while (n > 0 && len < ANSWER_MAX && !(whole_line && memchr(text, '\n', len)));
    *reply = json_loadb(text, len, 0, NULL);
    return *reply ? 0 : qz_fail(err, -EPROTO, "%s: the answer makes no sense", path);
}

static int ask_process(const char *path, const char *line, json_t **reply, struct qz_error *err)
{
    return converse(path, line, false, reply, err);
}

/* One request to a monitor; *data is what came of it, NULL for nothing. */
static int ask_control(const char *path, json_t *request, json_t **data, struct qz_error *err)
{
    QZ_AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    QZ_AUTO_FREE char *line = NULL;
    json_t *reply = NULL;
    int rc;

    json_decref(request);
    if (!text || asprintf(&line, "%s\n", text) < 0)
        return qz_fail(err, -ENOMEM, "%s: out of memory", path);
    rc = converse(path, line, true, &reply, err);
    if (rc == 0 && !json_is_true(json_object_get(reply, "ok")))
        rc = qz_fail(err, -ENOENT, "%s: %s", path,
                     json_string_value(json_object_get(reply, "error")) ?: "no reason given");
    if (rc == 0)
        *data = json_incref(json_object_get(reply, "data"));
    json_decref(reply);
    return rc;
}

static int ask_guest(const char *path, const char *line, json_t **reply, struct qz_error *err)
{
    int64_t until = qz_now_ns() + ANSWER_MS * INT64_C(1000000);
    json_t *data = NULL;
    int rc = ask_control(path, json_pack("{s:s, s:s}", "cmd", "driver", "ask", line), &data, err);

    while (rc == 0) {
        const char *answer;

        json_decref(data);
        data = NULL;
        rc = ask_control(path, json_pack("{s:s}", "cmd", "driver"), &data, err);
        answer = json_string_value(json_object_get(data, "answer"));
        if (rc == 0 && answer) {
            *reply = json_loads(answer, 0, NULL);
            rc = *reply ? 0 : qz_fail(err, -EPROTO, "%s: the driver's answer makes no sense", path);
            break;
        }
        if (rc == 0 && qz_now_ns() > until)
            rc = qz_fail(err, -ETIMEDOUT, "%s: the driver in the guest does not answer", path);
        else
            poll(NULL, 0, LOOK_MS);
    }
    json_decref(data);
    return rc;
}

static int wait_flush(struct vblk_session *s, unsigned queue, json_t **reply)
{
    struct vblk_request r = {.op = VBLK_OP_FLUSH}, *p = &r;
    int64_t until = qz_now_ns() + ANSWER_MS * INT64_C(1000000);
    int n = 0;

    if (session_submit(s, queue, &p, 1) != 1)
        n = r.status;
    while (n == 0 && qz_now_ns() < until)
        n = session_poll(s, queue, &p, 1);
    if (n == 1)
        n = r.status;
    else if (n == 0)
        n = -ETIMEDOUT;
    *reply = n < 0 ? command_error(n, strerror(-n)) : command_done("queue-flush");
    return 0;
}

static int drive(const struct target *t, const char *line, json_t **reply, struct qz_error *err)
{
    struct vblk_settings settings;
    struct vblk_session s;
    unsigned queue = 0;
    bool flush;
    int rc = 0;

    settings_default(&settings);
    if (t->config)
        rc = settings_load(t->config, &settings, err);
    if (rc == 0)
        rc = session_open(&s, t->socket, &settings, err);
    if (rc < 0)
        return rc;
    *reply = command_run(&s, line, &flush, &queue);
    if (flush)
        rc = wait_flush(&s, queue, reply);
    session_close(&s);
    return rc;
}

/* ---- printing ---- */

static void value_text(const json_t *v, char *buf, size_t len)
{
    if (json_is_string(v))
        snprintf(buf, len, "%s", json_string_value(v));
    else if (json_is_boolean(v))
        snprintf(buf, len, "%s", json_is_true(v) ? "yes" : "no");
    else if (json_is_real(v))
        snprintf(buf, len, "%.1f", json_real_value(v));
    else
        snprintf(buf, len, "%lld", (long long)json_integer_value(v));
}

static void print_object(json_t *o)
{
    const char *key;
    char text[256];
    json_t *v;

    json_object_foreach(o, key, v)
    {
        value_text(v, text, sizeof(text));
        printf("%-26s %s\n", key, text);
    }
}

/* Columns as wide as their widest cell. */
static void print_rows(json_t *rows)
{
    int width[32] = {0};
    char text[256];
    const char *key;
    json_t *row, *v;
    size_t i;

    for (int pass = 0; pass < 2; pass++)
        json_array_foreach(rows, i, row)
        {
            unsigned column = 0;

            for (int head = pass == 1 && i == 0; head >= 0; head--, column = 0) {
                json_object_foreach(row, key, v)
                {
                    value_text(v, text, sizeof(text));
                    if (column == QZ_ARRAY_LEN(width))
                        break;
                    if (pass == 0)
                        width[column] =
                            QZ_MAX(width[column], (int)QZ_MAX(strlen(key), strlen(text)));
                    else
                        printf("%-*s  ", width[column], head ? key : text);
                    column++;
                }
                if (pass)
                    printf("\n");
            }
        }
}

static void print_yaml(json_t *v, const char *indent)
{
    const char *key, *lead = indent;
    char text[256];
    json_t *item;
    size_t i;

    if (json_is_array(v)) {
        json_array_foreach(v, i, item) print_yaml(item, "- ");
        return;
    }
    json_object_foreach(v, key, item)
    {
        value_text(item, text, sizeof(text));
        if (json_is_boolean(item))
            snprintf(text, sizeof(text), "%s", json_is_true(item) ? "true" : "false");
        printf(json_is_string(item) ? "%s%s: \"%s\"\n" : "%s%s: %s\n", lead, key, text);
        lead = *indent ? "  " : "";
    }
}

static void print(json_t *reply, enum format format)
{
    if (format == FORMAT_JSON) {
        json_dumpf(reply, stdout, JSON_INDENT(2));
        printf("\n");
    } else if (format == FORMAT_YAML) {
        print_yaml(reply, "");
    } else if (json_is_array(reply)) {
        print_rows(reply);
    } else {
        print_object(reply);
    }
}

/* ---- commands ---- */

static int exit_code(int code)
{
    switch (code) {
    case -ENOENT:
        return QZ_EXIT_NOT_FOUND;
    case -EBUSY:
        return QZ_EXIT_CONFLICT;
    case -ENOTSUP:
    case -EMFILE:
        return QZ_EXIT_REFUSED;
    case -ENOTCONN:
        return QZ_EXIT_UNREACHABLE;
    case -ETIMEDOUT:
        return QZ_EXIT_TIMEOUT;
    default:
        return QZ_EXIT_FAILED;
    }
}

static int run(int argc, char **argv)
{
    struct target t = {0};
    struct qz_error err = {0};
    json_t *reply = NULL;
    char line[100];
    int rc, at = qz_options_parse(options, argc, argv, &t, &err), last;

    /* Options may stand behind the operand too. */
    last = at;
    if (at >= 0 && at < argc) {
        int behind = qz_options_parse(options, argc - at, argv + at, &t, &err);

        last = behind < 0 ? behind : at + behind;
        if (behind >= 0 && last < argc)
            last = qz_fail(&err, -EINVAL, "unexpected operand %s", argv[last]);
    }
    if (last < 0)
        return qz_complain("virtioctl", QZ_EXIT_USAGE, &err);
    if (!!t.control + !!t.monitor + !!t.socket != 1) {
        qz_fail(&err, -EINVAL, "name one of --control, --monitor and --socket");
        return qz_complain("virtioctl", QZ_EXIT_USAGE, &err);
    }
    snprintf(line, sizeof(line), "%s%s%s%s", argv[0], at < argc ? " " : "",
             at < argc ? argv[at] : "", t.control ? "\n" : "");
    rc = t.control   ? ask_process(t.control, line, &reply, &err)
         : t.monitor ? ask_guest(t.monitor, line, &reply, &err)
                     : drive(&t, line, &reply, &err);
    if (rc == 0 && json_object_get(reply, "error")) {
        rc = -(int)json_integer_value(json_object_get(reply, "code"));
        qz_fail(&err, rc, "%s: %s", argv[0], json_string_value(json_object_get(reply, "error")));
    } else if (rc == 0) {
        print(reply, t.format);
    }
    json_decref(reply);
    return rc < 0 ? qz_complain("virtioctl", exit_code(rc), &err) : QZ_EXIT_OK;
}

#define COMMAND(name, operands, summary)                                                           \
    {                                                                                              \
        name, summary, operands, NULL, options, run                                                \
    }
static const struct qz_command commands[] = {
    COMMAND("device-info", NULL, "what the device is and how it runs"),
    COMMAND("device-reset", NULL, "reset the device; requests go on"),
    COMMAND("device-remove", NULL, "stop the device; the driver's process lets go of it"),
    COMMAND("queue-info", "[QUEUE]", "format, depth and load of queues"),
    COMMAND("queue-flush", "QUEUE", "write everything to stable storage through a queue"),
    COMMAND("queue-reset", "QUEUE", "reset one queue; its requests go on"),
    COMMAND("performance-stats", NULL, "throughput and latency of the device"),
    COMMAND("queue-stats", "[QUEUE]", "counters and latency of queues"),
    COMMAND("feature-list", NULL, "features: offered by the device, negotiated"),
    COMMAND("feature-enable", "FEATURE", "allow a feature and negotiate again"),
    COMMAND("feature-disable", "FEATURE", "forbid a feature and negotiate again"),
    COMMAND("memory-info", NULL, "memory shared with the device"),
    COMMAND("memory-stats", NULL, "use of that memory, and of the cache"),
    {0},
};
#undef COMMAND

int main(int argc, char **argv)
{
    static const struct qz_program program = {
        "virtioctl", "ask and steer a running virtio block driver", commands};
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    char *with_name[argc + 2];

    /* virtio-device-info ARGS is virtioctl device-info ARGS. */
    if (strncmp(name, "virtio-", 7))
        return qz_program_run(&program, argc, argv);
    with_name[0] = "virtioctl";
    with_name[1] = (char *)name + 7;
    memcpy(with_name + 2, argv + 1, (size_t)argc * sizeof(argv[0]));
    return qz_program_run(&program, argc + 1, with_name);
}
