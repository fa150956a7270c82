/* SPDX-License-Identifier: MIT */
/*
 * header.c - the header cluster: decode and encode (format document 2.1 to
 * 2.5).  Judging the values is header-validate.c's.
 */
#include "format/qcow2/header.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum {
    EXT_END = 0,
    EXT_HEAD = 8,                   /* type and length */
    EXT_BITMAPS_LENGTH = 24,
    EXT_CRYPTO_LENGTH = 16,
    FEATURE_NAME_LENGTH = 48,
    FEATURE_NAME_TEXT = 46,
    /* Below this cluster size the genuine tool leaves the names out. */
    FEATURE_NAMES_MIN_CLUSTER = 4096,
};

#define EXT_BACKING_FORMAT  UINT32_C(0xe2792aca)
#define EXT_FEATURE_NAMES   UINT32_C(0x6803f857)
#define EXT_BITMAPS         UINT32_C(0x23852875)
#define EXT_CRYPTO          UINT32_C(0x0537be77)
#define EXT_DATA_FILE       UINT32_C(0x44415441)

/* The table that we write, in the genuine tool's order. */
static const struct {
    uint8_t kind, bit;
    const char *name;
} feature_names[] = {
    { 0, 0, "dirty bit" },
    { 0, 1, "corrupt bit" },
    { 0, 2, "external data file" },
    { 0, 3, "compression type" },
    { 0, 4, "extended L2 entries" },
    { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },
    { 2, 1, "raw external data" },
};

int header_peek(const uint8_t *buf, size_t length, uint64_t *want,
                struct lam_error *err)
{
    if (length < QH_CLUSTER_BITS + 4 || be32_get(buf) != QCOW2_MAGIC)
        return lam_fail(err, EINVAL, "Image is not in qcow2 format");

    uint32_t version = be32_get(buf + QH_VERSION);
    if (version < 2 || version > 3)
        return lam_fail(err, ENOTSUP, "Unsupported qcow2 version %" PRIu32,
                        version);

    uint32_t bits = be32_get(buf + QH_CLUSTER_BITS);
    if (bits < QCOW2_MIN_CLUSTER_BITS || bits > QCOW2_MAX_CLUSTER_BITS)
        return lam_fail(err, EUCLEAN, "Unsupported cluster size: 2^%" PRIu32
                        " (limits: 2^%d to 2^%d)", bits,
                        QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
    *want = UINT64_C(1) << bits;
    return 0;
}

/* Where the area of extensions ends for who has @length bytes of the cluster:
 * behind the last one, or UINT64_MAX if that is not among them. */
static uint64_t extensions_end(const uint8_t *buf, size_t length, uint64_t at,
                               uint64_t end)
{
    while (at < end) {
        if (at > length || length - at < EXT_HEAD)
            return UINT64_MAX;
        uint32_t type = be32_get(buf + at);
        uint64_t bytes = be32_get(buf + at + 4);

        at += EXT_HEAD;
        if (bytes > end - at)
            return UINT64_MAX;
        if (type == EXT_END)
            return at;
        at += align_up(bytes, 8);
    }
    return at;
}

bool header_is_within(const uint8_t *buf, size_t length)
{
    uint64_t cluster_size = 0;

    if (length < QH_V3_LENGTH || header_peek(buf, length, &cluster_size, NULL))
        return false;
    uint64_t offset = be64_get(buf + QH_BACKING_OFFSET);
    uint64_t name = be32_get(buf + QH_BACKING_LENGTH);
    uint64_t at = be32_get(buf + QH_VERSION) < 3
                      ? QH_V2_LENGTH : be32_get(buf + QH_HEADER_LENGTH);

    if (length >= cluster_size)
        return true;
    return offset <= length && name <= length - offset && at <= length &&
           extensions_end(buf, length, at, offset ? offset : cluster_size)
               <= length;
}

/* A NUL-terminated copy; a NUL inside cuts it for every later reader. */
static int copy_string(const uint8_t *p, size_t length, char **out,
                       struct lam_error *err)
{
    char *copy = malloc(length + 1);

    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for a name of %zu bytes",
                        length);
    memcpy(copy, p, length);
    copy[length] = '\0';
    free(*out);
    *out = copy;
    return 0;
}

