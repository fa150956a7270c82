/* SPDX-License-Identifier: MIT */
/*
 * log-writes.c - a filter that logs what changes the object below it.
 *
 * The log is a sector that says how many entries there are, then the entries: a
 * sector that says what was done where, and the data of a write.  All numbers
 * are little-endian (the kernel's Documentation/admin-guide/device-mapper/
 * log-writes.rst).  An entry is written when its request is done, and counted
 * after that.
 */
#include "io/log-writes.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/filter.h"

static const uint64_t MAGIC = 0x6a736677736872;
enum {
    VERSION = 1,
    MIN_SECTOR = 512,
    MAX_SECTOR = 8 << 20,
    /* Where its fields are, in the first sector and in an entry's. */
    LOG_VERSION = 8, LOG_ENTRIES = 16, LOG_SECTOR_SIZE = 24,
    ENTRY_SECTOR = 0, ENTRY_SECTORS = 8, ENTRY_FLAGS = 16, ENTRY_LENGTH = 32,
};
enum { FLAG_FLUSH = 1, FLAG_DISCARD = 4 };

struct log_filter {
    struct io_filter filter;
    struct lam_io *log;         /* owned */
    uint64_t sector_size, interval;
    pthread_mutex_t lock;       /* the log, and all below */
    uint8_t *sector;
    uint64_t end;               /* of the log, in bytes */
    uint64_t nb_entries, nb_told;   /* those that its head counts */
    bool changed;               /* something, since the last flush */
};

static struct log_filter *log_of(const struct lam_io *io)
{
    return (struct log_filter *)io;
}

/* ---------------------------------------------------------------- the log */

static int write_head(struct log_filter *l)
{
    memset(l->sector, 0, l->sector_size);
    le64_put(l->sector, MAGIC);
    le64_put(l->sector + LOG_VERSION, VERSION);
    le64_put(l->sector + LOG_ENTRIES, l->nb_entries);
    le32_put(l->sector + LOG_SECTOR_SIZE, (uint32_t)l->sector_size);
    int rc = lam_io_write(l->log, l->sector, l->sector_size, 0, NULL);
    if (rc == 0)
        l->nb_told = l->nb_entries;
    return rc;
}

/* What was done: @iov are the data, if there are any; without, @zeroes bytes
 * of zeroes. */
struct entry {
    uint64_t offset, length, flags;
    const struct iovec *iov;
    int iovcnt;
    uint64_t zeroes;
};

static int write_data(struct log_filter *l, const struct entry *e, uint64_t at)
{
    uint64_t left = e->length;

    if (e->zeroes)
        return lam_io_zero(l->log, at, e->zeroes, 0, NULL);
    for (int i = 0; i < e->iovcnt && left; i++) {
        uint64_t n = min_u64(e->iov[i].iov_len, left);
        int rc = lam_io_write(l->log, e->iov[i].iov_base, n, at, NULL);
        if (rc < 0)
            return rc;
        at += n;
        left -= n;
    }
    return 0;
}

/* With the lock. */
static int append(struct log_filter *l, const struct entry *e)
{
    uint64_t data = e->iov ? e->length : e->zeroes, end;

    if (add_overflows(l->end + l->sector_size, data, &end))
        return -EFBIG;
    memset(l->sector, 0, l->sector_size);
    le64_put(l->sector + ENTRY_SECTOR, e->offset / l->sector_size);
    le64_put(l->sector + ENTRY_SECTORS, e->length / l->sector_size);
    le64_put(l->sector + ENTRY_FLAGS, e->flags);
    int rc = write_data(l, e, l->end + l->sector_size);
    if (rc == 0)
        rc = lam_io_write(l->log, l->sector, l->sector_size, l->end, NULL);
    if (rc < 0)
        return rc;
    l->end = end;
    l->nb_entries++;
    l->changed = !(e->flags & FLAG_FLUSH);
    return l->nb_entries - l->nb_told >= l->interval ? write_head(l) : 0;
}

static int note(struct lam_io *io, const struct entry *e)
{
    struct log_filter *l = log_of(io);
    LAM_LOCKED(&l->lock);

    return append(l, e);
}

/* ---------------------------------------------------------------- requests */

static ssize_t log_writev(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    ssize_t n = io_filter_writev(io, iov, iovcnt, offset);
    const struct entry e = { .offset = offset, .length = n > 0 ? (uint64_t)n
                             : 0, .iov = iov, .iovcnt = iovcnt };
    int rc = n > 0 ? note(io, &e) : 0;

    return rc < 0 ? rc : n;
}

static int log_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    const struct entry e = { .offset = offset, .length = length,
                             .zeroes = length };
    int rc = io_filter_punch(io, offset, length);

    return rc < 0 ? rc : note(io, &e);
}

static int log_zero_range(struct lam_io *io, uint64_t offset, uint64_t length)
{
    const struct entry e = { .offset = offset, .length = length,
                             .zeroes = length };
    int rc = io_filter_zero_range(io, offset, length);

    return rc < 0 ? rc : note(io, &e);
}

static int log_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    const struct entry e = { .offset = offset, .length = length,
                             .flags = FLAG_DISCARD };
    int rc = io_filter_discard(io, offset, length);

    return rc < 0 ? rc : note(io, &e);
}

static int log_truncate(struct lam_io *io, uint64_t size)
{
    struct log_filter *l = log_of(io);
    int rc = io_filter_truncate(io, size);
    LAM_LOCKED(&l->lock);

    l->changed |= rc == 0;
    return rc;
}

