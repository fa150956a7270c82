/* SPDX-License-Identifier: MIT */
/*
 * zero.c - make a range read as zeroes, or give it back to the host.
 *
 * The cheapest call that the object has, then the next: a capability is what
 * was probed at open, and the first EOPNOTSUPP turns it off for good, so that
 * hopeless calls are not repeated.
 */
#include <inttypes.h>

#include "io/change.h"
#include "io/io.h"
#include "io/transfer.h"

enum {
    ZERO_BLOCK = 16 << 10,
    ZERO_SEGMENTS = IO_PIECE / ZERO_BLOCK,
};

/* Large requests are cut, so that a signal or a cancel finds a gap. */
#define CALL_MAX LAM_GIB

typedef int range_fn(struct lam_io *io, uint64_t offset, uint64_t length);

/* Devices take whole sectors; files take anything. */
static uint32_t call_unit(const struct lam_io *io)
{
    return io->limits.is_block_device ? io->limits.logical_sector : 1;
}

/* EBUSY: of a device that is mounted, or held by somebody else; writes get
 * through. */
static bool unsupported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOTSUP || rc == -ENOSYS ||
           rc == -ENOTTY || rc == -EBUSY;
}

static int call_pieces(struct lam_io *io, range_fn *call, struct range r)
{
    while (r.length) {
        uint64_t piece = min_u64(r.length, CALL_MAX);
        int rc = call(io, r.offset, piece);
        if (rc == -EINTR)
            continue;
        if (rc < 0)
            return rc;
        r = range_make(r.offset + piece, r.length - piece);
    }
    return 0;
}

static int write_zeroes(struct lam_io *io, struct range r)
{
    static const uint8_t block[ZERO_BLOCK] __attribute__((aligned(4096)));
    while (r.length) {
        struct iovec iov[ZERO_SEGMENTS];
        uint64_t piece = min_u64(r.length, IO_PIECE), left = piece;
        int count = 0;
        for (; left; left -= iov[count++].iov_len)
            iov[count] = (struct iovec){ (void *)block,
                                         min_u64(left, ZERO_BLOCK) };
        int rc = io_write_all(io, iov, count, piece, r.offset);
        if (rc < 0)
            return rc;
        r = range_make(r.offset + piece, r.length - piece);
    }
    return 0;
}

/*
 * A punch does not move the end of the file.  Writing the last byte (or unit)
 * does, and unlike a truncate it cannot cut off what another thread appended
 * meanwhile.
 */
static int extend_to(struct lam_io *io, struct range r)
{
    if (range_end(r) <= atomic_load(&io->size))
        return 0;
    uint64_t unit = min_u64(io->limits.request_alignment, r.length);
    return write_zeroes(io, range_make(range_end(r) - unit, unit));
}

/* Whole units of @r by one of the object's own calls. */
static int zero_by_call(struct lam_io *io, struct range r, unsigned flags)
{
    const struct lam_io_limits *limits = &io->limits;
    if ((flags & LAM_ZERO_UNMAP) && limits->can_punch &&
        !atomic_load(&io->no_punch)) {
        int rc = call_pieces(io, io->ops->punch, r);
        if (!unsupported(rc))
            return rc;
        atomic_store(&io->no_punch, true);
    }
    /* A device without the command has the kernel write the zeroes. */
    bool slow = limits->is_block_device && !limits->zero_max;
    if (limits->can_zero_range && !atomic_load(&io->no_zero_range) &&
        !(slow && (flags & LAM_ZERO_NO_FALLBACK))) {
        int rc = call_pieces(io, io->ops->zero_range, r);
        if (rc == 0)
            io_grown(io, range_end(r));
        if (!unsupported(rc))
            return rc;
        atomic_store(&io->no_zero_range, true);
    }
    return -ENOTSUP;
}

static int zero_body(struct lam_io *io, struct range r, unsigned flags)
{
    if (!r.length)
        return 0;
    struct io_change change = { .range = r };
    io_change_begin(io, &change);
    int rc = zero_by_call(io, r, flags);
    io_change_end(io, &change);
    if (rc == 0)
        return extend_to(io, r);
    if (rc == -ENOTSUP && !(flags & LAM_ZERO_NO_FALLBACK))
        rc = write_zeroes(io, r);
    return rc;
}

int lam_io_zero(struct lam_io *io, uint64_t offset, uint64_t length,
                unsigned flags, struct lam_error *err)
{
    int rc = io_check_change(io, offset, length, "zero", err);
    if (rc < 0 || !length)
        return rc;
    struct range_split split =
        range_split(range_make(offset, length), call_unit(io));
    lam_io_event(io, IO_EVENT_PWRITEV_ZERO);
    rc = zero_body(io, split.body, flags);
    if (rc == 0)
        rc = write_zeroes(io, split.head);
    if (rc == 0)
        rc = write_zeroes(io, split.tail);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not zero '%s' at offset %"
                              PRIu64 ", length %" PRIu64, io->name, offset,
                              length);
    return io_sync_change(io, err);
}

/* -ENOTSUP where the object has no such call, or has refused it before. */
static int discard_body(struct lam_io *io, struct range body)
{
    if (!io->limits.can_discard || atomic_load(&io->no_discard))
        return -ENOTSUP;
    struct io_change change = { .range = body };
    io_change_begin(io, &change);
    int rc = call_pieces(io, io->ops->discard, body);
    io_change_end(io, &change);
    if (!unsupported(rc))
        return rc;
    atomic_store(&io->no_discard, true);
    return -ENOTSUP;
}

/* Whole units of what lies inside the object. */
static struct range discardable(struct lam_io *io, uint64_t offset,
                                uint64_t length)
{
    uint64_t size = atomic_load(&io->size);
    length = offset < size ? min_u64(length, size - offset) : 0;
    return range_split(range_make(offset, length), call_unit(io)).body;
}

int lam_io_discard(struct lam_io *io, uint64_t offset, uint64_t length,
                   struct lam_error *err)
{
    int rc = io_check_change(io, 0, 0, "discard", err);
    if (rc < 0 || !io->unmap)
        return rc;
    struct range body = discardable(io, offset, length);
    if (body.length)
        discard_body(io, body);
    return 0;
}

int lam_io_free(struct lam_io *io, uint64_t offset, uint64_t length,
                struct lam_error *err)
{
    int rc = io_check_change(io, 0, 0, "discard", err);
    if (rc < 0)
        return rc;
    struct range body = discardable(io, offset, length);
    rc = body.length ? discard_body(io, body) : 0;
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not discard '%s' at offset %"
                              PRIu64 ", length %" PRIu64, io->name,
                              body.offset, body.length);
    return 0;
}
