/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - an export of an NBD server as a host object.
 */
#ifndef LAM_IO_NBD_H
#define LAM_IO_NBD_H

#include "io/io.h"

struct io_nbd_options {
    const char *path;           /* of a socket; NULL: @host and @port */
    const char *host, *port;    /* "10809", or a service's name */
    const char *export;         /* "": the default one */
    bool writable;
    enum lam_cache_mode cache;
};

/*
 * Connects, with the object's name @name.  The server's own limits apply; a
 * server that allows it is asked by several connections at once, made as they
 * are needed.  -EACCES if the export is for reading only; -ENOTSUP if this
 * build has no libnbd.
 */
int io_nbd_open(const char *name, const struct io_nbd_options *options,
                struct lam_io **out, struct lam_error *err);

#endif
