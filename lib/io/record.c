/* SPDX-License-Identifier: MIT */
/*
 * record.c - a host object that remembers every change and can fail on demand.
 *
 * One lock is held over each change and its entry in the list, so the list is
 * the order in which things happened, whichever threads did them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "io/record.h"
#include "io/transfer.h"

/* What happened to one object, or to several. */
struct sequence {
    pthread_mutex_t lock;       /* guards all below */
    unsigned users, objects;
    struct record_event *events;
    size_t count, capacity;
    size_t until_failure;       /* SIZE_MAX: none */
    int failure;
    bool sticky;
};

struct record {
    struct lam_io io;
    struct lam_io *inner;
    struct sequence *sequence;  /* shared */
    unsigned object;
};

static struct record *record_of(struct lam_io *io)
{
    return (struct record *)io;
}

/* Is this the operation that has to fail?  0 or -errno. */
static int next_failure(struct sequence *q)
{
    if (q->until_failure == SIZE_MAX)
        return 0;
    if (q->until_failure) {
        q->until_failure--;
        return 0;
    }
    if (!q->sticky)
        q->until_failure = SIZE_MAX;
    return -q->failure;
}

/* Room for one more, so that what has happened can always be noted. */
static int make_room(struct sequence *q)
{
    if (q->count < q->capacity)
        return 0;
    size_t capacity = q->capacity ? 2 * q->capacity : 64;
    struct record_event *events =
        reallocarray(q->events, capacity, sizeof *events);
    if (!events)
        return -ENOMEM;
    q->events = events;
    q->capacity = capacity;
    return 0;
}

static int begin(struct record *r)
{
    int rc = next_failure(r->sequence);
    return rc < 0 ? rc : make_room(r->sequence);
}

static void note(struct record *r, enum record_kind kind, uint64_t offset,
                 uint64_t length, uint8_t *data)
{
    struct sequence *q = r->sequence;

    q->events[q->count++] = (struct record_event){
        .kind = kind, .object = r->object, .offset = offset,
        .length = length, .data = data
    };
}

static ssize_t record_readv(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    struct lam_io *inner = record_of(io)->inner;
    return inner->ops->readv(inner, iov, iovcnt, offset);
}

static uint8_t *flatten(const struct iovec *iov, int iovcnt)
{
    size_t total = 0, done = 0;
    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    uint8_t *data = malloc(total ? total : 1);
    for (int i = 0; data && i < iovcnt; i++) {
        if (iov[i].iov_len)
            memcpy(data + done, iov[i].iov_base, iov[i].iov_len);
        done += iov[i].iov_len;
    }
    return data;
}

static ssize_t record_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    struct record *r = record_of(io);
    LAM_LOCKED(&r->sequence->lock);
    int rc = begin(r);
    if (rc < 0)
        return rc;
    lam_autofree uint8_t *data = flatten(iov, iovcnt);
    if (!data)
        return -ENOMEM;
    ssize_t n = r->inner->ops->writev(r->inner, iov, iovcnt, offset);
    if (n > 0) {
        io_grown(r->inner, offset + (uint64_t)n);
        note(r, RECORD_WRITE, offset, (uint64_t)n, lam_take(&data));
    }
    return n;
}

static int record_flush(struct lam_io *io)
{
    struct record *r = record_of(io);
    LAM_LOCKED(&r->sequence->lock);
    int rc = begin(r);
    if (rc == 0)
        rc = r->inner->ops->flush(r->inner);
    if (rc == 0)
        note(r, RECORD_FLUSH, 0, 0, NULL);
    return rc;
}

static int record_size(struct lam_io *io, uint64_t *size)
{
    struct lam_io *inner = record_of(io)->inner;
    return inner->ops->size(inner, size);
}

static int record_truncate(struct lam_io *io, uint64_t size)
{
    struct record *r = record_of(io);
    LAM_LOCKED(&r->sequence->lock);
    if (!r->inner->ops->truncate)
        return -ENOTSUP;
    int rc = begin(r);
    if (rc == 0)
        rc = r->inner->ops->truncate(r->inner, size);
    if (rc == 0) {
        atomic_store(&r->inner->size, size);
        note(r, RECORD_TRUNCATE, size, 0, NULL);
    }
    return rc;
}

typedef int range_fn(struct lam_io *io, uint64_t offset, uint64_t length);

static int change_range(struct lam_io *io, range_fn *call,
                        enum record_kind kind, uint64_t offset,
                        uint64_t length)
{
    struct record *r = record_of(io);
    LAM_LOCKED(&r->sequence->lock);
    if (!call)
        return -EOPNOTSUPP;
    int rc = begin(r);
    if (rc == 0)
        rc = call(r->inner, offset, length);
    if (rc == 0)
        note(r, kind, offset, length, NULL);
    return rc;
}

