/* SPDX-License-Identifier: MIT */
/*
 * nbd.c - an export of an NBD server as a host object, by libnbd.
 *
 * A connection carries one blocking request at a time.  A server that promises
 * that what one connection wrote another one reads, and that a flush of one is
 * one of all (multi-conn), is asked by as many as there are requests.
 */
#include "io/nbd.h"

#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "crypto/tls.h"
#include "io/nbd-connect.h"

enum {
    MAX_CONNECTIONS = 8,
    /* What every server has to take, if it does not say. */
    MAX_REQUEST = 32 << 20,
};

struct nbd {
    struct lam_io io;
    struct io_nbd_options options;  /* its texts are ours */
    char *path, *host, *port, *cid, *descriptor, *export, *context, *tls_host;
    pthread_mutex_t lock;           /* the four below */
    pthread_cond_t idle;
    struct nbd_handle *free[MAX_CONNECTIONS];
    unsigned nb_free, nb_all, max;
    bool has_map, can_flush;
    uint64_t max_request;
};

static struct nbd *nbd_of(const struct lam_io *io)
{
    return (struct nbd *)io;
}

/* -------------------------------------------------------------- connections */

/* One more, while others wait for the ones there are.  NULL: none can be
 * had. */
static struct nbd_handle *connect_more(struct nbd *n)
{
    struct nbd_handle *more;

    n->nb_all++;
    pthread_mutex_unlock(&n->lock);
    int rc = nbd_connection_new(&n->options, &more, NULL);
    pthread_mutex_lock(&n->lock);
    if (rc == 0)
        return more;
    /* A server may take fewer than we would like. */
    n->max = --n->nb_all;
    return NULL;
}

static struct nbd_handle *take(struct nbd *n)
{
    struct nbd_handle *nbd = NULL;
    LAM_LOCKED(&n->lock);

    while (!nbd) {
        if (n->nb_free)
            nbd = n->free[--n->nb_free];
        else if (n->nb_all < n->max)
            nbd = connect_more(n);
        else
            pthread_cond_wait(&n->idle, &n->lock);
    }
    return nbd;
}

static void put(struct nbd *n, struct nbd_handle *nbd)
{
    LAM_LOCKED(&n->lock);
    n->free[n->nb_free++] = nbd;
    pthread_cond_signal(&n->idle);
}

/* ----------------------------------------------------------------- requests */

typedef int range_fn(struct nbd_handle *nbd, uint64_t length, uint64_t offset,
                     uint32_t flags);

struct request {
    int (*send)(struct nbd_handle *nbd, const struct request *r);
    uint64_t offset, length;
    void *buffer;
    range_fn *range;            /* of a range without data, with: */
    uint32_t flags;
    nbd_extent_callback callback;
};

static uint64_t monotonic_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

/* Until there is a connection, or @seconds have gone by. */
static int keep_connecting(struct nbd *n, uint64_t seconds,
                           struct nbd_handle **out, struct lam_error *err)
{
    const struct timespec pause = { .tv_nsec = 250000000 };
    uint64_t end = monotonic_seconds() + min_u64(seconds, INT32_MAX);

    for (;;) {
        int rc = nbd_connection_new(&n->options, out, err);
        if (rc == 0 || !seconds || monotonic_seconds() >= end)
            return rc;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

static bool is_lost(struct nbd_handle *nbd)
{
    return libnbd()->nbd_aio_is_dead(nbd) > 0 ||
           libnbd()->nbd_aio_is_closed(nbd) > 0;
}

/* In place of a connection that was lost another one to the same disk, if
 * somebody wants it. */
static bool reconnect(struct nbd *n, struct nbd_handle **nbd)
{
    struct nbd_handle *fresh;

    if (!n->options.reconnect_delay || !is_lost(*nbd) ||
        keep_connecting(n, n->options.reconnect_delay, &fresh, NULL) < 0)
        return false;
    if (libnbd()->nbd_get_size(fresh) < (int64_t)atomic_load(&n->io.size)) {
        nbd_connection_free(fresh);
        return false;
    }
    nbd_connection_free(*nbd);
    *nbd = fresh;
    return true;
}

/* Requests are sent again after a connection was lost: what they do, they do
 * twice as well as once. */
static int perform(struct nbd *n, const struct request *r)
{
    struct nbd_handle *nbd = take(n);
    int rc;

    do
        rc = r->send(nbd, r) < 0 ? nbd_failure() : 0;
    while (rc < 0 && reconnect(n, &nbd));
    put(n, nbd);
    return rc;
}

static size_t first_bytes(const struct nbd *n, const struct iovec *iov)
{
    return min_u64(iov->iov_len, n->max_request);
}

static int send_read(struct nbd_handle *nbd, const struct request *r)
{
    return libnbd()->nbd_pread(nbd, r->buffer, r->length, r->offset, 0);
}

static ssize_t nbd_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                         uint64_t offset)
{
    struct nbd *n = nbd_of(io);
    size_t length = first_bytes(n, iov);

    (void)iovcnt;
    if (offset >= atomic_load(&io->size))
        return 0;
    length = min_u64(length, atomic_load(&io->size) - offset);
    const struct request r = { .send = send_read, .buffer = iov->iov_base,
                               .offset = offset, .length = length };
    int rc = perform(n, &r);
    return rc < 0 ? rc : (ssize_t)length;
}

static int send_write(struct nbd_handle *nbd, const struct request *r)
{
    return libnbd()->nbd_pwrite(nbd, r->buffer, r->length, r->offset, 0);
}

static ssize_t nbd_writev(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    struct nbd *n = nbd_of(io);
    const struct request r = { .send = send_write, .buffer = iov->iov_base,
                               .offset = offset,
                               .length = first_bytes(n, iov) };

    (void)iovcnt;
    int rc = perform(n, &r);
    return rc < 0 ? rc : (ssize_t)r.length;
}

static int send_range(struct nbd_handle *nbd, const struct request *r)
{
    return r->range(nbd, r->length, r->offset, r->flags);
}

/* A range without data, in pieces that any server takes. */
static int run_range(struct lam_io *io, range_fn *call, uint64_t offset,
                     uint64_t length, uint32_t flags)
{
    struct request r = { .send = send_range, .range = call, .offset = offset,
                         .flags = flags };
    int rc = 0;

    while (length && rc == 0) {
        r.length = min_u64(length, LAM_GIB);
        rc = perform(nbd_of(io), &r);
        r.offset += r.length;
        length -= r.length;
    }
    return rc;
}

static int nbd_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return run_range(io, libnbd()->nbd_zero, offset, length, 0);
}

