/* SPDX-License-Identifier: MIT */
/*
 * lock.h - keep away from images that a virtual machine is using.
 *
 * QEMU locks single bytes of an image file, by open file description, so that
 * programs see each other's intentions.  We take the same bytes.
 */
#ifndef LAM_IO_LOCK_H
#define LAM_IO_LOCK_H

#include <stdbool.h>

#include "base/error.h"

struct lock_mode {
    bool writable;
    /* What QEMU does with raw images: say what we use, bar nobody.  A virtual
     * machine that does not share its disk bars us all the same. */
    bool shared;
    bool fresh;                 /* just opened: it holds none so far */
};

/*
 * Locks the file behind @fd until it is closed; a second call changes the mode.
 * -EAGAIN: somebody else uses @name in a way that ours does not go with.  A
 * file system without locks (ENOLCK and the like) is no error: nobody could
 * see them.
 */
int lock_file(int fd, const struct lock_mode *mode, const char *name,
              struct lam_error *err);

/* The same locks for another descriptor of ours, without looking who else has
 * any: whoever asks holds them already. */
void lock_same(int fd, const struct lock_mode *mode);

#endif
