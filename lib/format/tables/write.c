/* SPDX-License-Identifier: MIT */
/*
 * write.c - writes and zeroes: in place, or to new clusters behind all others.
 */
#include <inttypes.h>

#include "base/cleanup.h"
#include "format/tables/tables.h"

/* What one piece of a write takes at most. */
static const uint64_t PIECE_MAX = 4 * LAM_MIB;

/* A piece that goes to new clusters. */
struct piece {
    struct claim claim;
    uint64_t host, bytes;
};

static int lookup(struct tables *t, uint64_t index, struct entry *entry,
                  struct lam_error *err)
{
    uint64_t raw;
    int rc = tables_lookup(t, index, &raw);

    return rc < 0 ? rc : tables_decode(t, index, raw, entry, err);
}

/* Stored clusters that follow each other on the host; @offset is in the first,
 * at @host. */
static int plan_in_place(struct tables *t, uint64_t offset, uint64_t length,
                         uint64_t host, struct format_allocation *a)
{
    uint64_t done = t->cluster - offset % t->cluster;
    struct entry next;

    while (done < length &&
           lookup(t, (offset + done) / t->cluster, &next, NULL) == 0 &&
           next.kind == ENTRY_DATA && next.host == host + done)
        done += t->cluster;
    done = min_u64(done, length);
    *a = (struct format_allocation){
        .offset = offset, .length = done, .cow_start = offset,
        .cow_end = offset + done, .host_offset = host, .io = t->io,
    };
    return 0;
}

/* Clusters from @offset on that have to be allocated, as a claim. */
static int plan_new(struct tables *t, uint64_t offset, uint64_t length,
                    struct claim *claim)
{
    uint64_t start = offset - offset % t->cluster;
    uint64_t end = start + t->cluster;
    uint64_t limit = min_u64(offset + length,
                             max_u64(start + PIECE_MAX, end));
    struct entry next;

    while (end < limit && lookup(t, end / t->cluster, &next, NULL) == 0 &&
           next.kind != ENTRY_DATA)
        end += t->cluster;
    claim->range = range_make(start, end - start);
    return claim_try(&t->claims, claim) ? 0 : -EBUSY;
}

/* 0 with a->io set: in place.  0 without: claimed.  -EAGAIN: the page has to be
 * loaded; -EBUSY: somebody else is at it. */
static int plan(struct tables *t, uint64_t offset, uint64_t length,
                struct format_allocation *a, struct claim *claim,
                struct lam_error *err)
{
    struct entry entry;

    a->io = NULL;
    pthread_rwlock_rdlock(&t->lock);
    int rc = lookup(t, offset / t->cluster, &entry, err);
    if (rc == 0 && entry.kind == ENTRY_DATA)
        rc = plan_in_place(t, offset, length,
                           entry.host + offset % t->cluster, a);
    else if (rc == 0)
        rc = plan_new(t, offset, length, claim);
    pthread_rwlock_unlock(&t->lock);
    return rc;
}

static int plan_until(struct tables *t, uint64_t offset, uint64_t length,
                      struct format_allocation *a, struct claim *claim,
                      struct lam_error *err)
{
    int rc;

    while ((rc = plan(t, offset, length, a, claim, err)) == -EAGAIN ||
           rc == -EBUSY) {
        if (rc == -EBUSY)
            claim_wait(&t->claims, offset - offset % t->cluster);
        else if ((rc = tables_load(t, offset / t->cluster, err)) < 0)
            return rc;
    }
    return rc;
}

void tables_claim(struct tables *t, uint64_t offset, struct claim *claim)
{
    uint64_t start = offset - offset % t->cluster;
    bool mine = false;

    while (!mine) {
        pthread_rwlock_rdlock(&t->lock);
        claim->range = range_make(start, t->cluster);
        mine = claim_try(&t->claims, claim);
        pthread_rwlock_unlock(&t->lock);
        if (!mine)
            claim_wait(&t->claims, start);
    }
}

/* Changed pages stay in memory until they are written. */
static int make_room(struct tables *t, struct lam_error *err)
{
    pthread_rwlock_rdlock(&t->lock);
    bool full = t->nb_loaded > t->max_loaded;
    pthread_rwlock_unlock(&t->lock);
    return full ? tables_flush(t, err) : 0;
}

int tables_write_begin(void *format, uint64_t offset, uint64_t length,
                       struct format_allocation *a, struct lam_error *err)
{
    struct tables *t = format;
    lam_autofree struct piece *p = calloc(1, sizeof *p);
    bool fresh;

