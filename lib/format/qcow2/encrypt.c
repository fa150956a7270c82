/* SPDX-License-Identifier: MIT */
/*
 * encrypt.c - encrypted qcow2 images (format document 10).
 *
 * LUKS counts sectors in the host file, the old AES method on the guest's
 * disk.  The latter has neither a salt nor a way to tell a wrong passphrase,
 * and is there for rescuing data: it can be read only.
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

/* The first 16 bytes of the passphrase are the key. */
static int open_aes(struct qcow2 *q, const struct format_open *o,
                    const char *passphrase, struct lam_error *err)
{
    static const struct crypt_spec spec = {
        .cipher = CIPHER_AES_128, .mode = CIPHER_CBC, .ivgen = IVGEN_PLAIN64,
    };
    uint8_t key[16] = { 0 };

    if (o->writable)
        return lam_fail(err, EROFS, "qcow2: legacy AES encryption "
                        "(crypt_method %d) can be read only: convert the image "
                        "to encrypt.format=luks", QCOW2_CRYPT_AES);
    memcpy(key, passphrase, min_u64(strlen(passphrase), sizeof key));
    int rc = crypt_new(&spec, key, sizeof key, CRYPT_GUEST, &q->crypt, err);
    crypto_wipe(key, sizeof key);
    return rc;
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
    if (o->metadata_only || o->for_check)
        return 0;
    int rc = keyring_passphrase(o->keyring, o->key_secret,
                                "encrypt.key-secret", &passphrase, err);
    if (rc < 0)
        return rc;
    return q->header.crypt_method == QCOW2_CRYPT_AES
        ? open_aes(q, o, passphrase, err) : open_luks(q, passphrase, err);
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

    if (!q->luks)
        return lam_fail(err, ENOTSUP, "the image has no LUKS key slots");
    int rc = qcow2_check_writable(q, err);
    if (rc < 0)
        return rc;
    LAM_LOCKED(&q->alloc_lock);
    return luks_volume_change(q->luks, options, err);
}

int qcow2_encryption_info(struct qcow2 *q, struct lam_image_info *info,
                          struct lam_error *err)
{
    struct luks_volume v;

    info->encrypted = q->header.crypt_method != QCOW2_CRYPT_NONE;
    if (!info->encrypted)
        return 0;
    info->encryption = calloc(1, sizeof *info->encryption);
    if (!info->encryption)
        return lam_fail(err, ENOMEM, "no memory for a description");
    info->encryption->format = method_name(q);
    if (q->header.crypt_method != QCOW2_CRYPT_LUKS)
        return 0;
    LAM_LOCKED(&q->alloc_lock);
    int rc = load_volume(q, &v, err);
    if (rc == 0)
        luks_volume_info(&v, info->encryption);
    return rc;
}
