/* SPDX-License-Identifier: MIT */
/*
 * curl.c - a file on an HTTP or FTP server as a host object, by libcurl: a few
 * windows of it in memory.
 *
 * A read that lies in a window, or in one that is being fetched, is served from
 * there; any other one takes the window that was used longest ago.  So as many
 * reads as there are windows are under way at once.
 */
#include "io/curl.h"

#include <string.h>

#include "base/cleanup.h"
#include "io/curl-transfer.h"

enum {
    NB_WINDOWS = 8,
    MAX_REQUEST = 4 << 20,
    MAX_READAHEAD = 64 << 20,
};

struct window {
    uint8_t *data;
    uint64_t capacity;
    uint64_t offset, length;        /* what it has, or will have; 0: nothing */
    uint64_t used;                  /* when it was last */
    unsigned readers;
    bool fetching;
};

struct curl_file {
    struct lam_io io;
    struct io_curl_options options; /* its texts are ours */
    char *texts[7];
    pthread_mutex_t lock;           /* all below */
    pthread_cond_t changed;
    struct window windows[NB_WINDOWS];
    uint64_t clock;
    struct curl_connection *idle[NB_WINDOWS];
    unsigned nb_idle;
};

static struct curl_file *file_of(const struct lam_io *io)
{
    return (struct curl_file *)io;
}

/* ------------------------------------------------------------------ windows */

static struct window *find_window(struct curl_file *f, uint64_t offset,
                                  uint64_t length)
{
    for (size_t i = 0; i < NB_WINDOWS; i++) {
        struct window *w = &f->windows[i];
        if (w->length && offset >= w->offset
            && offset + length <= w->offset + w->length)
            return w;
    }
    return NULL;
}

/* The one that nobody has needed for longest.  NULL: all are in use. */
static struct window *find_idle(struct curl_file *f)
{
    struct window *best = NULL;

    for (size_t i = 0; i < NB_WINDOWS; i++) {
        struct window *w = &f->windows[i];
        if (w->fetching || w->readers)
            continue;
        if (!best || w->used < best->used)
            best = w;
    }
    return best;
}

static int make_room(struct window *w, uint64_t length)
{
    if (length <= w->capacity)
        return 0;
    free(w->data);
    w->capacity = 0;
    w->data = malloc(length);
    if (!w->data)
        return -ENOMEM;
    w->capacity = length;
    return 0;
}

/* Long requests need nobody to look ahead: the next one is as long. */
static uint64_t fetch_length(const struct curl_file *f, uint64_t offset,
                             uint64_t length)
{
    uint64_t more = length < f->options.readahead ? f->options.readahead : 0;

    return min_u64(length + more, atomic_load(&f->io.size) - offset);
}

static int fetch(struct curl_file *f, struct window *w,
                 struct curl_connection **connection)
{
    int rc = make_room(w, w->length);

    if (rc == 0 && !*connection)
        rc = curl_connection_new(&f->options, connection, NULL);
    return rc < 0 ? rc : curl_fetch(*connection, w->data, w->offset, w->length,
                                    atomic_load(&f->io.size));
}

/* Fetches into @w, which nobody else has; called with the lock, gives it up
 * meanwhile.  There are no more connections than windows. */
static int fill(struct curl_file *f, struct window *w, uint64_t offset,
                uint64_t length)
{
    struct curl_connection *c = f->nb_idle ? f->idle[--f->nb_idle] : NULL;

    w->offset = offset;
    w->length = length;
    w->fetching = true;
    pthread_mutex_unlock(&f->lock);
    int rc = fetch(f, w, &c);
    pthread_mutex_lock(&f->lock);
    w->fetching = false;
    if (rc < 0)
        w->length = 0;
    if (c)
        f->idle[f->nb_idle++] = c;
    pthread_cond_broadcast(&f->changed);
    return rc;
}

/* A window with [@offset, @offset + @length), which stays until put(). */
static int get(struct curl_file *f, uint64_t offset, uint64_t length,
               struct window **out)
{
    LAM_LOCKED(&f->lock);

    for (;;) {
        struct window *w = find_window(f, offset, length);
        if (w && !w->fetching) {
            w->readers++;
            w->used = ++f->clock;
            *out = w;
            return 0;
        }
        struct window *idle = w ? NULL : find_idle(f);
        if (!idle) {
            pthread_cond_wait(&f->changed, &f->lock);
            continue;
        }
        int rc = fill(f, idle, offset, fetch_length(f, offset, length));
        if (rc < 0)
            return rc;
    }
}

