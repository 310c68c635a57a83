/*
 * driver_mailbox.c - see the header. The mailbox is the guest's: everything is copied out of it
 * once and checked, and nothing else of its memory is touched.
 */
#include "vm/driver_mailbox.h"

#include <queztl/vblk_mailbox.h>

enum { HEAD = offsetof(struct vblk_mailbox, line) };

static int read_head(const struct guest_memory *m, struct vblk_mailbox *b, struct qz_error *err)
{
    if (mem_read(m, gpa(VBLK_MAILBOX_ADDRESS), b, HEAD) < 0 || b->magic != VBLK_MAILBOX_MAGIC)
        return qz_fail(err, -ENOENT, "driver: no block driver with a mailbox runs in this guest");
    return 0;
}

int driver_ask(const struct guest_memory *m, const char *line, struct qz_error *err)
{
    const uint64_t at = VBLK_MAILBOX_ADDRESS;
    char text[VBLK_MAILBOX_LINE] = "";
    struct vblk_mailbox b;
    int r = read_head(m, &b, err);

    if (r < 0)
        return r;
    if (strlen(line) >= sizeof(text))
        return qz_fail(err, -EINVAL, "driver: a line has %zu bytes at most", sizeof(text) - 1);
    if (b.asked != b.answered)
        return qz_fail(err, -EBUSY, "driver: the last question is not answered yet");
    memcpy(text, line, strlen(line));
    b.asked++;
    r = mem_write(m, gpa(at + HEAD), text, sizeof(text));
    __atomic_thread_fence(__ATOMIC_RELEASE); /* the question before its number */
    if (r == 0)
        r = mem_write(m, gpa(at + offsetof(struct vblk_mailbox, asked)), &b.asked, sizeof(b.asked));
    return r < 0 ? qz_fail(err, r, "driver: the mailbox cannot be written") : 0;
}

int driver_answer(const struct guest_memory *m, json_t **data, struct qz_error *err)
{
    struct vblk_mailbox b;
    int r = read_head(m, &b, err);
    json_t *text;

    if (r < 0)
        return r;
    if (b.asked != b.answered) {
        *data = json_pack("{s:b}", "pending", 1);
        return 0;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* the number before the answer */
    if (b.answer_len > sizeof(b.answer) ||
        mem_read(m, gpa(VBLK_MAILBOX_ADDRESS + offsetof(struct vblk_mailbox, answer)), b.answer,
                 b.answer_len) < 0)
        return qz_fail(err, -EPROTO, "driver: its answer is longer than the mailbox");
    text = json_stringn(b.answer, b.answer_len);
    if (!text)
        return qz_fail(err, -EPROTO, "driver: its answer is not text");
    *data = json_pack("{s:o}", "answer", text);
    return 0;
}
