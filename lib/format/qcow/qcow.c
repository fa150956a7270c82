/* SPDX-License-Identifier: MIT */
/*
 * qcow.c - qcow images, the first version: two levels of tables, a backing
 * file, compressed clusters, and AES that can be read.
 */
#include "format/qcow/qcow.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "format/values.h"

enum { CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 16 };
enum { L2_BITS_MIN = 6, L2_BITS_MAX = 13, NAME_MAX_BYTES = 1023 };

static int qcow_probe(const uint8_t *head, size_t length)
{
    return length >= QH1_BYTES && be32_get(head) == QCOW1_MAGIC &&
           be32_get(head + QH1_VERSION) == 1 ? 100 : 0;
}

static struct entry decode(const struct tables *t, uint64_t raw)
{
    const struct qcow *q = (const struct qcow *)t;
    unsigned bits = 63 - q->cluster_bits;

    if (!(raw & QCOW1_COMPRESSED))
        return (struct entry){ .kind = raw ? ENTRY_DATA : ENTRY_ABSENT,
                               .host = raw };
    return (struct entry){
        .kind = ENTRY_COMPRESSED,
        .host = raw & ((UINT64_C(1) << bits) - 1),
        .host_length = (uint32_t)(raw >> bits & (t->cluster - 1)),
    };
}

static uint64_t encode(const struct tables *t, uint64_t host)
{
    (void)t;
    return host;
}

static const struct tables_layout layout = {
    .name = "qcow",
    .entry_bytes = 8,
    .big_endian = true,
    .decode = decode,
    .encode = encode,
};

/* ------------------------------------------------------------ opening */

static int check_header(const uint8_t *head, struct lam_error *err)
{
    unsigned cluster_bits = head[QH1_CLUSTER_BITS];
    unsigned l2_bits = head[QH1_L2_BITS];

    if (be32_get(head) != QCOW1_MAGIC)
        return lam_fail(err, EINVAL, "Image not in qcow format");
    if (be32_get(head + QH1_VERSION) != 1)
        return lam_fail(err, ENOTSUP, "qcow (v%" PRIu32 ") does not support "
                        "qcow version %" PRIu32 ": try 'qcow2'",
                        UINT32_C(1), be32_get(head + QH1_VERSION));
    if (be64_get(head + QH1_SIZE) <= 1)
        return lam_fail(err, EUCLEAN, "Image size is too small (must be at "
                        "least 2 bytes)");
    if (be64_get(head + QH1_SIZE) > INT64_MAX)
        return lam_fail(err, EUCLEAN, "qcow: disk size %" PRIu64 " (limit: "
                        "2^63)", be64_get(head + QH1_SIZE));
    if (cluster_bits < CLUSTER_BITS_MIN || cluster_bits > CLUSTER_BITS_MAX)
        return lam_fail(err, EUCLEAN, "Cluster size must be between 512 and "
                        "64k (cluster_bits %u)", cluster_bits);
    if (l2_bits < L2_BITS_MIN || l2_bits > L2_BITS_MAX)
        return lam_fail(err, EUCLEAN, "L2 table size must be between 512 and "
                        "64k (l2_bits %u)", l2_bits);
    if (be32_get(head + QH1_CRYPT) > 1)
        return lam_fail(err, EUCLEAN, "invalid encryption method in qcow "
                        "header: %" PRIu32, be32_get(head + QH1_CRYPT));
    return 0;
}

static int load_name(struct qcow *q, const uint8_t *head, uint64_t length,
                     struct lam_error *err)
{
    uint64_t start = be64_get(head + QH1_NAME_OFFSET);
    uint64_t bytes = be32_get(head + QH1_NAME_SIZE);

    if (!start)
        return 0;
    if (bytes > NAME_MAX_BYTES || start < QH1_BYTES ||
        !range_fits(start, bytes, length))
        return lam_fail(err, EUCLEAN, "Backing file name too long or outside "
                        "the file: %" PRIu64 " bytes at offset %" PRIu64
                        " (limit: %d)", bytes, start, NAME_MAX_BYTES);
    q->backing = calloc(1, bytes + 1);
    if (!q->backing)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    int rc = bytes ? lam_io_read(q->t.io, q->backing, bytes, start, err) : 0;
    return rc < 0 || strlen(q->backing) == bytes ? rc
        : lam_fail(err, EUCLEAN, "qcow: backing file name with a zero byte");
}

static int open_aes(struct qcow *q, const struct format_open *o,
                    struct lam_error *err)
{
    const char *passphrase;

    if (!q->encrypted && o->encrypt_format)
        return lam_fail(err, EINVAL, "No encryption in image header, but "
                        "options specified format '%s'", o->encrypt_format);
    if (!q->encrypted || o->metadata_only || o->for_check)
        return 0;
    if (o->encrypt_format && strcmp(o->encrypt_format, "aes"))
        return lam_fail(err, EINVAL, "Header reported 'aes' encryption format "
                        "but options specify '%s'", o->encrypt_format);
    int rc = keyring_passphrase(o->keyring, o->key_secret,
                                "encrypt.key-secret", &passphrase, err);
    return rc < 0 ? rc : crypt_new_legacy(passphrase, &q->t.crypt, err);
}

