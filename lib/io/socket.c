/* SPDX-License-Identifier: MIT */
/*
 * socket.c - connections to servers.
 */
#include "io/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/cleanup.h"

static int no_connection(const struct io_address *a, int code,
                         struct lam_error *err)
{
    return a->path
        ? lam_fail_errno(err, code, "Failed to connect to '%s'", a->path)
        : lam_fail_errno(err, code, "Failed to connect to '%s:%s'",
                         a->cid ? a->cid : a->host, a->port);
}

static int connect_unix(const struct io_address *a, struct lam_error *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t length = strlen(a->path), most = sizeof address.sun_path;

    /* A name that is no file's begins with a zero, a file's ends with one. */
    if (length >= most)
        return lam_fail(err, EINVAL, "UNIX socket path '%s' is too long: "
                        "at most %zu bytes", a->path, most - 1);
    memcpy(address.sun_path + a->abstract, a->path, length);
    socklen_t size = a->abstract && !a->loose
        ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)
        : sizeof address;
    lam_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size) < 0)
        return no_connection(a, errno, err);
    int connected = fd;
    fd = -1;
    return connected;
}

/* The first of a host's addresses that answers. */
static int connect_tcp(const struct io_address *a, struct lam_error *err)
{
    const struct addrinfo hints = { .ai_family = a->family,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *list;
    int gai = getaddrinfo(a->host, a->port, &hints, &list), fd = -1, code = 0;
    const int on = 1;

    if (gai)
        return lam_fail(err, ENOENT, "address resolution failed for %s:%s: %s",
                        a->host, a->port, gai_strerror(gai));
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC,
                    i->ai_protocol);
        if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen) == 0)
            continue;
        code = errno;
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return no_connection(a, code, err);
    if (a->keep_alive &&
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0) {
        code = errno;
        close(fd);
        return lam_fail_errno(err, code, "Unable to set keep-alive option on "
                              "socket");
    }
    return fd;
}

static bool to_number(const char *text, unsigned long *number)
{
    char *end;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return end != text && !*end && !errno && *number <= UINT32_MAX;
}

/* The port of a virtual machine, or of the host it runs on. */
static int connect_machine(const struct io_address *a, struct lam_error *err)
{
    unsigned long cid, port;

    if (!to_number(a->cid, &cid))
        return lam_fail(err, EINVAL, "Failed to parse cid '%s'", a->cid);
    if (!to_number(a->port, &port))
        return lam_fail(err, EINVAL, "Failed to parse port '%s'", a->port);
    const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
                                         .svm_cid = (unsigned)cid,
                                         .svm_port = (unsigned)port };
    lam_autoclose int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address,
                          sizeof address) < 0)
        return no_connection(a, errno, err);
    int connected = fd;
    fd = -1;
    return connected;
}

/* One that whoever started us has connected. */
static int take_descriptor(const struct io_address *a, struct lam_error *err)
{
    unsigned long number;
    struct stat st;

    if (!to_number(a->descriptor, &number) || number > INT32_MAX)
        return lam_fail(err, EINVAL, "Unable to parse FD number %s",
                        a->descriptor);
    if (fstat((int)number, &st) < 0 || !S_ISSOCK(st.st_mode))
        return lam_fail(err, EINVAL, "File descriptor '%s' is not a socket",
                        a->descriptor);
    int fd = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? lam_fail_errno(err, errno, "File descriptor '%s'",
                                   a->descriptor) : fd;
}

int io_socket_connect(const struct io_address *address, struct lam_error *err)
{
    if (address->path)
        return connect_unix(address, err);
    if (address->descriptor)
        return take_descriptor(address, err);
    return address->cid ? connect_machine(address, err)
                        : connect_tcp(address, err);
}
