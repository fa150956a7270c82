/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new qcow image: header, name of the backing file, L1 table.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "crypto/crypt.h"
#include "format/qcow/qcow.h"
#include "format/values.h"

enum { NAME_MAX_BYTES = 1023 };
static const uint64_t MAX_L1_BYTES = 32 * LAM_MIB;

/* Over a backing file clusters are small, so that little has to be copied. */
static int encode(const struct lam_create_options *options, uint8_t *head,
                  uint64_t *l1_bytes, struct lam_error *err)
{
    const char *name = options->backing_file;
    size_t length = name ? strlen(name) : 0;
    unsigned cluster_bits = name ? 9 : 12, l2_bits = name ? 12 : 9;
    uint64_t size = align_up(options->size, 512);
    uint64_t entries = div_up(size, UINT64_C(1) << (cluster_bits + l2_bits));
    uint64_t l1 = align_up(QH1_BYTES + length, 8);

    if (size == 0)
        return lam_fail(err, EINVAL, "Image size is too small, cannot be zero "
                        "length");
    if (length > NAME_MAX_BYTES)
        return lam_fail(err, EINVAL, "backing file name of %zu bytes (limit: "
                        "%d)", length, NAME_MAX_BYTES);
    if (entries * 8 > MAX_L1_BYTES)
        return lam_fail(err, EFBIG, "Image too large: an L1 table of %" PRIu64
                        " bytes (limit: %" PRIu64 ")", entries * 8,
                        MAX_L1_BYTES);
    be32_put(head + QH1_MAGIC, QCOW1_MAGIC);
    be32_put(head + QH1_VERSION, 1);
    be64_put(head + QH1_SIZE, size);
    head[QH1_CLUSTER_BITS] = (uint8_t)cluster_bits;
    head[QH1_L2_BITS] = (uint8_t)l2_bits;
    be64_put(head + QH1_L1_OFFSET, l1);
    if (name) {
        be64_put(head + QH1_NAME_OFFSET, QH1_BYTES);
        be32_put(head + QH1_NAME_SIZE, (uint32_t)length);
        memcpy(head + QH1_BYTES, name, length);
    }
    *l1_bytes = align_up(entries * 8, 512);
    return 0;
}

/* By AES, if at all: the passphrase is there, and the cipher. */
static int plan_encryption(const struct lam_create_options *options,
                           bool *encrypted, struct lam_error *err)
{
    const char *format = option_text(options, "encrypt.format", NULL);
    const char *secret = option_text(options, "encrypt.key-secret", NULL);
    bool on;
    int rc = option_bool(options, "encryption", false, &on, err);

    if (rc < 0)
        return rc;
    if (on && format)
        return lam_fail(err, EINVAL, "'encrypt.format' and its alias "
                        "'encryption' can't be used at the same time");
    *encrypted = on || format;
    if (!*encrypted)
        return !secret ? 0 : lam_fail(err, EINVAL, "Parameter 'encrypt.format' "
                                      "is missing");
    if (format && !strcmp(format, "luks"))
        return lam_fail(err, EINVAL, "Unsupported encryption format");
    if (format && strcmp(format, "aes"))
        return lam_fail(err, EINVAL, "Parameter 'format' does not accept value "
                        "'%s'", format);
    return crypt_check_legacy(options->encryption.keyring, secret, err);
}

int qcow_create(struct lam_io *io, struct lam_io *data,
                const struct lam_create_options *options,
                struct lam_error *err)
{
    uint8_t head[QH1_BYTES + NAME_MAX_BYTES + 8] = { 0 };
    uint64_t l1_bytes = 0;
    bool encrypted = false;
    int rc = plan_encryption(options, &encrypted, err);

    (void)data;
    if (rc == 0)
        rc = encode(options, head, &l1_bytes, err);
    if (rc < 0)
        return rc;
    be32_put(head + QH1_CRYPT, encrypted);
    uint64_t l1 = be64_get(head + QH1_L1_OFFSET);
    rc = lam_io_truncate(io, l1 + l1_bytes, err);
    if (rc == 0 && io->limits.is_block_device)
        rc = lam_io_zero(io, 0, l1 + l1_bytes, 0, err);
    return rc < 0 ? rc : lam_io_write(io, head, l1, 0, err);
}
