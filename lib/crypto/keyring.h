/* SPDX-License-Identifier: MIT */
/*
 * keyring.h - secrets by name.
 */
#ifndef LAM_CRYPTO_KEYRING_H
#define LAM_CRYPTO_KEYRING_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The bytes of secret @id; NULL if there is none, or no keyring. */
const uint8_t *keyring_find(const struct lam_keyring *keyring, const char *id,
                            size_t *length);

/* The same as a passphrase, terminated: it must be text.  @id NULL: "Parameter
 * '@parameter' is required for cipher". */
int keyring_passphrase(const struct lam_keyring *keyring, const char *id,
                       const char *parameter, const char **out,
                       struct lam_error *err);

#endif
