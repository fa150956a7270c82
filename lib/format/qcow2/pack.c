/* SPDX-License-Identifier: MIT */
/*
 * pack.c - payloads of compressed clusters into the file, many in one write.
 *
 * They are taken in groups that one L2 slice maps.  The group's guest clusters
 * are claimed, and host space is found, for as many payloads as fit together at
 * a time.  Whenever the caller likes, these are written, and then linked under
 * one lock.
 */
#include "format/qcow2/qcow2.h"

#include <string.h>

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"
#include "format/qcow2/table.h"

/* Payloads that lie together on the host. */
struct part {
    size_t first, count;        /* of the pack's items */
    uint64_t host;              /* of the first one */
    struct release_batch *old;  /* what their entries held; or NULL; owned */
};

/* A group, from place to store or cancel. */
struct pack {
    bool exact, absent;         /* absent: only where there is nothing */
    struct claim claim;
    struct slice *slice;        /* pinned */
    struct part *parts;         /* owned; room for one an item */
    size_t nb_parts, nb_stored;
    size_t count;
    struct format_payload items[];
};

static uint64_t entry_index(const struct qcow2 *q, uint64_t guest)
{
    return l2_slice_byte(q, guest) / q->g.l2_entry_size;
}

/* The old entries are fit to be released; *@held: how many hold something. */
static int check_old(struct qcow2 *q, const struct pack *p,
                     const struct part *part, size_t *held,
                     struct lam_error *err)
{
    const struct format_payload *items = p->items + part->first;
    int rc = 0;

    *held = 0;
    pthread_rwlock_rdlock(&q->lock);
    for (size_t i = 0; i < part->count && rc == 0; i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data,
                                         entry_index(q, items[i].guest));
        *held += e.word != 0;
        rc = l2_check_entry(q, items[i].guest, e, err);
    }
    pthread_rwlock_unlock(&q->lock);
    return rc;
}

static void give_back(struct qcow2 *q, const struct pack *p,
                      struct part *part)
{
    const struct format_payload *items = p->items + part->first;

    LAM_LOCKED(&q->alloc_lock);
    for (size_t i = 0; i < part->count; i++)
        alloc_drop(q, part->host + (items[i].start - items[0].start),
                   items[i].length, NULL, NULL);
}

/* Host space for the first item of @part and for all that lie behind it as they
 * do in the buffer: part->count is cut to them. */
static int reserve(struct qcow2 *q, const struct pack *p, struct part *part,
                   struct lam_error *err)
{
    const struct format_payload *items = p->items + part->first;
    size_t n = 1;

    LAM_LOCKED(&q->alloc_lock);
    release_reap(q);
    int rc = alloc_bytes(q, items[0].length, p->exact
                         ? ALLOC_ANYWHERE : items[0].start % QCOW2_SECTOR,
                         &part->host, err);
    if (rc < 0)
        return rc;
    while (n < part->count &&
           alloc_extend(q, part->host + (items[n].start - items[0].start),
                        items[n].length))
        n++;
    part->count = n;
    return 0;
}

static void link_part(struct qcow2 *q, const struct pack *p, struct part *part)
{
    const struct format_payload *items = p->items + part->first;

    pthread_rwlock_wrlock(&q->lock);
    for (size_t i = 0; i < part->count; i++) {
        size_t byte = l2_slice_byte(q, items[i].guest);
        uint64_t index = entry_index(q, items[i].guest);
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data, index);
        struct qcow2_l2_entry new = {
            .word = compressed_entry(&q->g, part->host + (items[i].start -
                                                          items[0].start),
                                     items[i].length),
        };

        if (e.word)
            release_add_entry(q, part->old, e, false);
        l2_put(&q->g, p->slice->data, index, new);
        cache_mark_dirty(&q->l2, p->slice, byte, byte + q->g.l2_entry_size);
    }
    if (part->old)
        release_pend(q, lam_take(&part->old));
    pthread_rwlock_unlock(&q->lock);
}

/* ------------------------------------------------------------------ place */

/* As many items from @first on as find room together, up to *@count. */
static int place_part(struct qcow2 *q, struct pack *p, size_t first,
                      size_t *count, struct lam_error *err)
{
    struct part part = { .first = first, .count = *count };
    lam_autofree struct release_batch *old = NULL;
    size_t held;

    int rc = check_old(q, p, &part, &held, err);
    if (rc < 0)
        return rc;
    if (held && !(old = release_new(held)))
        return lam_fail(err, ENOMEM, "no memory for %zu old clusters", held);
    rc = reserve(q, p, &part, err);
    if (rc < 0)
        return rc;
    part.old = lam_take(&old);
    p->parts[p->nb_parts++] = part;
    *count = part.count;
    return 0;
}

/* What an item finds in its place, if it is for what is absent only. */
enum there { THERE_NOTHING, THERE_ALL, THERE_SOME };

static enum there what_is_there(const struct qcow2 *q,
                                struct qcow2_l2_entry e)
{
    uint64_t mapped = (e.bitmap | e.bitmap >> 32) & QCOW2_ALL_ALLOCATED;

    if (!e.word && !e.bitmap)
        return THERE_NOTHING;
    return !q->g.extended_l2 || (e.word & QCOW2_COMPRESSED) ||
           mapped == QCOW2_ALL_ALLOCATED ? THERE_ALL : THERE_SOME;
}

/* How many items, from @first on, are alike. */
static size_t count_alike(struct qcow2 *q, const struct pack *p, size_t first,
                          enum there *there)
{
    size_t n = first;

