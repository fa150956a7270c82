/* SPDX-License-Identifier: MIT */
/*
 * map.c - guest range → extents; and the loading of L2 slices.
 *
 * map_cached() is pure: it answers from what is in memory under the shared
 * lock, and names the slice that it misses.  One loop loads that slice outside
 * the lock and goes on; the slice stays pinned until it has been used, so each
 * turn of the loop makes progress.
 */
#include "format/qcow2/qcow2.h"
#include "format/qcow2/release.h"

#include <inttypes.h>

int l1_lookup(const struct qcow2 *q, uint64_t offset, uint64_t *table,
              bool *copied, struct lam_error *err)
{
    uint64_t i = l1_index(&q->g, offset);
    uint64_t entry = i < q->l1_size ? q->l1[i] : 0;

    *table = entry_offset(entry);
    *copied = entry_copied(entry);
    if (!is_aligned(*table, q->g.cluster_size))
        return lam_fail(err, EUCLEAN, "L1 entry %" PRIu64 " (guest offset %#"
                        PRIx64 "): L2 table offset %#" PRIx64
                        " is not a multiple of %" PRIu64, i, offset, *table,
                        q->g.cluster_size);
    return 0;
}

uint64_t l1_blank(const struct qcow2 *q, struct range guest)
{
    uint64_t first = l1_index(&q->g, guest.offset);
    uint64_t last = l1_index(&q->g, range_end(guest) - 1);
    uint64_t i = first;

    while (i <= last && i < q->l1_size && !entry_offset(q->l1[i]))
        i++;
    if (i > last || i >= q->l1_size)
        return guest.length;
    return i == first ? 0 : i * q->g.l2_cover - guest.offset;
}

uint64_t qcow2_long_run(void *format, uint64_t offset, uint64_t length,
                        bool *blank)
{
    struct qcow2 *q = format;

    *blank = true;
    if (q->metadata_only)
        return 0;
    pthread_rwlock_rdlock(&q->lock);
    uint64_t run = l1_blank(q, range_make(offset, length));
    pthread_rwlock_unlock(&q->lock);
    return run;
}

/* The room for a slice may have to be made by writing dirty ones.  Where these
 * cannot be written a read goes on: the cache grows by what is pinned. */
static int take_slice(struct qcow2 *q, uint64_t host, bool for_read,
                      struct slice **out, struct lam_error *err)
{
    bool force = false;

    for (;;) {
        pthread_rwlock_wrlock(&q->lock);
        int rc = cache_take(&q->l2, host, force, out);
        pthread_rwlock_unlock(&q->lock);
        if (rc >= 0)
            return rc;
        if (rc != -EBUSY)
            return lam_fail(err, ENOMEM, "no memory for an L2 slice of %zu "
                            "bytes", q->l2.slice_size);
        rc = qcow2_write_back(q, false, err);
        if (rc < 0 && !for_read)
            return rc;
        force = rc < 0;
    }
}

int l2_load(struct qcow2 *q, uint64_t host, bool for_read, struct slice **out,
            struct lam_error *err)
{
    struct slice *s;

    for (;;) {
        int rc = take_slice(q, host, for_read, &s, err);

        if (rc < 0)
            return rc;
        if (rc == 0) {
            if (slice_wait(&q->l2, s))
                break;
            slice_unpin(s);
            continue;               /* tell our caller our own error */
        }
        rc = lam_io_read(q->io, s->data, q->l2.slice_size, s->host, err);
        if (rc == 0) {
            cache_loaded(&q->l2, s, true);
            break;
        }
        pthread_rwlock_wrlock(&q->lock);
        cache_loaded(&q->l2, s, false);
        pthread_rwlock_unlock(&q->lock);
        slice_unpin(s);
        return lam_error_prefix(err, rc, "Could not read L2 table at %#" PRIx64,
                                host);
    }
    *out = s;
    return 0;
}

