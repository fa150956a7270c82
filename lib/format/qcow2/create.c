/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new image (format document 1, 7.11, 12).
 */
#include "format/qcow2/create.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/create-layout.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/refblock.h"

/* ----------------------------------------------------------------- options */

/* A message for what only version 3 has. */
static int need_version_3(const struct lam_create_options *o, bool used,
                          const char *what, struct lam_error *err)
{
    if (!used || o->version >= 3)
        return 0;
    return lam_fail(err, EINVAL, "%s above (use version=v3 or greater)", what);
}

static int check_clusters(const struct lam_create_options *o,
                          struct lam_error *err)
{
    if (!is_power_of_two(o->cluster_size) || o->cluster_size < 512 ||
        o->cluster_size > 2 * LAM_MIB)
        return lam_fail(err, EINVAL, "Cluster size must be a power of two "
                        "between 512 and 2048k");
    if (o->extended_l2 && o->cluster_size < 16384)
        return lam_fail(err, EINVAL, "Extended L2 entries are only supported "
                        "with cluster sizes of at least 16384 bytes");
    return 0;
}

static int check_refcounts(const struct lam_create_options *o,
                           struct lam_error *err)
{
    if (!is_power_of_two(o->refcount_bits) || o->refcount_bits > 64)
        return lam_fail(err, EINVAL, "Refcount width must be a power of two "
                        "and may not exceed 64 bits");
    return 0;
}

int qcow2_check_widths(const struct lam_create_options *o,
                       struct lam_error *err)
{
    int rc = check_clusters(o, err);

    return rc < 0 ? rc : check_refcounts(o, err);
}

static int check_compression(const struct lam_create_options *o,
                             struct lam_error *err)
{
    if (o->compression_type > QCOW2_ZSTD)
        return lam_fail(err, EINVAL, "Unknown compression type %u (limit: %d)",
                        o->compression_type, QCOW2_ZSTD);
    return need_version_3(o, o->compression_type, "Non-zlib compression type "
                          "is only supported with compatibility level 1.1 and",
                          err);
}

static int check_data_file(const struct lam_create_options *o,
                           const struct lam_io *data, struct lam_error *err)
{
    if (o->data_file_raw && !o->data_file)
        return lam_fail(err, EINVAL, "data-file-raw requires data-file");
    if (o->data_file_raw && o->backing_file)
        return lam_fail(err, EINVAL, "Backing file and data-file-raw cannot be "
                        "used at the same time");
    int rc = need_version_3(o, o->data_file, "External data files are only "
                            "supported with compatibility level 1.1 and", err);
    if (rc == 0 && o->data_file && !data)
        return lam_fail(err, EINVAL, "The external data file '%s' is not open",
                        o->data_file);
    return rc;
}

static int check_backing(const struct lam_create_options *o,
                         struct lam_error *err)
{
    if (o->backing_file && strlen(o->backing_file) > QCOW2_MAX_BACKING_NAME)
        return lam_fail(err, EINVAL, "Backing file name too long: %zu bytes "
                        "(limit: %d)", strlen(o->backing_file),
                        QCOW2_MAX_BACKING_NAME);
    if (o->backing_format && strlen(o->backing_format) > QCOW2_MAX_FORMAT_NAME)
        return lam_fail(err, EINVAL, "Backing format name too long: %zu bytes "
                        "(limit: %d)", strlen(o->backing_format),
                        QCOW2_MAX_FORMAT_NAME);
    if (o->preallocation != LAM_PREALLOC_OFF && o->backing_file &&
        !o->extended_l2)
        return lam_fail(err, EINVAL, "Backing file and preallocation can only "
                        "be used at the same time if extended_l2 is on");
    return 0;
}

/* In the order in which the genuine tool looks at them: of several mistakes it
 * names the same one. */
static int check_options(const struct lam_create_options *o,
                         const struct lam_io *data, struct lam_error *err)
{
    if (o->version < 2 || o->version > 3)
        return lam_fail(err, EINVAL, "Unsupported qcow2 version %u (limits: 2 "
                        "and 3)", o->version);
    int rc = need_version_3(o, o->extended_l2, "Extended L2 entries are only "
                            "supported with compatibility level 1.1 and", err);
    if (rc == 0)
        rc = check_clusters(o, err);
    if (rc == 0)
        rc = check_backing(o, err);
    if (rc == 0)
        rc = need_version_3(o, o->lazy_refcounts, "Lazy refcounts only "
                            "supported with compatibility level 1.1 and", err);
    if (rc == 0)
        rc = check_refcounts(o, err);
    if (rc == 0)
        rc = need_version_3(o, o->refcount_bits != 16, "Different refcount "
                            "widths than 16 bits require compatibility level "
                            "1.1 or", err);
    if (rc == 0)
        rc = check_data_file(o, data, err);
    return rc < 0 ? rc : check_compression(o, err);
}