    *there = THERE_NOTHING;
    if (!p->absent)
        return p->count - first;
    pthread_rwlock_rdlock(&q->lock);
    for (; n < p->count; n++) {
        struct qcow2_l2_entry e = l2_get(&q->g, p->slice->data,
                                         entry_index(q, p->items[n].guest));
        enum there next = what_is_there(q, e);
        if (n == first)
            *there = next;
        if (next != *there)
            break;
    }
    pthread_rwlock_unlock(&q->lock);
    return n - first;
}

/* Items from @count on are left for another call. */
static void cut_items(struct qcow2 *q, struct pack *p, size_t count)
{
    p->count = count;
    if (count)
        claim_shorten(&q->inflight, &p->claim, p->items[count - 1].guest +
                      q->g.cluster_size - p->items[0].guest);
}

/* The items lie in one slice and are claimed.  Those before a cluster that has
 * something, and not all, find room or stay out. */
static int place_claimed(struct qcow2 *q, struct pack *p,
                         struct lam_error *err)
{
    int rc = l2_open_for_change(q, p->items[0].guest, &p->slice, err);

    for (size_t at = 0, n; rc == 0 && at < p->count; at += n) {
        enum there there;

        n = count_alike(q, p, at, &there);
        if (there == THERE_SOME)
            cut_items(q, p, at);
        else if (there == THERE_NOTHING)
            rc = place_part(q, p, at, &n, err);
    }
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

static void pack_free(struct qcow2 *q, struct pack *p)
{
    for (size_t i = p->nb_stored; i < p->nb_parts; i++) {
        give_back(q, p, &p->parts[i]);
        free(p->parts[i].old);
    }
    if (p->slice)
        slice_unpin(p->slice);
    claim_drop(&q->inflight, &p->claim);
    free(p->parts);
    free(p);
}

static struct pack *pack_new(const struct format_payload *items, size_t count,
                             unsigned flags)
{
    struct pack *p = malloc(sizeof *p + count * sizeof *items);
    struct part *parts = calloc(count, sizeof *parts);

    if (!p || !parts) {
        free(p);
        free(parts);
        return NULL;
    }
    *p = (struct pack){
        .exact = flags & FORMAT_PAYLOAD_EXACT,
        .absent = flags & FORMAT_PAYLOAD_ABSENT,
        .parts = parts,
        .count = count,
    };
    memcpy(p->items, items, count * sizeof *items);
    return p;
}

static void claim_items(struct qcow2 *q, struct pack *p)
{
    uint64_t first = p->items[0].guest;
    uint64_t end = p->items[p->count - 1].guest + q->g.cluster_size;

    p->claim.range = range_make(first, end - first);
    while (!claim_try(&q->inflight, &p->claim))
        claim_wait(&q->inflight, first);
    p->count = count_in_range(p->claim.range, p->items, p->count);
}

int qcow2_place_payloads(void *format, const struct format_payload *items,
                         size_t *count, unsigned flags, void **token,
                         struct lam_error *err)
{
    struct qcow2 *q = format;
    int rc = qcow2_before_change(q, err);

    assert(!q->data_file && is_aligned(items[0].guest, q->g.cluster_size));
    if (rc < 0)
        return rc;
    struct pack *p = pack_new(items, count_in_slice(q, items, *count), flags);
    if (!p)
        return lam_fail(err, ENOMEM, "no memory for %zu compressed clusters",
                        *count);
    /* The last payload before a plain cluster does not fill its own. */
    lam_io_grow_with_gaps(q->io);
    claim_items(q, p);
    for (size_t i = 0; i < p->count && rc == 0; i++)
        rc = bitmaps_mark(q, items[i].guest, q->g.cluster_size, err);
    if (rc == 0)
        rc = place_claimed(q, p, err);
    *count = p->count;
    *token = rc == 0 && p->count ? p : NULL;
    if (!*token)
        pack_free(q, p);
    return rc;
}

/* ------------------------------------------------------------------ store */

static int store_part(struct qcow2 *q, const struct pack *p,
                      struct part *part, const uint8_t *buf,
                      struct lam_error *err)
{
    const struct format_payload *items = p->items + part->first;
    uint64_t length = 0;

    for (size_t i = 0; i < part->count; i++)
        length = max_u64(length, items[i].start - items[0].start +
                                 items[i].length);
    atomic_store(&q->wrote_payload, true);
    lam_io_event(q->io, IO_EVENT_L2_UPDATE_COMPRESSED);
    lam_io_event(q->io, IO_EVENT_WRITE_COMPRESSED);
    int rc = lam_io_write(q->io, buf + items[0].start, length, part->host,
                          err);
    if (rc == 0)
        link_part(q, p, part);
    return rc;
}

int qcow2_store_payloads(void *format, void *token, const uint8_t *buf,
                         struct lam_error *err)
{
    struct qcow2 *q = format;
    struct pack *p = token;
    int rc = qcow2_check_writable(q, err);

    while (rc == 0 && p->nb_stored < p->nb_parts) {
        rc = store_part(q, p, &p->parts[p->nb_stored], buf, err);
        p->nb_stored += rc == 0;
    }
    pack_free(q, p);
    return rc;
}

void qcow2_cancel_payloads(void *format, void *token)
{
    pack_free(format, token);
}

int qcow2_write_payloads(struct qcow2 *q, const struct format_payload *items,
                         size_t count, const uint8_t *buf, unsigned flags,
                         struct lam_error *err)
{
    int rc = 0;

    while (count > 0 && rc == 0) {
        size_t n = count;
        void *token;

        rc = qcow2_place_payloads(q, items, &n, flags, &token, err);
        if (rc == 0)
            rc = qcow2_store_payloads(q, token, buf, err);
        items += n;
        count -= n;
    }
    return rc;
}
