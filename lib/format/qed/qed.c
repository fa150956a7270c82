/* SPDX-License-Identifier: MIT */
/*
 * qed.c - QED images: two levels of tables, a backing file, nothing else.
 *
 * The header's need-check bit says that tables were changed without order.  We
 * write in order (tables.h), so we never set it, and clear it when a look at
 * all entries finds nothing wrong.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/tables/tables.h"
#include "format/values.h"

enum {                          /* every field little-endian */
    EH_MAGIC = 0,               /* "QED" and a zero */
    EH_CLUSTER = 4,             /* u32  bytes */
    EH_TABLE = 8,               /* u32  clusters */
    EH_HEADER = 12,             /* u32  clusters */
    EH_FEATURES = 16,           /* u64  QED_... */
    EH_COMPAT = 24,             /* u64 */
    EH_AUTOCLEAR = 32,          /* u64 */
    EH_L1_OFFSET = 40,          /* u64  bytes */
    EH_SIZE = 48,               /* u64  bytes, of the disk */
    EH_NAME_OFFSET = 56,        /* u32  bytes, inside the header */
    EH_NAME_SIZE = 60,          /* u32  bytes */
    EH_BYTES = 64,
};

enum { QED_BACKING = 1, QED_NEED_CHECK = 2, QED_RAW_BACKING = 4 };
enum { QED_KNOWN = QED_BACKING | QED_NEED_CHECK | QED_RAW_BACKING };
enum { ENTRY_IS_ZERO = 1, NAME_MAX_BYTES = 1023, TABLE_MAX = 16 };
static const uint64_t CLUSTER_MIN = 4096, CLUSTER_MAX = 64 * LAM_MIB;
static const uint64_t SIZE_MAX_BYTES = 64 * LAM_TIB;

struct qed {
    struct tables t;            /* first: see tables.h */
    uint8_t head[EH_BYTES];
    char *backing;              /* or NULL */
    uint64_t max_size;
};

static int qed_probe(const uint8_t *head, size_t length)
{
    return length >= EH_BYTES && !memcmp(head, "QED", 4) ? 100 : 0;
}

/* ------------------------------------------------------------ entries */

static struct entry decode(const struct tables *t, uint64_t raw)
{
    (void)t;
    return (struct entry){
        .kind = raw == 0 ? ENTRY_ABSENT
              : raw == ENTRY_IS_ZERO ? ENTRY_ZERO : ENTRY_DATA,
        .host = raw,
    };
}

static uint64_t encode(const struct tables *t, uint64_t host)
{
    (void)t;
    return host;
}

static uint64_t features(const struct qed *q)
{
    return le64_get(q->head + EH_FEATURES);
}

static int store_features(struct qed *q, uint64_t value, struct lam_error *err)
{
    le64_put(q->head + EH_FEATURES, value);
    le64_put(q->head + EH_AUTOCLEAR, 0);
    return lam_io_write(q->t.io, q->head, EH_BYTES, 0, err);
}

/* Bits that say what others have added go with the first change. */
static int begin_changes(struct tables *t, struct lam_error *err)
{
    struct qed *q = (struct qed *)t;

    if (!le64_get(q->head + EH_AUTOCLEAR) && !(features(q) & QED_NEED_CHECK))
        return 0;
    int rc = store_features(q, features(q) & ~(uint64_t)QED_NEED_CHECK, err);
    return rc < 0 ? rc : lam_io_flush(t->io, err);
}

static const struct tables_layout layout = {
    .name = "qed",
    .entry_bytes = 8,
    .has_zero = true,
    .zero = ENTRY_IS_ZERO,
    .holes_fragment = true,
    .whole_clusters = true,
    .strict_places = true,
    .decode = decode,
    .encode = encode,
    .begin_changes = begin_changes,
};

/* ------------------------------------------------------------ opening */

static bool features_unknown(const uint8_t *head)
{
    return le64_get(head + EH_FEATURES) & ~(uint64_t)QED_KNOWN;
}

static int check_sizes(const uint8_t *head, struct lam_error *err)
{
    uint64_t cluster = le32_get(head + EH_CLUSTER);
    uint64_t table = le32_get(head + EH_TABLE);
    uint64_t header = le32_get(head + EH_HEADER);

    if (!qed_probe(head, EH_BYTES))
        return lam_fail(err, EINVAL, "Image not in QED format");
    if (features_unknown(head))
        return lam_fail(err, ENOTSUP, "Unsupported QED features: %" PRIx64,
                        le64_get(head + EH_FEATURES) & ~(uint64_t)QED_KNOWN);
    if (!is_power_of_two(cluster) || cluster < CLUSTER_MIN ||
        cluster > CLUSTER_MAX)
        return lam_fail(err, EUCLEAN, "qed: cluster size %" PRIu64 " (must be a"
                        " power of two from 4096 to 64 MiB)", cluster);
    if (!is_power_of_two(table) || table > TABLE_MAX)
        return lam_fail(err, EUCLEAN, "qed: table size of %" PRIu64 " clusters "
                        "(must be a power of two from 1 to 16)", table);
    if (header == 0 || header > INT32_MAX)
        return lam_fail(err, EUCLEAN, "qed: header of %" PRIu64 " clusters",
                        header);
    return 0;
}

