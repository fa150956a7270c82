/* SPDX-License-Identifier: MIT */
/*
 * nbd-connect.h - a connection to an NBD server.
 */
#ifndef LAM_IO_NBD_CONNECT_H
#define LAM_IO_NBD_CONNECT_H

#include "io/libnbd-load.h"
#include "io/nbd.h"

/* Connected, past the handshake, with nbd_context() if the server has it. */
int nbd_connection_new(const struct io_nbd_options *options,
                       struct nbd_handle **out, struct lam_error *err);
void nbd_connection_free(struct nbd_handle *nbd);

/* What the server is asked about its blocks. */
static inline const char *nbd_context(const struct io_nbd_options *options)
{
    return options->context ? options->context : LIBNBD_CONTEXT_BASE_ALLOCATION;
}

/* The last failure of libnbd in this thread, as -errno; never 0. */
int nbd_failure(void);

#endif