static int nbd_zero_range(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return run_range(io, libnbd()->nbd_zero, offset, length,
                     LIBNBD_CMD_FLAG_NO_HOLE);
}

static int nbd_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return run_range(io, libnbd()->nbd_trim, offset, length, 0);
}

static int send_flush(struct nbd_handle *nbd, const struct request *r)
{
    (void)r;
    return libnbd()->nbd_flush(nbd, 0);
}

static int nbd_sync(struct lam_io *io)
{
    const struct request r = { .send = send_flush };

    return nbd_of(io)->can_flush ? perform(nbd_of(io), &r) : 0;
}

static int nbd_size(struct lam_io *io, uint64_t *size)
{
    *size = atomic_load(&io->size);
    return 0;
}

static int nbd_truncate(struct lam_io *io, uint64_t size)
{
    return size == atomic_load(&io->size) ? 0 : -ENOTSUP;
}

/* --------------------------------------------------------------------- map */

/* How far the first state goes. */
struct status {
    const char *context;
    enum lam_io_state state;
    uint64_t run;
    bool ended;
};

static int take_status(void *opaque, const char *context, uint64_t offset,
                       uint32_t *entries, size_t nb_entries, int *error)
{
    struct status *s = opaque;

    (void)offset;
    (void)error;
    if (strcmp(context, s->context))
        return 0;
    for (size_t i = 0; i + 1 < nb_entries && !s->ended; i += 2) {
        enum lam_io_state state = entries[i + 1] & LIBNBD_STATE_ZERO
            ? LAM_IO_HOLE : entries[i + 1] & LIBNBD_STATE_HOLE
            ? LAM_IO_ABSENT : LAM_IO_DATA;
        s->ended = s->run && state != s->state;
        if (s->ended)
            break;
        s->state = state;
        s->run += entries[i];
    }
    return 0;
}

static int send_status(struct nbd_handle *nbd, const struct request *r)
{
    struct status *s = r->callback.user_data;

    s->run = 0;
    s->ended = false;
    return libnbd()->nbd_block_status(nbd, r->length, r->offset, r->callback,
                                      0);
}

static int nbd_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                      enum lam_io_state *state, uint64_t *run)
{
    struct nbd *n = nbd_of(io);
    struct status s = { .context = nbd_context(&n->options),
                        .state = LAM_IO_DATA };
    const struct request r = {
        .send = send_status, .offset = offset,
        .length = min_u64(length, LAM_GIB),
        .callback = { .callback = take_status, .user_data = &s },
    };

    *state = LAM_IO_DATA;
    *run = length;
    if (!n->has_map)
        return 0;
    int rc = perform(n, &r);
    if (rc < 0 || !s.run)
        return rc < 0 ? rc : -EIO;
    *state = s.state;
    *run = min_u64(s.run, length);
    return 0;
}

/* ------------------------------------------------------------------ opening */

static int nbd_set_writable(struct lam_io *io, bool writable,
                            enum lam_io_locking locking, struct lam_error *err)
{
    struct nbd *n = nbd_of(io);

    (void)locking;
    if (writable && !n->options.writable) {
        struct nbd_handle *nbd = take(n);
        int read_only = libnbd()->nbd_is_read_only(nbd);
        put(n, nbd);
        if (read_only)
            return lam_fail_errno(err, EACCES, "Could not open image");
    }
    io->writable = writable;
    return 0;
}