static uint64_t table_entries(const uint8_t *head)
{
    return (uint64_t)le32_get(head + EH_TABLE) * le32_get(head + EH_CLUSTER) /
           8;
}

/* What L1 and L2 tables reach, at most. */
static uint64_t reach(const uint8_t *head)
{
    uint64_t entries = table_entries(head), bytes;

    return mul_overflows(entries, entries, &bytes) ||
           mul_overflows(bytes, le32_get(head + EH_CLUSTER), &bytes)
        ? SIZE_MAX_BYTES : min_u64(bytes, SIZE_MAX_BYTES);
}

static int check_places(struct qed *q, uint64_t length, struct lam_error *err)
{
    uint64_t cluster = le32_get(q->head + EH_CLUSTER);
    uint64_t l1 = le64_get(q->head + EH_L1_OFFSET);
    uint64_t size = le64_get(q->head + EH_SIZE);
    uint64_t header = le32_get(q->head + EH_HEADER) * cluster;

    q->max_size = reach(q->head);
    if (size % 512 || size > q->max_size)
        return lam_fail(err, EUCLEAN, "qed: disk size %" PRIu64 " (must be a "
                        "multiple of 512, limit: %" PRIu64 ")", size,
                        q->max_size);
    if (!is_aligned(l1, cluster) || l1 < header ||
        !range_fits(l1, table_entries(q->head) * 8, length))
        return lam_fail(err, EUCLEAN, "qed: L1 table offset %" PRIu64 " (must "
                        "be a multiple of %" PRIu64 " between the header and "
                        "the end of the file)", l1, cluster);
    return 0;
}

static int load_name(struct qed *q, uint64_t length, struct lam_error *err)
{
    uint64_t start = le32_get(q->head + EH_NAME_OFFSET);
    uint64_t bytes = le32_get(q->head + EH_NAME_SIZE);
    uint64_t header = (uint64_t)le32_get(q->head + EH_HEADER) *
                      le32_get(q->head + EH_CLUSTER);

    if (!(features(q) & QED_BACKING))
        return 0;
    if (bytes > NAME_MAX_BYTES || start < EH_BYTES ||
        !range_fits(start, bytes, min_u64(header, length)))
        return lam_fail(err, EUCLEAN, "qed: backing file name of %" PRIu64
                        " bytes at offset %" PRIu64 " (limit: %d, inside the "
                        "header)", bytes, start, NAME_MAX_BYTES);
    q->backing = calloc(1, bytes + 1);
    if (!q->backing)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    int rc = bytes ? lam_io_read(q->t.io, q->backing, bytes, start, err) : 0;
    return rc < 0 || strlen(q->backing) == bytes ? rc
        : lam_fail(err, EUCLEAN, "qed: backing file name with a zero byte");
}

static int look_before_writing(struct qed *q, struct lam_error *err)
{
    struct lam_check_result result = { 0 };
    int rc = tables_check(&q->t, NULL, NULL, &result, err);

    if (rc == 0 && result.corruptions)
        rc = lam_fail(err, EUCLEAN, "qed: the image was not closed correctly, "
                      "and %" PRIu64 " entries are wrong", result.corruptions);
    return rc;
}

static int open_into(struct qed *q, const struct format_open *o,
                     struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(o->io, &length, err);

    memset(q->head, 0, EH_BYTES);
    if (rc == 0)
        rc = lam_io_read(o->io, q->head, min_u64(length, EH_BYTES), 0, err);
    if (rc == 0)
        rc = check_sizes(q->head, err);
    if (rc == 0)
        rc = check_places(q, length, err);
    if (rc == 0)
        rc = load_name(q, length, err);
    if (rc < 0)
        return rc;
    struct tables *t = &q->t;
    t->size = le64_get(q->head + EH_SIZE);
    t->cluster = le32_get(q->head + EH_CLUSTER);
    t->is_two_level = true;
    t->table_offset = le64_get(q->head + EH_L1_OFFSET);
    t->table_entries = table_entries(q->head);
    t->data_start = le32_get(q->head + EH_HEADER) * t->cluster;
    t->has_backing = q->backing != NULL;
    return 0;
}

