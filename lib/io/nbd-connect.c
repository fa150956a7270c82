/* SPDX-License-Identifier: MIT */
/*
 * nbd-connect.c - a connection to an NBD server: socket and handshake.
 *
 * The socket is made here and not by libnbd, since what goes wrong with it is
 * told by address.
 */
#include "io/nbd-connect.h"

#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

int nbd_failure(void)
{
    int code = libnbd()->nbd_get_errno();

    return code > 0 ? -code : -EIO;
}

static int no_connection(const struct io_nbd_options *o, int code,
                         struct lam_error *err)
{
    return o->path
        ? lam_fail_errno(err, code, "Failed to connect to '%s'", o->path)
        : lam_fail_errno(err, code, "Failed to connect to '%s:%s'", o->host,
                         o->port);
}

static int connect_unix(const struct io_nbd_options *o, struct lam_error *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    size_t length = strlen(o->path);

    if (length >= sizeof address.sun_path)
        return lam_fail(err, EINVAL, "UNIX socket path '%s' is too long: at "
                        "most %zu bytes", o->path, sizeof address.sun_path - 1);
    memcpy(address.sun_path, o->path, length);
    lam_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return no_connection(o, errno, err);
    int connected = fd;
    fd = -1;
    return connected;
}

/* The first of a host's addresses that answers. */
static int connect_tcp(const struct io_nbd_options *o, struct lam_error *err)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *list;
    int gai = getaddrinfo(o->host, o->port, &hints, &list), fd = -1, code = 0;

    if (gai)
        return lam_fail(err, ENOENT, "address resolution failed for %s:%s: %s",
                        o->host, o->port, gai_strerror(gai));
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC,
                    a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            continue;
        code = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd < 0 ? no_connection(o, code, err) : fd;
}

/* libnbd tells what the server said behind the name of its own function. */
static int handshake_failed(const struct io_nbd_options *o,
                            struct lam_error *err)
{
    int rc = nbd_failure();
    const char *why = libnbd()->nbd_get_error();
    const char *colon = why ? strstr(why, ": ") : NULL;

    if (rc == -ENOENT)
        return lam_fail(err, ENOENT, "Requested export not available: '%s'",
                        o->export);
    return lam_fail(err, -rc, "NBD server: %s",
                    colon ? colon + 2 : why ? why : "no handshake");
}

static void close_handle(struct nbd_handle **nbd)
{
    libnbd()->nbd_close(*nbd);
}

int nbd_connection_new(const struct io_nbd_options *o, struct nbd_handle **out,
                       struct lam_error *err)
{
    const struct libnbd *lib;
    int rc = libnbd_load(&lib, err);
    if (rc < 0)
        return rc;
    struct nbd_handle *nbd lam_cleanup(close_handle) = lib->nbd_create();
    if (!nbd)
        return lam_fail(err, ENOMEM, "no memory for an NBD connection");
    if (libnbd()->nbd_set_export_name(nbd, o->export) < 0 ||
        libnbd()->nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
        return handshake_failed(o, err);
    int fd = o->path ? connect_unix(o, err) : connect_tcp(o, err);
    if (fd < 0)
        return fd;
    /* It is closed by libnbd, whatever comes of it. */
    if (libnbd()->nbd_connect_socket(nbd, fd) < 0)
        return handshake_failed(o, err);
    *out = nbd;
    nbd = NULL;
    return 0;
}