/* The passphrase is there, and the cipher; no option goes with it. */
static int plan_aes(const struct lam_encryption_options *o,
                    struct lam_error *err)
{
    const struct { const char *name, *value; } others[] = {
        { "cipher-alg", o->cipher_alg }, { "cipher-mode", o->cipher_mode },
        { "hash-alg", o->hash_alg }, { "ivgen-alg", o->ivgen_alg },
        { "ivgen-hash-alg", o->ivgen_hash_alg },
        { "iter-time", o->iter_time ? "" : NULL },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(others); i++)
        if (others[i].value)
            return lam_fail(err, EINVAL, "Parameter 'encrypt.%s' is "
                            "unexpected", others[i].name);
    return crypt_check_legacy(o->keyring, o->key_secret, err);
}

static int plan_encryption(const struct lam_create_options *o,
                           struct layout *l, struct lam_error *err)
{
    const char *format = o->encryption.format;

    l->encrypted = format != NULL;
    if (!format)
        return 0;
    l->has_luks = !strcmp(format, "luks");
    if (!l->has_luks && strcmp(format, "aes"))
        return lam_fail(err, EINVAL, "Parameter 'format' does not accept value "
                        "'%s'", format);
    if (o->version < 3 && o->preallocation != LAM_PREALLOC_OFF)
        return lam_fail(err, ENOTSUP, "Preallocation of an encrypted image "
                        "needs compat=1.1: version 2 cannot say that its "
                        "clusters are zero");
    return l->has_luks ? luks_volume_plan(&l->luks, &o->encryption, "encrypt.",
                                          &l->passphrase, err)
                       : plan_aes(&o->encryption, err);
}

static int check_size(const struct lam_create_options *o, struct layout *l,
                      struct lam_error *err)
{
    l->g = qcow2_geometry_make((unsigned)__builtin_ctzll(o->cluster_size),
                               (unsigned)__builtin_ctz(o->refcount_bits),
                               o->extended_l2);
    if (o->size > INT64_MAX - (QCOW2_SECTOR - 1))
        return lam_fail(err, EFBIG, "Image size %" PRIu64 " is too large "
                        "(limit: 2^63)", o->size);
    l->size = align_up(o->size, QCOW2_SECTOR);
    l->l1_size = l1_needed(&l->g, l->size);
    if (l->l1_size > QCOW2_MAX_L1_ENTRIES)
        return lam_fail(err, EFBIG, "The image size is too large for file "
                        "format 'qcow2' (try using a larger cluster size): %"
                        PRIu64 " bytes (limit with clusters of %" PRIu64
                        ": %" PRIu64 ")", l->size, l->g.cluster_size,
                        QCOW2_MAX_L1_ENTRIES * l->g.l2_cover);
    return 0;
}

/* ----------------------------------------------------------------- writing */

