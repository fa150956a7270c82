/* SPDX-License-Identifier: MIT */
/*
 * quorum.c - several host objects as one, and their votes.
 *
 * Objects that differ are nothing that this one could tell of: a request that
 * too few agree on fails with -EIO, and the caller says where it was.
 */
#include "io/quorum.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "extent/range.h"

/* Each child has a buffer of its own while it is read. */
enum { READ_MAX = 1 << 20 };

struct quorum {
    struct lam_io io;
    struct io_quorum_options options;
    unsigned count;
    struct lam_io *children[IO_QUORUM_MAX];
};

static struct quorum *quorum_of(const struct lam_io *io)
{
    return (struct quorum *)io;
}

/* For rules of faults below a child, which has no engine of its own to tell of
 * what it does. */
static int read_child(struct lam_io *child, void *bytes, size_t length,
                      uint64_t offset)
{
    lam_io_event(child, IO_EVENT_READ_AIO);
    return lam_io_read(child, bytes, length, offset, NULL);
}

/* What became of a request, child by child: 0 or -errno. */
struct outcome {
    int rc[IO_QUORUM_MAX];
};

/* 0 if enough of them succeeded; else the error that most of them had. */
static int judge(const struct quorum *q, const struct outcome *o)
{
    unsigned good = 0, most = 0;
    int error = -EIO;

    for (unsigned i = 0; i < q->count; i++) {
        unsigned same = 0;
        good += o->rc[i] >= 0;
        for (unsigned k = 0; k < q->count && o->rc[i] < 0; k++)
            same += o->rc[k] == o->rc[i];
        if (same > most) {
            most = same;
            error = o->rc[i];
        }
    }
    return good >= q->options.threshold ? 0 : error;
}

/* ------------------------------------------------------------------ reading */

struct ballot {
    struct outcome outcome;
    uint8_t *bytes;             /* @length of each child */
    size_t length;
    uint64_t offset;
};

static uint8_t *vote(const struct ballot *b, unsigned child)
{
    return b->bytes + child * b->length;
}

static bool agree(const struct ballot *b, unsigned i, unsigned k)
{
    return b->outcome.rc[i] == 0 && b->outcome.rc[k] == 0 &&
           !memcmp(vote(b, i), vote(b, k), b->length);
}

/* How many say the same as child @i, and whether it is the first to say so. */
static unsigned count_votes(const struct quorum *q, const struct ballot *b,
                            unsigned i, bool *first)
{
    unsigned votes = 0;

    *first = true;
    for (unsigned k = 0; k < q->count; k++) {
        bool same = agree(b, i, k);
        votes += same;
        *first &= !(same && k < i);
    }
    return votes;
}

/* The child that most others agree with, of several such contents the one that
 * came up last; -EIO: too few do. */
static int elect(const struct quorum *q, const struct ballot *b)
{
    unsigned most = 0;
    int winner = -EIO;

    for (unsigned i = 0; i < q->count; i++) {
        bool first;
        unsigned votes = count_votes(q, b, i, &first);
        if (first && votes >= q->options.threshold && votes >= most) {
            most = votes;
            winner = (int)i;
        }
    }
    return winner;
}

/* Who cannot be put right now is outvoted again the next time. */
static void put_right(const struct quorum *q, const struct ballot *b,
                      unsigned winner)
{
    for (unsigned i = 0; i < q->count; i++)
        if (b->outcome.rc[i] == 0 && !agree(b, i, winner))
            lam_io_write(q->children[i], vote(b, winner), b->length, b->offset,
                         NULL);
}

static int read_all(const struct quorum *q, struct ballot *b)
{
    for (unsigned i = 0; i < q->count; i++)
        b->outcome.rc[i] = read_child(q->children[i], vote(b, i), b->length,
                                      b->offset);
    int rc = judge(q, &b->outcome);
    int winner = rc < 0 ? rc : elect(q, b);
    if (winner >= 0 && q->options.rewrite)
        put_right(q, b, (unsigned)winner);
    return winner;
}

static int read_first(const struct quorum *q, struct ballot *b)
{
    int rc = -EIO;

    for (unsigned i = 0; i < q->count; i++) {
        rc = read_child(q->children[i], vote(b, 0), b->length, b->offset);
        if (rc == 0)
            return 0;
    }
    return rc;
}

