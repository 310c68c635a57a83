/*
 * load.h - a load for tests that knows what each block has to hold: blocks are written with their
 * number and a version that grows, and read back; a server can be replaced under it.
 */
#ifndef VBLK_LOAD_H
#define VBLK_LOAD_H

#include <queztl/vblk_user.h>

struct load;

/* Uses the first 8 MiB of the device, which are zeroes or whatever an earlier load left. */
struct load *load_new(struct vblk_user *user, struct vblk_device *dev, uint64_t seed);
/*
 * Goes on until `until` requests of the load have ended, always 64 in flight. After each `every`
 * requests it calls replace(arg), which ends the server and starts another, and recovers. cmocka's
 * assertions fail when a request ends twice or in error, or when data is not what was written last.
 */
void load_run(struct load *l, uint64_t until, uint64_t every, void (*replace)(void *arg),
              void *arg);

#endif
