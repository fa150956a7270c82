/* SPDX-License-Identifier: MIT */
/*
 * pack.c - payloads of compressed clusters into the file, many in one write.
 *
 * They are taken in groups that one L2 slice maps.  The group's guest clusters
 * are claimed; host space is found for as many payloads as fit together; these
 * are written, and then linked under one lock.
 */
#include "format/qcow2/qcow2.h"

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"
#include "format/qcow2/table.h"

struct pack {
    struct qcow2 *q;
    const uint8_t *buf;
    bool exact, absent;         /* absent: only where there is nothing */
    struct slice *slice;        /* pinned */
};

static uint64_t entry_index(const struct qcow2 *q, uint64_t guest)
{
    return l2_slice_byte(q, guest) / q->g.l2_entry_size;
}

/* The old entries are fit to be released; *@held: how many hold something. */
static int check_old(struct pack *p, const struct format_payload *items,
                     size_t count, size_t *held, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    int rc = 0;

    *held = 0;
    pthread_rwlock_rdlock(&q->lock);
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data,
                                         entry_index(q, items[i].guest));
        *held += e.word != 0;
        rc = l2_check_entry(q, items[i].guest, e, err);
    }
    pthread_rwlock_unlock(&q->lock);
    return rc;
}

static void give_back(struct qcow2 *q, const struct format_payload *items,
                      size_t count, uint64_t host)
{
    LAM_LOCKED(&q->alloc_lock);
    for (size_t i = 0; i < count; i++)
        alloc_drop(q, host + (items[i].start - items[0].start),
                   items[i].length, NULL, NULL);
}

/* Host space for the first of @items and for *@count in all that lie behind
 * it as they do in the buffer. */
static int reserve(struct pack *p, const struct format_payload *items,
                   size_t *count, uint64_t *host, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    size_t n = 1, max = *count;

    LAM_LOCKED(&q->alloc_lock);
    release_reap(q);
    int rc = alloc_bytes(q, items[0].length, p->exact
                         ? ALLOC_ANYWHERE : items[0].start % QCOW2_SECTOR,
                         host, err);
    if (rc < 0)
        return rc;
    while (n < max && alloc_extend(q, *host + (items[n].start -
                                               items[0].start),
                                   items[n].length))
        n++;
    *count = n;
    return 0;
}

static void link_items(struct pack *p, const struct format_payload *items,
                       size_t count, uint64_t host, struct release_batch *old)
{
    struct qcow2 *q = p->q;

    pthread_rwlock_wrlock(&q->lock);
    for (size_t i = 0; i < count; i++) {
        size_t byte = l2_slice_byte(q, items[i].guest);
        uint64_t index = entry_index(q, items[i].guest);
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data, index);
        struct qcow2_l2_entry new = {
            .word = compressed_entry(&q->g, host + (items[i].start -
                                                    items[0].start),
                                     items[i].length),
        };

        if (e.word)
            release_add_entry(q, old, e, false);
        l2_put(&q->g, p->slice->data, index, new);
        cache_mark_dirty(&q->l2, p->slice, byte, byte + q->g.l2_entry_size);
    }
    if (old)
        release_pend(q, old);
    pthread_rwlock_unlock(&q->lock);
}

/* As many of @items as find room together: *@count. */
static int store_together(struct pack *p, const struct format_payload *items,
                          size_t *count, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    lam_autofree struct release_batch *old = NULL;
    uint64_t host, length = 0;
    size_t held;

    int rc = check_old(p, items, *count, &held, err);
    if (rc < 0)
        return rc;
    if (held && !(old = release_new(held)))
        return lam_fail(err, ENOMEM, "no memory for %zu old clusters", held);
    rc = reserve(p, items, count, &host, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < *count; i++)
        length = max_u64(length, items[i].start - items[0].start +
                                 items[i].length);
    atomic_store(&q->wrote_payload, true);
    lam_io_event(q->io, IO_EVENT_L2_UPDATE_COMPRESSED);
    lam_io_event(q->io, IO_EVENT_WRITE_COMPRESSED);
    rc = lam_io_write(q->io, p->buf + items[0].start, length, host, err);
    if (rc < 0)
        give_back(q, items, *count, host);
    else
        link_items(p, items, *count, host, lam_take(&old));
    return rc;
}