static void nbd_free(struct lam_io *io)
{
    struct nbd *n = nbd_of(io);

    for (unsigned i = 0; i < n->nb_free; i++)
        nbd_connection_free(n->free[i]);
    free(n->path);
    free(n->host);
    free(n->port);
    free(n->cid);
    free(n->descriptor);
    free(n->export);
    free(n->context);
    free(n->tls_host);
    tls_credentials_put(n->options.tls);
    pthread_cond_destroy(&n->idle);
    pthread_mutex_destroy(&n->lock);
    lam_io_deinit(io);
    free(n);
}

static const struct lam_io_ops nbd_ops = {
    .name = "nbd",
    .fixed_kind = "NBD nodes",
    .readv = nbd_readv,
    .writev = nbd_writev,
    .flush = nbd_sync,
    .size = nbd_size,
    .truncate = nbd_truncate,
    .punch = nbd_punch,
    .zero_range = nbd_zero_range,
    .discard = nbd_discard,
    .extent = nbd_extent,
    .set_writable = nbd_set_writable,
    .close = nbd_free,
};

/* A number of the server's, or @otherwise if it says none. */
static uint64_t block_size(struct nbd_handle *nbd, int which,
                           uint64_t otherwise)
{
    int64_t size = libnbd()->nbd_get_block_size(nbd, which);

    return size > 0 ? (uint64_t)size : otherwise;
}

static void set_limits(struct nbd *n, struct nbd_handle *nbd)
{
    struct lam_io_limits *limits = &n->io.limits;
    uint64_t unit = block_size(nbd, LIBNBD_SIZE_MINIMUM, 1);
    uint64_t most = block_size(nbd, LIBNBD_SIZE_MAXIMUM, MAX_REQUEST);

    if (!is_power_of_two(unit) || unit > LAM_MIB)
        unit = 1;
    n->max_request = max_u64(align_down(min_u64(most, MAX_REQUEST), unit),
                             unit);
    n->can_flush = libnbd()->nbd_can_flush(nbd) > 0;
    n->has_map =
        libnbd()->nbd_can_meta_context(nbd, nbd_context(&n->options)) > 0;
    n->max = libnbd()->nbd_can_multi_conn(nbd) > 0 ? MAX_CONNECTIONS : 1;
    limits->is_block_device = true;
    limits->request_alignment = (uint32_t)unit;
    limits->logical_sector = limits->physical_sector = (uint32_t)unit;
    limits->can_punch = libnbd()->nbd_can_zero(nbd) > 0;
    limits->can_zero_range = limits->can_punch;
    limits->can_discard = libnbd()->nbd_can_trim(nbd) > 0;
    limits->zero_max = limits->can_punch ? LAM_GIB : 0;
    limits->discard_max = limits->can_discard ? LAM_GIB : 0;
}

static int start(struct nbd *n, struct lam_error *err)
{
    struct nbd_handle *nbd;
    int rc = keep_connecting(n, n->options.open_timeout, &nbd, err);

    if (rc < 0)
        return rc;
    n->free[n->nb_free++] = nbd;
    n->nb_all = 1;
    int64_t size = libnbd()->nbd_get_size(nbd);
    if (size < 0)
        return lam_fail_errno(err, -nbd_failure(), "NBD server: no size");
    if (n->options.writable && libnbd()->nbd_is_read_only(nbd))
        return lam_fail_errno(err, EACCES, "Could not open image");
    atomic_store(&n->io.size, (uint64_t)size);
    set_limits(n, nbd);
    if (n->options.context && !n->has_map)
        return lam_fail_errno(err, EINVAL, "Could not open image");
    return 0;
}

/* *@to is freed with @n. */
static bool copy_text(char **to, const char **option)
{
    bool said = *option;

    *to = said ? strdup(*option) : NULL;
    *option = *to;
    return !said || *to;
}

/* What outlives the options that were given. */
static bool copy_texts(struct nbd *n)
{
    struct io_nbd_options *o = &n->options;

    if (o->tls)
        tls_credentials_get(o->tls);
    return copy_text(&n->path, &o->address.path) &&
           copy_text(&n->host, &o->address.host) &&
           copy_text(&n->port, &o->address.port) &&
           copy_text(&n->cid, &o->address.cid) &&
           copy_text(&n->descriptor, &o->address.descriptor) &&
           copy_text(&n->export, &o->export) &&
           copy_text(&n->context, &o->context) &&
           copy_text(&n->tls_host, &o->tls_host);
}

int io_nbd_open(const char *name, const struct io_nbd_options *options,
                struct lam_io **out, struct lam_error *err)
{
    struct nbd *n = calloc(1, sizeof *n);

    if (!n)
        return lam_fail(err, ENOMEM, "no memory for '%s'", name);
    int rc = lam_io_init(&n->io, &nbd_ops, name, err);
    if (rc < 0) {
        free(n);
        return rc;
    }
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->idle, NULL);
    n->options = *options;
    n->io.writable = options->writable;
    n->io.cache = options->cache;
    rc = copy_texts(n) ? start(n, err)
                       : lam_fail(err, ENOMEM, "no memory for '%s'", name);
    if (rc < 0)
        nbd_free(&n->io);
    else
        *out = &n->io;
    return rc;
}
