/* SPDX-License-Identifier: MIT */
/*
 * libgnutls.h - what we call in GnuTLS, which is loaded by who has credentials
 * for a server: hardly anybody.
 */
#ifndef LAM_CRYPTO_LIBGNUTLS_H
#define LAM_CRYPTO_LIBGNUTLS_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/error.h"

#define GNUTLS_FUNCTIONS(F)                                                 \
    F(gnutls_anon_allocate_client_credentials)                              \
    F(gnutls_anon_free_client_credentials)                                  \
    F(gnutls_bye)                                                           \
    F(gnutls_certificate_allocate_credentials)                              \
    F(gnutls_certificate_free_credentials)                                  \
    F(gnutls_certificate_get_peers)                                         \
    F(gnutls_certificate_set_x509_crl_file)                                 \
    F(gnutls_certificate_set_x509_key_file2)                                \
    F(gnutls_certificate_set_x509_trust_file)                               \
    F(gnutls_certificate_verify_peers2)                                     \
    F(gnutls_credentials_set)                                               \
    F(gnutls_deinit)                                                        \
    F(gnutls_handshake)                                                     \
    F(gnutls_init)                                                          \
    F(gnutls_priority_set_direct)                                           \
    F(gnutls_psk_allocate_client_credentials)                               \
    F(gnutls_psk_free_client_credentials)                                   \
    F(gnutls_psk_set_client_credentials)                                    \
    F(gnutls_record_check_pending)                                          \
    F(gnutls_record_recv)                                                   \
    F(gnutls_record_send)                                                   \
    F(gnutls_server_name_set)                                               \
    F(gnutls_strerror)                                                      \
    F(gnutls_transport_set_int2)                                            \
    F(gnutls_x509_crt_check_hostname)                                       \
    F(gnutls_x509_crt_deinit)                                               \
    F(gnutls_x509_crt_get_activation_time)                                  \
    F(gnutls_x509_crt_get_basic_constraints)                                \
    F(gnutls_x509_crt_get_expiration_time)                                  \
    F(gnutls_x509_crt_get_key_purpose_oid)                                  \
    F(gnutls_x509_crt_get_key_usage)                                        \
    F(gnutls_x509_crt_import)                                               \
    F(gnutls_x509_crt_init)                                                 \
    F(gnutls_x509_crt_list_import)                                          \
    F(gnutls_x509_crt_list_verify)

#define GNUTLS_MEMBER(name) __typeof__(name) *name;
struct libgnutls {
    GNUTLS_FUNCTIONS(GNUTLS_MEMBER)
};
#undef GNUTLS_MEMBER

/*
 * The functions, in *@out; any thread.  -ENOTSUP: there is no such library
 * here.  It is loaded once and stays.
 */
int libgnutls_load(const struct libgnutls **out, struct lam_error *err);

/* The same for who has what it made: it is there. */
const struct libgnutls *libgnutls(void);

#endif
