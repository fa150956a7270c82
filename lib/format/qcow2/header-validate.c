/* SPDX-License-Identifier: MIT */
/*
 * header-validate.c - judge a decoded header (format document 2.6, 2.7): its
 * values against each other, against the format's limits and against the
 * length of the file.
 */
#include "format/qcow2/header.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FEATURE_ENTRY = 48, FEATURE_TEXT = 46 };

/* ---------------------------------------------------------------- features */

/* The name that the image's table gives incompatible bit @bit, or NULL; not
 * terminated if it is FEATURE_TEXT bytes long. */
static const char *feature_name(const struct qcow2_header *h, unsigned bit)
{
    for (uint32_t at = 0; h->feature_names_length - at >= FEATURE_ENTRY;
         at += FEATURE_ENTRY) {
        const uint8_t *p = h->feature_names + at;

        if (p[0] == 0 && p[1] == bit && p[2])
            return (const char *)p + 2;
    }
    return NULL;
}

/* Known by name where the image names them, else by their mask. */
static int refuse_features(const struct qcow2_header *h, uint64_t unknown,
                           struct lam_error *err)
{
    char text[512] = "";
    size_t used = 0;
    uint64_t unnamed = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1))
            continue;
        const char *name = feature_name(h, bit);
        if (!name || used + FEATURE_TEXT + 3 > sizeof text) {
            unnamed |= UINT64_C(1) << bit;
            continue;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s",
                                 used ? ", " : "", FEATURE_TEXT, name);
    }
    if (unnamed && used)
        return lam_fail(err, ENOTSUP, "Unsupported qcow2 feature(s): %s, "
                        "Unknown incompatible feature: %" PRIx64, text,
                        unnamed);
    if (unnamed)
        return lam_fail(err, ENOTSUP, "Unsupported qcow2 feature(s): "
                        "Unknown incompatible feature: %" PRIx64, unnamed);
    return lam_fail(err, ENOTSUP, "Unsupported qcow2 feature(s): %s", text);
}

static int validate_compression(const struct qcow2_header *h,
                                struct lam_error *err)
{
    bool bit = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;

    if (bit && h->compression_type == QCOW2_DEFLATE)
        return lam_fail(err, EUCLEAN, "Compression type incompatible feature "
                        "bit must not be set with compression type 0");
    if (!bit && h->compression_type != QCOW2_DEFLATE)
        return lam_fail(err, EUCLEAN, "Compression type incompatible feature "
                        "bit must be set with compression type %u",
                        h->compression_type);
    if (h->compression_type > QCOW2_ZSTD)
        return lam_fail(err, ENOTSUP, "qcow2: unknown compression type: %u",
                        h->compression_type);
    return 0;
}

static int validate_features(const struct qcow2_header *h, bool metadata_only,
                             struct lam_error *err)
{
    uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;