static int copy_bytes(const uint8_t *p, uint32_t length, uint8_t **out,
                      struct lam_error *err)
{
    uint8_t *copy = malloc(length ? length : 1);

    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu32
                        " bytes of the header", length);
    memcpy(copy, p, length);
    free(*out);
    *out = copy;
    return 0;
}

/* ------------------------------------------------------------ extensions */

static int decode_backing_format(const uint8_t *data, uint32_t length,
                                 struct qcow2_header *out,
                                 struct lam_error *err)
{
    if (length > QCOW2_MAX_FORMAT_NAME)
        return lam_fail(err, EUCLEAN, "Backing format name too long: %" PRIu32
                        " bytes (limit: %d)", length, QCOW2_MAX_FORMAT_NAME);
    return copy_string(data, length, &out->backing_format, err);
}

static int decode_feature_names(const uint8_t *data, uint32_t length,
                                struct qcow2_header *out,
                                struct lam_error *err)
{
    out->has_feature_names = true;
    out->feature_names_length = length;
    return copy_bytes(data, length, &out->feature_names, err);
}

static int decode_bitmaps(const uint8_t *data, uint32_t length,
                          struct qcow2_header *out, struct lam_error *err)
{
    if (length != EXT_BITMAPS_LENGTH)
        return lam_fail(err, EUCLEAN, "bitmaps_ext: Invalid extension length: "
                        "%" PRIu32 " (must be %d)", length, EXT_BITMAPS_LENGTH);
    if (be32_get(data + 4))
        return lam_fail(err, EUCLEAN, "bitmaps_ext: Reserved field is %#"
                        PRIx32 ", not zero", be32_get(data + 4));
    out->has_bitmaps = true;
    out->nb_bitmaps = be32_get(data);
    out->bitmap_directory_size = be64_get(data + 8);
    out->bitmap_directory_offset = be64_get(data + 16);
    return 0;
}

static int decode_crypto(const uint8_t *data, uint32_t length,
                         struct qcow2_header *out, struct lam_error *err)
{
    if (out->crypt_method != QCOW2_CRYPT_LUKS)
        return lam_fail(err, EUCLEAN, "CRYPTO header extension only expected "
                        "with LUKS encryption method (2), not %" PRIu32,
                        out->crypt_method);
    if (length != EXT_CRYPTO_LENGTH)
        return lam_fail(err, EUCLEAN, "CRYPTO header extension size %" PRIu32
                        ", but expected size %d", length, EXT_CRYPTO_LENGTH);
    out->has_crypto = true;
    out->crypto_offset = be64_get(data);
    out->crypto_length = be64_get(data + 8);
    return 0;
}

static int keep_unknown(uint32_t type, const uint8_t *data, uint32_t length,
                        struct qcow2_header *out, struct lam_error *err)
{
    struct qcow2_unknown_extension *grown =
        realloc(out->unknown, (out->nb_unknown + 1) * sizeof *grown);

    if (!grown)
        return lam_fail(err, ENOMEM, "no memory for header extension %#" PRIx32,
                        type);
    out->unknown = grown;
    grown += out->nb_unknown;
    *grown = (struct qcow2_unknown_extension){ .type = type, .length = length };

    int rc = copy_bytes(data, length, &grown->data, err);
    if (rc == 0)
        out->nb_unknown++;
    return rc;
}

static int decode_extension(uint32_t type, const uint8_t *data, uint32_t length,
                            struct qcow2_header *out, struct lam_error *err)
{
    switch (type) {
    case EXT_BACKING_FORMAT:
        return decode_backing_format(data, length, out, err);
    case EXT_FEATURE_NAMES:
        return decode_feature_names(data, length, out, err);
    case EXT_BITMAPS:
        return decode_bitmaps(data, length, out, err);
    case EXT_CRYPTO:
        return decode_crypto(data, length, out, err);
    case QCOW2_EXT_SKIP:
        return 0;
    case EXT_DATA_FILE:
        return copy_string(data, length, &out->data_file, err);
    default:
        return keep_unknown(type, data, length, out, err);
    }
}

/* @cluster is the first cluster, of which what is looked at is there; the area
 * is [@at, @end). */