static int map_unallocated(struct range *guest, uint64_t length,
                           struct lam_extents *out, struct lam_error *err)
{
    struct lam_extent e = { .offset = guest->offset, .length = length,
                            .state = LAM_EXTENT_UNALLOCATED };
    int rc = extents_append(out, &e, err);

    if (rc == 0)
        *guest = range_make(guest->offset + length, guest->length - length);
    return rc;
}

/*
 * Appends what the tables in memory know and eats it off @guest.  -EAGAIN:
 * the L2 slice at host offset *@missing is wanted.
 */
static int map_cached(struct qcow2 *q, struct range *guest,
                      struct lam_extents *out, uint64_t *missing,
                      struct lam_error *err)
{
    while (guest->length > 0) {
        uint64_t table;
        bool copied;
        int rc = l1_lookup(q, guest->offset, &table, &copied, err);

        if (rc < 0)
            return rc;
        if (!table) {
            rc = map_unallocated(guest, l1_blank(q, *guest), out, err);
            if (rc < 0)
                return rc;
            continue;
        }
        uint64_t host = l2_entry_host(q, table, guest->offset);
        struct slice *s = cache_find(&q->l2, host);
        if (!s) {
            *missing = host;
            return -EAGAIN;
        }
        uint64_t cover = l2_slice_cover(q);
        uint64_t length = min_u64(guest->length,
                                  cover - (guest->offset & (cover - 1)));
        rc = l2_extents(&q->l2_context,
                        s->data + l2_slice_byte(q, guest->offset),
                        guest->offset, length, out, err);
        if (rc < 0)
            return rc;
        *guest = range_make(guest->offset + length, guest->length - length);
    }
    return 0;
}

static int map_range(struct qcow2 *q, struct range guest,
                     struct lam_extents *out, struct lam_error *err)
{
    struct slice *pinned = NULL;
    int rc;

    for (;;) {
        uint64_t missing = 0;

        pthread_rwlock_rdlock(&q->lock);
        rc = map_cached(q, &guest, out, &missing, err);
        pthread_rwlock_unlock(&q->lock);
        if (pinned)
            slice_unpin(pinned);
        pinned = NULL;
        if (rc != -EAGAIN)
            return rc;
        lam_io_event(q->io, IO_EVENT_L2_LOAD);
        rc = l2_load(q, missing, true, &pinned, err);
        if (rc < 0)
            return lam_error_prefix(err, rc, "L1 entry %" PRIu64
                                    " (guest offset %#" PRIx64 ")",
                                    l1_index(&q->g, guest.offset),
                                    guest.offset);
    }
}

int qcow2_map_cached(void *format, uint64_t offset, uint64_t length,
                     struct lam_extents *out)
{
    struct qcow2 *q = format;
    struct range guest = range_make(offset, length);
    uint64_t missing = 0;

    if (q->metadata_only)
        return -EAGAIN;
    qcow2_clean_if_due(q);
    pthread_rwlock_rdlock(&q->lock);
    int rc = map_cached(q, &guest, out, &missing, NULL);
    pthread_rwlock_unlock(&q->lock);
    return rc;
}

int qcow2_map(void *format, uint64_t offset, uint64_t length,
              struct lam_extents *out, struct lam_error *err)
{
    struct qcow2 *q = format;
    size_t count = out->count;
    struct lam_extent last = { 0 };

    if (q->metadata_only)
        return lam_fail(err, EINVAL, "the image was opened for its header "
                        "only");
    if (count)
        last = out->items[count - 1];
    qcow2_clean_if_due(q);
    /* A table that is being replaced must not be reused under our hands. */
    uint64_t token = epoch_enter(&q->epoch);
    int rc = map_range(q, range_make(offset, length), out, err);
    epoch_leave(&q->epoch, token);

    if (rc < 0) {
        out->count = count;
        if (count)
            out->items[count - 1] = last;
    }
    return rc;
}
