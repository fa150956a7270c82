/* SPDX-License-Identifier: MIT */
/*
 * resize.c - another virtual size; growing (format document 13).
 *
 * The size field comes last: whoever makes the new area read as zeroes (what a
 * longer backing file would show of it, the rest of a cut last cluster) has
 * done so on disk before.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/encrypt.h"
#include "format/qcow2/release.h"
#include "format/qcow2/resize.h"
#include "format/qcow2/shrink.h"

/* ------------------------------------------------------------ a larger L1 */

static int write_l1(struct qcow2 *q, const uint64_t *l1, uint64_t entries,
                    uint64_t host, struct lam_error *err)
{
    uint64_t bytes = entries * 8;
    lam_autofree uint8_t *buf = malloc(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    for (uint64_t i = 0; i < entries; i++)
        be64_put(buf + i * 8, l1[i]);
    lam_io_event(q->io, IO_EVENT_L1_GROW_WRITE_TABLE);
    int rc = lam_io_write(q->io, buf, bytes, host, err);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

static int switch_l1(struct qcow2 *q, uint64_t host, uint64_t entries,
                     struct lam_error *err)
{
    lam_io_event(q->io, IO_EVENT_L1_GROW_ACTIVATE_TABLE);
    pthread_rwlock_wrlock(&q->lock);    /* l2_check_entry() looks there */
    q->header.l1_offset = host;
    q->header.l1_size = (uint32_t)entries;
    pthread_rwlock_unlock(&q->lock);
    return qcow2_switch_header(q, QH_L1_SIZE, QH_REFT_OFFSET, err);
}

static void replace_l1(struct qcow2 *q, uint64_t *l1, uint64_t entries)
{
    pthread_rwlock_wrlock(&q->lock);
    free(q->l1);
    q->l1 = l1;
    q->l1_size = entries;
    pthread_rwlock_unlock(&q->lock);
}

/* Write-backs are kept out, and alloc_lock is held: L1 stands still. */
static int grow_l1(struct qcow2 *q, uint64_t entries, struct lam_error *err)
{
    uint64_t clusters = div_up(entries * 8, q->g.cluster_size);
    uint64_t old = q->header.l1_offset, old_bytes = q->l1_size * 8;
    uint64_t host;

    lam_autofree uint64_t *l1 = calloc(entries, sizeof *l1);
    if (!l1)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " entries", entries);
    if (q->l1_size)
        memcpy(l1, q->l1, q->l1_size * sizeof *l1);
    lam_io_event(q->io, IO_EVENT_L1_GROW_ALLOC_TABLE);
    int rc = alloc_contiguous(q, clusters, &host, err);
    if (rc < 0)
        return rc;
    rc = alloc_write_back(q, err);      /* invariant 1 */
    if (rc == 0)
        rc = write_l1(q, l1, entries, host, err);
    if (rc < 0) {
        alloc_drop(q, host, clusters << q->g.cluster_bits, NULL, NULL);
        return rc;
    }
    rc = switch_l1(q, host, entries, err);
    if (rc < 0)
        return rc;
    replace_l1(q, lam_take(&l1), entries);
    if (old_bytes)
        release_table(q, old, old_bytes);
    return 0;
}

/* By factors of 1.5, as the genuine tool lets it grow for VM state. */
static uint64_t roomy_l1(uint64_t size, uint64_t needed)
{
    uint64_t entries = max_u64(size, 1);

    while (entries < needed)
        entries = div_up(entries * 3, 2);
    return min_u64(entries, QCOW2_MAX_L1_ENTRIES);
}

static int reserve_l1(struct qcow2 *q, uint64_t needed, struct lam_error *err)
{
    LAM_LOCKED(&q->alloc_lock);
    return needed > q->l1_size ? grow_l1(q, roomy_l1(q->l1_size, needed), err)
                               : 0;
}

int qcow2_vmstate_place(void *format, uint64_t offset, uint64_t length,
                        uint64_t *place, struct lam_error *err)
{
    struct qcow2 *q = format;
    uint64_t start = l1_needed(&q->g, q->size) * q->g.l2_cover;

    if (!range_fits(offset, length, INT64_MAX - start))
        return lam_fail_errno(err, EFBIG, "VM state of %" PRIu64 " bytes at "
                              "offset %" PRIu64, length, offset);
    *place = start + offset;
    if (!length)
        return 0;
    int rc = qcow2_before_change(q, err);
    if (rc < 0)
        return rc;
    uint64_t needed = l1_needed(&q->g, *place + length);
    if (needed > QCOW2_MAX_L1_ENTRIES)
        return lam_fail_errno(err, EFBIG, "VM state at offset %" PRIu64
                              " needs %" PRIu64 " L1 entries; the limit is %"
                              PRIu64, offset, needed,
                              (uint64_t)QCOW2_MAX_L1_ENTRIES);
    flusher_stop(q);
    rc = reserve_l1(q, needed, err);
    flusher_resume(q);
    return rc;
}

/* ------------------------------------------------- the cut last cluster */

/* Writes zeroes over a prefix of [@offset, @offset + @length) that needs
 * nothing copied; *@done is how far it went. */
static int write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t length,
                        uint64_t *done, struct lam_error *err)
{
    struct format_allocation a;
    int rc = qcow2_write_begin(q, offset, length, &a, err);

    if (rc < 0)
        return rc;
    *done = a.length;
    if (a.cow_start < a.offset || a.cow_end > a.offset + a.length) {
        /* Shared with a snapshot: the image layer copies it afterwards. */
        qcow2_write_cancel(q, &a);
        return 0;
    }
    lam_autofree void *zeroes = calloc(1, a.length);
    rc = zeroes ? qcow2_write_data(q, &a, zeroes, err)
                : lam_fail(err, ENOMEM, "no memory for zeroes");
    if (rc == 0)
        return qcow2_write_finish(q, &a, err);
    qcow2_write_cancel(q, &a);
    return rc;
}

