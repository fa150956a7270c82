/* SPDX-License-Identifier: MIT */
/*
 * tls-session.c - a client's side of a TLS connection.
 */
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "crypto/tls-internal.h"

struct tls_session {
    gnutls_session_t session;
    struct tls_credentials *credentials;
};

void tls_session_free(struct tls_session *s)
{
    if (!s)
        return;
    if (s->session)
        libgnutls()->gnutls_deinit(s->session);
    tls_credentials_put(s->credentials);
    free(s);
}

static int set_credentials(struct tls_session *s)
{
    struct tls_credentials *c = s->credentials;
    const struct libgnutls *lib = libgnutls();

    if (c->kind == LAM_TLS_X509)
        return lib->gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE,
                                           c->x509);
    if (c->kind == LAM_TLS_PSK)
        return lib->gnutls_credentials_set(s->session, GNUTLS_CRD_PSK, c->psk);
    return lib->gnutls_credentials_set(s->session, GNUTLS_CRD_ANON,
                                       c->anonymous);
}

static int set_up(struct tls_session *s, const char *host, int fd,
                  struct lam_error *err)
{
    const struct libgnutls *lib = libgnutls();
    const char *where = NULL;
    /* Who reads may not be killed by a server that went. */
    int code = lib->gnutls_init(&s->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);

    if (code < 0)
        return lam_fail(err, ENOMEM, "Failed to start TLS session: %s",
                        lib->gnutls_strerror(code));
    if (lib->gnutls_priority_set_direct(s->session, s->credentials->priority,
                                        &where) < 0)
        return lam_fail(err, EINVAL, "Unable to set TLS session priority %s: "
                        "The request is invalid.", s->credentials->priority);
    code = set_credentials(s);
    if (code == 0 && host && tls_credentials_want_host(s->credentials))
        code = lib->gnutls_server_name_set(s->session, GNUTLS_NAME_DNS, host,
                                           strlen(host));
    if (code < 0)
        return lam_fail(err, EINVAL, "Cannot set session credentials: %s",
                        lib->gnutls_strerror(code));
    lib->gnutls_transport_set_int2(s->session, fd, fd);
    return 0;
}

/* ------------------------------------------------------------ who is it? */

static const char *distrust(unsigned status)
{
    return status & GNUTLS_CERT_REVOKED ? "The certificate has been revoked"
         : status & GNUTLS_CERT_INSECURE_ALGORITHM
               ? "The certificate uses an insecure algorithm"
         : status & GNUTLS_CERT_SIGNER_NOT_FOUND
               ? "The certificate hasn't got a known issuer"
         : status & GNUTLS_CERT_EXPIRED ? "The certificate has expired"
         : status & GNUTLS_CERT_NOT_ACTIVATED
               ? "The certificate is not yet activated"
               : "The certificate is not trusted";
}

static int check_host(const gnutls_datum_t *der, const char *host,
                      struct lam_error *err)
{
    const struct libgnutls *lib = libgnutls();
    gnutls_x509_crt_t crt;
    int code = lib->gnutls_x509_crt_init(&crt);

    if (code < 0)
        return lam_fail(err, ENOMEM, "no memory for a certificate");
    code = lib->gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER);
    bool is_host = code == 0 &&
                   lib->gnutls_x509_crt_check_hostname(crt, host);
    lib->gnutls_x509_crt_deinit(crt);
    if (code < 0)
        return lam_fail(err, EPERM, "Cannot import certificate: %s",
                        lib->gnutls_strerror(code));
    return is_host ? 0
        : lam_fail(err, EPERM, "Certificate does not match the hostname %s",
                   host);
}

static int check_peer(struct tls_session *s, const char *host,
                      struct lam_error *err)
{
    const struct libgnutls *lib = libgnutls();
    unsigned status = 0, count = 0;
    int code = lib->gnutls_certificate_verify_peers2(s->session, &status);

    if (code < 0)
        return lam_fail(err, EPERM, "Verify failed: %s",
                        lib->gnutls_strerror(code));
    if (status)
        return lam_fail(err, EPERM, "%s", distrust(status));
    const gnutls_datum_t *list =
        lib->gnutls_certificate_get_peers(s->session, &count);
    if (!list || !count)
        return lam_fail(err, EPERM, "No certificate peers");
    if (!host)
        return lam_fail(err, EPERM, "No hostname for certificate validation");
    return check_host(&list[0], host, err);
}

int tls_session_new(struct tls_credentials *c, const char *host, int fd,
                    struct tls_session **out, struct lam_error *err)
{
    struct tls_session *s = calloc(1, sizeof *s);

    if (!s)
        return lam_fail(err, ENOMEM, "no memory for a TLS session");
    s->credentials = tls_credentials_get(c);
    int rc = set_up(s, host, fd, err), code = -1;
    while (rc == 0 && (code = libgnutls()->gnutls_handshake(s->session)) < 0) {
        if (code != GNUTLS_E_AGAIN && code != GNUTLS_E_INTERRUPTED &&
            code != GNUTLS_E_WARNING_ALERT_RECEIVED)
            rc = lam_fail(err, EIO, "TLS handshake failed: %s",
                          libgnutls()->gnutls_strerror(code));
    }
    if (rc == 0 && c->kind == LAM_TLS_X509 && c->verify_peer)
        rc = check_peer(s, host, err);
    if (rc < 0)
        tls_session_free(s);
    else
        *out = s;
    return rc;
}

/* ------------------------------------------------------------------- bytes */

static ssize_t result(ssize_t n)
{
    bool again = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ||
                 n == GNUTLS_E_REHANDSHAKE;

    return again ? -EAGAIN : n < 0 ? -EIO : n;
}

ssize_t tls_send(struct tls_session *s, const void *data, size_t length)
{
    return result(libgnutls()->gnutls_record_send(s->session, data, length));
}

ssize_t tls_receive(struct tls_session *s, void *data, size_t length)
{
    ssize_t n = libgnutls()->gnutls_record_recv(s->session, data, length);

    /* Not every server says good-bye. */
    return n == GNUTLS_E_PREMATURE_TERMINATION ? 0 : result(n);
}

size_t tls_pending(struct tls_session *s)
{
    return libgnutls()->gnutls_record_check_pending(s->session);
}

void tls_finish(struct tls_session *s)
{
    libgnutls()->gnutls_bye(s->session, GNUTLS_SHUT_WR);
}
