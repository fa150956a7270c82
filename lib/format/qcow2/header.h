/* SPDX-License-Identifier: MIT */
/*
 * header.h - header and header extensions: decode, validate, encode (format
 * document 2).  Pure: bytes in, a struct out, and back to the same bytes.
 *
 * Decoding reads, validating judges; nothing reaches struct qcow2 before both.
 */
#ifndef LAM_QCOW2_HEADER_H
#define LAM_QCOW2_HEADER_H

#include "base/error.h"
#include "format/qcow2/geometry.h"

#define QCOW2_MAGIC UINT32_C(0x514649fb)

/* Offsets of the fields; every one big-endian (format document 2.1). */
enum {
    QH_MAGIC = 0,
    QH_VERSION = 4,
    QH_BACKING_OFFSET = 8,
    QH_BACKING_LENGTH = 16,
    QH_CLUSTER_BITS = 20,
    QH_SIZE = 24,
    QH_CRYPT_METHOD = 32,
    QH_L1_SIZE = 36,                /* entries; with QH_L1_OFFSET one write */
    QH_L1_OFFSET = 40,
    QH_REFT_OFFSET = 48,            /* with QH_REFT_CLUSTERS one write */
    QH_REFT_CLUSTERS = 56,
    QH_NB_SNAPSHOTS = 60,           /* with QH_SNAPSHOTS_OFFSET one write */
    QH_SNAPSHOTS_OFFSET = 64,
    QH_V2_LENGTH = 72,
    QH_INCOMPATIBLE = 72,
    QH_COMPATIBLE = 80,
    QH_AUTOCLEAR = 88,
    QH_REFCOUNT_ORDER = 96,
    QH_HEADER_LENGTH = 100,
    QH_V3_MIN_LENGTH = 104,
    QH_COMPRESSION_TYPE = 104,
    QH_V3_LENGTH = 112,             /* what we write */
};

#define QCOW2_INCOMPAT_DIRTY        (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT      (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE    (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2  (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN        UINT64_C(0x1f)
#define QCOW2_COMPAT_LAZY           (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS     (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW    (UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_KNOWN       UINT64_C(0x3)

/* An extension of ours, there only between two steps of writing a header: what
 * its data cover does not count. */
#define QCOW2_EXT_SKIP UINT32_C(0x4c414d53)

enum qcow2_compression { QCOW2_DEFLATE = 0, QCOW2_ZSTD = 1 };
enum qcow2_crypt { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };

/* A header extension that we do not know: kept, and written back. */
struct qcow2_unknown_extension {
    uint32_t type, length;
    uint8_t *data;
};

/* The header in native form.  Owns its strings and buffers. */
struct qcow2_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t size;                  /* as stored; the disk is rounded down
                                       to 512 */
    uint32_t crypt_method;
    uint32_t l1_size;               /* entries */
    uint64_t l1_offset;
    uint64_t reft_offset;
    uint32_t reft_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;   /* 0 in version 2 */
    uint32_t refcount_order;        /* 4 in version 2 */
    uint32_t header_length;         /* 72 in version 2 */
    uint8_t compression_type;

    uint64_t backing_offset;
    uint32_t backing_length;
    char *backing_file;             /* NULL: none */
    char *backing_format;           /* NULL: not recorded */
    char *data_file;                /* NULL: not recorded; to be ignored
                                       without QCOW2_INCOMPAT_DATA_FILE */

    bool has_bitmaps;               /* bitmaps extension */
    uint32_t nb_bitmaps;            /* only with header_has_bitmaps() */
    uint64_t bitmap_directory_size, bitmap_directory_offset;
    bool has_crypto;                /* encryption header pointer */
    uint64_t crypto_offset, crypto_length;
    bool has_feature_names;         /* write the feature name table */
    uint8_t *feature_names;         /* as read, n x 48 bytes; or NULL: ours */
    uint32_t feature_names_length;

    uint8_t *unknown_fields;        /* between 112 and header_length */
    uint32_t unknown_fields_length;
    struct qcow2_unknown_extension *unknown;
    size_t nb_unknown;
};

/*
 * Decode @buf, the first @length bytes of the file, of which the first cluster
 * counts: all of it that the file has, or what header_is_within().  Checks what
 * must hold to parse on: magic, version, cluster_bits, header_length, bounds of
 * extensions and names (format document 2.4, 2.5).
 * -EINVAL: not a qcow2 file; -EUCLEAN; -ENOTSUP: version; -ENOMEM.  @out is to
 * be freed with header_deinit() also after a failure.
 */
int header_decode(const uint8_t *buf, size_t length, struct qcow2_header *out,
                  struct lam_error *err);

/* Whether header, extensions and backing file name all lie in the first @length
 * bytes, as they do in a few hundred of nearly every image. */
bool header_is_within(const uint8_t *buf, size_t length);

/* Bytes header_decode() wants (the cluster size), from at least 24 bytes. */
int header_peek(const uint8_t *buf, size_t length, uint64_t *want,
                struct lam_error *err);

/*
 * Judge the values against each other, the format's limits and the file's
 * length (format document 2.6, 2.7): unknown incompatible bits are refused by
 * the name in the feature name table.  @for_check lets pass what `check`
 * reports itself.  @metadata_only lets pass what only I/O needs.
 */
int header_validate(const struct qcow2_header *h, uint64_t file_length,
                    bool for_check, bool metadata_only, struct lam_error *err);

/* Tables that the header names lie in the file, not at offset 0, and apart from
 * each other (format document 2.7). */
int header_validate_layout(const struct qcow2_header *h, uint64_t file_length,
                           struct lam_error *err);

/* What a writer asks on top: that, and the image is not marked corrupt. */
int header_validate_writable(const struct qcow2_header *h, uint64_t file_length,
                             struct lam_error *err);

/* The bitmaps extension is there and is consistent with the image; without the
 * autoclear bit it is dead weight (format document 9.2). */
static inline bool header_has_bitmaps(const struct qcow2_header *h)
{
    return h->has_bitmaps && (h->autoclear & QCOW2_AUTOCLEAR_BITMAPS);
}

/*
 * Encode into @buf, one cluster, zero-filled first.  Order of extensions as
 * the genuine tool writes them (format document 2.4).  -ENOSPC if header,
 * extensions and backing name do not fit.
 */
int header_encode(const struct qcow2_header *h, uint8_t *buf,
                  size_t cluster_size, struct lam_error *err);

void header_deinit(struct qcow2_header *h);

#endif