    if (unknown)
        return refuse_features(h, unknown, err);
    int rc = validate_compression(h, err);
    if (rc < 0)
        return rc;
    if ((h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) &&
        h->cluster_bits < QCOW2_MIN_CLUSTER_BITS_EXTENDED)
        return lam_fail(err, EUCLEAN, "Subclusters of %u bytes are too small "
                        "(cluster_bits is %" PRIu32 ", extended L2 entries "
                        "need %d)", (1u << h->cluster_bits) / QCOW2_SUBCLUSTERS,
                        h->cluster_bits, QCOW2_MIN_CLUSTER_BITS_EXTENDED);
    if (!metadata_only && (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW) &&
        !(h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return lam_fail(err, EUCLEAN, "data-file-raw requires a data file: "
                        "autoclear bit 1 is set, incompatible bit 2 is not");
    return 0;
}

/* ------------------------------------------------------------------ tables */

struct table {
    const char *name;
    uint64_t offset, length;
};

static int validate_place(const struct qcow2_header *h, const struct table *t,
                          struct lam_error *err)
{
    uint64_t end;

    if (!is_aligned(t->offset, UINT64_C(1) << h->cluster_bits))
        return lam_fail(err, EUCLEAN, "%s offset invalid: %#" PRIx64 " is not "
                        "a multiple of the cluster size", t->name, t->offset);
    if (add_overflows(t->offset, t->length, &end) || end > INT64_MAX)
        return lam_fail(err, EUCLEAN, "%s offset invalid: %#" PRIx64 " plus %"
                        PRIu64 " bytes is beyond 2^63", t->name, t->offset,
                        t->length);
    return 0;
}

static int validate_crypt(const struct qcow2_header *h, struct lam_error *err)
{
    if (h->crypt_method > QCOW2_CRYPT_LUKS)
        return lam_fail(err, ENOTSUP, "Unsupported encryption method %" PRIu32,
                        h->crypt_method);
    if (h->crypt_method != QCOW2_CRYPT_LUKS)
        return 0;
    if (!h->has_crypto)
        return lam_fail(err, EUCLEAN, "Missing CRYPTO header for crypt method "
                        "%d", QCOW2_CRYPT_LUKS);
    return validate_place(h, &(struct table){ "Encryption header",
                          h->crypto_offset, h->crypto_length }, err);
}

/* Tables inside the file, which may end in the middle of a cluster. */
static int validate_presence(const struct qcow2_header *h,
                             const struct table *t, uint64_t file_length,
                             struct lam_error *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;

    if (!t->length)
        return 0;
    if (!t->offset)
        return lam_fail(err, EUCLEAN, "%s offset is 0, where the header lies",
                        t->name);
    if (t->offset + t->length > align_up(min_u64(file_length, INT64_MAX), cs))
        return lam_fail(err, EUCLEAN, "%s at %#" PRIx64 " (%" PRIu64 " bytes) "
                        "passes the end of the file at %#" PRIx64, t->name,
                        t->offset, t->length, file_length);
    return 0;
}

/* Entries that are not there are zeroes, to every program; half an entry names
 * another table or none, and what was behind it would read as zeroes. */
static int validate_l1_presence(const struct qcow2_header *h,
                                uint64_t file_length, struct lam_error *err)
{
    const struct table l1 = { "Active L1 table", h->l1_offset,
                              (uint64_t)h->l1_size * 8 };
    int rc = validate_presence(h, &l1, file_length, err);

    if (rc < 0 || l1.offset + l1.length <= file_length ||
        (file_length - l1.offset) % 8 == 0)
        return rc;
    return lam_fail(err, EUCLEAN, "%s at %#" PRIx64 ": the file ends at %#"
                    PRIx64 ", inside entry %" PRIu64, l1.name, l1.offset,
                    file_length, (file_length - l1.offset) / 8);
}

static int validate_refcount_table(const struct qcow2_header *h, bool for_check,
                                   struct lam_error *err)
{
    uint64_t length = (uint64_t)h->reft_clusters << h->cluster_bits;

    if (h->refcount_order > 6)
        return lam_fail(err, EUCLEAN, "Reference count entry width too large: "
                        "2^%" PRIu32 " bits (may not exceed 64 bits)",
                        h->refcount_order);
    if (!h->reft_clusters && !for_check)
        return lam_fail(err, EUCLEAN, "Image does not contain a reference "
                        "count table");
    if (length > QCOW2_MAX_REFCOUNT_TABLE)
        return lam_fail(err, EUCLEAN, "Reference count table too large: %"
                        PRIu64 " bytes (limit: %d)", length,
                        QCOW2_MAX_REFCOUNT_TABLE);
    return validate_place(h, &(struct table){ "Reference count table",
                          h->reft_offset, length }, err);
}

static int validate_snapshot_table(const struct qcow2_header *h, bool for_check,
                                   struct lam_error *err)
{
    enum { SMALLEST_ENTRY = 40 };

    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS && !for_check)
        return lam_fail(err, EUCLEAN, "Snapshot table too large: %" PRIu32
                        " snapshots (limit: %d)", h->nb_snapshots,
                        QCOW2_MAX_SNAPSHOTS);
    return validate_place(h, &(struct table){ "Snapshot table",
                          h->snapshots_offset,
                          (uint64_t)h->nb_snapshots * SMALLEST_ENTRY }, err);
}

static int validate_l1_table(const struct qcow2_header *h,
                             struct lam_error *err)
{
    struct qcow2_geometry g =
        qcow2_geometry_make(h->cluster_bits, h->refcount_order,
                            h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    uint64_t needed = l1_needed(&g, h->size);

    if (h->l1_size > QCOW2_MAX_L1_ENTRIES)
        return lam_fail(err, EFBIG, "Active L1 table too large: %" PRIu32
                        " entries (limit: %d)", h->l1_size,
                        QCOW2_MAX_L1_ENTRIES);
    int rc = validate_place(h, &(struct table){ "Active L1 table", h->l1_offset,
                            (uint64_t)h->l1_size * 8 }, err);
    if (rc < 0)
        return rc;
    if (h->size > INT64_MAX || needed > QCOW2_MAX_L1_ENTRIES)
        return lam_fail(err, EFBIG, "Image is too big: %" PRIu64 " bytes "
                        "(limit: %" PRIu64 ")", h->size,
                        QCOW2_MAX_L1_ENTRIES * g.l2_cover);
    if (h->l1_size < needed)
        return lam_fail(err, EUCLEAN, "L1 table is too small: %" PRIu32
                        " entries (a disk of %" PRIu64 " bytes needs %" PRIu64
                        ")", h->l1_size, h->size, needed);
    return 0;
}

/* The extension means something only while the autoclear bit is set. */
static int validate_bitmaps(const struct qcow2_header *h, struct lam_error *err)
{
    const uint64_t limit = UINT64_C(1024) * QCOW2_MAX_BITMAPS;

    if (!header_has_bitmaps(h))
        return 0;
    if (!h->nb_bitmaps || h->nb_bitmaps > QCOW2_MAX_BITMAPS)
        return lam_fail(err, EUCLEAN, "bitmaps_ext: %" PRIu32 " bitmaps "
                        "(limits: 1 to %d)", h->nb_bitmaps, QCOW2_MAX_BITMAPS);
    if (h->bitmap_directory_size > limit)
        return lam_fail(err, EUCLEAN, "bitmaps_ext: bitmap directory size (%"
                        PRIu64 ") exceeds the maximum supported size (%" PRIu64
                        ")", h->bitmap_directory_size, limit);
    return validate_place(h, &(struct table){ "bitmaps_ext: bitmap directory",
                          h->bitmap_directory_offset,
                          h->bitmap_directory_size }, err);
}

int header_validate(const struct qcow2_header *h, uint64_t file_length,
                    bool for_check, bool metadata_only, struct lam_error *err)
{
    int rc = validate_features(h, metadata_only, err);

    if (rc == 0)
        rc = validate_crypt(h, err);
    if (rc == 0)
        rc = validate_refcount_table(h, for_check, err);
    if (rc == 0)
        rc = validate_snapshot_table(h, for_check, err);
    if (rc == 0)
        rc = validate_l1_table(h, err);
    if (rc == 0)
        rc = validate_bitmaps(h, err);
    if (rc < 0 || for_check || metadata_only)
        return rc;
    return validate_l1_presence(h, file_length, err);
}

int header_validate_layout(const struct qcow2_header *h, uint64_t file_length,
                           struct lam_error *err)
{
    const uint64_t cs = UINT64_C(1) << h->cluster_bits;
    const struct table tables[] = {
        { "Header", 0, cs },
        { "Active L1 table", h->l1_offset, (uint64_t)h->l1_size * 8 },
        { "Reference count table", h->reft_offset, h->reft_clusters * cs },
        { "Snapshot table", h->snapshots_offset,
          (uint64_t)h->nb_snapshots * 40 },
        { "Bitmap directory", h->bitmap_directory_offset,
          header_has_bitmaps(h) ? h->bitmap_directory_size : 0 },
        { "Encryption header", h->crypto_offset,
          h->has_crypto ? h->crypto_length : 0 },
    };

    int rc = validate_l1_presence(h, file_length, err);
    if (rc < 0)
        return rc;
    for (size_t i = 1; i < LAM_ARRAY_SIZE(tables); i++) {
        rc = validate_presence(h, &tables[i], file_length, err);
        if (rc < 0)
            return rc;
        for (size_t j = 0; j < i && tables[i].length; j++) {
            uint64_t end = align_up(tables[j].offset + tables[j].length, cs);

            if (tables[j].length && tables[i].offset < end &&
                tables[j].offset < tables[i].offset + tables[i].length)
                return lam_fail(err, EUCLEAN, "%s at %#" PRIx64 " overlaps %s "
                                "at %#" PRIx64, tables[i].name,
                                tables[i].offset, tables[j].name,
                                tables[j].offset);
        }
    }
    return 0;
}

int header_validate_writable(const struct qcow2_header *h, uint64_t file_length,
                             struct lam_error *err)
{
    if (h->incompatible & QCOW2_INCOMPAT_CORRUPT)
        return lam_fail(err, EACCES, "qcow2: Image is corrupt; cannot be "
                        "opened read/write");
    return header_validate_layout(h, file_length, err);
}
