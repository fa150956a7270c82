/* SPDX-License-Identifier: MIT */
/*
 * tls-internal.h - what credentials are, for who loads and who uses them.
 */
#ifndef LAM_CRYPTO_TLS_INTERNAL_H
#define LAM_CRYPTO_TLS_INTERNAL_H

#include <stdatomic.h>

#include "crypto/libgnutls.h"
#include "crypto/tls.h"

struct tls_credentials {
    atomic_uint references;
    enum lam_tls_kind kind;
    bool for_server, verify_peer;
    char *priority;             /* a string of GnuTLS' */
    gnutls_certificate_credentials_t x509;
    gnutls_psk_client_credentials_t psk;
    gnutls_anon_client_credentials_t anonymous;
};

/* The certificates of a folder, as files; NULL: there is no such file. */
struct tls_files {
    char *ca, *crl, *certificate, *key;
};

/* Dates, uses and signatures of @files for @for_server. */
int tls_check_certificates(const struct tls_files *files, bool for_server,
                           struct lam_error *err);

#endif
