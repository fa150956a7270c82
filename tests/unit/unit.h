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

#endif
