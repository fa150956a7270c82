/* SPDX-License-Identifier: MIT */
/*
 * nbd-connect.h - a connection to an NBD server.
 */
#ifndef LAM_IO_NBD_CONNECT_H
#define LAM_IO_NBD_CONNECT_H

#include "io/libnbd-load.h"
#include "io/nbd.h"

/* Connected, past the handshake, with base:allocation if the server has it. */
int nbd_connection_new(const struct io_nbd_options *options,
                       struct nbd_handle **out, struct lam_error *err);

/* The last failure of libnbd in this thread, as -errno; never 0. */
int nbd_failure(void);

#endif
