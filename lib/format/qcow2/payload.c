/* SPDX-License-Identifier: MIT */
/*
 * payload.c - compressed clusters: reading and writing their payloads.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/alloc.h"
#include "format/qcow2/compress.h"
#include "format/qcow2/inflight.h"
#include "format/qcow2/release.h"
#include "format/qcow2/table.h"

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

/* The last sector of a payload may lie beyond the end of the file: its missing
 * bytes are zeroes.  A payload that starts there is damage. */
static int read_payload(struct qcow2 *q, const struct lam_extent *e,
                        uint8_t *payload, struct lam_error *err)
{
    uint64_t size = atomic_load(&q->io->size);
    uint64_t length = e->host_length;

    if (!range_fits(e->host_offset, length, size)) {
        int rc = lam_io_size(q->io, &size, err);

        if (rc < 0)
            return rc;
        if (q->io->eof_unit != UINT64_MAX && e->host_offset >= size)
            return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64
                            ": compressed data at host offset %#" PRIx64
                            " begins beyond the end of the file, %" PRIu64,
                            e->offset, e->host_offset, size);
        length = e->host_offset < size
               ? min_u64(length, size - e->host_offset) : 0;
        memset(payload + length, 0, e->host_length - length);
    }
    return length ? lam_io_read(q->io, payload, length, e->host_offset, err)
                  : 0;
}

int qcow2_read_compressed(void *format, const struct lam_extent *extent,
                          void *cluster, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct codec *codec;

    assert(extent->state == LAM_EXTENT_COMPRESSED);
    lam_autofree uint8_t *payload = malloc(extent->host_length);
    if (!payload)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu32
                        " compressed bytes", extent->host_length);
    int rc = read_payload(q, extent, payload, err);
    if (rc < 0)
        return rc;
    rc = codec_take(q, &codec, err);
    if (rc < 0)
        return rc;
    rc = codec_inflate(codec, payload, extent->host_length, cluster,
                       q->g.cluster_size, err);
    codec_give_back(q, codec);
    if (rc < 0)
        return lam_error_prefix(err, rc, "guest offset %#" PRIx64
                                ", payload at host offset %#" PRIx64,
                                extent->offset, extent->host_offset);
    return 0;
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
    rc = lam_io_write(a.io, data, a.length, a.host_offset, err);
    if (rc == 0)
        return qcow2_write_finish(q, &a, err);
    qcow2_write_cancel(q, &a);
    return rc;
}

static int place_payload(struct qcow2 *q, const void *payload, uint64_t length,
                         uint64_t *host, struct lam_error *err)
{
    {
        LAM_LOCKED(&q->alloc_lock);
        release_reap(q);
        int rc = alloc_bytes(q, length, host, err);
        if (rc < 0)
            return rc;
    }
    atomic_store(&q->wrote_payload, true);
    int rc = lam_io_write(q->io, payload, length, *host, err);
    if (rc < 0) {
        LAM_LOCKED(&q->alloc_lock);
        alloc_drop(q, *host, length, NULL, NULL);
    }
    return rc;
}

static void link_payload(struct qcow2 *q, struct slice *s, uint64_t offset,
                         uint64_t host, uint64_t length,
                         struct release_batch *old)
{
    size_t byte = l2_slice_byte(q, offset);
    uint64_t i = byte / q->g.l2_entry_size;
    struct qcow2_l2_entry new = { .word = compressed_entry(&q->g, host,
                                                           length) };

    pthread_rwlock_wrlock(&q->lock);
    struct qcow2_l2_entry e = l2_get(&q->g, s->data, i);
    if (e.word)
        release_add_entry(q, old, e, false);
    l2_put(&q->g, s->data, i, new);
    cache_mark_dirty(&q->l2, s, byte, byte + q->g.l2_entry_size);
    release_pend(q, old);
    pthread_rwlock_unlock(&q->lock);
}

static int check_old_entry(struct qcow2 *q, struct slice *s, uint64_t offset,
                           struct lam_error *err)
{
    pthread_rwlock_rdlock(&q->lock);
    struct qcow2_l2_entry e = l2_get(&q->g, s->data, l2_slice_byte(q, offset) /
                                                     q->g.l2_entry_size);
    int rc = l2_check_entry(q, offset, e, err);
    pthread_rwlock_unlock(&q->lock);
    return rc;
}

/* The cluster is claimed and its slice pinned. */
static int store_payload(struct qcow2 *q, struct slice *s, uint64_t offset,
                         const void *payload, uint64_t length,
                         struct lam_error *err)
{
    uint64_t host;
    lam_autofree struct release_batch *old = release_new(1);

    if (!old)
        return lam_fail(err, ENOMEM, "no memory for a compressed write");
    int rc = check_old_entry(q, s, offset, err);
    if (rc == 0)
        rc = place_payload(q, payload, length, &host, err);
    if (rc == 0)
        link_payload(q, s, offset, host, length, lam_take(&old));
    return rc;
}

static int deflate_cluster(struct qcow2 *q, const void *data, uint8_t *payload,
                           size_t *length, struct lam_error *err)
{
    struct codec *codec;
    int rc = codec_take(q, &codec, err);

    if (rc < 0)
        return rc;
    *length = codec_deflate(codec, data, q->g.cluster_size, payload,
                            q->g.cluster_size - 1);
    codec_give_back(q, codec);
    return 0;
}

int qcow2_write_compressed(void *format, uint64_t offset, const void *data,
                           struct lam_error *err)
{
    struct qcow2 *q = format;
    struct claim claim = { .range = { offset, q->g.cluster_size } };
    struct slice *s;
    size_t length;

    assert(is_aligned(offset, q->g.cluster_size));
    int rc = qcow2_before_change(q, err);
    if (rc == 0)
        rc = bitmaps_mark(q, offset, q->g.cluster_size, err);
    if (rc < 0)
        return rc;
    if (q->data_file)
        return lam_fail(err, ENOTSUP, "an image with an external data file "
                        "holds no compressed clusters");
    lam_autofree uint8_t *payload = malloc(q->g.cluster_size);
    if (!payload)
        return lam_fail(err, ENOMEM, "no memory for a compressed cluster");
    rc = deflate_cluster(q, data, payload, &length, err);
    if (rc < 0)
        return rc;
    if (!length)
        return write_plain(q, offset, data, err);

    while (!claim_try(&q->inflight, &claim))
        claim_wait(&q->inflight, offset);
    rc = l2_open_for_change(q, offset, &s, err);
    if (rc == 0) {
        rc = store_payload(q, s, offset, payload, length, err);
        slice_unpin(s);
    }
    claim_drop(&q->inflight, &claim);
    return rc;
}
