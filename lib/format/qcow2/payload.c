/* SPDX-License-Identifier: MIT */
/*
 * payload.c - compressed clusters: reading and writing their payloads.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/compress.h"

/* A codec for one call: from the pool, or new. */
static int codec_take(struct qcow2 *q, struct codec **out,
                      struct lam_error *err)
{
    {
        LAM_LOCKED(&q->codecs.lock);
        if (q->codecs.count) {
            *out = q->codecs.items[--q->codecs.count];
            return 0;
        }
    }
    return codec_new(q->header.compression_type, out, err);
}

static bool pool_has_room(struct codec_pool *pool)
{
    if (pool->count < pool->capacity)
        return true;
    size_t n = pool->capacity ? pool->capacity * 2 : 8;
    struct codec **items = realloc(pool->items, n * sizeof(struct codec *));

    if (!items)
        return false;
    pool->items = items;
    pool->capacity = n;
    return true;
}

static void codec_give_back(struct qcow2 *q, struct codec *codec)
{
    {
        LAM_LOCKED(&q->codecs.lock);
        if (pool_has_room(&q->codecs)) {
            q->codecs.items[q->codecs.count++] = codec;
            return;
        }
    }
    codec_free(codec);
}

void codec_pool_empty(struct codec_pool *pool)
{
    LAM_LOCKED(&pool->lock);
    while (pool->count)
        codec_free(pool->items[--pool->count]);
}

void codec_pool_deinit(struct codec_pool *pool)
{
    codec_pool_empty(pool);
    free(pool->items);
    pthread_mutex_destroy(&pool->lock);
}

/*
 * The end of the file may cut the last sector of a payload, or more than that
 * where an entry claims sectors in vain.  *@present is what there is of it.
 */
static int find_present(struct qcow2 *q, const struct lam_extent *e,
                        uint64_t *present, struct lam_error *err)
{
    uint64_t size = atomic_load(&q->io->size);

    *present = e->host_length;
    if (range_fits(e->host_offset, e->host_length, size))
        return 0;
    int rc = lam_io_size(q->io, &size, err);
    if (rc < 0)
        return rc;
    if (q->io->eof_unit != UINT64_MAX && e->host_offset >= size)
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64
                        ": compressed data at host offset %#" PRIx64
                        " begins beyond the end of the file, %" PRIu64,
                        e->offset, e->host_offset, size);
    *present = e->host_offset < size
             ? min_u64(*present, size - e->host_offset) : 0;
    return 0;
}

/* Zeroes stand for what is missing. */
static int read_payload(struct qcow2 *q, const struct lam_extent *e,
                        uint8_t *payload, uint64_t *present,
                        struct lam_error *err)
{
    int rc = find_present(q, e, present, err);

    if (rc < 0)
        return rc;
    memset(payload + *present, 0, e->host_length - *present);
    lam_io_event(q->io, IO_EVENT_READ_COMPRESSED);
    return *present ? lam_io_read(q->io, payload, *present, e->host_offset,
                                  err) : 0;
}

/* The zeroes that stand for what is missing do not count: they could make
 * something of a stream that was cut. */
static int inflate_payload(struct qcow2 *q, const struct lam_extent *e,
                           const uint8_t *payload, uint64_t present,
                           void *cluster, size_t wanted, size_t *made,
                           struct lam_error *err)
{
    bool trusted = q->io->eof_unit == UINT64_MAX;
    struct codec *codec;
    int rc = codec_take(q, &codec, err);

    if (rc < 0)
        return rc;
    rc = codec_inflate_part(codec, payload, trusted ? e->host_length : present,
                            cluster, wanted, q->g.cluster_size, made, err);
    codec_give_back(q, codec);
    return lam_error_prefix(err, rc, "guest offset %#" PRIx64
                            ", payload at host offset %#" PRIx64, e->offset,
                            e->host_offset);
}

int qcow2_read_beginning(struct qcow2 *q, const struct lam_extent *extent,
                         void *cluster, size_t wanted, size_t *made,
                         struct lam_error *err)
{
    assert(extent->state == LAM_EXTENT_COMPRESSED);
    lam_autofree uint8_t *payload = malloc(extent->host_length);
    if (!payload)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu32
                        " compressed bytes", extent->host_length);
    uint64_t present;
    int rc = read_payload(q, extent, payload, &present, err);
    return rc < 0 ? rc : inflate_payload(q, extent, payload, present, cluster,
                                         wanted, made, err);
}

int qcow2_read_compressed(void *format, const struct lam_extent *extent,
                          void *cluster, struct lam_error *err)
{
    struct qcow2 *q = format;
    size_t made;

    return qcow2_read_beginning(q, extent, cluster, q->g.cluster_size, &made,
                                err);
}

/* ----------------------------------------------------------------- writing */

