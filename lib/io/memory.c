/* SPDX-License-Identifier: MIT */
/*
 * memory.c - a host object that is a byte array, for tests and fuzzers.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "io/io.h"

struct memory {
    struct lam_io io;
    pthread_rwlock_t lock;      /* guards the three below */
    uint8_t *bytes;             /* zero from size to capacity */
    uint64_t size, capacity;
};

static struct memory *memory_of(struct lam_io *io)
{
    return (struct memory *)io;
}

/* Held until the end of the scope. */
static pthread_rwlock_t *read_locked(struct memory *m)
{
    pthread_rwlock_rdlock(&m->lock);
    return &m->lock;
}

static pthread_rwlock_t *write_locked(struct memory *m)
{
    pthread_rwlock_wrlock(&m->lock);
    return &m->lock;
}

#define HELD lam_cleanup(lam_cleanup_rw_unlock) __attribute__((unused))

static int resize(struct memory *m, uint64_t size)
{
    if (size > SIZE_MAX / 2)
        return -EFBIG;
    if (size > m->capacity) {
        uint64_t capacity = max_u64(size, m->capacity * 2);
        uint8_t *bytes = realloc(m->bytes, capacity);
        if (!bytes)
            return -ENOMEM;
        memset(bytes + m->capacity, 0, capacity - m->capacity);
        m->bytes = bytes;
        m->capacity = capacity;
    } else if (size < m->size) {
        memset(m->bytes + size, 0, m->size - size);
    }
    m->size = size;
    return 0;
}

static int grow(struct memory *m, uint64_t end)
{
    return end > m->size ? resize(m, end) : 0;
}

static ssize_t memory_readv(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = read_locked(m);
    size_t done = 0;
    for (int i = 0; i < iovcnt && offset + done < m->size; i++) {
        size_t n = min_u64(iov[i].iov_len, m->size - offset - done);
        memcpy(iov[i].iov_base, m->bytes + offset + done, n);
        done += n;
    }
    return (ssize_t)done;
}

static ssize_t memory_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    struct memory *m = memory_of(io);
    size_t total = 0, done = 0;
    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    HELD pthread_rwlock_t *lock = write_locked(m);
    int rc = grow(m, offset + total);
    if (rc < 0)
        return rc;
    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len)
            memcpy(m->bytes + offset + done, iov[i].iov_base, iov[i].iov_len);
        done += iov[i].iov_len;
    }
    return (ssize_t)done;
}

static int memory_flush(struct lam_io *io)
{
    (void)io;
    return 0;
}

static int memory_size(struct lam_io *io, uint64_t *size)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = read_locked(m);
    *size = m->size;
    return 0;
}

static int memory_truncate(struct lam_io *io, uint64_t size)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = write_locked(m);
    return resize(m, size);
}

/* Like a file's punch, this leaves the size alone. */
static int memory_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = write_locked(m);
    struct range r = range_intersect(range_make(offset, length),
                                     range_make(0, m->size));
    if (r.length)
        memset(m->bytes + r.offset, 0, r.length);
    return 0;
}

static int memory_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = write_locked(m);
    int rc = grow(m, offset + length);
    if (rc == 0)
        memset(m->bytes + offset, 0, length);
    return rc;
}

static int memory_allocate(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct memory *m = memory_of(io);
    HELD pthread_rwlock_t *lock = write_locked(m);
    return grow(m, offset + length);
}

static void memory_close(struct lam_io *io)
{
    struct memory *m = memory_of(io);
    lam_io_deinit(io);
    pthread_rwlock_destroy(&m->lock);
    free(m->bytes);
    free(m);
}

static const struct lam_io_ops memory_ops = {
    .name = "memory",
    .readv = memory_readv,
    .writev = memory_writev,
    .flush = memory_flush,
    .size = memory_size,
    .truncate = memory_truncate,
    .punch = memory_punch,
    .zero_range = memory_zero_range,
    .discard = memory_punch,
    .allocate = memory_allocate,
    .close = memory_close,
};

int lam_io_memory_new(const void *bytes, uint64_t length, struct lam_io **out,
                      struct lam_error *err)
{
    lam_autofree struct memory *m = calloc(1, sizeof *m);
    if (!m)
        return lam_fail(err, ENOMEM, "no memory for a memory object");
    int rc = resize(m, length);
    if (rc < 0)
        return lam_fail(err, -rc, "no memory for %" PRIu64 " bytes", length);
    if (bytes && length)
        memcpy(m->bytes, bytes, length);
    rc = lam_io_init(&m->io, &memory_ops, "memory", err);
    if (rc < 0) {
        free(m->bytes);
        return rc;
    }
    pthread_rwlock_init(&m->lock, NULL);
    m->io.writable = true;
    m->io.unmap = true;
    m->io.limits.can_grow = true;
    m->io.limits.can_punch = true;
    m->io.limits.can_zero_range = true;
    m->io.limits.can_discard = true;
    atomic_store(&m->io.size, length);
    *out = &lam_take(&m)->io;
    return 0;
}