    if (!p)
        return lam_fail(err, ENOMEM, "no memory for a write");
    int rc = make_room(t, err);
    if (rc == 0)
        rc = tables_begin_changes(t, err);
    if (rc == 0)
        rc = plan_until(t, offset, length, a, &p->claim, err);
    if (rc < 0 || a->io)
        return rc;
    const struct range r = p->claim.range;
    p->bytes = r.length;
    rc = tables_allocate(t, p->bytes, true, &p->host, &fresh, err);
    if (rc < 0) {
        claim_drop(&t->claims, &p->claim);
        return rc;
    }
    *a = (struct format_allocation){
        .offset = offset,
        .length = min_u64(length, range_end(r) - offset),
        .cow_start = r.offset,
        .cow_end = range_end(r),
        .host_offset = p->host + (offset - r.offset),
        .io = t->io,
        .host_is_zero = fresh && !t->crypt,
    };
    a->token = lam_take(&p);
    return 0;
}

int tables_write_finish(void *format, struct format_allocation *a,
                        struct lam_error *err)
{
    struct tables *t = format;
    struct piece *p = a->token;
    uint64_t raw = t->layout->encode(t, p->host);
    uint64_t step = t->layout->encode(t, p->host + t->cluster) - raw;
    int rc = tables_set(t, p->claim.range.offset / t->cluster,
                        p->bytes / t->cluster, raw, step, err);

    claim_drop(&t->claims, &p->claim);
    free(p);
    return rc;
}

void tables_write_cancel(void *format, struct format_allocation *a)
{
    struct tables *t = format;
    struct piece *p = a->token;

    pthread_mutex_lock(&t->alloc_lock);
    if (t->next_free == p->host + p->bytes)
        t->next_free = p->host;
    pthread_mutex_unlock(&t->alloc_lock);
    claim_drop(&t->claims, &p->claim);
    free(p);
}

/* ------------------------------------------------------------ zeroes */

uint64_t tables_zero_unit(void *format)
{
    struct tables *t = format;

    if (t->crypt || (t->has_backing && !t->layout->has_zero))
        return 0;
    return tables_cluster_size(t);
}

static int zero_absent(struct tables *t, const struct claim *claim,
                       const struct entry *entry, unsigned flags,
                       struct lam_error *err)
{
    bool there = entry->kind == ENTRY_COMPRESSED;
    uint64_t raw = t->has_backing ? t->layout->zero : t->layout->absent;

    if (entry->kind == ENTRY_ZERO || (flags & FORMAT_ZERO_ABSENT && there) ||
        (!there && !t->has_backing))
        return 0;
    int rc = tables_begin_changes(t, err);
    return rc < 0 ? rc : tables_set(t, claim->range.offset / t->cluster, 1, raw,
                                    0, err);
}

/* One cluster. */
static int zero_cluster(struct tables *t, uint64_t offset, unsigned flags,
                        struct lam_error *err)
{
    struct format_allocation a;
    struct claim claim;
    struct entry entry;

    int rc = plan_until(t, offset, 1, &a, &claim, err);
    if (rc < 0)
        return rc;
    if (a.io) {
        if (flags & FORMAT_ZERO_ABSENT)
            return 0;
        rc = tables_begin_changes(t, err);
        return rc < 0 ? rc : lam_io_zero(t->io, a.host_offset, t->cluster,
                                         flags, err);
    }
    /* Nobody else changes it meanwhile, but its page may have gone. */
    do {
        pthread_rwlock_rdlock(&t->lock);
        rc = lookup(t, offset / t->cluster, &entry, err);
        pthread_rwlock_unlock(&t->lock);
    } while (rc == -EAGAIN &&
             (rc = tables_load(t, offset / t->cluster, err)) == 0);
    if (rc == 0)
        rc = zero_absent(t, &claim, &entry, flags, err);
    claim_drop(&t->claims, &claim);
    return rc;
}

int tables_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
                struct lam_error *err)
{
    struct tables *t = format;
    int rc = 0;

    for (uint64_t at = offset; at < offset + length && rc == 0;
         at += t->cluster) {
        if ((at - offset) / t->cluster % 65536 == 0)
            rc = make_room(t, err);
        if (rc == 0)
            rc = zero_cluster(t, at, flags, err);
    }
    return rc;
}

int tables_set_writable(void *format, bool writable, struct lam_error *err)
{
    struct tables *t = format;
    int rc = writable ? 0 : tables_flush(t, err);

    if (rc == 0)
        t->writable = writable;
    return rc;
}
