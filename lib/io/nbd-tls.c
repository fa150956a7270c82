/* SPDX-License-Identifier: MIT */
/*
 * nbd-tls.c - an NBD connection that is encrypted from its first option on.
 *
 * libnbd could do it, but only knows some kinds of credentials, and checks a
 * certificate against no other name than that of the host it connected to.  So
 * the option that starts TLS is sent here, before libnbd is told of the
 * connection; it gets to see the server's greeting a second time.
 */
#include "io/nbd-tls.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum {
    GREETING_BYTES = 18,        /* two magic numbers, two bytes of flags */
    CLIENT_FLAGS_BYTES = 4,
    OPTION_BYTES = 16,
    REPLY_BYTES = 20,
    OPTION_STARTTLS = 5,
    REPLY_ACK = 1,
    MAX_MESSAGE = 4096,
};

#define REPLY_MAGIC UINT64_C(0x3e889045565a9)
#define REPLY_ERROR UINT32_C(0x80000000)
static const char magic[] = "NBDMAGICIHAVEOPT";

static int receive(int fd, void *data, size_t length, const char *what,
                   struct lam_error *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = recv(fd, (char *)data + done, length - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lam_fail_errno(err, errno, "Failed to read %s", what);
        if (n == 0)
            return lam_fail(err, ECONNRESET, "Failed to read %s: Unexpected "
                            "end-of-file before all data were read", what);
        done += (size_t)n;
    }
    return 0;
}

static int take_greeting(int fd, uint8_t greeting[GREETING_BYTES],
                         struct lam_error *err)
{
    enum { FIXED_NEWSTYLE = 1 };
    int rc = receive(fd, greeting, GREETING_BYTES, "initial magic", err);

    if (rc < 0)
        return rc;
    if (memcmp(greeting, magic, 8))
        return lam_fail(err, EINVAL, "Bad initial magic received: 0x%016llx",
                        (unsigned long long)be64_get(greeting));
    if (memcmp(greeting, magic, 16))
        return lam_fail(err, EINVAL, "Server does not support STARTTLS");
    return be16_get(greeting + 16) & FIXED_NEWSTYLE ? 0
        : lam_fail(err, EINVAL, "Server does not support STARTTLS");
}

/* What we can do, out of what the server can, and the option. */
static int ask(int fd, const uint8_t *greeting, struct lam_error *err)
{
    uint8_t request[CLIENT_FLAGS_BYTES + OPTION_BYTES] = { 0 };
    uint8_t *option = request + CLIENT_FLAGS_BYTES;

    be32_put(request, be16_get(greeting + 16) & 3u);
    memcpy(option, magic + 8, 8);
    be32_put(option + 8, OPTION_STARTTLS);
    return send(fd, request, sizeof request, MSG_NOSIGNAL) < 0
        ? lam_fail_errno(err, errno, "Failed to send option request header")
        : 0;
}

/* The server's words for it are printable, or not repeated. */
static int refused(int fd, uint32_t type, uint32_t length,
                   struct lam_error *err)
{
    char message[MAX_MESSAGE + 1] = "";
    const char *how = type == (REPLY_ERROR | 1)
        ? "Unsupported option type 5 (starttls)"
        : type == (REPLY_ERROR | 2) ? "Denied by server for option 5 (starttls)"
        : "Error by server for option 5 (starttls)";

    if (length == 0 || length > MAX_MESSAGE ||
        receive(fd, message, length, "option error message", NULL) < 0)
        return lam_fail(err, ENOTSUP, "%s", how);
    for (size_t i = 0; i < length; i++) {
        if (message[i] < ' ' || message[i] > '~')
            return lam_fail(err, ENOTSUP, "%s", how);
    }
    return lam_fail(err, ENOTSUP, "%s; server reported: %s", how, message);
}

static int take_answer(int fd, struct lam_error *err)
{
    uint8_t reply[REPLY_BYTES];
    int rc = receive(fd, reply, sizeof reply, "option reply", err);

    if (rc < 0)
        return rc;
    uint32_t option = be32_get(reply + 8), type = be32_get(reply + 12);
    uint32_t length = be32_get(reply + 16);
    if (be64_get(reply) != REPLY_MAGIC)
        return lam_fail(err, EINVAL, "Unexpected option reply magic");
    if (option != OPTION_STARTTLS)
        return lam_fail(err, EINVAL, "Unexpected option type %u, expected %d",
                        option, OPTION_STARTTLS);
    if (type & REPLY_ERROR)
        return refused(fd, type, length, err);
    if (type != REPLY_ACK)
        return lam_fail(err, EINVAL, "Server answered option 5 (starttls) with "
                        "unexpected reply %u", type);
    return length ? lam_fail(err, EINVAL, "Start TLS response was not zero "
                             "bytes: %u", length) : 0;
}

int nbd_tls_start(int fd, struct tls_credentials *credentials,
                  const char *host, int *plain, struct tunnel **out,
                  struct lam_error *err)
{
    uint8_t greeting[GREETING_BYTES];
    struct tls_session *session;
    int rc = take_greeting(fd, greeting, err);

    if (rc == 0)
        rc = ask(fd, greeting, err);
    if (rc == 0)
        rc = take_answer(fd, err);
    if (rc == 0)
        rc = tls_session_new(credentials, host, fd, &session, err);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    /* libnbd will say what it can do again, in the same words. */
    return tunnel_new(session, fd, greeting, sizeof greeting,
                      CLIENT_FLAGS_BYTES, plain, out, err);
}
