/* SPDX-License-Identifier: MIT */
/* lamella/tls.h - credentials for encrypted connections to servers. */
#ifndef LAMELLA_TLS_H
#define LAMELLA_TLS_H

#include <lamella/error.h>
#include <lamella/secret.h>

LAM_BEGIN_DECLS

enum lam_tls_kind {
    LAM_TLS_ANONYMOUS,          /* nobody is who he says: no protection against
                                   who sits in between */
    LAM_TLS_PSK,                /* keys that both sides have */
    LAM_TLS_X509,               /* certificates */
};

/* What one side of a TLS connection shows to the other. */
struct lam_tls_credentials {
    const char *id;             /* the name they are asked for by */
    enum lam_tls_kind kind;
    bool for_server;            /* lamella has no server: they are loaded, and
                                   cannot be used */
    const char *folder;         /* of keys.psk, or of ca-cert.pem,
                                   client-cert.pem, client-key.pem; needed
                                   unless anonymous */
    const char *priority;       /* GnuTLS' priority string; NULL: "NORMAL" */
    const char *user;           /* PSK: whose key; NULL: "qemu" */
    const char *key_secret;     /* X.509: the secret that client-key.pem is
                                   encrypted with, added before; NULL: none */
    bool verify_peer;           /* X.509: the server's certificate must be
                                   signed by ca-cert.pem and name its host */
    bool check_certificates;    /* X.509: ours are looked at when they are
                                   loaded: dates, purposes, signatures */
};

#define LAM_TLS_CREDENTIALS_INIT                                            \
    { NULL, LAM_TLS_ANONYMOUS, false, NULL, NULL, NULL, NULL, true, true }

/*
 * lam_keyring_add_tls() - load @credentials, and keep them.
 *
 * Names are shared with the keyring's secrets; NBD nodes refer to them by
 * "tls-creds".  -EINVAL: no @id or folder, no such secret, files that hold no
 * certificates or do not fit each other, a user who is not in keys.psk;
 * -EEXIST: the name is taken; -ENOENT and other errors of the files; -ENOTSUP:
 * lamella was built without TLS, or GnuTLS is not here; -ENOMEM.  @credentials
 * is not needed afterwards; images that are open keep what they use.
 */
LAM_API int lam_keyring_add_tls(struct lam_keyring *keyring,
                                const struct lam_tls_credentials *credentials,
                                struct lam_error *err);

LAM_END_DECLS

#endif
