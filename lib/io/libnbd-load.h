/* SPDX-License-Identifier: MIT */
/*
 * libnbd-load.h - what we call in libnbd, which is loaded by who needs it: with
 * the libraries below it, that takes four times as long as starting the command
 * does.
 */
#ifndef LAM_IO_LIBNBD_LOAD_H
#define LAM_IO_LIBNBD_LOAD_H

#include <libnbd.h>

#include "base/error.h"

#define LIBNBD_FUNCTIONS(F)                                                 \
    F(nbd_add_meta_context)                                                 \
    F(nbd_aio_is_closed)                                                    \
    F(nbd_aio_is_dead)                                                      \
    F(nbd_block_status)                                                     \
    F(nbd_can_flush)                                                        \
    F(nbd_can_meta_context)                                                 \
    F(nbd_can_multi_conn)                                                   \
    F(nbd_can_trim)                                                         \
    F(nbd_can_zero)                                                         \
    F(nbd_close)                                                            \
    F(nbd_connect_socket)                                                   \
    F(nbd_create)                                                           \
    F(nbd_flush)                                                            \
    F(nbd_get_block_size)                                                   \
    F(nbd_get_errno)                                                        \
    F(nbd_get_error)                                                        \
    F(nbd_get_private_data)                                                 \
    F(nbd_get_size)                                                         \
    F(nbd_is_read_only)                                                     \
    F(nbd_pread)                                                            \
    F(nbd_pwrite)                                                           \
    F(nbd_set_export_name)                                                  \
    F(nbd_set_private_data)                                                 \
    F(nbd_shutdown)                                                         \
    F(nbd_trim)                                                             \
    F(nbd_zero)

#define LIBNBD_MEMBER(name) __typeof__(name) *name;
struct libnbd {
    LIBNBD_FUNCTIONS(LIBNBD_MEMBER)
};
#undef LIBNBD_MEMBER

/*
 * The functions, in *@out; any thread.  -ENOTSUP: there is no such library
 * here.  It is loaded once and stays.
 */
int libnbd_load(const struct libnbd **out, struct lam_error *err);

/* The same for who has what libnbd made: it is there. */
const struct libnbd *libnbd(void);

#endif
