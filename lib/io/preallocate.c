/* SPDX-License-Identifier: MIT */
/*
 * preallocate.c - host space that reads as zero, thin or thick.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "io/io.h"

/* Zeroes that are really written: the space is there for good, and it is not
 * marked as unwritten either. */
static int write_zeroes(struct lam_io *io, struct range r,
                        struct lam_error *err)
{
    uint64_t chunk = min_u64(r.length, LAM_MIB);
    lam_autofree void *zeroes = buffer_new(chunk);

    if (!zeroes)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " zeroes", chunk);
    memset(zeroes, 0, chunk);
    while (r.length) {
        uint64_t n = min_u64(chunk, r.length);
        int rc = lam_io_write(io, zeroes, n, r.offset, err);

        if (rc < 0)
            return rc;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

/* As posix_fallocate(): where the host cannot reserve, it is written to. */
static int reserve(struct lam_io *io, struct range r, struct lam_error *err)
{
    uint64_t size = atomic_load(&io->size);
    struct range there = range_intersect(r, range_make(0, size));
    int rc = lam_io_zero(io, there.offset, there.length, 0, err);

    if (rc < 0 || range_end(r) <= size)
        return rc;
    rc = lam_io_allocate(io, r.offset, r.length, err);
    if (rc != -ENOTSUP)
        return rc;
    uint64_t from = max_u64(r.offset, size);
    return write_zeroes(io, range_make(from, range_end(r) - from), err);
}

int lam_io_first_block(struct lam_io *io, uint64_t size, struct lam_error *err)
{
    static const uint8_t zeroes[4096];
    uint64_t length = min_u64(size, sizeof zeroes);

    return length ? lam_io_write(io, zeroes, length, 0, err) : 0;
}

int lam_io_preallocate(struct lam_io *io, uint64_t offset, uint64_t length,
                       enum lam_preallocation mode, struct lam_error *err)
{
    struct range r = range_make(offset, length);

    if (!length)
        return 0;
    switch (mode) {
    case LAM_PREALLOC_FULL:
        return write_zeroes(io, r, err);
    case LAM_PREALLOC_FALLOC:
        return reserve(io, r, err);
    default:
        return lam_io_zero(io, offset, length, LAM_ZERO_UNMAP, err);
    }
}