static int qed_open(const struct format_open *o, void **format,
                    struct lam_error *err)
{
    lam_autofree struct qed *q = calloc(1, sizeof *q);

    if (!q)
        return lam_fail(err, ENOMEM, "no memory for a QED image");
    q->t.io = o->io;
    q->t.layout = &layout;
    q->t.writable = o->writable;
    q->t.for_check = o->for_check;
    int rc = open_into(q, o, err);
    if (rc == 0) {
        rc = tables_init(&q->t, err);
        if (rc == 0 && o->writable && !o->for_check &&
            features(q) & QED_NEED_CHECK)
            rc = look_before_writing(q, err);
        if (rc < 0)
            tables_deinit(&q->t);
    }
    if (rc < 0)
        free(q->backing);
    else
        *format = lam_take(&q);
    return rc;
}

static int qed_close(void *format, struct lam_error *err)
{
    struct qed *q = format;
    int rc = tables_close(&q->t, err);

    free(q->backing);
    free(q);
    return rc;
}

/* ------------------------------------------------------------ the rest */

static void qed_links(void *format, struct format_links *links)
{
    struct qed *q = format;

    *links = (struct format_links){
        .backing_file = q->backing,
        .backing_format = q->backing && features(q) & QED_RAW_BACKING ? "raw"
                                                                      : NULL,
    };
}

static int qed_check(void *format, lam_finding_fn *finding, void *opaque,
                     struct lam_check_result *out, struct lam_error *err)
{
    struct qed *q = format;
    int rc = tables_check(&q->t, finding, opaque, out, err);

    out->image_end_offset = 0;      /* is not told for this format */
    return rc;
}

/* Entries that point outside the file, and the mark.  Space that leaked stays,
 * since entries have no counters, and so does what two of them share: nobody
 * knows whose it is. */
static int qed_repair(void *format, unsigned what, lam_finding_fn *finding,
                      void *opaque, struct lam_check_result *out,
                      struct lam_error *err)
{
    struct qed *q = format;
    int rc = what & LAM_REPAIR_ERRORS
        ? tables_repair(&q->t, finding, opaque, out, err)
        : tables_check(&q->t, finding, opaque, out, err);

    out->image_end_offset = 0;
    if (rc == 0 && out->corruptions_fixed)
        rc = tables_flush(&q->t, err);
    if (rc < 0 || out->corruptions || !(what & LAM_REPAIR_ERRORS) ||
        !(features(q) & QED_NEED_CHECK))
        return rc;
    return tables_begin_changes(&q->t, err);
}

static int qed_truncate(void *format, const struct format_resize *to,
                        struct lam_error *err)
{
    static const char *const modes[] = { "off", "metadata", "falloc", "full" };
    struct qed *q = format;
    uint64_t size = to->size, below_end = to->below_end;

    if (to->preallocation != LAM_PREALLOC_OFF)
        return lam_fail(err, ENOTSUP, "Unsupported preallocation mode '%s'",
                        modes[to->preallocation]);
    if (size < q->t.size)
        return lam_fail(err, ENOTSUP, "Shrinking images is currently not "
                        "supported");
    if (size > q->max_size)
        return lam_fail(err, EINVAL, "Invalid image size specified: %" PRIu64
                        " (limit: %" PRIu64 ")", size, q->max_size);
    uint64_t old = q->t.size, first = align_up(old, q->t.cluster);
    int rc = tables_begin_changes(&q->t, err);
    if (rc == 0)
        rc = tables_grow(&q->t, size, err);
    if (rc == 0 && below_end > first && size > first)
        rc = tables_zero(&q->t, first, min_u64(below_end, size) - first, 0,
                         err);
    if (rc == 0)
        rc = tables_flush(&q->t, err);
    if (rc < 0)
        return rc;
    le64_put(q->head + EH_SIZE, size);
    rc = lam_io_write(q->t.io, q->head, EH_BYTES, 0, err);
    return rc < 0 ? rc : lam_io_flush(q->t.io, err);
}

/* ------------------------------------------------------------ names */

/* Header and name, as one write. */
static int encode_name(uint8_t *head, const char *name, const char *format,
                       uint64_t header, struct lam_error *err)
{
    size_t length = name ? strlen(name) : 0;
    uint64_t bits = le64_get(head + EH_FEATURES) &
                    ~(uint64_t)(QED_BACKING | QED_RAW_BACKING);

    if (length > NAME_MAX_BYTES || EH_BYTES + length > header)
        return lam_fail(err, EINVAL, "backing file name of %zu bytes (limit: "
                        "%d)", length, NAME_MAX_BYTES);
    if (name)
        bits |= QED_BACKING;
    if (name && format && !strcmp(format, "raw"))
        bits |= QED_RAW_BACKING;
    le64_put(head + EH_FEATURES, bits);
    le32_put(head + EH_NAME_OFFSET, name ? EH_BYTES : 0);
    le32_put(head + EH_NAME_SIZE, (uint32_t)length);
    if (name)
        memcpy(head + EH_BYTES, name, length);
    return 0;
}

