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

void codec_pool_deinit(struct codec_pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        codec_free(pool->items[i]);
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
