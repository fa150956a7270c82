/* SPDX-License-Identifier: MIT */
/*
 * map.c - guest ranges → extents.
 */
#include "base/cleanup.h"
#include "format/tables/tables.h"

static int append(struct lam_extents *out, uint64_t offset, uint64_t length,
                  enum lam_extent_state state, struct lam_error *err)
{
    return length ? extents_add(out, state, offset, length, 0, err) : 0;
}

/* What the file's end cuts off the last cluster reads as zero. */
static int append_data(const struct tables *t, uint64_t host, struct range r,
                       struct lam_extents *out, struct lam_error *err)
{
    uint64_t end = align_up(t->io->size, 512);
    uint64_t there = t->crypt ? r.length
                   : host >= end ? 0 : min_u64(r.length, end - host);
    const struct lam_extent e = {
        .offset = r.offset,
        .length = there,
        .host_offset = host,
        .state = LAM_EXTENT_DATA,
        .flags = (uint8_t)(LAM_EXTENT_HAS_HOST |
                           (t->crypt ? LAM_EXTENT_ENCRYPTED : 0)),
    };
    int rc = there ? extents_append(out, &e, err) : 0;
    return rc < 0 ? rc : append(out, r.offset + there, r.length - there,
                                LAM_EXTENT_ZERO, err);
}

static int append_entry(const struct tables *t, const struct entry *entry,
                        struct range r, struct lam_extents *out,
                        struct lam_error *err)
{
    struct lam_extent e = {
        .offset = r.offset, .length = r.length, .host_offset = entry->host,
        .host_length = entry->host_length, .state = LAM_EXTENT_COMPRESSED,
        .flags = LAM_EXTENT_HAS_HOST,
    };

    switch (entry->kind) {
    case ENTRY_DATA:
        return append_data(t, entry->host + r.offset % t->cluster, r, out, err);
    case ENTRY_COMPRESSED:
        return extents_append(out, &e, err);
    case ENTRY_ABSENT:
        return append(out, r.offset, r.length, t->layout->absent_is_zero
                      ? LAM_EXTENT_ZERO : LAM_EXTENT_UNALLOCATED, err);
    case ENTRY_ZERO:
        break;
    }
    return append(out, r.offset, r.length, LAM_EXTENT_ZERO, err);
}

/* As far as the pages in memory reach: -EAGAIN. */
static int map_loaded(struct tables *t, struct range *r,
                      struct lam_extents *out, struct lam_error *err)
{
    while (r->length > 0) {
        uint64_t index = r->offset / t->cluster, raw;
        uint64_t n = min_u64(t->cluster - r->offset % t->cluster, r->length);
        struct entry entry;
        int rc = tables_lookup(t, index, &raw);

        if (rc == 0)
            rc = tables_decode(t, index, raw, &entry, err);
        if (rc == 0)
            rc = append_entry(t, &entry, range_make(r->offset, n), out, err);
        if (rc < 0)
            return rc;
        *r = range_make(r->offset + n, r->length - n);
    }
    return 0;
}

int tables_map(void *format, uint64_t offset, uint64_t length,
               struct lam_extents *out, struct lam_error *err)
{
    struct tables *t = format;
    struct range r = range_make(offset, length);

    while (r.length > 0) {
        pthread_rwlock_rdlock(&t->lock);
        int rc = map_loaded(t, &r, out, err);
        pthread_rwlock_unlock(&t->lock);
        if (rc == -EAGAIN)
            rc = tables_load(t, r.offset / t->cluster, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
