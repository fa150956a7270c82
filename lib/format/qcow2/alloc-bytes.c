/* SPDX-License-Identifier: MIT */
/*
 * alloc-bytes.c - host space for compressed clusters, which lie one behind the
 * other, several in one host cluster.
 */
#include "format/qcow2/alloc.h"

#include <inttypes.h>

/* May clusters [first, last] each take one more reference? */
static bool can_share(struct qcow2 *q, uint64_t first, uint64_t last)
{
    for (uint64_t c = first; c <= last; c++) {
        uint64_t value;

        if (refcount_read(q, c, &value, NULL) < 0 || !value ||
            value == q->g.refcount_max)
            return false;
    }
    return true;
}

/* Exactly these clusters, if they are free; nothing is read that was not. */
static bool reserve_these(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t found;

    if (alloc_check_place(q, first, n, NULL) < 0 ||
        alloc_count_free(q, first, n, &found, NULL) < 0 || found < n ||
        overlap_check(q, 0, first << q->g.cluster_bits,
                      n << q->g.cluster_bits, NULL) < 0 ||
        alloc_reserve(q, first, n, NULL) < 0)
        return false;
    if (q->alloc.hint == first)
        q->alloc.hint += n;
    return true;
}

/* Payloads reach up to @end. */
static void move_cursor(struct qcow2 *q, uint64_t end)
{
    q->alloc.byte_cursor = is_aligned(end, q->g.cluster_size) ? 0 : end;
    q->alloc.payload_end = max_u64(q->alloc.payload_end, end);
}

bool alloc_extend(struct qcow2 *q, uint64_t host, uint64_t length)
{
    struct allocator *a = &q->alloc;
    uint64_t first = host_cluster(&q->g, host);
    uint64_t last = host_cluster(&q->g, host + length - 1);
    uint64_t open = host_cluster(&q->g, a->byte_cursor);
    uint64_t shared = min_u64(last, open);

    if (!a->byte_cursor || first > open || !can_share(q, first, shared) ||
        (host + length - 1) >> compressed_offset_bits(&q->g))
        return false;
    if (last > open && !reserve_these(q, open + 1, last - open))
        return false;
    for (uint64_t c = first; c <= shared; c++) {
        if (refcount_raise(q, c, NULL) == 0)
            continue;
        while (c > first)
            refcount_lower(q, --c);
        for (c = open + 1; c <= last; c++)
            refcount_lower(q, c);
        return false;
    }
    move_cursor(q, max_u64(a->byte_cursor, host + length));
    return true;
}

/* The first byte at or after @from that lies like @sector_offset in its
 * sector. */
static uint64_t place_in_sector(uint64_t from, unsigned sector_offset)
{
    uint64_t place = align_down(from, QCOW2_SECTOR) + sector_offset;

    return place < from ? place + QCOW2_SECTOR : place;
}

int alloc_bytes(struct qcow2 *q, uint64_t length, unsigned sector_offset,
                uint64_t *host, struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    bool anywhere = sector_offset == ALLOC_ANYWHERE;
    unsigned lead = anywhere ? 0 : sector_offset;
    uint64_t n = div_up(lead + length, q->g.cluster_size), got;

    assert(length > 0 && lead < QCOW2_SECTOR);
    lam_io_event(q->io, IO_EVENT_CLUSTER_ALLOC_BYTES);
    *host = anywhere ? a->byte_cursor : place_in_sector(a->byte_cursor, lead);
    if (a->byte_cursor && alloc_extend(q, *host, length))
        return 0;
    int rc = n == 1 ? alloc_clusters(q, 1, host, &got, err)
                    : alloc_contiguous(q, n, host, err);
    if (rc < 0)
        return rc;
    *host += lead;
    if ((*host + length - 1) >> compressed_offset_bits(&q->g)) {
        alloc_drop(q, *host, length, NULL, NULL);
        return lam_fail(err, EFBIG, "compressed data at host offset %#" PRIx64
                        " does not fit the %u bits of the entry", *host,
                        compressed_offset_bits(&q->g));
    }
    move_cursor(q, *host + length);
    return 0;
}