static int write_all_zeroes(struct qcow2 *q, uint64_t offset, uint64_t length,
                            struct lam_error *err)
{
    int rc = 0;

    while (rc == 0 && length > 0) {
        uint64_t done = 0;

        rc = write_zeroes(q, offset, min_u64(length, 2 * LAM_MIB), &done, err);
        offset += done;
        length -= done;
    }
    return rc;
}

/* Host bytes behind the old end may be anything: an earlier, larger disk's
 * data (format document 13.1, "stale tail"). */
int resize_zero_tail(struct qcow2 *q, uint64_t from, uint64_t to,
                     struct lam_error *err)
{
    struct lam_extents extents = LAM_EXTENTS_INIT;
    uint64_t end = min_u64(align_up(from, q->g.cluster_size), to);

    if (from >= end)
        return 0;
    int rc = qcow2_map(q, from, end - from, &extents, err);
    for (size_t i = 0; rc == 0 && i < extents.count; i++) {
        const struct lam_extent *e = &extents.items[i];

        if (e->state == LAM_EXTENT_DATA)
            rc = write_all_zeroes(q, e->offset, e->length, err);
    }
    lam_extents_deinit(&extents);
    return rc;
}

/* ------------------------------------------------------------------ growing */

static int write_size(struct qcow2 *q, uint64_t size, struct lam_error *err)
{
    uint64_t old = q->header.size;

    q->header.size = size;
    int rc = qcow2_write_header(q, QH_SIZE, QH_CRYPT_METHOD, err);
    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    if (rc < 0) {
        q->header.size = old;
        return rc;
    }
    atomic_store(&q->size, size);
    return 0;
}

/* Whole clusters (or subclusters) from the old end on: what a backing file has
 * there is not to be seen in the new area. */
static int hide_below(struct qcow2 *q, uint64_t below_end, uint64_t size,
                      struct lam_error *err)
{
    uint64_t from = align_up(q->size, q->g.subcluster_size);
    uint64_t to = align_up(min_u64(below_end, size), q->g.subcluster_size);

    if (from >= to)
        return 0;
    return q->header.version < 3 ? write_all_zeroes(q, from, to - from, err)
                                 : qcow2_zero(q, from, to - from, 0, err);
}

static int make_room(struct qcow2 *q, uint64_t size, struct lam_error *err)
{
    uint64_t entries = l1_needed(&q->g, size);

    LAM_LOCKED(&q->alloc_lock);
    return entries > q->l1_size ? grow_l1(q, entries, err) : 0;
}

static int set_size(struct qcow2 *q, uint64_t size, struct lam_error *err)
{
    LAM_LOCKED(&q->alloc_lock);
    return write_size(q, size, err);
}

int resize_set_size(struct qcow2 *q, uint64_t size, struct lam_error *err)
{
    flusher_stop(q);
    int rc = set_size(q, size, err);
    flusher_resume(q);
    return rc;
}

/* The data file's new part, zero whatever was there. */
static int grow_data_file(struct qcow2 *q, uint64_t size,
                          enum lam_preallocation preallocation,
                          struct lam_error *err)
{
    struct lam_io *io = q->data_io;
    uint64_t old = q->size;
    int rc = 0;