/* How many of @items, from the first on, are alike: are for us to store, or
 * have something in their place already, which stays. */
static size_t count_alike(const struct pack *p,
                          const struct format_payload *items, size_t count,
                          bool *ours)
{
    struct qcow2 *q = p->q;
    size_t n = 0;

    *ours = true;
    if (!p->absent)
        return count;
    pthread_rwlock_rdlock(&q->lock);
    for (; n < count; n++) {
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data,
                                         entry_index(q, items[n].guest));
        bool absent = !e.word && !e.bitmap;
        if (n == 0)
            *ours = absent;
        if (absent != *ours)
            break;
    }
    pthread_rwlock_unlock(&q->lock);
    return n;
}

/* @items lie in one slice and are claimed. */
static int store_claimed(struct pack *p, const struct format_payload *items,
                         size_t count, struct lam_error *err)
{
    int rc = l2_open_for_change(p->q, items[0].guest, &p->slice, err);

    if (rc < 0)
        return rc;
    while (count > 0 && rc == 0) {
        bool ours;
        size_t n = count_alike(p, items, count, &ours);

        if (ours)
            rc = store_together(p, items, &n, err);
        items += n;
        count -= n;
    }
    slice_unpin(p->slice);
    return rc;
}

/* How many of @items one slice maps, from the first on. */
static size_t count_in_slice(const struct qcow2 *q,
                             const struct format_payload *items, size_t count)
{
    uint64_t cover = l2_slice_cover(q), n = 1;

    while (n < count && items[n].guest / cover == items[0].guest / cover)
        n++;
    return n;
}

static size_t count_in_range(struct range r,
                             const struct format_payload *items, size_t count)
{
    size_t n = 0;

    while (n < count && items[n].guest < range_end(r))
        n++;
    return n;
}

/* The first of @items, and those that can be done with it: *@count. */
static int store_group(struct pack *p, const struct format_payload *items,
                       size_t *count, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    size_t n = count_in_slice(q, items, *count);
    uint64_t first = items[0].guest;
    struct claim claim = {
        .range = range_make(first, items[n - 1].guest - first +
                                   q->g.cluster_size),
    };

    while (!claim_try(&q->inflight, &claim))
        claim_wait(&q->inflight, first);
    n = count_in_range(claim.range, items, n);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = bitmaps_mark(q, items[i].guest, q->g.cluster_size, err);
    if (rc == 0)
        rc = store_claimed(p, items, n, err);
    claim_drop(&q->inflight, &claim);
    *count = n;
    return rc;
}

static int store_all(struct pack *p, const struct format_payload *items,
                     size_t count, struct lam_error *err)
{
    int rc = qcow2_before_change(p->q, err);

    assert(!p->q->data_file);
    while (count > 0 && rc == 0) {
        size_t n = count;

        assert(is_aligned(items[0].guest, p->q->g.cluster_size));
        rc = store_group(p, items, &n, err);
        items += n;
        count -= n;
    }
    return rc;
}

int qcow2_write_payloads(void *format, const struct format_payload *items,
                         size_t count, const uint8_t *buf, bool exact,
                         struct lam_error *err)
{
    struct pack p = { .q = format, .buf = buf, .exact = exact };

    return store_all(&p, items, count, err);
}

int qcow2_populate_payloads(struct qcow2 *q, const struct format_payload *items,
                            size_t count, const uint8_t *buf,
                            struct lam_error *err)
{
    struct pack p = { .q = q, .buf = buf, .exact = true, .absent = true };

    return store_all(&p, items, count, err);
}
