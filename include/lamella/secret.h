/* SPDX-License-Identifier: MIT */
/* lamella/secret.h - passphrases by name. */
#ifndef LAMELLA_SECRET_H
#define LAMELLA_SECRET_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

/* Passphrases by name, for images that are encrypted. */
struct lam_keyring;

/* One secret: its bytes, or the file that holds them. */
struct lam_secret {
    const char *id;         /* the name it is asked for by */
    const char *data;       /* this or @file, not both */
    const char *file;
    bool base64;            /* what is given is base64 (else the bytes) */
    const char *keyid;      /* encrypted with AES-256-CBC under this secret of
                               32 bytes, added before; NULL: in clear */
    const char *iv;         /* with @keyid: 16 bytes as base64 */
};

#define LAM_SECRET_INIT { NULL, NULL, NULL, false, NULL, NULL }

/*
 * lam_keyring_new() - an empty keyring, to be freed by the caller.
 *
 * A keyring may be used by any number of threads and images at once as long as
 * nobody adds to it or frees it.  Images copy what they need when they are
 * opened.  -ENOMEM.
 */
LAM_API int lam_keyring_new(struct lam_keyring **out, struct lam_error *err);

/* Wipes and frees; NULL is allowed and does nothing. */
LAM_API void lam_keyring_free(struct lam_keyring *keyring);

/*
 * lam_keyring_add() - read, decode and decrypt @secret, and keep a copy.
 *
 * -EINVAL: no @id, data and file both or neither, no such @keyid, not base64,
 * key or IV of a wrong length; -EEXIST: the name is taken; -ENOENT and other
 * errors of reading the file; -ENOTSUP if it is encrypted and lamella was built
 * without encryption; -ENOMEM.  @secret is not needed afterwards.
 */
LAM_API int lam_keyring_add(struct lam_keyring *keyring,
                            const struct lam_secret *secret,
                            struct lam_error *err);

LAM_END_DECLS

#endif
