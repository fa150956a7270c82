/* SPDX-License-Identifier: MIT */
/*
 * read.c - read all of a range: short transfers, bounce buffers, the end.
 */
#include <inttypes.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "io/ahead.h"
#include "io/io.h"
#include "io/transfer.h"
#include "io/vector.h"

enum { MAX_SEGMENTS = 64 };     /* a system call; IOV_MAX is 1,024 */

/* Reads up to @length bytes into @v; fewer only at the end of the object.
 * Returns the count, or -errno. */
static int64_t read_some(struct lam_io *io, struct vector v, uint64_t length,
                         uint64_t offset)
{
    uint64_t done = 0;
    while (done < length) {
        struct iovec iov[MAX_SEGMENTS];
        uint64_t bytes;
        int count = vector_peek(&v, length - done, iov, MAX_SEGMENTS, &bytes);
        ssize_t n = io->ops->readv(io, iov, count, offset + done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        assert((uint64_t)n <= bytes);
        done += (uint64_t)n;
        /* Under O_DIRECT only the end leaves part of a unit. */
        if (n == 0 || !is_aligned((uint64_t)n, io->limits.request_alignment))
            break;
        vector_advance(&v, (uint64_t)n);
    }
    return (int64_t)done;
}

/* The same for what the object's alignment does not allow: whole units go into
 * a buffer of ours, a piece at a time. */
static int64_t read_bounced(struct lam_io *io, struct vector v,
                            uint64_t length, uint64_t offset)
{
    struct range units = range_widen(range_make(offset, length),
                                     io->limits.request_alignment);
    uint64_t max = max_u64(IO_PIECE, io->limits.request_alignment);
    size_t size = min_u64(units.length, max);
    lam_autofree uint8_t *buffer = buffer_new(size);
    if (!buffer)
        return -ENOMEM;

    uint64_t done = 0;
    for (uint64_t at = units.offset; at < range_end(units); at += size) {
        struct iovec whole = { buffer, min_u64(size, range_end(units) - at) };
        int64_t got = read_some(io, vector_make(&whole, 1), whole.iov_len, at);
        if (got < 0)
            return got;
        struct range have = range_intersect(range_make(at, (uint64_t)got),
                                            range_make(offset, length));
        vector_scatter(&v, buffer + (have.offset - at), have.length);
        done += have.length;
        if ((uint64_t)got < whole.iov_len)
            break;
    }
    return (int64_t)done;
}

/*
 * The object ended @got bytes into the request.  Zeroes follow up to the next
 * multiple of eof_unit, and nothing after that.
 */
static int check_end(struct lam_io *io, uint64_t offset, uint64_t length,
                     uint64_t got, struct lam_error *err)
{
    if (io->eof_unit == UINT64_MAX)
        return 0;
    uint64_t size = offset + got;
    if (!got) {
        int rc = lam_io_size(io, &size, err);
        if (rc < 0)
            return rc;
    }
    if (offset + length <= align_up(size, io->eof_unit))
        return 0;
    return lam_fail(err, EIO, "Could not read '%s' at offset %" PRIu64
                    ", length %" PRIu64 ": the file ends at %" PRIu64,
                    io->name, offset, length, size);
}

int lam_io_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                 uint64_t offset, struct lam_error *err)
{
    uint64_t length;
    if (!vector_total(iov, iovcnt, &length) ||
        !range_fits(offset, length, INT64_MAX))
        return lam_fail(err, EINVAL, "Could not read '%s' at offset %" PRIu64
                        ": offset and length exceed 63 bits", io->name, offset);
    if (!length)
        return 0;

    const struct lam_io_limits *limits = &io->limits;
    struct vector v = vector_make(iov, iovcnt);
    bool aligned = is_aligned(offset, limits->request_alignment) &&
                   vector_is_aligned(iov, iovcnt, limits->memory_alignment,
                                     limits->request_alignment);
    int64_t got = aligned ? read_some(io, v, length, offset)
                          : read_bounced(io, v, length, offset);
    got = io_ahead_inside(io, offset, got);
    if (got < 0)
        return lam_fail_errno(err, (int)-got, "Could not read '%s' at offset %"
                              PRIu64 ", length %" PRIu64, io->name, offset,
                              length);
    if ((uint64_t)got == length)
        return 0;
    int rc = check_end(io, offset, length, (uint64_t)got, err);
    if (rc < 0)
        return rc;
    vector_advance(&v, (uint64_t)got);
    vector_clear(&v, length - (uint64_t)got);
    return 0;
}

int lam_io_read(struct lam_io *io, void *buf, uint64_t length, uint64_t offset,
                struct lam_error *err)
{
    struct iovec iov = { buf, length };
    return lam_io_readv(io, &iov, 1, offset, err);
}