static int qed_set_backing(void *format, const char *name,
                           const char *backing_format, struct lam_error *err)
{
    struct qed *q = format;
    uint8_t head[EH_BYTES + NAME_MAX_BYTES + 1] = { 0 };
    char *copy = name ? strdup(name) : NULL;

    if (name && !copy)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    memcpy(head, q->head, EH_BYTES);
    int rc = encode_name(head, name, backing_format, q->t.data_start, err);
    if (rc == 0)
        rc = tables_flush(&q->t, err);
    if (rc == 0)
        rc = lam_io_write(q->t.io, head, EH_BYTES + (name ? strlen(name) : 0),
                          0, err);
    if (rc == 0)
        rc = lam_io_flush(q->t.io, err);
    if (rc < 0) {
        free(copy);
        return rc;
    }
    memcpy(q->head, head, EH_BYTES);
    free(q->backing);
    q->backing = copy;
    q->t.has_backing = copy != NULL;
    return 0;
}

static void qed_expect_backing(void *format, bool expected)
{
    struct qed *q = format;

    q->t.has_backing = expected || q->backing;
}

/* ------------------------------------------------------------ creating */

static int plan_new(const struct lam_create_options *options, uint8_t *head,
                    struct lam_error *err)
{
    uint64_t cluster, table;
    uint64_t size = align_up(options->size, 512);
    int rc = option_size(options, "cluster_size", 65536, &cluster, err);

    if (rc == 0)
        rc = option_size(options, "table_size", 4, &table, err);
    if (rc < 0)
        return rc;
    if (!is_power_of_two(cluster) || cluster < CLUSTER_MIN ||
        cluster > CLUSTER_MAX)
        return lam_fail(err, EINVAL, "QED cluster size must be within range "
                        "[4096, 67108864] and power of 2");
    if (!is_power_of_two(table) || table > TABLE_MAX)
        return lam_fail(err, EINVAL, "QED table size must be within range [1, "
                        "16] and power of 2");
    memcpy(head, "QED", 4);
    le32_put(head + EH_CLUSTER, (uint32_t)cluster);
    le32_put(head + EH_TABLE, (uint32_t)table);
    le32_put(head + EH_HEADER, 1);
    le64_put(head + EH_L1_OFFSET, cluster);
    le64_put(head + EH_SIZE, size);
    if (size > reach(head))
        return lam_fail(err, EINVAL, "QED image size must be a non-zero "
                        "multiple of cluster size and less than %" PRIu64
                        " bytes", reach(head));
    return encode_name(head, options->backing_file, options->backing_format,
                       cluster, err);
}

static int qed_create(struct lam_io *io, struct lam_io *data,
                      const struct lam_create_options *options,
                      struct lam_error *err)
{
    uint8_t head[EH_BYTES + NAME_MAX_BYTES + 1] = { 0 };
    int rc = plan_new(options, head, err);

    (void)data;
    if (rc < 0)
        return rc;
    uint64_t cluster = le32_get(head + EH_CLUSTER);
    uint64_t end = cluster + le32_get(head + EH_TABLE) * cluster;
    rc = lam_io_truncate(io, end, err);
    if (rc == 0 && io->limits.is_block_device)
        rc = lam_io_zero(io, 0, end, 0, err);
    return rc < 0 ? rc : lam_io_write(io, head, sizeof head, 0, err);
}

static const struct lam_option_info create_options[] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "backing_file", LAM_OPTION_TEXT, NULL, "File name of a base image" },
    { "backing_fmt", LAM_OPTION_TEXT, NULL, "Image format of the base image" },
    { "cluster_size", LAM_OPTION_SIZE, "65536", "Cluster size (in bytes)" },
    { "table_size", LAM_OPTION_SIZE, NULL, "L1/L2 table size (in clusters)" },
};

const struct format_ops format_qed = {
    .name = "qed",
    TABLES_OPS,
    .can_have_backing = true,
    .options = create_options,
    .nb_options = LAM_ARRAY_SIZE(create_options),
    .probe = qed_probe,
    .open = qed_open,
    .close = qed_close,
    .set_writable = tables_set_writable,
    .links = qed_links,
    .truncate = qed_truncate,
    .set_backing = qed_set_backing,
    .expect_backing = qed_expect_backing,
    .check = qed_check,
    .repair = qed_repair,
    .create = qed_create,
};