/* A cluster that does not shrink. */
static int write_plain(struct qcow2 *q, uint64_t offset, const void *data,
                       struct lam_error *err)
{
    struct format_allocation a;
    int rc = qcow2_write_begin(q, offset, q->g.cluster_size, &a, err);

    if (rc < 0)
        return rc;
    assert(a.length == q->g.cluster_size);
    lam_io_event(a.io, IO_EVENT_WRITE_AIO);
    rc = lam_io_write(a.io, data, a.length, a.host_offset, err);
    if (rc == 0)
        return qcow2_write_finish(q, &a, err);
    qcow2_write_cancel(q, &a);
    return rc;
}

/*
 * Deflated one after another into a buffer, so that what is near to the guest
 * is near on the host and goes out in one write.
 */
static int deflate_clusters(void *format, uint64_t offset, const uint8_t *data,
                            uint64_t length, uint8_t *buf,
                            struct format_payload *items,
                            struct lam_error *err)
{
    struct qcow2 *q = format;
    const uint64_t size = q->g.cluster_size;
    struct codec *codec = NULL;
    uint64_t used = 0;
    int rc = codec_take(q, &codec, err);

    assert(is_aligned(offset | length, size));
    if (rc < 0)
        return rc;
    for (uint64_t done = 0; done < length; done += size, items++) {
        *items = (struct format_payload){
            .guest = offset + done,
            .start = used,
            .length = codec_deflate(codec, data + done, size, buf + used,
                                    size - 1),
        };
        used += items->length;
    }
    codec_give_back(q, codec);
    return 0;
}

/* What does not shrink is stored at once. */
static int store_plain(struct qcow2 *q, struct format_payload *items,
                       size_t *count, uint64_t offset, const uint8_t *data,
                       struct lam_error *err)
{
    size_t n = 0;
    int rc = 0;

    for (size_t i = 0; i < *count && rc == 0; i++) {
        if (items[i].length)
            items[n++] = items[i];
        else
            rc = write_plain(q, items[i].guest,
                             data + (items[i].guest - offset), err);
    }
    *count = n;
    return rc;
}

int qcow2_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                           uint64_t length, struct lam_error *err)
{
    struct qcow2 *q = format;
    size_t count = length >> q->g.cluster_bits;
    int rc = qcow2_before_change(q, err);

    if (rc < 0)
        return rc;
    if (q->data_file)
        return lam_fail(err, ENOTSUP, "an image with an external data file "
                        "holds no compressed clusters");
    lam_autofree uint8_t *bytes = malloc(length);
    lam_autofree struct format_payload *items = calloc(count, sizeof *items);
    if (!bytes || !items)
        return lam_fail(err, ENOMEM, "no memory for %zu compressed clusters",
                        count);
    rc = deflate_clusters(q, offset, data, length, bytes, items, err);
    if (rc == 0)
        rc = store_plain(q, items, &count, offset, data, err);
    return rc < 0 ? rc : qcow2_write_payloads(q, items, count, bytes,
                                              FORMAT_PAYLOAD_EXACT, err);
}

/* ---------------------------------------------------- payloads as they are */

static unsigned payload_kind(void *format)
{
    const struct qcow2 *q = format;

    return q->data_file ? 0 : 1 + (unsigned)q->header.compression_type;
}

/* Whatever the end of the file cuts is right only if it inflates: what is
 * missing may be the slack of a last sector, or data. */
static int check_cut(struct qcow2 *q, const struct lam_extent *run,
                     size_t count, const uint8_t *buf, struct lam_error *err)
{
    lam_autofree void *cluster = NULL;

    for (size_t i = 0; i < count; i++) {
        const struct lam_extent *e = &run[i];
        uint64_t present;

        int rc = find_present(q, e, &present, err);
        if (rc < 0)
            return rc;
        if (present == e->host_length)
            continue;
        if (!cluster)
            cluster = malloc(q->g.cluster_size);
        if (!cluster)
            return lam_fail(err, ENOMEM, "no memory for a cluster");
        size_t made;
        rc = inflate_payload(q, e, buf + (e->host_offset - run->host_offset),
                             present, cluster, q->g.cluster_size, &made, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_payloads(void *format, const struct lam_extent *run,
                         size_t count, void *buf, struct lam_error *err)
{
    struct qcow2 *q = format;
    const struct lam_extent *last = &run[count - 1];
    struct lam_extent all = run[0];

    all.host_length = (uint32_t)(last->host_offset + last->host_length -
                                 all.host_offset);
    uint64_t present;
    int rc = read_payload(q, &all, buf, &present, err);
    if (rc < 0 || present == all.host_length)
        return rc;
    return check_cut(q, run, count, buf, err);
}

const struct format_payload_ops qcow2_payloads = {
    .kind = payload_kind,
    .read = read_payloads,
    .deflate = deflate_clusters,
    .place = qcow2_place_payloads,
    .store = qcow2_store_payloads,
    .cancel = qcow2_cancel_payloads,
    .fills = true,
};
