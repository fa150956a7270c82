/* SPDX-License-Identifier: MIT */
/*
 * keyring.h - secrets by name, and what else has one.
 */
#ifndef LAM_CRYPTO_KEYRING_H
#define LAM_CRYPTO_KEYRING_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tls_credentials;

enum keyring_kind {
    KEYRING_SECRET, KEYRING_TLS, KEYRING_RESERVATIONS, KEYRING_MAIN_LOOP,
    KEYRING_OTHER,
};

/* The bytes of secret @id, the keyring's; NULL, and *err has EINVAL, if there
 * is none, or no keyring. */
const uint8_t *keyring_find(const struct lam_keyring *keyring, const char *id,
                            size_t *length, struct lam_error *err);

/* The same as a passphrase, terminated: it must be text.  @id NULL: "Parameter
 * '@parameter' is required for cipher". */
int keyring_passphrase(const struct lam_keyring *keyring, const char *id,
                       const char *parameter, const char **out,
                       struct lam_error *err);

/* Credentials @id for a client; the caller puts *@out.  -EINVAL: there are
 * none, it is something else, or they are a server's. */
int keyring_tls(const struct lam_keyring *keyring, const char *id,
                struct tls_credentials **out, struct lam_error *err);

/* @id stands for one of @kind, of which nothing has to be kept. */
int keyring_reserve(struct lam_keyring *keyring, const char *id,
                    enum keyring_kind kind, struct lam_error *err);

/* Undoes the last one, which was for @id. */
void keyring_forget(struct lam_keyring *keyring, const char *id);

/* 0 if @id manages persistent reservations; else -EINVAL. */
int keyring_find_reservations(const struct lam_keyring *keyring,
                              const char *id, struct lam_error *err);

#endif
