/* SPDX-License-Identifier: MIT */
/*
 * trim.c - host space that a discarded cluster keeps, on its way to be a hole.
 */
#include "format/qcow2/trim.h"

#include "base/bytes.h"
#include "format/inflight.h"
#include "format/qcow2/release.h"

bool trim_zeroes_data(const struct qcow2 *q)
{
    return q->data_file && (q->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
}

/* Nothing is read from the host cluster of @e. */
static bool shows_nothing(const struct qcow2 *q, struct qcow2_l2_entry e)
{
    enum qcow2_cluster_type type = entry_type(&q->g, e.word, q->data_file);

    if (type != QCOW2_NORMAL)
        return type != QCOW2_COMPRESSED_CLUSTER;
    return q->g.extended_l2 && !(e.bitmap & QCOW2_ALL_ALLOCATED);
}

bool trim_is_due(const struct qcow2 *q, struct qcow2_l2_entry e,
                 struct qcow2_l2_entry new)
{
    enum qcow2_cluster_type type = entry_type(&q->g, e.word, q->data_file);

    if (type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC)
        return false;
    if (!q->data_file && !q->no_unref)
        return false;
    return !trim_zeroes_data(q) && shows_nothing(q, new);
}

void trim_add(const struct qcow2 *q, struct release_batch *batch,
              uint64_t guest, struct qcow2_l2_entry e)
{
    struct release r = {
        .offset = q->data_file ? guest : entry_offset(e.word),
        .length = q->g.cluster_size, .guest = guest, .kept = true,
    };
    struct release *last = batch->count ? &batch->items[batch->count - 1]
                                        : NULL;

    if (last && last->kept && last->offset + last->length == r.offset &&
        last->guest + last->length == r.guest)
        last->length += r.length;
    else
        batch->items[batch->count++] = r;
}

/* --------------------------------------------------------------- look again */

/* The entry of @guest, from the cache or from the file: what is claimed does
 * not change, and a table stays where it is under alloc_lock. */
static int find_entry(struct qcow2 *q, uint64_t guest,
                      struct qcow2_l2_entry *out)
{
    uint8_t bytes[16] = { 0 };
    uint64_t table, host = 0;
    bool copied;
    struct slice *s = NULL;

    *out = (struct qcow2_l2_entry){ 0, 0 };
    pthread_rwlock_rdlock(&q->lock);
    int rc = guest < q->size ? l1_lookup(q, guest, &table, &copied, NULL)
                             : -ENOENT;
    if (rc == 0 && table) {
        host = l2_entry_host(q, table, guest);
        s = cache_find(&q->l2, host);
        if (s)
            *out = l2_get(&q->g, s->data, l2_slice_byte(q, guest) /
                                          q->g.l2_entry_size);
    }
    pthread_rwlock_unlock(&q->lock);
    if (rc < 0 || !table || s)
        return rc;
    rc = lam_io_read(q->io, bytes, q->g.l2_entry_size, host, NULL);
    if (rc == 0)
        *out = l2_get(&q->g, bytes, 0);
    return rc;
}

/* Still the guest's own, and still nothing that could be read. */
static bool may_go(struct qcow2 *q, uint64_t guest, uint64_t host)
{
    struct qcow2_l2_entry e;

    if (find_entry(q, guest, &e) < 0 || !shows_nothing(q, e))
        return false;
    return q->data_file || (entry_copied(e.word) &&
                            entry_offset(e.word) == host);
}

/* The claimed part of @r. */
static void trim_claimed(struct qcow2 *q, const struct release *r,
                         struct range claimed)
{
    uint64_t cs = q->g.cluster_size, run = 0;
    uint64_t at = r->offset + (claimed.offset - r->guest);

    for (uint64_t i = 0; i <= claimed.length; i += cs) {
        if (i < claimed.length && may_go(q, claimed.offset + i, at + i)) {
            run += cs;
            continue;
        }
        if (run)
            lam_io_discard(q->data_io, at + i - run, run, NULL);
        run = 0;
    }
}

/* One cluster of @r that somebody is writing to: if that comes to nothing, it
 * is looked at again.  Without memory it stays allocated on the host. */
static void put_off(struct qcow2 *q, const struct release *r, uint64_t guest,
                    struct release_batch **later)
{
    struct release_batch *b = release_new(1);

    if (!b)
        return;
    b->items[b->count++] = (struct release){
        .offset = r->offset + (guest - r->guest),
        .length = q->g.cluster_size, .guest = guest, .kept = true };
    release_join(later, b);
}

void trim_now(struct qcow2 *q, const struct release *r,
              struct release_batch **later)
{
    uint64_t end = r->guest + r->length, at = r->guest;

    while (at < end) {
        struct claim claim = { .range = range_make(at, end - at) };

        if (!claim_try(&q->inflight, &claim)) {
            put_off(q, r, at, later);
            at += q->g.cluster_size;
            continue;
        }
        trim_claimed(q, r, claim.range);
        at = range_end(claim.range);
        claim_drop(&q->inflight, &claim);
    }
}
