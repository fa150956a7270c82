/* SPDX-License-Identifier: MIT */
/*
 * encrypt.c - encrypted qcow2 images (format document 10).
 *
 * LUKS counts sectors in the host file, the old AES method on the guest's
 * disk.
 */
#include "format/qcow2/encrypt.h"

#include <inttypes.h>
#include <string.h>

#include "crypto/keyring.h"
#include "format/luks/volume.h"

static const char *method_name(const struct qcow2 *q)
{
    return q->header.crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks";
}

static int load_volume(struct qcow2 *q, struct luks_volume *v,
                       struct lam_error *err)
{
    return luks_volume_load(v, q->io, q->header.crypto_offset,
                            q->header.crypto_length, err);
}

static int open_luks(struct qcow2 *q, const char *passphrase,
                     struct lam_error *err)
{
    q->luks = calloc(1, sizeof *q->luks);
    if (!q->luks)
        return lam_fail(err, ENOMEM, "no memory for a LUKS header");
    int rc = load_volume(q, q->luks, err);
    if (rc == 0)
        rc = luks_volume_unlock(q->luks, passphrase, err);
    return rc < 0 ? rc : luks_volume_crypt(q->luks, CRYPT_HOST, &q->crypt,
                                           err);
}

int qcow2_open_crypt(struct qcow2 *q, const struct format_open *o,
                     struct lam_error *err)
{
    bool encrypted = q->header.crypt_method != QCOW2_CRYPT_NONE;
    const char *passphrase;

    if (!encrypted && o->encrypt_format)
        return lam_fail(err, EINVAL, "No encryption in image header, but "
                        "options specified format '%s'", o->encrypt_format);
    if (!encrypted)
        return 0;
    if (o->encrypt_format && strcmp(o->encrypt_format, method_name(q)))
        return lam_fail(err, EINVAL, "Header reported '%s' encryption format "
                        "but options specify '%s'", method_name(q),
                        o->encrypt_format);
    if (o->encrypt_unknown)
        return lam_fail(err, EINVAL, "Parameter '%.*s' is unexpected",
                        (int)strcspn(o->encrypt_unknown, "."),
                        o->encrypt_unknown);
    /* Tables are in clear. */
    if (o->metadata_only || o->for_check || o->repairing)
        return 0;
    int rc = keyring_passphrase(o->keyring, o->key_secret,
                                "encrypt.key-secret", &passphrase, err);
    if (rc < 0)
        return rc;
    return q->header.crypt_method == QCOW2_CRYPT_AES
        ? crypt_new_legacy(passphrase, &q->crypt, err)
        : open_luks(q, passphrase, err);
}

void qcow2_close_crypt(struct qcow2 *q)
{
    crypt_free(q->crypt);
    if (q->luks)
        luks_volume_deinit(q->luks);
    free(q->luks);
}

int qcow2_write_data(struct qcow2 *q, const struct format_allocation *a,
                     void *data, struct lam_error *err)
{
    int rc = q->crypt ? crypt_run(q->crypt, CIPHER_ENCRYPT, data, a->length,
                                  a->offset, a->host_offset, err) : 0;

    return rc < 0 ? rc : lam_io_write(a->io, data, a->length, a->host_offset,
                                      err);
}

struct crypt *qcow2_crypt(void *format)
{
    struct qcow2 *q = format;

    return q->crypt;
}

int qcow2_key_slot(void *format, const struct lam_key_slot_options *options,
                   struct lam_error *err)
{
    struct qcow2 *q = format;
    int rc = qcow2_check_writable(q, err);

    if (rc < 0)
        return rc;
    LAM_LOCKED(&q->alloc_lock);
    if (q->header.crypt_method == QCOW2_CRYPT_NONE)
        return lam_fail(err, ENOTSUP, "Can't amend encryption options - "
                        "encryption not present");
    if (!q->luks)
        return lam_fail(err, ENOTSUP, "Only LUKS encryption options can be "
                        "amended");
    return luks_volume_change(q->luks, options, err);
}

int qcow2_encryption_info(struct qcow2 *q, struct lam_image_info *info,
                          struct lam_error *err)
{
    struct luks_volume v;

    LAM_LOCKED(&q->alloc_lock);
    info->encrypted = q->header.crypt_method != QCOW2_CRYPT_NONE;
    if (!info->encrypted)
        return 0;
    info->encryption = calloc(1, sizeof *info->encryption);
    if (!info->encryption)
        return lam_fail(err, ENOMEM, "no memory for a description");
    info->encryption->format = method_name(q);
    if (q->header.crypt_method != QCOW2_CRYPT_LUKS)
        return 0;
    int rc = load_volume(q, &v, err);
    if (rc == 0)
        luks_volume_info(&v, info->encryption);
    return rc;
}