static int decode_extensions(const uint8_t *cluster, uint64_t at, uint64_t end,
                             struct qcow2_header *out, struct lam_error *err)
{
    while (at < end) {
        if (end - at < EXT_HEAD)
            return lam_fail(err, EUCLEAN, "Header extension too large: its "
                            "head at %" PRIu64 " passes the end of the area at "
                            "%" PRIu64, at, end);
        uint32_t type = be32_get(cluster + at);
        uint32_t length = be32_get(cluster + at + 4);

        at += EXT_HEAD;
        if (length > end - at)
            return lam_fail(err, EUCLEAN, "Header extension too large: type %#"
                            PRIx32 " has %" PRIu32 " bytes of data (limit: %"
                            PRIu64 ")", type, length, end - at);
        if (type == EXT_END)
            return 0;

        int rc = decode_extension(type, cluster + at, length, out, err);
        if (rc < 0)
            return rc;
        at += align_up(length, 8);
    }
    return 0;
}

/* ---------------------------------------------------------------- decode */

static void decode_v2_fields(const uint8_t *p, struct qcow2_header *out)
{
    out->version = be32_get(p + QH_VERSION);
    out->backing_offset = be64_get(p + QH_BACKING_OFFSET);
    out->backing_length = be32_get(p + QH_BACKING_LENGTH);
    out->cluster_bits = be32_get(p + QH_CLUSTER_BITS);
    out->size = be64_get(p + QH_SIZE);
    out->crypt_method = be32_get(p + QH_CRYPT_METHOD);
    out->l1_size = be32_get(p + QH_L1_SIZE);
    out->l1_offset = be64_get(p + QH_L1_OFFSET);
    out->reft_offset = be64_get(p + QH_REFT_OFFSET);
    out->reft_clusters = be32_get(p + QH_REFT_CLUSTERS);
    out->nb_snapshots = be32_get(p + QH_NB_SNAPSHOTS);
    out->snapshots_offset = be64_get(p + QH_SNAPSHOTS_OFFSET);
    out->refcount_order = 4;
    out->header_length = QH_V2_LENGTH;
}

static int decode_v3_fields(const uint8_t *p, size_t length,
                            uint64_t cluster_size, struct qcow2_header *out,
                            struct lam_error *err)
{
    if (length < QH_V3_MIN_LENGTH)
        return lam_fail(err, EUCLEAN, "qcow2 header too short: the file has "
                        "%zu bytes (version 3 needs %d)", length,
                        QH_V3_MIN_LENGTH);
    out->incompatible = be64_get(p + QH_INCOMPATIBLE);
    out->compatible = be64_get(p + QH_COMPATIBLE);
    out->autoclear = be64_get(p + QH_AUTOCLEAR);
    out->refcount_order = be32_get(p + QH_REFCOUNT_ORDER);
    out->header_length = be32_get(p + QH_HEADER_LENGTH);

    if (out->header_length < QH_V3_MIN_LENGTH)
        return lam_fail(err, EUCLEAN, "qcow2 header too short: header_length "
                        "%" PRIu32 " (minimum: %d)", out->header_length,
                        QH_V3_MIN_LENGTH);
    if (out->header_length > cluster_size)
        return lam_fail(err, EUCLEAN, "qcow2 header exceeds cluster size: "
                        "header_length %" PRIu32 " (limit: %" PRIu64 ")",
                        out->header_length, cluster_size);
    if (out->header_length % 8)
        return lam_fail(err, EUCLEAN, "header_length %" PRIu32
                        " is not a multiple of 8", out->header_length);
    if (out->header_length > QH_COMPRESSION_TYPE)
        out->compression_type = p[QH_COMPRESSION_TYPE];
    return 0;
}

static int decode_backing_name(const uint8_t *cluster, uint64_t cluster_size,
                               struct qcow2_header *out, struct lam_error *err)
{
    if (!out->backing_offset || !out->backing_length)
        return 0;

    uint64_t limit = min_u64(QCOW2_MAX_BACKING_NAME,
                             cluster_size - out->backing_offset);
    if (out->backing_length > limit)
        return lam_fail(err, EUCLEAN, "Backing file name too long: %" PRIu32
                        " bytes (limit: %" PRIu64 ")", out->backing_length,
                        limit);
    return copy_string(cluster + out->backing_offset, out->backing_length,
                       &out->backing_file, err);
}

