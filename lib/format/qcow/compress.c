/* SPDX-License-Identifier: MIT */
/*
 * compress.c - compressed clusters of qcow: raw deflate, packed without gaps.
 */
#include <inttypes.h>
#include <libdeflate.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/qcow/qcow.h"

/* Readers look back no further than this: larger clusters are stored plain. */
enum { WINDOW = 4096, LEVEL = 6 };

static void free_decompressor(struct libdeflate_decompressor **d)
{
    if (*d)
        libdeflate_free_decompressor(*d);
}

static void free_compressor(struct libdeflate_compressor **c)
{
    if (*c)
        libdeflate_free_compressor(*c);
}

int qcow_read_compressed(void *format, const struct lam_extent *extent,
                         void *cluster, struct lam_error *err)
{
    struct qcow *q = format;
    struct libdeflate_decompressor *d lam_cleanup(free_decompressor) =
        libdeflate_alloc_decompressor();
    lam_autofree uint8_t *payload = malloc(extent->host_length + 1);

    if (!payload || !d)
        return lam_fail(err, ENOMEM, "no memory for a compressed cluster");
    int rc = extent->host_length
        ? lam_io_read(q->t.io, payload, extent->host_length,
                      extent->host_offset, err) : 0;
    if (rc < 0)
        return rc;
    if (libdeflate_deflate_decompress(d, payload, extent->host_length, cluster,
                                      q->t.cluster, NULL) == LIBDEFLATE_SUCCESS)
        return 0;
    return lam_fail(err, EIO, "qcow: compressed cluster of %" PRIu32 " bytes at"
                    " host offset %" PRIu64 " is damaged", extent->host_length,
                    extent->host_offset);
}

int qcow_read_compressed_part(void *format, const struct lam_extent *extent,
                              void *buf, struct lam_error *err)
{
    struct qcow *q = format;
    lam_autofree uint8_t *cluster = malloc(q->t.cluster);

    if (!cluster)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    int rc = qcow_read_compressed(format, extent, cluster, err);
    if (rc == 0)
        memcpy(buf, cluster + extent->offset % q->t.cluster, extent->length);
    return rc;
}

/* The entry that stands for @bytes at @host. */
static uint64_t compressed_entry(const struct qcow *q, uint64_t host,
                                 uint64_t bytes)
{
    return QCOW1_COMPRESSED | bytes << (63 - q->cluster_bits) | host;
}

/* ----------------------------------------------------------------- writing */

/* Each cluster into @buf, or with length 0 if it does not shrink. */
static int deflate_clusters(void *format, uint64_t offset, const uint8_t *data,
                            uint64_t length, uint8_t *buf,
                            struct format_payload *items,
                            struct lam_error *err)
{
    struct qcow *q = format;
    struct libdeflate_compressor *c lam_cleanup(free_compressor) =
        libdeflate_alloc_compressor(LEVEL);
    const uint64_t size = q->t.cluster;
    uint64_t used = 0;

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a compressed cluster");
    for (uint64_t done = 0; done < length; done += size, items++) {
        *items = (struct format_payload){ .guest = offset + done,
                                          .start = used };
        if (size <= WINDOW)
            items->length = libdeflate_deflate_compress(c, data + done, size,
                                                        buf + used, size - 1);
        used += items->length;
    }
    return 0;
}

/* A cluster that has been given its place. */
struct placed {
    struct claim claim;
    uint64_t index, host;
    uint64_t start, length;     /* in the caller's buffer */
};

static int place(struct qcow *q, uint64_t guest, uint64_t length, bool plain,
                 struct placed *p, struct lam_error *err)
{
    bool fresh;
    int rc = tables_begin_changes(&q->t, err);

    if (rc < 0)
        return rc;
    p->index = guest / q->t.cluster;
    p->length = length;
    tables_claim(&q->t, guest, &p->claim);
    rc = tables_allocate(&q->t, length, plain, &p->host, &fresh, err);
    if (rc < 0)
        claim_drop(&q->t.claims, &p->claim);
    return rc;
}

static int store(struct qcow *q, struct placed *p, const uint8_t *data,
                 bool plain, struct lam_error *err)
{
    int rc = lam_io_write(q->t.io, data, p->length, p->host, err);

    if (rc == 0)
        rc = tables_set(&q->t, p->index, 1, plain ? p->host
                        : compressed_entry(q, p->host, p->length), 0, err);
    claim_drop(&q->t.claims, &p->claim);
    return rc;
}

static int place_payload(void *format, const struct format_payload *items,
                         size_t *count, unsigned flags, void **token,
                         struct lam_error *err)
{
    lam_autofree struct placed *p = calloc(1, sizeof *p);

    assert(flags == FORMAT_PAYLOAD_EXACT);
    (void)flags;
    if (!p)
        return lam_fail(err, ENOMEM, "no memory for a compressed cluster");
    p->start = items->start;
    int rc = place(format, items->guest, items->length, false, p, err);
    if (rc < 0)
        return rc;
    *count = 1;
    *token = lam_take(&p);
    return 0;
}

static int store_payload(void *format, void *token, const uint8_t *buf,
                         struct lam_error *err)
{
    lam_autofree struct placed *p = token;

    return store(format, p, buf + p->start, false, err);
}

/* Its bytes are lost, until somebody copies the image. */
static void cancel_payload(void *format, void *token)
{
    struct qcow *q = format;
    lam_autofree struct placed *p = token;

    claim_drop(&q->t.claims, &p->claim);
}

/* As they are they fit no other format. */
static unsigned no_kind(void *format)
{
    (void)format;
    return 0;
}

const struct format_payload_ops qcow_payloads = {
    .kind = no_kind,
    .deflate = deflate_clusters,
    .place = place_payload,
    .store = store_payload,
    .cancel = cancel_payload,
};

static int write_cluster(struct qcow *q, const struct format_payload *item,
                         const uint8_t *packed, const uint8_t *data,
                         struct lam_error *err)
{
    bool plain = !item->length;
    struct placed p = { .start = item->start };
    int rc = place(q, item->guest, plain ? q->t.cluster : item->length, plain,
                   &p, err);

    return rc < 0 ? rc : store(q, &p, plain ? data : packed + item->start,
                               plain, err);
}

int qcow_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                          uint64_t length, struct lam_error *err)
{
    struct qcow *q = format;
    size_t count = length / q->t.cluster;
    lam_autofree uint8_t *packed = malloc(length);
    lam_autofree struct format_payload *items = calloc(count, sizeof *items);

    if (!packed || !items)
        return lam_fail(err, ENOMEM, "no memory for %zu compressed clusters",
                        count);
    int rc = deflate_clusters(q, offset, data, length, packed, items, err);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = write_cluster(q, &items[i], packed, data + i * q->t.cluster, err);
    return rc;
}
