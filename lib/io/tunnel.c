/* SPDX-License-Identifier: MIT */
/*
 * tunnel.c - a TLS session behind a pair of sockets.
 *
 * Who uses it sends a whole request before it waits for the answer, and reads
 * whenever there is something: one thread can serve both directions, since
 * neither side ever waits for the other to take what it writes.
 */
#include "io/tunnel.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"

enum { PIECE = 64 << 10 };

struct tunnel {
    struct tls_session *session;
    int fd, plain;
    pthread_t thread;
    size_t skip;
    uint8_t buffer[PIECE];
};

static bool send_all(int fd, const uint8_t *data, size_t length)
{
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

static bool encrypt_all(struct tunnel *t, const uint8_t *data, size_t length)
{
    while (length) {
        struct pollfd room = { .fd = t->fd, .events = POLLOUT };
        ssize_t n = tls_send(t->session, data, length);
        if (n == -EAGAIN) {
            poll(&room, 1, -1);
            continue;
        }
        if (n <= 0)
            return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

/* From who uses it to the server; false at the end. */
static bool pass_out(struct tunnel *t)
{
    ssize_t n = recv(t->plain, t->buffer, sizeof t->buffer, 0);

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0)
        return false;
    size_t skipped = t->skip < (size_t)n ? t->skip : (size_t)n;
    t->skip -= skipped;
    return encrypt_all(t, t->buffer + skipped, (size_t)n - skipped);
}

static bool pass_in(struct tunnel *t)
{
    ssize_t n = tls_receive(t->session, t->buffer, sizeof t->buffer);

    return n == -EAGAIN || (n > 0 && send_all(t->plain, t->buffer, (size_t)n));
}

static void *run(void *opaque)
{
    struct tunnel *t = opaque;
    bool open = true;

    while (open) {
        struct pollfd fds[] = { { .fd = t->plain, .events = POLLIN },
                                { .fd = t->fd, .events = POLLIN } };
        bool pending = tls_pending(t->session) > 0;
        if (poll(fds, 2, pending ? 0 : -1) < 0 && errno != EINTR)
            break;
        if (pending || fds[1].revents)
            open = pass_in(t);
        if (open && fds[0].revents)
            open = pass_out(t);
    }
    tls_finish(t->session);
    shutdown(t->plain, SHUT_RDWR);
    return NULL;
}

/* What comes may be the session's own business, which must not hold up what
 * goes. */
static bool stop_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static void tunnel_release(struct tunnel *t)
{
    tls_session_free(t->session);
    close(t->fd);
    if (t->plain >= 0)
        close(t->plain);
    free(t);
}

int tunnel_new(struct tls_session *session, int fd, const void *greeting,
               size_t length, size_t skip, int *plain, struct tunnel **out,
               struct lam_error *err)
{
    struct tunnel *t = calloc(1, sizeof *t);
    int pair[2];

    if (!t) {
        tls_session_free(session);
        close(fd);
        return lam_fail(err, ENOMEM, "no memory for a TLS connection");
    }
    t->session = session;
    t->fd = fd;
    t->skip = skip;
    t->plain = -1;
    if (!stop_blocking(fd) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        int rc = lam_fail_errno(err, errno, "Could not make a pair of sockets");
        tunnel_release(t);
        return rc;
    }
    t->plain = pair[0];
    int code = send_all(t->plain, greeting, length)
        ? thread_start(&t->thread, run, t) : EPIPE;
    if (code) {
        close(pair[1]);
        tunnel_release(t);
        return lam_fail_errno(err, code, "Could not start a thread for TLS");
    }
    *plain = pair[1];
    *out = t;
    return 0;
}

void tunnel_free(struct tunnel *t)
{
    if (!t)
        return;
    pthread_join(t->thread, NULL);
    tunnel_release(t);
}
