/* SPDX-License-Identifier: MIT */
/*
 * reservations.c - helpers for persistent reservations, by name.
 *
 * A helper and who asks it tell each other in four bytes each what they can do
 * beyond the ordinary, which is nothing so far.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "io/socket.h"

static int greet(const char *path, struct lam_error *err)
{
    const struct io_address address = { .path = path };
    char features[4] = { 0 };

    lam_autoclose int fd = io_socket_connect(&address, err);
    if (fd < 0)
        return fd;
    ssize_t n = recv(fd, features, sizeof features, MSG_WAITALL);
    if (n < 0)
        return lam_fail_errno(err, errno, "Unable to read from socket");
    if (n < (ssize_t)sizeof features)
        return lam_fail(err, ECONNRESET,
                        "Unexpected end-of-file before all data were read");
    memset(features, 0, sizeof features);
    if (send(fd, features, sizeof features, MSG_NOSIGNAL) < 0)
        return lam_fail_errno(err, errno, "Unable to write to socket");
    return 0;
}

int lam_keyring_add_reservations(struct lam_keyring *keyring, const char *id,
                                 const char *path, struct lam_error *err)
{
    int rc = keyring_reserve(keyring, id, KEYRING_RESERVATIONS, err);

    if (rc < 0)
        return rc;
    rc = greet(path, err);
    if (rc < 0)
        keyring_forget(keyring, id);
    return rc;
}