static void put(struct curl_file *f, struct window *w)
{
    LAM_LOCKED(&f->lock);
    if (--w->readers == 0)
        pthread_cond_broadcast(&f->changed);
}

/* ----------------------------------------------------------------- requests */

static ssize_t file_readv(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    struct curl_file *f = file_of(io);
    uint64_t size = atomic_load(&io->size);
    struct window *w = NULL;

    (void)iovcnt;
    if (offset >= size)
        return 0;
    size_t length = min_u64(min_u64(iov->iov_len, MAX_REQUEST), size - offset);
    int rc = get(f, offset, length, &w);
    if (rc < 0)
        return rc;
    memcpy(iov->iov_base, w->data + (offset - w->offset), length);
    put(f, w);
    return (ssize_t)length;
}

static ssize_t file_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    (void)io;
    (void)iov;
    (void)iovcnt;
    (void)offset;
    return -EROFS;
}

static int file_sync(struct lam_io *io)
{
    (void)io;
    return 0;
}

static int file_size(struct lam_io *io, uint64_t *size)
{
    *size = atomic_load(&io->size);
    return 0;
}

static int file_truncate(struct lam_io *io, uint64_t size)
{
    return size == atomic_load(&io->size) ? 0 : -EROFS;
}

static int file_set_writable(struct lam_io *io, bool writable,
                             enum lam_io_locking locking,
                             struct lam_error *err)
{
    (void)io;
    (void)locking;
    return writable ? lam_fail(err, EACCES, "curl driver does not support "
                               "writes") : 0;
}

/* ------------------------------------------------------------------ opening */

static void file_close(struct lam_io *io)
{
    struct curl_file *f = file_of(io);

    for (size_t i = 0; i < NB_WINDOWS; i++)
        free(f->windows[i].data);
    while (f->nb_idle)
        curl_connection_free(f->idle[--f->nb_idle]);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(f->texts); i++) {
        /* Passwords are among them. */
        if (f->texts[i])
            explicit_bzero(f->texts[i], strlen(f->texts[i]));
        free(f->texts[i]);
    }
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    lam_io_deinit(io);
    free(f);
}

static const struct lam_io_ops curl_ops = {
    .name = "curl",
    .fixed_kind = "curl nodes",
    .readv = file_readv,
    .writev = file_writev,
    .flush = file_sync,
    .size = file_size,
    .truncate = file_truncate,
    .set_writable = file_set_writable,
    .close = file_close,
};

/* Connections are made while the caller's texts may be gone. */
static int copy_options(struct curl_file *f, const struct io_curl_options *o,
                        struct lam_error *err)
{
    const char **const texts[] = {
        &f->options.url, &f->options.protocols, &f->options.cookie,
        &f->options.username, &f->options.password,
        &f->options.proxy_username, &f->options.proxy_password,
    };

    f->options = *o;
    f->options.readahead = min_u64(o->readahead, MAX_READAHEAD);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(texts); i++) {
        if (*texts[i]) {
            f->texts[i] = strdup(*texts[i]);
            if (!f->texts[i])
                return lam_fail(err, ENOMEM, "no memory for '%s'", o->url);
        }
        *texts[i] = f->texts[i];
    }
    return 0;
}

/* The connection that the length came by serves the first read. */
static int start(struct curl_file *f, struct lam_error *err)
{
    struct curl_connection *c;
    uint64_t size;
    int rc = curl_connection_new(&f->options, &c, err);

    if (rc < 0)
        return rc;
    f->idle[f->nb_idle++] = c;
    rc = curl_fetch_size(c, &size, err);
    if (rc == 0)
        atomic_store(&f->io.size, size);
    return rc;
}

int io_curl_open(const struct io_curl_options *options, struct lam_io **out,
                 struct lam_error *err)
{
    struct curl_file *f = calloc(1, sizeof *f);

    if (!f)
        return lam_fail(err, ENOMEM, "no memory for '%s'", options->url);
    int rc = lam_io_init(&f->io, &curl_ops, options->url, err);
    if (rc < 0) {
        free(f);
        return rc;
    }
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->io.cache = options->cache;
    rc = copy_options(f, options, err);
    if (rc == 0)
        rc = start(f, err);
    if (rc < 0)
        file_close(&f->io);
    else
        *out = &f->io;
    return rc;
}
