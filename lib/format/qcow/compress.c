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

/* One cluster under its claim: to new space, and then the entry. */
static int store(struct qcow *q, uint64_t index, const uint8_t *data,
                 uint64_t bytes, bool plain, struct lam_error *err)
{
    uint64_t host;
    bool fresh;
    int rc = tables_allocate(&q->t, bytes, plain, &host, &fresh, err);

    if (rc == 0)
        rc = lam_io_write(q->t.io, data, bytes, host, err);
    if (rc < 0)
        return rc;
    return tables_set(&q->t, index, 1, plain ? host
                      : compressed_entry(q, host, bytes), 0, err);
}

static int write_cluster(struct qcow *q, struct libdeflate_compressor *c,
                         uint64_t offset, const uint8_t *data, uint8_t *packed,
                         struct lam_error *err)
{
    struct claim claim;
    size_t bytes = q->t.cluster > WINDOW ? 0
        : libdeflate_deflate_compress(c, data, q->t.cluster, packed,
                                      q->t.cluster - 1);

    tables_claim(&q->t, offset, &claim);
    int rc = store(q, offset / q->t.cluster, bytes ? packed : data,
                   bytes ? bytes : q->t.cluster, !bytes, err);
    claim_drop(&q->t.claims, &claim);
    return rc;
}

int qcow_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                          uint64_t length, struct lam_error *err)
{
    struct qcow *q = format;
    struct libdeflate_compressor *c lam_cleanup(free_compressor) =
        libdeflate_alloc_compressor(LEVEL);
    lam_autofree uint8_t *packed = malloc(q->t.cluster);

    if (!packed || !c)
        return lam_fail(err, ENOMEM, "no memory for a compressed cluster");
    int rc = tables_begin_changes(&q->t, err);
    for (uint64_t at = 0; at < length && rc == 0; at += q->t.cluster)
        rc = write_cluster(q, c, offset + at, data + at, packed, err);
    return rc;
}
