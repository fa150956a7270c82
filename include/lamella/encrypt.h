/* SPDX-License-Identifier: MIT */
/* lamella/encrypt.h - encryption of new images, and key slots. */
#ifndef LAMELLA_ENCRYPT_H
#define LAMELLA_ENCRYPT_H

#include <lamella/error.h>
#include <lamella/secret.h>

LAM_BEGIN_DECLS

struct lam_image;

/*
 * How a new image is to be encrypted.  Names are qemu's ("aes-256", "xts",
 * "plain64", "essiv", "sha256"); NULL: the default, which is these but essiv.
 */
struct lam_encryption_options {
    const char *format;         /* "luks"; "aes": the broken method of old,
                                   for programs that know no other (qcow2);
                                   NULL: not encrypted */
    const char *key_secret;     /* the passphrase, in @keyring */
    const struct lam_keyring *keyring;
    const char *cipher_alg, *cipher_mode, *ivgen_alg, *ivgen_hash_alg;
    const char *hash_alg;
    uint64_t iter_time;         /* processor time that a try of a passphrase
                                   costs on this machine, milliseconds;
                                   0: 2000 */
};

#define LAM_ENCRYPTION_OPTIONS_INIT                                         \
    { NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0 }

/* One change of the passphrases that open an image (LUKS has eight slots). */
struct lam_key_slot_options {
    bool active;                /* add a passphrase; else take some away */
    const struct lam_keyring *keyring;
    const char *new_secret;     /* add: the passphrase */
    const char *old_secret;     /* take away: all slots that it opens, or */
    int slot;                   /* this one; -1: not said, or add: any free */
    uint64_t iter_time;         /* add: as in lam_encryption_options */
    bool force;                 /* overwrite an active slot, and take the last
                                   one away: nobody opens the image again */
};

#define LAM_KEY_SLOT_OPTIONS_INIT { false, NULL, NULL, NULL, -1, 0, false }

/*
 * lam_image_key_slot() - add a passphrase to an encrypted image, or erase some.
 *
 * @image is open for writing, with a passphrase.  One write of a sector
 * decides: whenever power fails, each slot is what it was or what it was to
 * become.  What is erased is overwritten several times; a device that maps its
 * sectors may keep copies all the same.  Durable when it returns 0.
 *
 * -ENOTSUP if the image is not LUKS; -EINVAL: no free slot, no such slot or
 * secret, or without @force a slot that is active or the last one; -EROFS,
 * -EIO, -ENOMEM.  One at a time; safe beside other requests.
 */
LAM_API int lam_image_key_slot(struct lam_image *image,
                               const struct lam_key_slot_options *options,
                               struct lam_error *err);

LAM_END_DECLS

#endif
