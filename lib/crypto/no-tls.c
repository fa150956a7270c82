/* SPDX-License-Identifier: MIT */
/*
 * no-tls.c - in place of the other files of TLS in a build without GnuTLS.
 */
#include "crypto/tls.h"

static int not_built(struct lam_error *err)
{
    return lam_fail(err, ENOTSUP, "TLS is not supported: built without GnuTLS");
}

int tls_credentials_new(const struct lam_tls_credentials *options,
                        const char *password, struct tls_credentials **out,
                        struct lam_error *err)
{
    (void)options, (void)password, (void)out;
    return not_built(err);
}

struct tls_credentials *tls_credentials_get(struct tls_credentials *c)
{
    return c;
}

void tls_credentials_put(struct tls_credentials *c)
{
    (void)c;
}

bool tls_credentials_are_clients(const struct tls_credentials *c)
{
    (void)c;
    return false;
}

bool tls_credentials_want_host(const struct tls_credentials *c)
{
    (void)c;
    return false;
}

int tls_session_new(struct tls_credentials *c, const char *host, int fd,
                    struct tls_session **out, struct lam_error *err)
{
    (void)c, (void)host, (void)fd, (void)out;
    return not_built(err);
}

void tls_session_free(struct tls_session *s)
{
    (void)s;
}

ssize_t tls_send(struct tls_session *s, const void *data, size_t length)
{
    (void)s, (void)data, (void)length;
    return -ENOTSUP;
}

ssize_t tls_receive(struct tls_session *s, void *data, size_t length)
{
    (void)s, (void)data, (void)length;
    return -ENOTSUP;
}

size_t tls_pending(struct tls_session *s)
{
    (void)s;
    return 0;
}

void tls_finish(struct tls_session *s)
{
    (void)s;
}
