/* SPDX-License-Identifier: MIT */
/*
 * luks.c - LUKS images: a header, and behind it, or in a file of its own, the
 * disk, encrypted byte for byte (format document 10.2).
 *
 * Sectors count from the start of the disk.  Nothing can be left out: a hole in
 * the file reads as what zeroes decrypt to, so there are no zero extents.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "format/format.h"
#include "format/luks/volume.h"

struct luks {
    struct lam_io *io;
    struct lam_io *header;      /* detached, or NULL */
    struct luks_volume volume;
    struct crypt *crypt;        /* NULL: opened for the header only */
    uint64_t payload;           /* host offset of guest byte 0 */
    _Atomic uint64_t size;
    pthread_mutex_t slots;      /* guards volume after opening */
};

/* Later versions have another header, and stay raw. */
static int luks_probe(const uint8_t *head, size_t length)
{
    return luks_has_magic(head, length) && head[LH_VERSION] == 0 &&
           head[LH_VERSION + 1] == 1 ? 100 : 0;
}

static int unlock(struct luks *l, const struct format_open *o,
                  struct lam_error *err)
{
    const char *passphrase;
    int rc = keyring_passphrase(o->keyring, o->key_secret, "key-secret",
                                &passphrase, err);
    if (rc == 0)
        rc = luks_volume_unlock(&l->volume, passphrase, err);
    return rc < 0 ? rc : luks_volume_crypt(&l->volume, CRYPT_GUEST, &l->crypt,
                                           err);
}

static int load_header(struct luks *l, uint64_t length, struct lam_error *err)
{
    int rc = l->header ? lam_io_size(l->header, &length, err) : 0;

    if (rc < 0)
        return rc;
    if (length < LUKS_HEADER_BYTES)
        return lam_fail(err, EINVAL, "Volume is not in LUKS format");
    return l->header
        ? luks_volume_load_detached(&l->volume, l->header, length, err)
        : luks_volume_load(&l->volume, l->io, 0, length, err);
}

static int open_into(struct luks *l, const struct format_open *o,
                     struct lam_error *err)
{
    bool locked = !o->metadata_only && !o->for_check && !o->key_secret;
    uint64_t length;
    int rc = lam_io_size(l->io, &length, err);

    if (rc < 0)
        return rc;
    if (locked)                 /* said before the header is looked at */
        return unlock(l, o, err);
    rc = load_header(l, length, err);
    if (rc < 0)
        return rc;
    l->payload = luks_volume_bytes(&l->volume);
    if (l->payload > length)
        return lam_fail(err, EUCLEAN, "LUKS payload at sector %" PRIu32 " is "
                        "beyond the end of the file of %" PRIu64 " bytes",
                        l->volume.header.payload_sector, length);
    if (length > INT64_MAX - CRYPT_SECTOR)
        return lam_fail(err, EFBIG, "file length %" PRIu64 " is beyond the "
                        "limit of 2^63", length);
    /* As raw does: what the last sector lacks counts as zero (encrypted). */
    l->size = align_up(length - l->payload, CRYPT_SECTOR);
    if (l->io->eof_unit < CRYPT_SECTOR)
        l->io->eof_unit = CRYPT_SECTOR;
    return o->metadata_only || o->for_check ? 0 : unlock(l, o, err);
}

static int luks_close(void *format, struct lam_error *err)
{
    struct luks *l = format;

    (void)err;
    luks_volume_deinit(&l->volume);
    crypt_free(l->crypt);
    pthread_mutex_destroy(&l->slots);
    free(l);
    return 0;
}

static int luks_open(const struct format_open *options, void **format,
                     struct lam_error *err)
{
    struct luks *l = calloc(1, sizeof *l);

    if (!l)
        return lam_fail(err, ENOMEM, "no memory for a LUKS image");
    pthread_mutex_init(&l->slots, NULL);
    l->io = options->io;
    l->header = options->header;
    int rc = open_into(l, options, err);
    if (rc < 0)
        luks_close(l, NULL);
    else
        *format = l;
    return rc;
}

static uint64_t luks_size(void *format)
{
    struct luks *l = format;
    return l->size;
}

/* No clusters, and no zeroes without writing them. */
static uint64_t luks_none(void *format)
{
    (void)format;
    return 0;
}

static struct crypt *luks_crypt(void *format)
{
    struct luks *l = format;
    return l->crypt;
}

static int luks_map(void *format, uint64_t offset, uint64_t length,
                    struct lam_extents *out, struct lam_error *err)
{
    struct luks *l = format;
    struct lam_extent e = {
        .offset = offset,
        .length = length,
        .host_offset = l->payload + offset,
        .state = LAM_EXTENT_DATA,
        .flags = LAM_EXTENT_HAS_HOST | LAM_EXTENT_ENCRYPTED,
    };
    return extents_append(out, &e, err);
}

static int luks_write_begin(void *format, uint64_t offset, uint64_t length,
                            struct format_allocation *a, struct lam_error *err)
{
    struct luks *l = format;

    (void)err;
    *a = (struct format_allocation){
        .offset = offset,
        .length = length,
        .cow_start = offset,
        .cow_end = offset + length,
        .host_offset = l->payload + offset,
        .io = l->io,
    };
    return 0;
}

/* What is freed on the host would read as anything. */
static int luks_discard(void *format, uint64_t offset, uint64_t length,
                        struct lam_error *err)
{
    (void)format, (void)offset, (void)length, (void)err;
    return 0;
}

