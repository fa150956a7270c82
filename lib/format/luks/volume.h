/* SPDX-License-Identifier: MIT */
/*
 * volume.h - a LUKS area in a host object: the start of a LUKS image, or a few
 * clusters inside a qcow2 image (format document 10.2).
 *
 * One thread at a time: a volume is used at opening and closing, and its slots
 * are changed under the owner's lock.
 */
#ifndef LAM_LUKS_VOLUME_H
#define LAM_LUKS_VOLUME_H

#include "crypto/luks.h"
#include "io/io.h"

struct luks_volume {
    struct lam_io *io;          /* borrowed */
    uint64_t offset, length;    /* of the area; the length may be UINT64_MAX */
    bool detached;              /* the payload is in another file */
    struct luks_header header;
    struct luks_params params;
    bool unlocked;
    uint8_t key[LUKS_MAX_KEY];  /* the master key, if @unlocked */
};

/* Read and judge the header: of what follows it in the area, or detached. */
int luks_volume_load_detached(struct luks_volume *volume, struct lam_io *io,
                              uint64_t length, struct lam_error *err);
int luks_volume_load(struct luks_volume *volume, struct lam_io *io,
                     uint64_t offset, uint64_t length, struct lam_error *err);

/* Find the master key; -EINVAL "Invalid password, ...". */
int luks_volume_unlock(struct luks_volume *volume, const char *passphrase,
                       struct lam_error *err);

/* What is payload to others: en- and decrypts with the master key. */
int luks_volume_crypt(const struct luks_volume *volume, enum crypt_basis basis,
                      struct crypt **out, struct lam_error *err);

/*
 * A new volume from options; pure, so that mistakes are found before anything
 * is written.  @passphrase points into the keyring.
 */
int luks_volume_plan(struct luks_volume *volume,
                     const struct lam_encryption_options *options,
                     const char *prefix, const char **passphrase,
                     struct lam_error *err);

/* Bytes of the area that luks_volume_plan() has laid out. */
uint64_t luks_volume_bytes(const struct luks_volume *volume);

/* Make a key and write the area at @offset; unlocked afterwards. */
int luks_volume_create(struct luks_volume *volume, struct lam_io *io,
                       uint64_t offset, const char *passphrase,
                       uint64_t iter_time, struct lam_error *err);

/* Change the slots of an unlocked volume (lam_image_key_slot()). */
int luks_volume_change(struct luks_volume *volume,
                       const struct lam_key_slot_options *options,
                       struct lam_error *err);

void luks_volume_info(const struct luks_volume *volume,
                      struct lam_encryption_info *out);

/* Wipes the key. */
void luks_volume_deinit(struct luks_volume *volume);

#endif