/* @p is the first cluster, or as much of it as is looked at; the file has
 * @length bytes of it at least. */
static int decode_cluster(const uint8_t *p, size_t length,
                          uint64_t cluster_size, struct qcow2_header *out,
                          struct lam_error *err)
{
    decode_v2_fields(p, out);
    if (out->version == 3) {
        int rc = decode_v3_fields(p, length, cluster_size, out, err);
        if (rc < 0)
            return rc;
    }
    if (out->backing_offset > cluster_size)
        return lam_fail(err, EUCLEAN, "Invalid backing file offset: %#" PRIx64
                        " (limit: the cluster size, %" PRIu64 ")",
                        out->backing_offset, cluster_size);
    if (out->header_length > QH_V3_LENGTH) {
        out->unknown_fields_length = out->header_length - QH_V3_LENGTH;
        int rc = copy_bytes(p + QH_V3_LENGTH, out->unknown_fields_length,
                            &out->unknown_fields, err);
        if (rc < 0)
            return rc;
    }
    uint64_t end = out->backing_offset ? out->backing_offset : cluster_size;
    int rc = decode_extensions(p, out->header_length, end, out, err);
    return rc < 0 ? rc : decode_backing_name(p, cluster_size, out, err);
}

int header_decode(const uint8_t *buf, size_t length, struct qcow2_header *out,
                  struct lam_error *err)
{
    uint64_t cluster_size = 0;

    memset(out, 0, sizeof *out);
    int rc = header_peek(buf, length, &cluster_size, err);
    if (rc < 0)
        return rc;
    if (length < QH_V2_LENGTH)
        return lam_fail(err, EUCLEAN, "qcow2 header too short: the file has "
                        "%zu bytes (minimum: %d)", length, QH_V2_LENGTH);
    if (header_is_within(buf, length))
        return decode_cluster(buf, length, cluster_size, out, err);

    /* The file ends inside its first cluster; the rest of it reads as zero. */
    lam_autofree uint8_t *cluster = calloc(1, cluster_size);
    if (!cluster)
        return lam_fail(err, ENOMEM, "no memory for a header of %" PRIu64
                        " bytes", cluster_size);
    memcpy(cluster, buf, length);
    return decode_cluster(cluster, length, cluster_size, out, err);
}

void header_deinit(struct qcow2_header *h)
{
    for (size_t i = 0; i < h->nb_unknown; i++)
        free(h->unknown[i].data);
    free(h->unknown);
    free(h->unknown_fields);
    free(h->feature_names);
    free(h->data_file);
    free(h->backing_format);
    free(h->backing_file);
    memset(h, 0, sizeof *h);
}

/* ---------------------------------------------------------------- encode */

/* The cluster in the making; @at only grows, past @size when it is full. */
struct cluster_writer {
    uint8_t *buf;
    uint64_t size, at;
};

static void put_bytes(struct cluster_writer *w, const void *p, uint64_t length)
{
    if (w->at <= w->size && length <= w->size - w->at && length)
        memcpy(w->buf + w->at, p, length);
    w->at += length;
}

static void put_extension(struct cluster_writer *w, uint32_t type,
                          const void *data, uint32_t length)
{
    uint8_t head[EXT_HEAD];

    be32_put(head, type);
    be32_put(head + 4, length);
    put_bytes(w, head, sizeof head);
    put_bytes(w, data, length);
    w->at = align_up(w->at, 8);
}

static void put_string(struct cluster_writer *w, uint32_t type, const char *s)
{
    if (s)
        put_extension(w, type, s, (uint32_t)strlen(s));
}

