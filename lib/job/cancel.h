/* SPDX-License-Identifier: MIT */
/*
 * cancel.h - a caller's wish that a job ends.
 */
#ifndef LAM_JOB_CANCEL_H
#define LAM_JOB_CANCEL_H

#include <stdbool.h>
#include <stddef.h>

/* @cancel, which any thread or a signal handler sets, may be NULL. */
static inline bool cancel_wanted(const volatile int *cancel)
{
    return cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED);
}

#endif