static int write_blocks(struct lam_io *io, const struct layout *l,
                        uint8_t *cluster, struct lam_error *err)
{
    uint64_t entries = l->g.refblock_entries;

    for (uint64_t i = 0; i < l->nb_blocks; i++) {
        uint64_t used = i * entries < l->nb_clusters
                            ? min_u64(entries, l->nb_clusters - i * entries)
                            : 0;

        memset(cluster, 0, l->g.cluster_size);
        for (uint64_t j = 0; j < used; j++)
            refblock_set(cluster, l->g.refcount_order, j, 1);
        int rc = lam_io_write(io, cluster, l->g.cluster_size,
                              l->blocks[i] << l->g.cluster_bits, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Big-endian host offsets, @count of them, from the clusters in @table. */
static int write_table(struct lam_io *io, const struct layout *l,
                       const uint64_t *table, uint64_t count, uint64_t bytes,
                       uint64_t at, uint64_t flags, struct lam_error *err)
{
    lam_autofree uint8_t *buf = calloc(1, bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a table of %" PRIu64
                        " bytes", bytes);
    for (uint64_t i = 0; i < count; i++)
        be64_put(buf + i * 8, table[i] << l->g.cluster_bits | flags);
    return lam_io_write(io, buf, bytes, at << l->g.cluster_bits, err);
}

/* All guest clusters; those in the data file each at its own guest offset.  An
 * extended entry shows nothing yet. */
static int write_l2_tables(struct lam_io *io, const struct layout *l,
                           uint8_t *cluster, struct lam_error *err)
{
    uint64_t nb_guest = div_up(l->size, l->g.cluster_size);
    uint64_t flags = QCOW2_COPIED;

    /* The host's zeroes decrypt to anything: say that they are zeroes. */
    if (l->encrypted && !l->g.extended_l2)
        flags |= QCOW2_ZERO;
    for (uint64_t i = 0; i < l->l1_size; i++) {
        uint64_t first = i * l->g.l2_entries;
        uint64_t used = min_u64(l->g.l2_entries, nb_guest - first);
        uint64_t host = l->data ? l->data[i] : first;

        memset(cluster, 0, l->g.cluster_size);
        for (uint64_t j = 0; j < used; j++)
            be64_put(cluster + j * l->g.l2_entry_size,
                     (host + j) << l->g.cluster_bits | flags);
        int rc = lam_io_write(io, cluster, l->g.cluster_size,
                              l->l2[i] << l->g.cluster_bits, err);
        if (rc < 0)
            return rc;
    }
    return write_table(io, l, l->l2, l->l1_size, l->l1_size * 8, l->l1_cluster,
                       QCOW2_COPIED, err);
}

/* An L1 table without L2 tables: zeroes, which a new file has anyway. */
static int write_empty_l1(struct lam_io *io, const struct layout *l,
                          struct lam_error *err)
{
    if (!l->l1_size || !io->limits.is_block_device)
        return 0;
    return lam_io_zero(io, l->l1_cluster << l->g.cluster_bits, l->l1_size * 8,
                       0, err);
}

static void fill_header(const struct layout *l,
                        const struct lam_create_options *o,
                        struct qcow2_header *h)
{
    *h = (struct qcow2_header){
        .version = o->version,
        .cluster_bits = l->g.cluster_bits,
        .size = l->size,
        .l1_size = (uint32_t)l->l1_size,
        .l1_offset = l->l1_size ? l->l1_cluster << l->g.cluster_bits : 0,
        .reft_offset = l->reft_cluster << l->g.cluster_bits,
        .reft_clusters = (uint32_t)l->reft_clusters,
        .refcount_order = l->g.refcount_order,
        .compression_type = (uint8_t)o->compression_type,
        /* Borrowed: header_encode() only reads them. */
        .backing_file = (char *)o->backing_file,
        .backing_format = o->backing_file ? (char *)o->backing_format : NULL,
        .data_file = (char *)o->data_file,
        .has_feature_names = o->version >= 3 && l->g.cluster_size > 4096,
    };
    if (o->compression_type)
        h->incompatible |= QCOW2_INCOMPAT_COMPRESSION;
    if (o->extended_l2)
        h->incompatible |= QCOW2_INCOMPAT_EXTENDED_L2;
    if (o->data_file)
        h->incompatible |= QCOW2_INCOMPAT_DATA_FILE;
    if (o->data_file_raw)
        h->autoclear |= QCOW2_AUTOCLEAR_DATA_RAW;
    if (o->lazy_refcounts)
        h->compatible |= QCOW2_COMPAT_LAZY;
    if (!l->encrypted)
        return;
    h->crypt_method = l->has_luks ? QCOW2_CRYPT_LUKS : QCOW2_CRYPT_AES;
    if (!l->has_luks)
        return;
    h->has_crypto = true;
    h->crypto_offset = l->luks_cluster << l->g.cluster_bits;
    h->crypto_length = luks_volume_bytes(&l->luks);
}

/* The file's length: the L1 table counts only as far as it has entries. */
static uint64_t file_length(const struct layout *l)
{
    uint64_t l1 = (l->l1_cluster << l->g.cluster_bits) + l->l1_size * 8;
    uint64_t l1_end = align_up(l1, l->g.cluster_size);
    uint64_t all = l->nb_clusters << l->g.cluster_bits;

    return all == l1_end && l->l1_size ? l1 : all;
}

/*
 * Space for @length bytes at @offset.  Mapped clusters show what the host has
 * there: a new file has zeroes, a device whatever was on it.
 */
static int preallocate(struct lam_io *io, uint64_t offset, uint64_t length,
                       enum lam_preallocation mode, struct lam_error *err)
{
    if (mode == LAM_PREALLOC_METADATA && !io->limits.is_block_device)
        return 0;
    return lam_io_preallocate(io, offset, length, mode, err);
}

/* Mapped clusters are there as a whole. */
static uint64_t data_end(const struct layout *l, enum lam_preallocation mode)
{
    return mode == LAM_PREALLOC_OFF ? l->size
                                    : align_up(l->size, l->g.cluster_size);
}

static int preallocate_all(struct lam_io *io, struct lam_io *data,
                           const struct layout *l, enum lam_preallocation mode,
                           struct lam_error *err)
{
    if (mode == LAM_PREALLOC_OFF)
        return 0;
    if (data)
        return preallocate(data, 0, data_end(l, mode), mode, err);
    if (!l->l1_size)
        return 0;
    /* With the tables that lie between, which are written afterwards. */
    uint64_t last = l->l1_size - 1, cs = l->g.cluster_size;
    uint64_t end = l->data[last] + div_up(l->size - last * l->g.l2_cover, cs);
    return preallocate(io, l->data[0] * cs, (end - l->data[0]) * cs, mode,
                       err);
}

static int write_all(struct lam_io *io, struct layout *l, uint64_t iter_time,
                     uint8_t *cluster, struct lam_error *err)
{
    int rc = write_blocks(io, l, cluster, err);

    if (rc == 0 && l->has_luks)
        rc = luks_volume_create(&l->luks, io,
                                l->luks_cluster << l->g.cluster_bits,
                                l->passphrase, iter_time, err);
    if (rc == 0)
        rc = write_table(io, l, l->blocks, l->nb_blocks,
                         l->reft_clusters << l->g.cluster_bits,
                         l->reft_cluster, 0, err);
    if (rc < 0)
        return rc;
    return l->l2 ? write_l2_tables(io, l, cluster, err)
                 : write_empty_l1(io, l, err);
}

static struct layout_demand plan_demand(const struct layout *l,
                                 enum lam_preallocation mode, bool data_file)
{
    uint64_t cs = l->g.cluster_size;
    bool mapped = mode != LAM_PREALLOC_OFF;

    return (struct layout_demand){
        .mode = mode,
        .l1 = div_up(l->l1_size * 8, cs),
        .luks = l->has_luks ? div_up(luks_volume_bytes(&l->luks), cs) : 0,
        .l2 = mapped ? l->l1_size : 0,
        .data = mapped && !data_file ? div_up(l->size, cs) : 0,
    };
}

static int create_image(struct lam_io *io, struct lam_io *data,
                        const struct lam_create_options *o, struct layout *l,
                        struct lam_error *err)
{
    struct qcow2_header header;
    lam_autofree uint8_t *cluster = malloc(l->g.cluster_size);
    lam_autofree uint8_t *first = malloc(l->g.cluster_size);

    if (!cluster || !first)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    enum lam_preallocation mode = o->preallocation;
    if (o->data_file_raw && mode == LAM_PREALLOC_OFF)
        mode = LAM_PREALLOC_METADATA;       /* its L2 entries have to exist */
    struct layout_demand demand = plan_demand(l, mode, data != NULL);
    int rc = layout_make(l, &demand, err);
    if (rc < 0)
        return rc;
    fill_header(l, o, &header);
    rc = header_encode(&header, first, l->g.cluster_size, err);
    if (rc == 0 && io->limits.can_grow)
        rc = lam_io_truncate(io, file_length(l), err);
    if (rc == 0 && data && data->limits.can_grow)
        rc = lam_io_truncate(data, data_end(l, mode), err);
    if (rc == 0)
        rc = preallocate_all(io, data, l, mode, err);
    if (rc == 0)
        rc = write_all(io, l, o->encryption.iter_time, cluster, err);
    /* The header last, behind a barrier: half a file is no image. */
    if (rc == 0)
        rc = lam_io_flush(io, err);
    return rc < 0 ? rc : lam_io_write(io, first, l->g.cluster_size, 0, err);
}

int qcow2_create(struct lam_io *io, struct lam_io *data,
                 const struct lam_create_options *options,
                 struct lam_error *err)
{
    struct layout l = { 0 };

    if (!options->data_file)
        data = NULL;
    int rc = check_options(options, data, err);
    if (rc == 0)
        rc = check_size(options, &l, err);
    if (rc == 0)
        rc = plan_encryption(options, &l, err);
    if (rc == 0)
        rc = create_image(io, data, options, &l, err);
    layout_deinit(&l);
    if (rc == 0 && data)
        rc = lam_io_flush(data, err);
    return rc < 0 ? rc : lam_io_flush(io, err);
}
