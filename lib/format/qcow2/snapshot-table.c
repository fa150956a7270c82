/* SPDX-License-Identifier: MIT */
/*
 * snapshot-table.c - the table of internal snapshots, as it is to be stored
 * (format document 8.1).
 */
#include "format/qcow2/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static void put_extra(const struct qcow2_snapshot *s, uint8_t *p)
{
    be64_put(p + SN_VM_STATE_64, s->vm_state_size);
    be64_put(p + SN_DISK_SIZE, s->disk_size);
    be64_put(p + SN_ICOUNT, s->icount);
}

/* Both strings are short enough for their length fields. */
static void put_new(const struct qcow2_snapshot *s, uint8_t *p)
{
    size_t id = strlen(s->id), name = strlen(s->name);

    assert(id <= UINT16_MAX && name <= UINT16_MAX);
    be64_put(p + SN_L1_OFFSET, s->l1_offset);
    be32_put(p + SN_L1_SIZE, s->l1_size);
    be16_put(p + SN_ID_LENGTH, (uint16_t)id);
    be16_put(p + SN_NAME_LENGTH, (uint16_t)name);
    be32_put(p + SN_DATE_SEC, s->date_sec);
    be32_put(p + SN_DATE_NSEC, s->date_nsec);
    be64_put(p + SN_VM_CLOCK, s->vm_clock_nsec);
    be32_put(p + SN_VM_STATE_32, s->vm_state_size > UINT32_MAX
                                     ? 0 : (uint32_t)s->vm_state_size);
    be32_put(p + SN_EXTRA_LENGTH, SN_EXTRA);
    put_extra(s, p);
    memcpy(p + SN_HEAD + SN_EXTRA, s->id, id);
    memcpy(p + SN_HEAD + SN_EXTRA + id, s->name, name);
}

/* Bytes of extra data that the entry is going to have. */
static uint32_t kept_extra(const struct qcow2_snapshot *s)
{
    if (s->extra_length < SN_EXTRA)
        return SN_EXTRA;
    return (uint32_t)min_u64(s->extra_length, QCOW2_MAX_SNAPSHOT_EXTRA);
}

/* @from is the entry as it was stored. */
static void put_kept(const struct qcow2_snapshot *s, const uint8_t *from,
                     uint8_t *p)
{
    size_t strings = SN_HEAD + s->extra_length;
    uint32_t extra = kept_extra(s);

    memcpy(p, from, SN_HEAD);
    be32_put(p + SN_EXTRA_LENGTH, extra);
    if (s->extra_length < SN_EXTRA)
        put_extra(s, p);
    else
        memcpy(p + SN_HEAD, from + SN_HEAD, extra);
    memcpy(p + SN_HEAD + extra, from + strings, s->stored_length - strings);
}

/* Bytes that the entry is going to take, without padding. */
static uint64_t kept_length(const struct qcow2_snapshot *s)
{
    return s->stored_length - s->extra_length + kept_extra(s);
}

static uint64_t new_length(const struct qcow2_snapshot *s)
{
    return SN_HEAD + SN_EXTRA + strlen(s->id) + strlen(s->name);
}

static int measure(const struct qcow2_snapshots *list, size_t without,
                   const struct qcow2_snapshot *with, size_t *length,
                   struct lam_error *err)
{
    size_t count = with != NULL;
    uint64_t end = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (i == without)
            continue;
        end = align_up(end, 8) + kept_length(&list->items[i]);
        count++;
    }
    if (with)
        end = align_up(end, 8) + new_length(with);
    *length = (size_t)end;
    if (count > QCOW2_MAX_SNAPSHOTS)
        return lam_fail(err, EFBIG, "an image has %d snapshots at most",
                        QCOW2_MAX_SNAPSHOTS);
    if (end > QCOW2_MAX_SNAPSHOT_TABLE)
        return lam_fail(err, EFBIG, "Snapshot table would take %" PRIu64
                        " bytes (limit: %d)", end, QCOW2_MAX_SNAPSHOT_TABLE);
    return 0;
}

static int read_stored(struct lam_io *io, const struct qcow2_header *h,
                       const struct qcow2_snapshots *list, uint8_t **out,
                       struct lam_error *err)
{
    size_t length = (size_t)list->table_length;
    lam_autofree uint8_t *stored = malloc(length ? length : 1);

    if (!stored)
        return lam_fail(err, ENOMEM, "no memory for a snapshot table of %zu "
                        "bytes", length);
    int rc = length ? lam_io_read(io, stored, length, h->snapshots_offset, err)
                    : 0;
    *out = rc < 0 ? NULL : lam_take(&stored);
    return rc;
}

int snapshots_encode(struct lam_io *io, const struct qcow2_header *h,
                     const struct qcow2_snapshots *list, size_t without,
                     const struct qcow2_snapshot *with, uint8_t **out,
                     size_t *length, struct lam_error *err)
{
    lam_autofree uint8_t *stored = NULL;
    int rc = measure(list, without, with, length, err);

    *out = NULL;
    if (rc == 0)
        rc = read_stored(io, h, list, &stored, err);
    if (rc < 0 || !*length)
        return rc;
    uint8_t *table = calloc(1, *length);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a snapshot table of %zu "
                        "bytes", *length);
    uint64_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct qcow2_snapshot *s = &list->items[i];

        if (i == without)
            continue;
        put_kept(s, stored + s->table_offset, table + at);
        at = align_up(at + kept_length(s), 8);
    }
    if (with)
        put_new(with, table + at);
    *out = table;
    return 0;
}

int snapshots_next_id(const struct qcow2_snapshots *list, char id[24],
                      struct lam_error *err)
{
    uint64_t highest = 0;

    for (size_t i = 0; i < list->count; i++)
        highest = max_u64(highest, strtoull(list->items[i].id, NULL, 10));
    if (highest == UINT64_MAX)
        return lam_fail(err, EOVERFLOW, "no snapshot id is left after %" PRIu64,
                        highest);
    snprintf(id, 24, "%" PRIu64, highest + 1);
    return 0;
}