/* Spreads what was read over @iov. */
static void hand_out(const struct iovec *iov, const uint8_t *bytes,
                     size_t length)
{
    for (; length; iov++) {
        size_t part = min_u64(iov->iov_len, length);
        memcpy(iov->iov_base, bytes, part);
        bytes += part;
        length -= part;
    }
}

static uint64_t iov_total(const struct iovec *iov, int iovcnt)
{
    uint64_t total = 0;

    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    return total;
}

static ssize_t quorum_readv(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    const struct quorum *q = quorum_of(io);
    uint64_t size = atomic_load(&io->size);
    uint64_t length = min_u64(iov_total(iov, iovcnt), READ_MAX);
    bool one = q->options.pattern == IO_QUORUM_FIFO;

    if (offset >= size)
        return 0;
    length = min_u64(length, size - offset);
    lam_autofree uint8_t *bytes = malloc(length * (one ? 1 : q->count));
    if (!bytes)
        return -ENOMEM;
    struct ballot b = { .bytes = bytes, .length = length, .offset = offset };
    int winner = one ? read_first(q, &b) : read_all(q, &b);
    if (winner < 0)
        return winner;
    hand_out(iov, vote(&b, (unsigned)winner), length);
    return (ssize_t)length;
}

/* ------------------------------------------------------------------ changes */

static ssize_t quorum_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    const struct quorum *q = quorum_of(io);
    uint64_t length = iov_total(iov, iovcnt);
    struct outcome o;

    if (offset > atomic_load(&io->size) ||
        length > atomic_load(&io->size) - offset)
        return -ENOSPC;
    for (unsigned i = 0; i < q->count; i++) {
        lam_io_event(q->children[i], IO_EVENT_WRITE_AIO);
        o.rc[i] = lam_io_writev(q->children[i], iov, iovcnt, offset, NULL);
    }
    int rc = judge(q, &o);
    return rc < 0 ? rc : (ssize_t)length;
}

static int quorum_flush(struct lam_io *io)
{
    const struct quorum *q = quorum_of(io);
    struct outcome o;

    for (unsigned i = 0; i < q->count; i++)
        o.rc[i] = lam_io_flush(q->children[i], NULL);
    return judge(q, &o);
}

/* The children see to it by whatever means each of them has. */
static int zero_all(struct lam_io *io, uint64_t offset, uint64_t length,
                    unsigned flags)
{
    const struct quorum *q = quorum_of(io);
    struct outcome o;

    for (unsigned i = 0; i < q->count; i++)
        o.rc[i] = lam_io_zero(q->children[i], offset, length, flags, NULL);
    return judge(q, &o);
}

static int quorum_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return zero_all(io, offset, length, LAM_ZERO_UNMAP);
}

static int quorum_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    return zero_all(io, offset, length, 0);
}

/* After a discard each of them may read as something else: no agreement could
 * be reached any more.  So what is not needed reads as zero. */
static int quorum_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return zero_all(io, offset, length, LAM_ZERO_UNMAP);
}

static int quorum_truncate(struct lam_io *io, uint64_t size)
{
    const struct quorum *q = quorum_of(io);
    struct outcome o;

    for (unsigned i = 0; i < q->count; i++)
        o.rc[i] = lam_io_truncate(q->children[i], size, NULL);
    return judge(q, &o);
}

static int quorum_set_writable(struct lam_io *io, bool writable,
                               enum lam_io_locking locking,
                               struct lam_error *err)
{
    const struct quorum *q = quorum_of(io);

    for (unsigned i = 0; i < q->count; i++) {
        int rc = lam_io_set_writable(q->children[i], writable, locking, err);
        if (rc == 0)
            continue;
        while (i-- > 0)
            lam_io_set_writable(q->children[i], !writable, locking, NULL);
        return rc;
    }
    return 0;
}

/* -------------------------------------------------------------- what it is */

