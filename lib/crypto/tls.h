/* SPDX-License-Identifier: MIT */
/*
 * tls.h - credentials for TLS, and connections that use them.
 */
#ifndef LAM_CRYPTO_TLS_H
#define LAM_CRYPTO_TLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct tls_credentials;         /* counted */
struct tls_session;

/* @password: of the key of a certificate, or NULL. */
int tls_credentials_new(const struct lam_tls_credentials *options,
                        const char *password, struct tls_credentials **out,
                        struct lam_error *err);
struct tls_credentials *tls_credentials_get(struct tls_credentials *c);
/* NULL is allowed and does nothing. */
void tls_credentials_put(struct tls_credentials *c);

bool tls_credentials_are_clients(const struct tls_credentials *c);
/* Is there a certificate that has to name its host? */
bool tls_credentials_want_host(const struct tls_credentials *c);

/*
 * The handshake of a client at the socket @fd, which stays the caller's and has
 * to outlive the session; it may block.  The server has to show that it is
 * @host, if the credentials say so.  One thread may send while another
 * receives.
 */
int tls_session_new(struct tls_credentials *c, const char *host, int fd,
                    struct tls_session **out, struct lam_error *err);
/* NULL is allowed and does nothing. */
void tls_session_free(struct tls_session *s);

/* Bytes sent, up to @length, or -errno; -EAGAIN: the same once more when the
 * socket takes it. */
ssize_t tls_send(struct tls_session *s, const void *data, size_t length);
/* Bytes received, 0 at the end, or -errno; -EAGAIN: what came was not for the
 * caller. */
ssize_t tls_receive(struct tls_session *s, void *data, size_t length);
/* Bytes that have come and wait inside the session. */
size_t tls_pending(struct tls_session *s);
/* Says that no more will be sent. */
void tls_finish(struct tls_session *s);

#endif
