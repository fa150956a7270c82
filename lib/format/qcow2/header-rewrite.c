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
 *
 * Requests may go on meanwhile.  They change single fields under alloc_lock,
 * which is held while the first sector is written, with their values of that
 * moment, but not for the barriers between.
 */
#include "format/qcow2/qcow2.h"

#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"

enum { SECTOR = QCOW2_SECTOR, END_MARKER = 8 };

struct rewrite {
    struct qcow2 *q;
    bool live;                  /* requests go on: alloc_lock is not held */
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

static int put_first(const struct rewrite *r, uint8_t *sector,
                     struct lam_error *err)
{
    struct qcow2 *q = r->q;

    if (!r->live)
        return put(r, sector, 0, SECTOR, err);
    pthread_mutex_lock(&q->alloc_lock);
    qcow2_put_fields(&q->header, sector);
    int rc = lam_io_write(q->io, sector, SECTOR, 0, err);
    pthread_mutex_unlock(&q->alloc_lock);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

/* From the second sector on, then the first. */
static int put_all(const struct rewrite *r, uint64_t end, struct lam_error *err)
{
    end = min_u64(align_up(end, SECTOR), r->size);
    int rc = end > SECTOR ? put(r, r->new + SECTOR, SECTOR, end - SECTOR, err)
                          : 0;

    return rc < 0 ? rc : put_first(r, r->new, err);
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
        rc = put_first(r, sector, err);
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
    if (count == 1 && only == 0)
        return put_first(r, r->new, err);
    if (count < 2)
        return put(r, r->new + only, only, count * SECTOR, err);
    if (end > start && place + (end - start) <= r->size)
        return put_in_steps(r, start, end, place, err);
    /* No room: as the genuine tool does it. */
    return put_all(r, r->size, err);
}

/* What is there, and what @header makes of it. */
static int load(struct rewrite *r, const struct qcow2_header *header,
                struct lam_error *err)
{
    int rc = header_encode(header, r->new, r->size, err);

    return rc < 0 ? rc : lam_io_read(r->q->io, r->old, r->size, 0, err);
}

static int rewrite(struct qcow2 *q, struct qcow2_header *header, bool live,
                   struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    struct rewrite r = { .q = q, .live = live, .size = q->g.cluster_size };
    lam_autofree uint8_t *old = buffer_new(r.size);
    lam_autofree uint8_t *new = buffer_new(r.size);

    if (!old || !new)
        return lam_fail(err, ENOMEM, "no memory for a header");
    r.old = old;
    r.new = new;
    int rc = load(&r, header, err);
    if (rc < 0)
        return rc;
    rc = put_changed(&r, &local);
    if (rc < 0) {
        qcow2_fail(q, &local);  /* what the disk has is unknown */
        return lam_fail(err, -rc, "Could not update qcow2 header: %s",
                        local.message);
    }
    header->backing_offset = be64_get(new + QH_BACKING_OFFSET);
    header->backing_length = be32_get(new + QH_BACKING_LENGTH);
    return 0;
}

int qcow2_rewrite_header(struct qcow2 *q, struct lam_error *err)
{
    return rewrite(q, &q->header, false, err);
}

int qcow2_rewrite_names(struct qcow2 *q, char *name, char *format,
                        struct lam_error *err)
{
    pthread_mutex_lock(&q->alloc_lock);
    struct qcow2_header next = q->header;
    pthread_mutex_unlock(&q->alloc_lock);

    next.backing_file = name;
    next.backing_format = format;
    int rc = rewrite(q, &next, true, err);
    if (rc < 0)
        return rc;
    LAM_LOCKED(&q->alloc_lock);
    q->header.backing_offset = next.backing_offset;
    q->header.backing_length = next.backing_length;
    return 0;
}