static void put_feature_names(struct cluster_writer *w,
                              const struct qcow2_header *h)
{
    uint8_t table[LAM_ARRAY_SIZE(feature_names) * FEATURE_NAME_LENGTH] = { 0 };

    if (h->feature_names) {
        put_extension(w, EXT_FEATURE_NAMES, h->feature_names,
                      h->feature_names_length);
        return;
    }
    for (size_t i = 0; i < LAM_ARRAY_SIZE(feature_names); i++) {
        uint8_t *p = table + i * FEATURE_NAME_LENGTH;

        p[0] = feature_names[i].kind;
        p[1] = feature_names[i].bit;
        memcpy(p + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    put_extension(w, EXT_FEATURE_NAMES, table, sizeof table);
}

static void put_crypto(struct cluster_writer *w, const struct qcow2_header *h)
{
    uint8_t data[EXT_CRYPTO_LENGTH];

    be64_put(data, h->crypto_offset);
    be64_put(data + 8, h->crypto_length);
    put_extension(w, EXT_CRYPTO, data, sizeof data);
}

static void put_bitmaps(struct cluster_writer *w, const struct qcow2_header *h)
{
    uint8_t data[EXT_BITMAPS_LENGTH] = { 0 };

    be32_put(data, h->nb_bitmaps);
    be64_put(data + 8, h->bitmap_directory_size);
    be64_put(data + 16, h->bitmap_directory_offset);
    put_extension(w, EXT_BITMAPS, data, sizeof data);
}

static void put_fields(uint8_t *p, const struct qcow2_header *h)
{
    be32_put(p, QCOW2_MAGIC);
    be32_put(p + QH_VERSION, h->version);
    be32_put(p + QH_CLUSTER_BITS, h->cluster_bits);
    be64_put(p + QH_SIZE, h->size);
    be32_put(p + QH_CRYPT_METHOD, h->crypt_method);
    be32_put(p + QH_L1_SIZE, h->l1_size);
    be64_put(p + QH_L1_OFFSET, h->l1_offset);
    be64_put(p + QH_REFT_OFFSET, h->reft_offset);
    be32_put(p + QH_REFT_CLUSTERS, h->reft_clusters);
    be32_put(p + QH_NB_SNAPSHOTS, h->nb_snapshots);
    be64_put(p + QH_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version < 3)
        return;
    be64_put(p + QH_INCOMPATIBLE, h->incompatible);
    be64_put(p + QH_COMPATIBLE, h->compatible);
    be64_put(p + QH_AUTOCLEAR, h->autoclear);
    be32_put(p + QH_REFCOUNT_ORDER, h->refcount_order);
    be32_put(p + QH_HEADER_LENGTH, QH_V3_LENGTH + h->unknown_fields_length);
    p[QH_COMPRESSION_TYPE] = h->compression_type;
}

static void put_extensions(struct cluster_writer *w,
                           const struct qcow2_header *h)
{
    put_string(w, EXT_BACKING_FORMAT, h->backing_format);
    put_string(w, EXT_DATA_FILE, h->data_file);
    if (h->has_crypto)
        put_crypto(w, h);
    if (h->has_feature_names)
        put_feature_names(w, h);
    if (h->has_bitmaps)
        put_bitmaps(w, h);
    for (size_t i = 0; i < h->nb_unknown; i++) {
        put_extension(w, h->unknown[i].type, h->unknown[i].data,
                      h->unknown[i].length);
    }
    put_extension(w, EXT_END, NULL, 0);
}

int header_encode(const struct qcow2_header *h, uint8_t *buf,
                  size_t cluster_size, struct lam_error *err)
{
    struct cluster_writer w = { .buf = buf, .size = cluster_size };

    memset(buf, 0, cluster_size);
    put_fields(buf, h);
    w.at = h->version < 3 ? QH_V2_LENGTH : QH_V3_LENGTH;
    put_bytes(&w, h->unknown_fields, h->unknown_fields_length);
    put_extensions(&w, h);
    if (h->backing_file) {
        size_t length = strlen(h->backing_file);

        if (length > QCOW2_MAX_BACKING_NAME)
            return lam_fail(err, EINVAL, "Backing file name too long: %zu "
                            "bytes (limit: %d)", length,
                            QCOW2_MAX_BACKING_NAME);
        be64_put(buf + QH_BACKING_OFFSET, w.at);
        be32_put(buf + QH_BACKING_LENGTH, (uint32_t)length);
        put_bytes(&w, h->backing_file, length);
    }
    if (w.at > cluster_size)
        return lam_fail(err, ENOSPC, "Header, extensions and backing file name "
                        "take %" PRIu64 " bytes, more than a cluster of %zu",
                        w.at, cluster_size);
    return 0;
}
