/* SPDX-License-Identifier: MIT */
/*
 * liburing.h - what we call in liburing that is not inline in its header.
 *
 * Few programs have a queue of requests, and the others start without it.
 */
#ifndef LAM_IO_LIBURING_H
#define LAM_IO_LIBURING_H

#include <liburing.h>

#define LIBURING_FUNCTIONS(F)                                               \
    F(io_uring_queue_init_params)                                           \
    F(io_uring_queue_exit)                                                  \
    F(io_uring_submit)                                                      \
    F(io_uring_enter2)                                                      \
    F(io_uring_register_eventfd)

#define LIBURING_MEMBER(name) __typeof__(name) *name;
struct liburing {
    LIBURING_FUNCTIONS(LIBURING_MEMBER)
};
#undef LIBURING_MEMBER

/* NULL: there is no such library here.  Any thread. */
const struct liburing *liburing(void);

#endif