static void set_geometry(struct qcow *q, const uint8_t *head)
{
    struct tables *t = &q->t;

    q->cluster_bits = head[QH1_CLUSTER_BITS];
    q->encrypted = be32_get(head + QH1_CRYPT) == 1;
    t->size = align_down(be64_get(head + QH1_SIZE), 512);
    t->cluster = UINT64_C(1) << q->cluster_bits;
    t->is_two_level = true;
    t->table_offset = be64_get(head + QH1_L1_OFFSET);
    t->table_entries = UINT64_C(1) << head[QH1_L2_BITS];
    t->data_start = QH1_BYTES;
    t->has_backing = q->backing != NULL;
    t->host_limit = UINT64_C(1) << (63 - q->cluster_bits);
}

static int read_header(struct qcow *q, struct lam_error *err)
{
    uint8_t head[QH1_BYTES];
    uint64_t length;
    int rc = lam_io_size(q->t.io, &length, err);

    memset(head, 0, sizeof head);
    if (rc == 0)
        rc = lam_io_read(q->t.io, head, min_u64(length, QH1_BYTES), 0, err);
    if (rc == 0)
        rc = check_header(head, err);
    if (rc == 0)
        rc = load_name(q, head, length, err);
    if (rc < 0)
        return rc;
    set_geometry(q, head);
    return 0;
}

/* Nothing in front of the L1 table's end is data. */
static int load_tables(struct qcow *q, struct lam_error *err)
{
    int rc = tables_init(&q->t, err);

    q->t.data_start = max_u64(q->t.data_start, q->t.table_offset +
                              q->t.nb_l1 * q->t.layout->entry_bytes);
    for (uint64_t i = 0; i < q->t.nb_l1 && rc == 0; i++)
        if (q->t.l1[i] && q->t.l1[i] < q->t.data_start)
            rc = lam_fail(err, EUCLEAN, "qcow: L1 entry %" PRIu64 ": L2 table "
                          "at offset %" PRIu64 ", inside the L1 table", i,
                          q->t.l1[i]);
    return rc;
}

static void qcow_free(struct qcow *q)
{
    crypt_free(q->t.crypt);
    free(q->backing);
    free(q);
}

static int qcow_open(const struct format_open *o, void **format,
                     struct lam_error *err)
{
    struct qcow *q = calloc(1, sizeof *q);

    if (!q)
        return lam_fail(err, ENOMEM, "no memory for a qcow image");
    q->t.io = o->io;
    q->t.layout = &layout;
    q->t.writable = o->writable;
    int rc = read_header(q, err);
    if (rc == 0)
        rc = open_aes(q, o, err);
    if (rc < 0) {
        qcow_free(q);
        return rc;
    }
    rc = load_tables(q, err);
    if (rc < 0) {
        tables_deinit(&q->t);
        qcow_free(q);
        return rc;
    }
    *format = q;
    return 0;
}

static int qcow_close(void *format, struct lam_error *err)
{
    struct qcow *q = format;
    int rc = tables_close(&q->t, err);

    qcow_free(q);
    return rc;
}

/* ------------------------------------------------------------ the rest */

static void qcow_links(void *format, struct format_links *links)
{
    struct qcow *q = format;
    *links = (struct format_links){ .backing_file = q->backing };
}

static int qcow_info(void *format, struct lam_image_info *info,
                     struct lam_error *err)
{
    struct qcow *q = format;

    (void)err;
    info->encrypted = q->encrypted;
    return 0;
}

static const struct lam_option_info create_options[] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "backing_file", LAM_OPTION_TEXT, NULL, "File name of a base image" },
    { "backing_fmt", LAM_OPTION_TEXT, NULL, "Format of the backing image" },
    { "encryption", LAM_OPTION_BOOL, NULL,
      "Encrypt the image with format 'aes'. (Deprecated in favor of "
      "encrypt.format=aes)" },
    { "encrypt.format", LAM_OPTION_TEXT, NULL,
      "Encrypt the image, format choices: 'aes'" },
    { "encrypt.key-secret", LAM_OPTION_TEXT, NULL,
      "ID of the secret that provides the AES encryption key" },
};

const struct format_ops format_qcow = {
    .name = "qcow",
    TABLES_OPS,
    .can_compress = true,
    .can_have_backing = true,
    .options = create_options,
    .nb_options = LAM_ARRAY_SIZE(create_options),
    .probe = qcow_probe,
    .open = qcow_open,
    .close = qcow_close,
    .set_writable = tables_set_writable,
    .links = qcow_links,
    .read_compressed = qcow_read_compressed,
    .read_compressed_part = qcow_read_compressed_part,
    .write_compressed = qcow_write_compressed,
    .payloads = &qcow_payloads,
    .crypt = tables_crypt,
    .info = qcow_info,
    .create = qcow_create,
};
