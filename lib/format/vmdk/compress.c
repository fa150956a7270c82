/* SPDX-License-Identifier: MIT */
/*
 * compress.c - whole grains on their way into a stream-optimized extent.
 *
 * Each goes to the end of the file, behind a marker; one that is there already
 * is not replaced, as its place would be lost.  Into other extents the data go
 * as they are.
 */
#include <inttypes.h>
#include <libdeflate.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "format/vmdk/grain.h"
#include "format/vmdk/vmdk.h"

/* Payloads are a little smaller than with zlib's default. */
enum { LEVEL = 6 };

static void compressor_deinit(struct libdeflate_compressor **c)
{
    libdeflate_free_compressor(*c);
}

/* ------------------------------------------------------------------- plain */

/* All of @length fits into the extents from @offset on. */
static int write_piece(struct vmdk *v, uint64_t offset, const uint8_t *data,
                       uint64_t length, uint64_t *done, struct lam_error *err)
{
    struct format_allocation a;
    int rc = vmdk_write_begin(v, offset, length, &a, err);

    if (rc < 0)
        return rc;
    *done = a.length;
    rc = lam_io_write(a.io, data, a.length, a.host_offset, err);
    if (!a.token)
        return rc;
    if (rc == 0)
        return vmdk_write_finish(v, &a, err);
    vmdk_write_cancel(v, &a);
    return rc;
}

static int write_plain(struct vmdk *v, uint64_t offset, const uint8_t *data,
                       uint64_t length, struct lam_error *err)
{
    while (length) {
        uint64_t done;
        int rc = write_piece(v, offset, data, length, &done, err);
        if (rc < 0)
            return rc;
        offset += done;
        data += done;
        length -= done;
    }
    return 0;
}

/* -------------------------------------------------------------- compressed */

/* @payload has room for a marker in front and for zeroes behind. */
static int store(struct vmdk *v, struct vmdk_run *run, uint8_t *payload,
                 size_t length, struct lam_error *err)
{
    uint64_t total = align_up(VMDK_MARKER_SIZE + length, VMDK_SECTOR), host;
    int rc = vmdk_reserve(v, run->e, total, &host, err);

    if (rc < 0)
        return rc;
    le64_put(payload, run->offset / VMDK_SECTOR);
    le32_put(payload + 8, (uint32_t)length);
    memset(payload + VMDK_MARKER_SIZE + length, 0,
           total - VMDK_MARKER_SIZE - length);
    rc = lam_io_write(run->e->io, payload, total, host, err);
    if (rc == 0)
        vmdk_run_set(v, run, (uint32_t)(host / VMDK_SECTOR), 0);
    return rc;
}

/* One grain, at @offset within @e. */
static int write_grain(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                       uint8_t *payload, size_t length, struct lam_error *err)
{
    uint64_t end = offset + vmdk_grain_length(e, offset);
    struct vmdk_run run;
    int rc = vmdk_run_begin(v, e, offset, end, &run, err);

    if (rc < 0)
        return rc;
    if (run.state == VMDK_GRAIN_STORED)
        return lam_fail(err, EIO, "Could not write to allocated cluster for "
                        "streamOptimized");
    rc = store(v, &run, payload, length, err);
    vmdk_run_drop(v, &run);
    return rc;
}

/* Grains of one call, deflated by several threads; they are stored one after
 * the other, so that they lie in the order of the disk. */
struct batch {
    const uint8_t *data;
    uint64_t grain_size;
    size_t count, stride;       /* bytes of @payloads a grain */
    uint8_t *payloads;
    size_t *lengths;
    atomic_size_t next;
};

static void batch_deinit(struct batch *b)
{
    free(b->payloads);
    free(b->lengths);
}

static int batch_init(struct batch *b, const uint8_t *data, uint64_t length,
                      uint64_t grain_size, struct lam_error *err)
{
    b->data = data;
    b->grain_size = grain_size;
    b->count = length / grain_size;
    b->stride = VMDK_MARKER_SIZE + grain_bound(grain_size) + VMDK_SECTOR;
    b->payloads = calloc(b->count, b->stride);
    b->lengths = calloc(b->count, sizeof *b->lengths);
    return b->payloads && b->lengths ? 0
        : lam_fail(err, ENOMEM, "no memory for %zu grains", b->count);
}

/* A worker takes grains until there are none. */
static int deflate_some(void *job, unsigned worker, struct lam_error *err)
{
    struct batch *b = job;
    struct libdeflate_compressor *c lam_cleanup(compressor_deinit) =
        libdeflate_alloc_compressor(LEVEL);
    size_t i;

    (void)worker;
    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a compressor");
    while ((i = atomic_fetch_add(&b->next, 1)) < b->count)
        b->lengths[i] = grain_deflate(c, b->data + i * b->grain_size,
                                      b->grain_size, b->payloads +
                                      i * b->stride + VMDK_MARKER_SIZE);
    return 0;
}

static int write_grains(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                        const uint8_t *data, uint64_t length,
                        struct lam_error *err)
{
    const uint64_t size = e->sparse->grain_size;
    struct batch b lam_cleanup(batch_deinit) = { 0 };

    assert(is_aligned(offset, size) && is_aligned(length, size));
    int rc = batch_init(&b, data, length, size, err);
    if (rc == 0)
        rc = workers_run((unsigned)min_u64(workers_default(), b.count),
                         deflate_some, &b, err);
    for (size_t i = 0; i < b.count && rc == 0; i++)
        rc = write_grain(v, e, offset + i * size, b.payloads + i * b.stride,
                         b.lengths[i], err);
    return rc;
}

int vmdk_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                          uint64_t length, struct lam_error *err)
{
    struct vmdk *v = format;
    struct vmdk_extent *e = vmdk_extent_at(v, offset);

    if (!v->compressed)
        return write_plain(v, offset, data,
                           min_u64(length, v->size - offset), err);
    /* Several compressed extents meet at whole grains, or not at all. */
    if (offset + length > align_up(range_end(e->guest), v->grain_size))
        return lam_fail(err, ENOTSUP, "a compressed write across extents");
    int rc = vmdk_begin_change(v, e, err);
    return rc < 0 ? rc : write_grains(v, e, offset - e->guest.offset, data,
                                      length, err);
}
