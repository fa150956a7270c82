/* SPDX-License-Identifier: MIT */
/*
 * snapshot-change.c - create, apply and delete internal snapshots (format
 * document 8.3 to 8.5), each as one bulk change.
 *
 * A snapshot keeps the L1 and L2 tables that were active, as they are, and the
 * active image gets copies of those that were written to since the last one:
 * that way the next writes there need no copy of a table first, and no table in
 * use is ever written over.
 */
#include "format/qcow2/snapshot.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "format/qcow2/bulk.h"

static int check_supported(const struct qcow2 *q, struct lam_error *err)
{
    if (q->data_file)
        return lam_fail(err, ENOTSUP, "an image with an external data file "
                        "has no internal snapshots");
    return 0;
}

int snapshot_check_l1(const struct qcow2 *q, const struct qcow2_snapshot *s,
                      struct lam_error *err)
{
    if (!is_aligned(s->l1_offset, q->g.cluster_size))
        return lam_fail(err, EUCLEAN, "snapshot '%s': L1 table offset %#" PRIx64
                        " is not a multiple of %" PRIu64, s->name,
                        s->l1_offset, q->g.cluster_size);
    if (s->l1_size > QCOW2_MAX_L1_ENTRIES)
        return lam_fail(err, EUCLEAN, "snapshot '%s': L1 table of %" PRIu32
                        " entries (limit: %d)", s->name, s->l1_size,
                        QCOW2_MAX_L1_ENTRIES);
    return 0;
}

/* ---------------------------------------------------------- the new table */

static int write_table(struct bulk *b, const uint8_t *table, size_t length,
                       struct lam_error *err)
{
    uint64_t cs = b->q->g.cluster_size, got;
    lam_autofree uint8_t *padded = calloc(1, align_up(length, cs));

    if (!padded)
        return lam_fail(err, ENOMEM, "no memory for a snapshot table");
    memcpy(padded, table, length);
    int rc = shadow_alloc(&b->refs, div_up(length, cs), true,
                          &b->snapshots_offset, &got, err);
    if (rc == 0)
        rc = lam_io_write(b->q->io, padded,
                          bulk_table_bytes(length, align_up(length, cs)),
                          b->snapshots_offset, err);
    return lam_error_prefix(err, rc, "Could not write snapshot table");
}

/* The table without entry @without and with @with instead of the old one. */
static int replace_table(struct bulk *b, const struct qcow2_snapshots *list,
                         size_t without, const struct qcow2_snapshot *with,
                         struct lam_error *err)
{
    const struct qcow2_header *h = &b->q->header;
    lam_autofree uint8_t *table = NULL;
    size_t length;

    int rc = snapshots_encode(b->q->io, h, list, without, with, &table,
                              &length, err);
    b->nb_snapshots = (uint32_t)(list->count - (without != SIZE_MAX) +
                                 (with != NULL));
    b->snapshots_offset = 0;
    if (rc == 0 && table)
        rc = write_table(b, table, length, err);
    if (rc == 0)
        rc = shadow_drop_table(&b->refs, h->snapshots_offset,
                               list->table_length, err);
    return rc;
}

/* Other L1 tables for all of them, in the order of the list. */
static void put_l1_offsets(uint8_t *table, size_t count,
                           const uint64_t *l1_offsets)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t length = SN_HEAD + be32_get(table + SN_EXTRA_LENGTH) +
                          be16_get(table + SN_ID_LENGTH) +
                          be16_get(table + SN_NAME_LENGTH);

        be64_put(table + SN_L1_OFFSET, l1_offsets[i]);
        table += align_up(length, 8);
    }
}

int snapshots_renew(struct bulk *b, const struct qcow2_snapshots *list,
                    const uint64_t *l1_offsets, struct lam_error *err)
{
    const struct qcow2_header *h = &b->q->header;
    lam_autofree uint8_t *table = NULL;
    size_t length;

    int rc = snapshots_encode(b->q->io, h, list, SIZE_MAX, NULL, &table,
                              &length, err);
    if (rc < 0 || !table)
        return rc;
    if (l1_offsets)
        put_l1_offsets(table, list->count, l1_offsets);
    rc = write_table(b, table, length, err);
    return rc < 0 ? rc : shadow_drop_table(&b->refs, h->snapshots_offset,
                                           list->table_length, err);
}

/* ----------------------------------------------------------------- create */

static int create_in(struct bulk *b, const struct qcow2_snapshots *list,
                     const char *name, struct lam_error *err)
{
    struct qcow2 *q = b->q;
    struct timespec now = { 0 };
    char id[24];

    int rc = snapshots_next_id(list, id, err);
    if (rc < 0)
        return rc;
    clock_gettime(CLOCK_REALTIME, &now);
    struct qcow2_snapshot s = {
        .l1_offset = q->header.l1_offset,
        .l1_size = (uint32_t)q->l1_size,
        .date_sec = (uint32_t)now.tv_sec,
        .date_nsec = (uint32_t)now.tv_nsec,
        .disk_size = q->size,
        .id = id,
        .name = (char *)name,
    };
    rc = bulk_copy_l1(b, q->l1, q->l1_size, err);
    if (rc == 0)
        rc = replace_table(b, list, SIZE_MAX, &s, err);
    return rc < 0 ? rc : bulk_commit(b, err);
}

