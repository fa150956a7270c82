/* SPDX-License-Identifier: MIT */
/*
 * no-uring.c - what stands for uring.c where that is not built: there is no
 * ring to be had.
 */
#include "io/uring.h"

int uring_new(unsigned depth, struct uring **out)
{
    (void)depth;
    *out = NULL;
    return -ENOSYS;
}

void uring_free(struct uring *ring)
{
    assert(!ring);
    (void)ring;
}

size_t uring_submit(struct uring *ring, struct io_async *const *transfers,
                    size_t count)
{
    (void)ring, (void)transfers, (void)count;
    return 0;
}

unsigned uring_collect(struct uring *ring, struct uring_result *out,
                       unsigned max)
{
    (void)ring, (void)out, (void)max;
    return 0;
}

void uring_wait(struct uring *ring, int timeout_ms)
{
    (void)ring, (void)timeout_ms;
}

void uring_wake(struct uring *ring)
{
    (void)ring;
}

int uring_set_eventfd(struct uring *ring, int eventfd)
{
    (void)ring, (void)eventfd;
    return -ENOSYS;
}
