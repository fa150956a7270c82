/* SPDX-License-Identifier: MIT */
/*
 * nbd-connect.c - a connection to an NBD server: socket and handshake.
 *
 * The socket is made here and not by libnbd, since what goes wrong with it is
 * told by address.
 */
#include "io/nbd-connect.h"

#include <string.h>

#include "base/cleanup.h"
#include "io/nbd-tls.h"

int nbd_failure(void)
{
    int code = libnbd()->nbd_get_errno();

    return code > 0 ? -code : -EIO;
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
    if (why && strstr(why, "requires TLS"))
        return lam_fail(err, ENOTSUP, "TLS negotiation required before option "
                        "7 (go): tls-creds says with what");
    return lam_fail(err, -rc, "NBD server: %s",
                    colon ? colon + 2 : why ? why : "no handshake");
}

/* The tunnel ends when libnbd has closed its end of it. */
static void close_handle(struct nbd_handle **nbd)
{
    if (!*nbd)
        return;
    struct tunnel *tunnel =
        (struct tunnel *)(uintptr_t)libnbd()->nbd_get_private_data(*nbd);
    libnbd()->nbd_close(*nbd);
    tunnel_free(tunnel);
}

void nbd_connection_free(struct nbd_handle *nbd)
{
    libnbd()->nbd_shutdown(nbd, 0);
    close_handle(&nbd);
}

/* In place of the server's socket @fd one that takes care of TLS. */
static int start_tls(const struct io_nbd_options *o, struct nbd_handle *nbd,
                     int fd, struct lam_error *err)
{
    const char *host = o->tls_host ? o->tls_host
                     : o->address.host;
    struct tunnel *tunnel;
    int plain, rc = nbd_tls_start(fd, o->tls, host, &plain, &tunnel, err);

    if (rc < 0)
        return rc;
    libnbd()->nbd_set_private_data(nbd, (uintptr_t)tunnel);
    return plain;
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
    if (lib->nbd_set_export_name(nbd, o->export) < 0 ||
        lib->nbd_add_meta_context(nbd, nbd_context(o)) < 0)
        return handshake_failed(o, err);
    int fd = io_socket_connect(&o->address, err);
    if (fd >= 0 && o->tls)
        fd = start_tls(o, nbd, fd, err);
    if (fd < 0)
        return fd;
    /* It is closed by libnbd, whatever comes of it. */
    if (lib->nbd_connect_socket(nbd, fd) < 0)
        return handshake_failed(o, err);
    *out = nbd;
    nbd = NULL;
    return 0;
}
