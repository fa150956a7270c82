/* SPDX-License-Identifier: MIT */
/* lamella/secret.h - passphrases by name. */
#ifndef LAMELLA_SECRET_H
#define LAMELLA_SECRET_H

#include <stdint.h>

#include <lamella/error.h>

LAM_BEGIN_DECLS

/* Passphrases by name, for images that are encrypted. */
struct lam_keyring;

/* One secret: its bytes, or where they are. */
struct lam_secret {
    const char *id;         /* the name it is asked for by */
    const char *data;       /* one of this, @file and @serial */
    const char *file;
    bool base64;            /* what is given is base64 (else the bytes) */
    const char *keyid;      /* encrypted with AES-256-CBC under this secret of
                               32 bytes, added before; NULL: in clear */
    const char *iv;         /* with @keyid: 16 bytes as base64 */
    int32_t serial;         /* of a key that the kernel keeps, see keyctl(2);
                               0: none */
};

#define LAM_SECRET_INIT { NULL, NULL, NULL, false, NULL, NULL, 0 }

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
 * -EINVAL: no @id, not one source, no such @keyid, not base64, key or IV of a
 * wrong length; -EEXIST: the name is taken; -ENOENT and other errors of reading
 * the file, -ENOKEY and others of the kernel's key; -ENOTSUP if it is encrypted
 * and lamella was built without encryption; -ENOMEM.  @secret is not needed
 * afterwards.
 */
LAM_API int lam_keyring_add(struct lam_keyring *keyring,
                            const struct lam_secret *secret,
                            struct lam_error *err);

/* What a name stands for that is no secret. */
enum lam_name_kind {
    LAM_NAME_OTHER,             /* something that the library does not use */
    LAM_NAME_MAIN_LOOP,         /* ... and of which there can be only one */
};

/*
 * lam_keyring_reserve() - @id is the name of something else.
 *
 * Afterwards nothing in the keyring can be called so, and who refers to @id is
 * told that it is not what was asked for, rather than that there is nothing.
 * -EINVAL: no @id, an unknown @kind, a second main loop; -EEXIST: the name is
 * taken; -ENOMEM.
 */
LAM_API int lam_keyring_reserve(struct lam_keyring *keyring, const char *id,
                                enum lam_name_kind kind,
                                struct lam_error *err);

/*
 * lam_keyring_add_reservations() - a helper for persistent reservations.
 *
 * Files and devices refer to it by "pr-manager".  It is asked at the socket
 * @path whether it is there; no request of lamella's needs it after that.
 * -EINVAL: no @id; -EEXIST: the name is taken; -ECONNREFUSED, -ENOENT and
 * others if it does not answer; -ENOMEM.  Waits for the answer.
 */
LAM_API int lam_keyring_add_reservations(struct lam_keyring *keyring,
                                         const char *id, const char *path,
                                         struct lam_error *err);

LAM_END_DECLS

#endif
