/* SPDX-License-Identifier: MIT */
/*
 * map.c - guest ranges → extents, and compressed grains → bytes.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vmdk/grain.h"
#include "format/vmdk/vmdk.h"

/*
 * What lies in two files must not become one extent because the host offset
 * happens to go on: every other file has the flag that says "not in the image
 * file".
 */
static int append(struct lam_extents *out, const struct vmdk_extent *e,
                  struct range r, enum lam_extent_state state, uint64_t host,
                  struct lam_error *err)
{
    bool has_host = state == LAM_EXTENT_DATA;
    unsigned flags = (has_host ? LAM_EXTENT_HAS_HOST : 0) |
                     (has_host && e->odd ? LAM_EXTENT_DATA_FILE : 0);
    struct lam_extent x = {
        .offset = e->guest.offset + r.offset,
        .length = r.length,
        .host_offset = has_host || state == LAM_EXTENT_COMPRESSED ? host : 0,
        .state = (uint8_t)state,
        .flags = (uint8_t)flags,
    };
    return extents_append(out, &x, err);
}

/* ------------------------------------------------------------------ sparse */

/* @r lies inside one grain; offsets within the extent. */
static int append_grain(const struct vmdk_extent *e, struct range r,
                        uint32_t entry, struct lam_extents *out,
                        struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;

    if (entry == 0)
        return append(out, e, r, LAM_EXTENT_UNALLOCATED, 0, err);
    if (entry == VMDK_GTE_ZERO && s->zeroed)
        return append(out, e, r, LAM_EXTENT_ZERO, 0, err);
    int rc = vmdk_check_entry(e, r.offset, entry, err);
    if (rc < 0)
        return rc;
    uint64_t host = vmdk_grain_host(&s->h, entry);
    return s->compressed
        ? append(out, e, r, LAM_EXTENT_COMPRESSED, host, err)
        : append(out, e, r, LAM_EXTENT_DATA,
                 host + r.offset % s->grain_size, err);
}

/* @r lies inside what one table covers. */
static int map_table(const struct vmdk_extent *e, const struct vmdk_table *t,
                     struct range r, struct lam_extents *out,
                     struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;

    if (!t)
        return append(out, e, r, LAM_EXTENT_UNALLOCATED, 0, err);
    while (r.length) {
        uint64_t n = min_u64(r.length,
                             s->grain_size - r.offset % s->grain_size);
        int rc = append_grain(e, range_make(r.offset, n),
                              t->entries[vmdk_entry_index(s, r.offset)], out,
                              err);
        if (rc < 0)
            return rc;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

static int map_cached(struct vmdk *v, struct vmdk_extent *e, struct range r,
                      struct lam_extents *out, struct lam_error *err)
{
    struct vmdk_table *t;

    pthread_rwlock_rdlock(&v->lock);
    int rc = vmdk_table_cached(e->sparse, r.offset, &t)
        ? map_table(e, t, r, out, err) : 1;
    pthread_rwlock_unlock(&v->lock);
    if (rc <= 0)
        return rc;
    pthread_rwlock_wrlock(&v->lock);
    rc = vmdk_table_load(e, r.offset, &t, err);
    if (rc == 0)
        rc = map_table(e, t, r, out, err);
    pthread_rwlock_unlock(&v->lock);
    return rc;
}

static int map_sparse(struct vmdk *v, struct vmdk_extent *e, struct range r,
                      struct lam_extents *out, struct lam_error *err)
{
    uint64_t covered = e->sparse->grain_size * e->sparse->h.gtes;

    while (r.length) {
        uint64_t n = min_u64(r.length, covered - r.offset % covered);
        int rc = map_cached(v, e, range_make(r.offset, n), out, err);
        if (rc < 0)
            return rc;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

/* ------------------------------------------------------------- all of them */

/* Of a flat one the host knows the holes. */
static int map_extent(struct vmdk *v, struct vmdk_extent *e, struct range r,
                      struct lam_extents *out, struct lam_error *err)
{
    if (e->sparse)
        return map_sparse(v, e, r, out, err);
    return e->io ? append(out, e, r, LAM_EXTENT_DATA,
                          e->file_offset + r.offset, err)
                 : append(out, e, r, LAM_EXTENT_ZERO, 0, err);
}

int vmdk_map(void *format, uint64_t offset, uint64_t length,
             struct lam_extents *out, struct lam_error *err)
{
    struct vmdk *v = format;
    struct range r = range_make(offset, length);

    while (r.length) {
        struct vmdk_extent *e = vmdk_extent_at(v, r.offset);
        struct range part = range_intersect(r, e->guest);
        int rc = map_extent(v, e, range_make(part.offset - e->guest.offset,
                                             part.length), out, err);
        if (rc < 0)
            return rc;
        r = range_make(range_end(part), r.length - part.length);
    }
    return 0;
}

/* -------------------------------------------------------------- compressed */

/*
 * The marker in front of a grain says which one it is and how long.  Payloads
 * that inflate to less end where the disk does.
 */
static int inflate_at(const struct vmdk_extent *e, uint64_t offset,
                      uint64_t host, uint8_t *grain, struct lam_error *err)
{
    uint8_t marker[VMDK_MARKER_SIZE];
    const uint64_t size = e->sparse->grain_size;
    int rc = lam_io_read(e->io, marker, sizeof marker, host, err);
    if (rc < 0)
        return rc;

    uint64_t sector = le64_get(marker);
    uint32_t length = le32_get(marker + 8);
    if (sector != align_down(offset, size) / VMDK_SECTOR)
        return lam_fail(err, EUCLEAN, "the grain's marker says sector %" PRIu64
                        ", the grain table %" PRIu64, sector,
                        align_down(offset, size) / VMDK_SECTOR);
    if (!length || length > grain_bound(size))
        return lam_fail(err, EUCLEAN, "the grain's payload of %" PRIu32
                        " bytes is beyond the limit of %zu", length,
                        grain_bound(size));
    lam_autofree uint8_t *payload = malloc(length);
    if (!payload)
        return lam_fail(err, ENOMEM, "no memory for a payload of %" PRIu32
                        " bytes", length);
    rc = lam_io_read(e->io, payload, length, host + sizeof marker, err);
    if (rc < 0)
        return rc;
    return grain_inflate(payload, length, grain, vmdk_grain_length(e, offset),
                         size, err);
}

int vmdk_read_compressed_part(void *format, const struct lam_extent *extent,
                              void *buf, struct lam_error *err)
{
    struct vmdk *v = format;
    const struct vmdk_extent *e = vmdk_extent_at(v, extent->offset);
    uint64_t offset = extent->offset - e->guest.offset;
    uint64_t skip = offset % e->sparse->grain_size;
    lam_autofree uint8_t *grain = malloc(e->sparse->grain_size);

    if (!grain)
        return lam_fail(err, ENOMEM, "no memory for a grain");
    assert(skip + extent->length <= e->sparse->grain_size);
    int rc = inflate_at(e, offset, extent->host_offset, grain, err);
    if (rc == 0)
        memcpy(buf, grain + skip, extent->length);
    return rc;
}

int vmdk_read_compressed(void *format, const struct lam_extent *extent,
                         void *cluster, struct lam_error *err)
{
    return vmdk_read_compressed_part(format, extent, cluster, err);
}
