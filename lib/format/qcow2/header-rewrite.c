/* SPDX-License-Identifier: MIT */
/*
 * header-rewrite.c - replace the whole first cluster: fields, extensions,
 * backing file name.
 *
 * Only one sector can be counted on to be written as a whole.  If more than one
 * changes, the new extensions and name are first written behind everything
 * that is in use; then the first sector, whose header_length says where
 * extensions begin and whose backing_offset says where the name is, points to
 * them, and that is the moment.  What lies in between counts as header fields
 * of a later version meanwhile; or in version 2, which has no header_length, as
 * the data of one extension that nobody knows.  At last they are written where
 * they belong and pointed to once more.
 */
#include "format/qcow2/qcow2.h"

#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"

enum { SECTOR = QCOW2_SECTOR, END_MARKER = 8 };

struct rewrite {
    struct qcow2 *q;
    uint8_t *old, *new;         /* clusters */
    uint64_t size;              /* of a cluster */
};

/* Behind the last byte in use and the end marker. */
static uint64_t used(const uint8_t *cluster, uint64_t size)
{
    while (size > 0 && !cluster[size - 1])
        size--;
    return align_up(size, 8) + END_MARKER;
}

static bool differs(const struct rewrite *r, uint64_t sector)
{
    return memcmp(r->old + sector, r->new + sector, SECTOR);
}

static int put(const struct rewrite *r, const uint8_t *from, uint64_t at,
               uint64_t length, struct lam_error *err)
{
    int rc = length ? lam_io_write(r->q->io, from, length, at, err) : 0;

    return rc < 0 ? rc : lam_io_flush(r->q->io, err);
}

/* From the second sector on, then the first. */
static int put_all(const struct rewrite *r, uint64_t end, struct lam_error *err)
{
    end = min_u64(align_up(end, SECTOR), r->size);
    int rc = end > SECTOR ? put(r, r->new + SECTOR, SECTOR, end - SECTOR, err)
                          : 0;

    return rc < 0 ? rc : put(r, r->new, 0, SECTOR, err);
}

/* The new header's fields and the old one's rest, pointing to @place. */
static void make_pointer(const struct rewrite *r, uint64_t start,
                         uint64_t place, uint8_t sector[SECTOR])
{
    uint64_t name = be64_get(r->new + QH_BACKING_OFFSET);

    memcpy(sector, r->old, SECTOR);
    memcpy(sector, r->new, min_u64(start, QH_V3_LENGTH));
    if (r->q->header.version >= 3) {
        be32_put(sector + QH_HEADER_LENGTH, (uint32_t)place);
    } else {
        be32_put(sector + QH_V2_LENGTH, QCOW2_EXT_SKIP);
        be32_put(sector + QH_V2_LENGTH + 4,
                 (uint32_t)(place - QH_V2_LENGTH - 8));
    }
    if (name)
        be64_put(sector + QH_BACKING_OFFSET, place + (name - start));
}

/* In steps that each are one sector or change nothing that is in use. */
static int put_in_steps(const struct rewrite *r, uint64_t start, uint64_t end,
                        uint64_t place, struct lam_error *err)
{
    uint64_t length = min_u64(align_up(end - start, SECTOR), r->size - place);
    lam_autofree uint8_t *copy = calloc(1, length);
    uint8_t sector[SECTOR];

    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for a header");
    memcpy(copy, r->new + start, end - start);
    int rc = put(r, copy, place, length, err);
    make_pointer(r, start, place, sector);
    if (rc == 0)
        rc = put(r, sector, 0, SECTOR, err);
    if (rc == 0)
        rc = put_all(r, place, err);
    memset(copy, 0, length);
    return rc < 0 ? rc : put(r, copy, place, length, err);
}

static int put_changed(const struct rewrite *r, struct lam_error *err)
{
    uint64_t start = r->q->header.version >= 3
                   ? be32_get(r->new + QH_HEADER_LENGTH) : QH_V2_LENGTH;
    uint64_t end = used(r->new, r->size);
    uint64_t place = align_up(max_u64(used(r->old, r->size), end), SECTOR);
    uint64_t count = 0, only = 0;

    for (uint64_t at = 0; at < r->size; at += SECTOR)
        if (differs(r, at)) {
            only = at;
            count++;
        }
    if (count < 2)
        return put(r, r->new + only, only, count * SECTOR, err);
    if (end > start && place + (end - start) <= r->size)
        return put_in_steps(r, start, end, place, err);
    /* No room: as the genuine tool does it. */
    return put_all(r, r->size, err);
}

int qcow2_rewrite_header(struct qcow2 *q, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    struct rewrite r = { .q = q, .size = q->g.cluster_size };
    lam_autofree uint8_t *old = buffer_new(r.size);
    lam_autofree uint8_t *new = buffer_new(r.size);

    if (!old || !new)
        return lam_fail(err, ENOMEM, "no memory for a header");
    r.old = old;
    r.new = new;
    int rc = header_encode(&q->header, new, r.size, err);
    if (rc == 0)
        rc = lam_io_read(q->io, old, r.size, 0, err);
    if (rc < 0)
        return rc;
    rc = put_changed(&r, &local);
    if (rc < 0) {
        qcow2_fail(q, &local);  /* what the disk has is unknown */
        return lam_fail(err, -rc, "Could not update qcow2 header: %s",
                        local.message);
    }
    q->header.backing_offset = be64_get(new + QH_BACKING_OFFSET);
    q->header.backing_length = be32_get(new + QH_BACKING_LENGTH);
    return 0;
}