static int qcow2_snapshot_create(void *format, const char *name,
                                 struct lam_error *err)
{
    struct qcow2 *q = format;
    struct qcow2_snapshots list = { 0 };
    struct bulk b;

    int rc = check_supported(q, err);
    if (rc < 0)
        return rc;
    if (strlen(name) > UINT16_MAX)
        return lam_fail(err, EINVAL, "snapshot name of %zu bytes (limit: %d)",
                        strlen(name), UINT16_MAX);
    rc = bulk_begin(&b, q, err);
    if (rc == 0)
        rc = snapshots_load(q->io, &q->header, &list, err);
    if (rc == 0)
        rc = create_in(&b, &list, name, err);
    snapshots_deinit(&list);
    bulk_end(&b);
    return rc;
}

/* ------------------------------------------------------------------ apply */

static int apply_in(struct bulk *b, const struct qcow2_snapshot *s,
                    struct lam_error *err)
{
    struct qcow2 *q = b->q;
    lam_autofree uint64_t *l1 = NULL;
    uint64_t old_offset = b->l1_offset;

    int rc = snapshot_check_l1(q, s, err);
    if (rc == 0 && s->l1_size < l1_needed(&q->g, s->disk_size))
        rc = lam_fail(err, EUCLEAN, "snapshot '%s': L1 table of %" PRIu32
                      " entries is too small for a disk of %" PRIu64 " bytes",
                      s->name, s->l1_size, s->disk_size);
    if (rc == 0)
        rc = bulk_load_l1(b, s->l1_offset, s->l1_size, &l1, err);
    if (rc == 0)
        rc = bulk_copy_l1(b, l1, s->l1_size, err);
    if (rc == 0)
        rc = bulk_drop_l1(b, q->l1, q->l1_size, old_offset, err);
    b->size = s->disk_size;
    return rc < 0 ? rc : bulk_commit(b, err);
}

static int qcow2_snapshot_apply(void *format, const char *id_or_name,
                                struct lam_error *err)
{
    struct qcow2 *q = format;
    struct qcow2_snapshots list = { 0 };
    const struct qcow2_snapshot *s = NULL;
    struct bulk b;

    int rc = check_supported(q, err);
    if (rc < 0)
        return rc;
    /* They would have to know what differs, and perhaps have another size. */
    if (q->bitmaps.count)
        return lam_fail(err, ENOTSUP, "Device has active dirty bitmaps");
    rc = bulk_begin(&b, q, err);
    if (rc == 0)
        rc = snapshots_load(q->io, &q->header, &list, err);
    if (rc == 0)
        s = snapshots_find(&list, id_or_name);
    if (s)
        rc = apply_in(&b, s, err);
    else if (rc == 0)
        rc = lam_fail(err, ENOENT, "Failed to load snapshot: No such file or "
                      "directory");
    snapshots_deinit(&list);
    bulk_end(&b);
    return rc;
}

/* ----------------------------------------------------------------- delete */

static int delete_in(struct bulk *b, const struct qcow2_snapshots *list,
                     size_t index, struct lam_error *err)
{
    const struct qcow2_snapshot *s = &list->items[index];

    int rc = snapshot_check_l1(b->q, s, err);
    if (rc == 0)
        rc = bulk_load_l1(b, s->l1_offset, s->l1_size, &b->dropped_l1, err);
    if (rc < 0)
        return rc;
    b->dropped_l1_size = s->l1_size;
    rc = bulk_drop_l1(b, b->dropped_l1, s->l1_size, s->l1_offset, err);
    if (rc == 0)
        rc = bulk_renew_copied(b, err);
    if (rc == 0)
        rc = replace_table(b, list, index, NULL, err);
    return rc < 0 ? rc : bulk_commit(b, err);
}

static size_t find_named(const struct qcow2_snapshots *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].name, name))
            return i;
    return SIZE_MAX;
}

static int qcow2_snapshot_delete(void *format, const char *name,
                                 struct lam_error *err)
{
    struct qcow2 *q = format;
    struct qcow2_snapshots list = { 0 };
    struct bulk b;

    int rc = bulk_begin(&b, q, err);
    if (rc == 0)
        rc = snapshots_load(q->io, &q->header, &list, err);
    size_t index = rc == 0 ? find_named(&list, name) : SIZE_MAX;
    if (index != SIZE_MAX)
        rc = check_supported(q, err);
    else if (rc == 0)
        rc = lam_fail(err, ENOENT, "snapshot not found");
    if (rc == 0)
        rc = delete_in(&b, &list, index, err);
    snapshots_deinit(&list);
    bulk_end(&b);
    return rc;
}

const struct format_snapshot_ops qcow2_snapshot_ops = {
    .create = qcow2_snapshot_create,
    .apply = qcow2_snapshot_apply,
    .remove = qcow2_snapshot_delete,
};