static int quorum_size(struct lam_io *io, uint64_t *size)
{
    const struct quorum *q = quorum_of(io);
    int rc = lam_io_size(q->children[q->options.leader], size, NULL);

    for (unsigned i = 0; i < q->count && rc == 0; i++) {
        uint64_t other;
        rc = lam_io_size(q->children[i], &other, NULL);
        if (rc == 0 && q->options.same_length && other != *size)
            rc = -EIO;
    }
    return rc;
}

/* An object of its own, as large as all together. */
static int quorum_stat(struct lam_io *io, struct stat *st)
{
    const struct quorum *q = quorum_of(io);

    *st = (struct stat){ .st_ino = (ino_t)(uintptr_t)io, .st_mode = S_IFREG };
    for (unsigned i = 0; i < q->count; i++) {
        uint64_t bytes;
        if (lam_io_allocated_size(q->children[i], &bytes, NULL) == 0)
            st->st_blocks += (blkcnt_t)(bytes / 512);
    }
    return 0;
}

/* A hole is where all have one. */
static int quorum_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                         enum lam_io_state *state, uint64_t *run)
{
    const struct quorum *q = quorum_of(io);

    *state = LAM_IO_HOLE;
    for (unsigned i = 0; i < q->count; i++) {
        enum lam_io_state one;
        int rc = lam_io_extent(q->children[i], offset, length, &one, run, NULL);
        if (rc < 0) {
            one = LAM_IO_DATA;
            *run = length;
        }
        if (one != LAM_IO_HOLE)
            *state = LAM_IO_DATA;
        length = min_u64(length, *run);
    }
    *run = length;
    return 0;
}

static void quorum_close(struct lam_io *io)
{
    struct quorum *q = quorum_of(io);

    for (unsigned i = 0; i < q->count; i++)
        lam_io_close(q->children[i]);
    lam_io_deinit(io);
    free(q);
}

/* What all the tables have. */
#define QUORUM_OPS                                                          \
    .readv = quorum_readv, .writev = quorum_writev, .flush = quorum_flush,  \
    .size = quorum_size, .stat = quorum_stat, .punch = quorum_punch,        \
    .zero_range = quorum_zero_range, .discard = quorum_discard,             \
    .extent = quorum_extent, .set_writable = quorum_set_writable,           \
    .close = quorum_close

static const struct lam_io_ops quorum_ops = { .name = "quorum", QUORUM_OPS };

static const struct lam_io_ops verify_ops = {
    .name = "blkverify", QUORUM_OPS, .truncate = quorum_truncate,
};

static int init(struct quorum *q, struct lam_error *err)
{
    uint64_t size;
    int rc = quorum_size(&q->io, &size);

    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not refresh total sector count");
    atomic_store(&q->io.size, size);
    q->io.limits.can_punch = q->io.limits.can_zero_range = true;
    q->io.limits.can_discard = true;
    q->io.limits.several = q->options.same_length;
    q->io.limits.write_max = READ_MAX;
    q->io.cache = q->children[q->options.leader]->cache;
    q->io.writable = true;
    for (unsigned i = 0; i < q->count; i++) {
        q->io.writable &= q->children[i]->writable;
        q->children[i]->unmap = true;   /* our own word counts */
        /* Where one is shorter the others are asked as well. */
        if (!q->options.same_length && i != q->options.leader)
            q->children[i]->eof_unit = UINT64_MAX;
    }
    return 0;
}

int lam_io_quorum_new(struct lam_io *const *children, unsigned count,
                      const struct io_quorum_options *options,
                      struct lam_io **out, struct lam_error *err)
{
    struct quorum *q = calloc(1, sizeof *q);

    assert(count > 0 && count <= IO_QUORUM_MAX &&
           options->threshold > 0 && options->threshold <= count);
    int rc = !q ? lam_fail(err, ENOMEM, "no memory for a quorum")
        : lam_io_init(&q->io, options->same_length ? &quorum_ops : &verify_ops,
                      options->name, err);
    if (rc < 0) {
        for (unsigned i = 0; i < count; i++)
            lam_io_close(children[i]);
        free(q);
        return rc;
    }
    memcpy(q->children, children, count * sizeof *children);
    q->options = *options;
    q->count = count;
    rc = init(q, err);
    if (rc < 0)
        quorum_close(&q->io);
    else
        *out = &q->io;
    return rc;
}
