/* SPDX-License-Identifier: MIT */
/*
 * unit.h - what every unit test includes, in the order cmocka wants.
 */
#ifndef LAM_TESTS_UNIT_H
#define LAM_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arith.h"
#include "base/error.h"

/* Fails with the message and the place if @call did. */
#define assert_works(call, err)                                             \
    do {                                                                    \
        int rc_ = (call);                                                   \
        if (rc_ < 0)                                                        \
            fail_msg("%s: %d, %s", #call, rc_, (err)->message);             \
    } while (0)

/* Emulators of user programs and some containers lack the call without which
 * no name out of an image is followed. */
#define needs_openat2()                                                     \
    do {                                                                    \
        struct open_how how_ = { .flags = O_PATH | O_CLOEXEC };             \
        long fd_ = syscall(SYS_openat2, AT_FDCWD, ".", &how_, sizeof how_); \
        if (fd_ >= 0) {                                                     \
            close((int)fd_);                                                \
        } else if (errno == ENOSYS) {                                       \
            print_message("SKIP: no openat2() here\n");                     \
            skip();                                                         \
        }                                                                   \
    } while (0)

#endif