/* What it stands behind is on disk when the log says so. */
static int log_flush(struct lam_io *io)
{
    const struct entry e = { .flags = FLAG_FLUSH };
    struct log_filter *l = log_of(io);
    int rc = io_filter_flush(io);
    LAM_LOCKED(&l->lock);

    if (rc < 0 || !l->changed)
        return rc;
    rc = append(l, &e);
    if (rc == 0)
        rc = write_head(l);
    return rc < 0 ? rc : lam_io_flush(l->log, NULL);
}

static void align_requests(struct log_filter *l)
{
    l->filter.io.limits.request_alignment = (uint32_t)l->sector_size;
    l->filter.io.limits.logical_sector = (uint32_t)l->sector_size;
}

static int log_set_writable(struct lam_io *io, bool writable,
                            enum lam_io_locking locking, struct lam_error *err)
{
    struct log_filter *l = log_of(io);
    int rc = lam_io_set_writable(l->log, writable, LAM_IO_UNLOCKED, err);

    if (rc == 0)
        rc = io_filter_set_writable(io, writable, locking, err);
    align_requests(l);
    return rc;
}

/* Entries that no flush has told of are there all the same. */
static void log_close(struct lam_io *io)
{
    struct log_filter *l = log_of(io);

    if (l->nb_told != l->nb_entries)
        write_head(l);
    lam_io_close(l->log);
    free(l->sector);
    pthread_mutex_destroy(&l->lock);
    io_filter_close(io);
}

static const struct lam_io_ops log_ops = {
    .name = "blklogwrites",
    .readv = io_filter_readv, .writev = log_writev, .flush = log_flush,
    .size = io_filter_size, .stat = io_filter_stat,
    .truncate = log_truncate, .punch = log_punch,
    .zero_range = log_zero_range, .discard = log_discard,
    .extent = io_filter_extent, .hole = io_filter_hole,
    .set_writable = log_set_writable,
    .descriptor = io_filter_descriptor, .inner = io_filter_inner,
    .event = io_filter_event, .close = log_close,
};

/* ------------------------------------------------------------------ opening */

static bool is_sector_size(uint64_t size)
{
    return is_power_of_two(size) && size >= MIN_SECTOR && size <= MAX_SECTOR;
}

static int damaged(uint64_t entry, struct lam_error *err)
{
    return lam_fail(err, EUCLEAN, "log entry %" PRIu64 " lies behind the end "
                    "of the log", entry);
}

/* Over the entries there are, to where the next one goes. */
static int find_end(struct log_filter *l, uint64_t count, uint64_t size,
                    struct lam_error *err)
{
    for (l->end = l->sector_size; l->nb_entries < count; l->nb_entries++) {
        uint8_t entry[ENTRY_LENGTH];
        uint64_t data = 0;

        if (l->end > size || size - l->end < l->sector_size)
            return damaged(l->nb_entries, err);
        int rc = lam_io_read(l->log, entry, sizeof entry, l->end, err);
        if (rc < 0)
            return rc;
        l->end += l->sector_size;
        if (!(le64_get(entry + ENTRY_FLAGS) & FLAG_DISCARD))
            data = le64_get(entry + ENTRY_SECTORS);
        if (data > (size - l->end) / l->sector_size)
            return damaged(l->nb_entries, err);
        l->end += data * l->sector_size;
    }
    l->nb_told = count;
    return 0;
}

static int read_log(struct log_filter *l, struct lam_error *err)
{
    uint8_t head[MIN_SECTOR];
    uint64_t size;
    int rc = lam_io_size(l->log, &size, err);

    if (rc < 0 || !size)
        return rc;
    if (size < sizeof head)
        return lam_fail(err, EINVAL, "Invalid log superblock magic");
    rc = lam_io_read(l->log, head, sizeof head, 0, err);
    if (rc < 0)
        return rc;
    if (le64_get(head) != MAGIC)
        return lam_fail(err, EINVAL, "Invalid log superblock magic");
    if (le64_get(head + LOG_VERSION) != VERSION)
        return lam_fail(err, EINVAL, "Unsupported log version %" PRIu64,
                        le64_get(head + LOG_VERSION));
    l->sector_size = le32_get(head + LOG_SECTOR_SIZE);
    if (!is_sector_size(l->sector_size))
        return lam_fail(err, EINVAL, "Invalid log sector size %" PRIu64,
                        l->sector_size);
    return find_end(l, le64_get(head + LOG_ENTRIES), size, err);
}

static int start(struct log_filter *l, const struct io_log_options *o,
                 struct lam_error *err)
{
    if (!is_sector_size(o->sector_size))
        return lam_fail(err, EINVAL, "Invalid log sector size %" PRIu64,
                        o->sector_size);
    if (!o->interval)
        return lam_fail(err, EINVAL, "Invalid log superblock update interval "
                        "0");
    l->sector_size = l->end = o->sector_size;
    l->interval = o->interval;
    int rc = o->append ? read_log(l, err) : 0;
    if (rc < 0)
        return rc;
    l->sector = malloc(l->sector_size);
    return l->sector ? 0 : lam_fail(err, ENOMEM, "no memory for a log's "
                                    "sector");
}

int lam_io_log_new(struct lam_io *inner, struct lam_io *log,
                   const struct io_log_options *options, struct lam_io **out,
                   struct lam_error *err)
{
    struct log_filter *l = calloc(1, sizeof *l);
    int rc = l ? 0 : lam_fail(err, ENOMEM, "no memory for a log of writes");

    if (rc == 0) {
        l->log = log;
        rc = start(l, options, err);
    }
    if (rc == 0)
        rc = io_filter_init(&l->filter, &log_ops, inner, 0, IO_FILTER_WHOLE,
                            err);
    if (rc < 0) {
        if (l)
            free(l->sector);
        free(l);
        lam_io_close(log);
        lam_io_close(inner);
        return rc;
    }
    pthread_mutex_init(&l->lock, NULL);
    align_requests(l);
    *out = &l->filter.io;
    return 0;
}
