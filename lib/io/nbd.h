/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - an export of an NBD server as a host object.
 */
#ifndef LAM_IO_NBD_H
#define LAM_IO_NBD_H

#include "io/io.h"
#include "io/socket.h"

struct tls_credentials;

struct io_nbd_options {
    struct io_address address;
    const char *export;         /* "": the default one */
    const char *context;        /* instead of base:allocation, with the same
                                   meaning of its bits; NULL */
    struct tls_credentials *tls;    /* or NULL; it is got once more */
    const char *tls_host;       /* whom a certificate has to name; NULL: the
                                   address' host */
    uint64_t reconnect_delay;   /* seconds to try to get a connection back that
                                   was lost; 0: none */
    uint64_t open_timeout;      /* seconds to try to connect again; 0: once */
    bool writable;
    enum lam_cache_mode cache;
};

/*
 * Connects, with the object's name @name.  The server's own limits apply; a
 * server that allows it is asked by several connections at once, made as they
 * are needed.  -EINVAL if it has not @context; -EACCES if the export is for
 * reading only; -ENOTSUP if this build has no libnbd.
 */
int io_nbd_open(const char *name, const struct io_nbd_options *options,
                struct lam_io **out, struct lam_error *err);

#endif