static int record_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return change_range(io, record_of(io)->inner->ops->punch, RECORD_PUNCH,
                        offset, length);
}

static int record_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    struct lam_io *inner = record_of(io)->inner;
    int rc = change_range(io, inner->ops->zero_range, RECORD_ZERO, offset,
                          length);
    if (rc == 0)
        io_grown(inner, offset + length);
    return rc;
}

static int record_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return change_range(io, record_of(io)->inner->ops->discard,
                        RECORD_DISCARD, offset, length);
}

/* Reserving space changes nothing but the size. */
static int record_allocate(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct record *r = record_of(io);
    LAM_LOCKED(&r->sequence->lock);
    if (!r->inner->ops->allocate)
        return -EOPNOTSUPP;
    int rc = begin(r);
    if (rc == 0)
        rc = r->inner->ops->allocate(r->inner, offset, length);
    if (rc == 0 && offset + length > atomic_load(&r->inner->size)) {
        io_grown(r->inner, offset + length);
        note(r, RECORD_TRUNCATE, offset + length, 0, NULL);
    }
    return rc;
}

static int record_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                         enum lam_io_state *state, uint64_t *run)
{
    struct lam_io *inner = record_of(io)->inner;
    *state = LAM_IO_DATA;
    *run = length;
    return inner->ops->extent
               ? inner->ops->extent(inner, offset, length, state, run)
               : 0;
}

static void sequence_put(struct sequence *q)
{
    pthread_mutex_lock(&q->lock);
    unsigned left = --q->users;
    pthread_mutex_unlock(&q->lock);
    if (left)
        return;
    for (size_t i = 0; i < q->count; i++)
        free(q->events[i].data);
    free(q->events);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static void record_close(struct lam_io *io)
{
    struct record *r = record_of(io);
    sequence_put(r->sequence);
    lam_io_deinit(io);
    free(r);
}

static const struct lam_io_ops record_ops = {
    .name = "record",
    .readv = record_readv,
    .writev = record_writev,
    .flush = record_flush,
    .size = record_size,
    .truncate = record_truncate,
    .punch = record_punch,
    .zero_range = record_zero_range,
    .discard = record_discard,
    .allocate = record_allocate,
    .extent = record_extent,
    .close = record_close,
};

static struct sequence *sequence_new(void)
{
    struct sequence *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    pthread_mutex_init(&q->lock, NULL);
    q->until_failure = SIZE_MAX;
    return q;
}

static unsigned sequence_enter(struct sequence *q)
{
    LAM_LOCKED(&q->lock);
    q->users++;
    return q->objects++;
}

/* @with: NULL, or whose sequence it is. */
static int record_new(struct lam_io *inner, struct lam_io *with,
                      struct lam_io **out, struct lam_error *err)
{
    lam_autofree struct record *r = calloc(1, sizeof *r);
    if (!r)
        return lam_fail(err, ENOMEM, "no memory for a recorder");
    int rc = lam_io_init(&r->io, &record_ops, inner->name, err);
    if (rc < 0)
        return rc;
    r->sequence = with ? record_of(with)->sequence : sequence_new();
    if (!r->sequence) {
        lam_io_deinit(&r->io);
        return lam_fail(err, ENOMEM, "no memory for a recording");
    }
    r->object = sequence_enter(r->sequence);
    r->inner = inner;
    r->io.limits = inner->limits;
    r->io.writable = inner->writable;
    r->io.unmap = inner->unmap;
    r->io.eof_unit = inner->eof_unit;
    atomic_store(&r->io.size, atomic_load(&inner->size));
    *out = &lam_take(&r)->io;
    return 0;
}

int lam_io_record_new(struct lam_io *inner, struct lam_io **out,
                      struct lam_error *err)
{
    return record_new(inner, NULL, out, err);
}

int lam_io_record_join(struct lam_io *inner, struct lam_io *with,
                       struct lam_io **out, struct lam_error *err)
{
    assert(with->ops == &record_ops);
    return record_new(inner, with, out, err);
}

const struct record_event *lam_io_record_events(const struct lam_io *io,
                                                size_t *count)
{
    const struct record *r = (const struct record *)io;
    LAM_LOCKED(&r->sequence->lock);

    *count = r->sequence->count;
    return r->sequence->events;
}

unsigned lam_io_record_object(const struct lam_io *io)
{
    return ((const struct record *)io)->object;
}

void lam_io_record_fail(struct lam_io *io, size_t nth, int errnum, bool sticky)
{
    struct sequence *q = record_of(io)->sequence;
    LAM_LOCKED(&q->lock);
    q->until_failure = nth;
    q->failure = errnum;
    q->sticky = sticky;
}