    if (!q->data_file)
        return 0;
    if (!io->limits.can_grow) {
        if (atomic_load(&io->size) < size)
            return lam_fail(err, ENOSPC, "the data file has %" PRIu64 " bytes "
                            "and cannot grow to %" PRIu64,
                            (uint64_t)atomic_load(&io->size), size);
        return lam_io_zero(io, old, size - old, LAM_ZERO_UNMAP, err);
    }
    if (atomic_load(&io->size) > old)
        rc = lam_io_truncate(io, old, err);
    if (rc == 0 && preallocation > LAM_PREALLOC_METADATA)
        rc = lam_io_preallocate(io, old, size - old, preallocation, err);
    return rc < 0 ? rc : lam_io_truncate(io, size, err);
}

/* The new area: nothing is left there of a larger disk, and it reads as
 * zeroes.  Not visible yet. */
static int prepare_area(struct qcow2 *q, const struct format_resize *to,
                        struct lam_error *err)
{
    uint64_t from = align_up(q->size, q->g.cluster_size);
    bool bare = to->preallocation == LAM_PREALLOC_OFF;
    int rc = shrink_drop_behind(q, from, err);

    if (rc < 0)
        return rc;
    flusher_stop(q);
    rc = make_room(q, to->size, err);
    flusher_resume(q);
    if (rc == 0)
        rc = grow_data_file(q, to->size, to->preallocation, err);
    if (rc == 0)
        rc = hide_below(q, to->below_end, bare ? to->size
                                               : min_u64(to->size, from), err);
    if (rc == 0 && !bare)
        rc = preallocate_clusters(q, to, err);
    return rc < 0 ? rc : qcow2_write_back(q, true, err);
}

/* A failure gives back what can be given back. */
static void undo(struct qcow2 *q)
{
    uint64_t from = align_up(q->size, q->g.cluster_size);

    if (q->data_file && q->data_io->limits.can_grow)
        lam_io_truncate(q->data_io, q->size, NULL);
    if (shrink_drop_behind(q, from, NULL) == 0)
        shrink_file(q, NULL);
}

static int grow(struct qcow2 *q, struct format_resize to,
                struct lam_error *err)
{
    /* Whoever reads a raw data file by itself relies on every entry. */
    if (q->data_file && to.preallocation == LAM_PREALLOC_OFF &&
        (q->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW))
        to.preallocation = LAM_PREALLOC_METADATA;
    /* Zeroes on the host are noise once decrypted, and version 2 has no entry
     * that says zero. */
    if (to.preallocation != LAM_PREALLOC_OFF && q->header.version < 3 &&
        q->header.crypt_method != QCOW2_CRYPT_NONE)
        return lam_fail(err, ENOTSUP, "Preallocation of an encrypted image "
                        "needs compat=1.1: version 2 cannot say that its "
                        "clusters are zero");

    int rc = resize_zero_tail(q, q->size, to.size, err);
    if (rc == 0)
        rc = prepare_area(q, &to, err);
    if (rc < 0) {
        undo(q);
        return rc;
    }
    return resize_set_size(q, to.size, err);
}

int resize_check(struct qcow2 *q, unsigned version, uint64_t size,
                 unsigned flags, struct lam_error *err)
{
    if (!is_aligned(size, QCOW2_SECTOR))
        return lam_fail(err, EINVAL, "The new size must be a multiple of 512");
    if (version < 3 && q->header.nb_snapshots)
        return lam_fail(err, ENOTSUP, "Can't resize a v2 image which has "
                        "snapshots");
    if (size < q->size && !(flags & LAM_TRUNCATE_SHRINK))
        return lam_fail(err, EINVAL, "the new size %" PRIu64 " is smaller "
                        "than the disk, %" PRIu64, size, (uint64_t)q->size);
    if (l1_needed(&q->g, size) > QCOW2_MAX_L1_ENTRIES)
        return lam_fail(err, EFBIG, "Failed to grow the L1 table: File too "
                        "large");
    return bitmaps_check_resize(q, err);
}

int qcow2_truncate(void *format, const struct format_resize *to,
                   struct lam_error *err)
{
    struct qcow2 *q = format;
    int rc = qcow2_before_change(q, err);

    if (rc < 0 || to->size == q->size)
        return rc;
    rc = resize_check(q, q->header.version, to->size, to->flags, err);
    if (rc == 0)
        rc = bitmaps_prepare_resize(q, err);
    if (rc < 0)
        return rc;
    rc = to->size > q->size ? grow(q, *to, err)
                            : qcow2_shrink(q, to->size, err);
    bitmaps_resized(q);         /* the size may have changed nevertheless */
    return rc;
}