static int luks_flush(void *format, struct lam_error *err)
{
    struct luks *l = format;
    return lam_io_flush(l->io, err);
}

/* The file's length is the disk's: zeroes that read as such, one after
 * another. */
static int grow(struct luks *l, uint64_t size, struct lam_error *err)
{
    const uint64_t chunk = LAM_MIB;
    lam_autofree uint8_t *buf = buffer_new(chunk);
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for zeroes");
    for (uint64_t at = l->size; at < size && rc == 0; at += chunk) {
        uint64_t n = min_u64(chunk, size - at);
        memset(buf, 0, n);
        rc = crypt_run(l->crypt, CIPHER_ENCRYPT, buf, n, at, l->payload + at,
                       err);
        if (rc == 0)
            rc = lam_io_write(l->io, buf, n, l->payload + at, err);
    }
    return rc;
}

/* Preallocated or not, all is stored. */
static int luks_truncate(void *format, const struct format_resize *to,
                         struct lam_error *err)
{
    struct luks *l = format;
    uint64_t size = align_up(to->size, CRYPT_SECTOR);

    if (l->io->limits.is_block_device)
        return size <= l->size ? 0 : lam_fail(err, EINVAL, "Cannot grow %s",
                                              lam_io_fixed_kind(l->io));
    int rc = size < l->size ? lam_io_truncate(l->io, l->payload + size, err)
                            : grow(l, size, err);
    if (rc == 0)
        l->size = size;
    return rc;
}

static int luks_key_slot(void *format,
                         const struct lam_key_slot_options *options,
                         struct lam_error *err)
{
    struct luks *l = format;
    LAM_LOCKED(&l->slots);
    if (!l->volume.unlocked)
        return lam_fail(err, EINVAL, "the image was opened without its "
                        "passphrase");
    return luks_volume_change(&l->volume, options, err);
}

static int luks_info(void *format, struct lam_image_info *info,
                     struct lam_error *err)
{
    struct luks *l = format;
    LAM_LOCKED(&l->slots);

    info->encrypted = true;
    info->encryption = malloc(sizeof *info->encryption);
    if (!info->encryption)
        return lam_fail(err, ENOMEM, "no memory for a description");
    luks_volume_info(&l->volume, info->encryption);
    return 0;
}

/* ----------------------------------------------------------------- creating */

static int make_room(struct lam_io *io, uint64_t bytes,
                     enum lam_preallocation mode, struct lam_error *err)
{
    uint64_t length;

    if (!io->limits.is_block_device) {
        int rc = lam_io_truncate(io, bytes, err);
        if (rc == 0 && mode == LAM_PREALLOC_FALLOC)
            rc = lam_io_allocate(io, 0, bytes, err);
        if (rc == 0 && mode == LAM_PREALLOC_FULL)
            rc = lam_io_zero(io, 0, bytes, 0, err);
        return rc;
    }
    int rc = lam_io_size(io, &length, err);
    if (rc < 0)
        return rc;
    return length >= bytes ? 0 : lam_fail(err, ENOSPC, "Device is too small: %"
                                          PRIu64 " bytes, the image needs %"
                                          PRIu64, length, bytes);
}

static int luks_create(struct lam_io *io, struct lam_io *data,
                       const struct lam_create_options *options,
                       struct lam_error *err)
{
    const struct lam_encryption_options *o = &options->encryption;
    struct luks_volume v lam_cleanup(luks_volume_deinit) = { 0 };
    uint64_t size = align_up(options->size, CRYPT_SECTOR), bytes;
    const char *passphrase;

    assert(!data);
    (void)data;
    int rc = luks_volume_plan(&v, o, "", &passphrase, err);
    if (rc < 0)
        return rc;
    if (add_overflows(luks_volume_bytes(&v), size, &bytes) ||
        bytes > INT64_MAX)
        return lam_fail(err, EFBIG, "The requested file size is too large: %"
                        PRIu64 " bytes", size);
    rc = make_room(io, bytes, options->preallocation, err);
    return rc < 0 ? rc : luks_volume_create(&v, io, 0, passphrase,
                                            o->iter_time, err);
}

static int luks_measure(const struct lam_create_options *options,
                        struct format_measure *out, struct lam_error *err)
{
    struct luks_volume v lam_cleanup(luks_volume_deinit) = { 0 };
    const char *passphrase;
    int rc = luks_volume_plan(&v, &options->encryption, "", &passphrase, err);

    if (rc == 0 && options->size > INT64_MAX - luks_volume_bytes(&v))
        rc = lam_fail(err, EFBIG, "The requested file size is too large: %"
                      PRIu64 " bytes", options->size);
    if (rc < 0)
        return rc;
    *out = (struct format_measure){
        .metadata = luks_volume_bytes(&v),
        .data = align_up(options->size, CRYPT_SECTOR),
    };
    return 0;
}

const struct format_ops format_luks = {
    .name = "luks",
    .probe = luks_probe,
    .open = luks_open,
    .close = luks_close,
    .size = luks_size,
    .cluster_size = luks_none,
    .zero_unit = luks_none,
    .map = luks_map,
    .write_begin = luks_write_begin,
    .discard = luks_discard,
    .flush = luks_flush,
    .truncate = luks_truncate,
    .crypt = luks_crypt,
    .key_slot = luks_key_slot,
    .info = luks_info,
    .create = luks_create,
    .measure = luks_measure,
};
