/* SPDX-License-Identifier: MIT */
/*
 * socket.h - connections to servers.
 */
#ifndef LAM_IO_SOCKET_H
#define LAM_IO_SOCKET_H

#include <stdbool.h>

#include "base/error.h"

struct io_address {
    const char *path;           /* of a UNIX socket; NULL: */
    const char *descriptor;     /* the number of one that is connected; NULL: */
    const char *cid;            /* of a virtual machine, with @port; NULL: */
    const char *host, *port;    /* "10809", or a service's name */
    bool abstract;              /* @path is a name without a file, */
    bool loose;                 /* ... as long as an address can be */
    int family;                 /* AF_INET, AF_INET6; 0: either */
    bool keep_alive;
};

/* A connected descriptor for the caller to close, or -errno.  Texts name the
 * address. */
int io_socket_connect(const struct io_address *address, struct lam_error *err);

#endif
