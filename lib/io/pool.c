/* SPDX-License-Identifier: MIT */
/*
 * pool.c - more files than descriptors.
 *
 * Under the pool's lock files are opened and closed.  Whoever reads counts
 * himself in file->users first, without the lock; a file is closed by changing
 * a count of none into "closed", so that nobody is reading it then.
 */
#include "io/pool.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "io/lock.h"

enum { CLOSED = -1 };

struct io_pool {
    pthread_mutex_t lock;
    unsigned holders;
    unsigned limit, open;
    struct file **files;
    size_t count, capacity, hand;
};

int io_pool_new(unsigned limit, struct io_pool **out, struct lam_error *err)
{
    struct io_pool *pool = calloc(1, sizeof *pool);

    if (!pool)
        return lam_fail(err, ENOMEM, "no memory for a pool of files");
    pthread_mutex_init(&pool->lock, NULL);
    pool->holders = 1;
    pool->limit = limit;
    *out = pool;
    return 0;
}

static bool drop_hold(struct io_pool *pool)
{
    LAM_LOCKED(&pool->lock);
    return --pool->holders == 0;
}

void io_pool_put(struct io_pool *pool)
{
    if (!pool || !drop_hold(pool))
        return;
    pthread_mutex_destroy(&pool->lock);
    free(pool->files);
    free(pool);
}

void io_pool_set_limit(struct io_pool *pool, unsigned limit)
{
    LAM_LOCKED(&pool->lock);
    pool->limit = limit;
}

/* ------------------------------------------------------------------ closing */

/* Where the file can be found again; false if nowhere. */
static bool remember(struct file *file)
{
    char link[64], path[PATH_MAX];

    /* Without a name it could not be opened again. */
    if (fstat(file->fd, &file->was) < 0 || file->was.st_nlink == 0)
        return false;
    if (file->path)
        return true;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file->fd);
    ssize_t n = readlink(link, path, sizeof path);
    if (n <= 0 || (size_t)n == sizeof path || path[0] != '/')
        return false;
    file->path = strndup(path, (size_t)n);
    return file->path;
}

/* Under the lock.  False: somebody is reading it, or it has to stay. */
static bool close_file(struct io_pool *pool, struct file *file)
{
    int nobody = 0;

    if (!atomic_compare_exchange_strong(&file->users, &nobody, CLOSED))
        return false;
    if (!remember(file)) {
        atomic_store(&file->users, 1);      /* for good */
        return false;
    }
    close(file->fd);
    file->fd = -1;
    pool->open--;
    return true;
}

/* The one that nobody has read for longest, or nearly. */
static bool close_one(struct io_pool *pool)
{
    for (size_t i = 0; i < 2 * pool->count; i++) {
        struct file *file = pool->files[pool->hand++ % pool->count];
        if (atomic_load(&file->users) == 0 &&
            !atomic_exchange(&file->recent, false) && close_file(pool, file))
            return true;
    }
    return false;
}

void io_pool_prepare(struct io_pool *pool)
{
    LAM_LOCKED(&pool->lock);
    for (size_t i = pool->count; i-- > 0 && pool->open >= pool->limit; )
        close_file(pool, pool->files[i]);
}

/* ------------------------------------------------------------------ opening */

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int lock_again(struct file *file, int fd)
{
    struct lock_mode mode = {
        .shared = file->locking == LAM_IO_LOCKED_SHARED,
        .fresh = true,
    };

    return file->locking == LAM_IO_UNLOCKED
        ? 0 : lock_file(fd, &mode, file->io.name, NULL);
}

static int open_path(struct io_pool *pool, const struct file *file)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK |
                (file->io.limits.direct ? O_DIRECT : 0);

    for (;;) {
        int fd = open(file->path, flags);
        if (fd >= 0)
            return fd;
        int code = errno;
        if ((code != EMFILE && code != ENFILE) || !close_one(pool))
            return -code;
    }
}

/* Under the lock; counts the caller as a user. */
static int reopen(struct io_pool *pool, struct file *file)
{
    struct stat st;

    while (pool->open >= pool->limit && close_one(pool))
        ;
    lam_autoclose int fd = open_path(pool, file);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!is_same(&st, &file->was))
        return -ESTALE;
    int rc = lock_again(file, fd);
    if (rc < 0)
        return rc;
    file->fd = fd;
    fd = -1;
    pool->open++;
    atomic_store(&file->recent, true);
    atomic_store(&file->users, 1);
    return 0;
}

int io_pool_open(struct file *file)
{
    LAM_LOCKED(&file->pool->lock);
    /* Somebody else may have opened it meanwhile. */
    int users = atomic_load(&file->users);
    while (users >= 0)
        if (atomic_compare_exchange_weak(&file->users, &users, users + 1))
            return 0;
    return reopen(file->pool, file);
}

int io_pool_pin(struct file *file)
{
    int fd;

    /* The use that never ends. */
    return file->pool ? file_use(file, &fd) : 0;
}

int io_pool_stat(struct file *file, struct stat *st)
{
    LAM_LOCKED(&file->pool->lock);
    if (file->fd < 0)
        *st = file->was;
    else if (fstat(file->fd, st) < 0)
        return -errno;
    return 0;
}

/* --------------------------------------------------------------- membership */

int io_pool_add(struct io_pool *pool, struct file *file, struct lam_error *err)
{
    LAM_LOCKED(&pool->lock);
    if (pool->count == pool->capacity) {
        size_t capacity = pool->capacity ? 2 * pool->capacity : 16;
        struct file **files = realloc(pool->files, capacity * sizeof *files);
        if (!files)
            return lam_fail(err, ENOMEM, "no memory for a pool of %zu files",
                            capacity);
        pool->files = files;
        pool->capacity = capacity;
    }
    pool->files[pool->count++] = file;
    pool->open++;
    pool->holders++;
    file->pool = pool;
    return 0;
}

static void leave(struct io_pool *pool, struct file *file)
{
    LAM_LOCKED(&pool->lock);
    size_t i = 0;

    while (pool->files[i] != file)
        i++;
    pool->files[i] = pool->files[--pool->count];
    pool->open -= file->fd >= 0;
}

void io_pool_remove(struct file *file)
{
    struct io_pool *pool = file->pool;

    if (!pool)
        return;
    leave(pool, file);
    file->pool = NULL;
    free(file->path);
    io_pool_put(pool);
}
