/* SPDX-License-Identifier: MIT */
/*
 * pool.h - more files than descriptors.
 *
 * The files of a pool are regular ones, open for reading.  When there are more
 * of them than the pool may have open, those that nobody reads at the moment
 * are closed and, when they are needed, opened again: by the path that the
 * kernel knew the file under, and only if it still is the same file, as long
 * as it was and last changed when it was.
 *
 * A file that is closed holds no lock.  It takes the one it had before when it
 * is opened again; what somebody else has written meanwhile is an error
 * (-ESTALE), not data.
 */
#ifndef LAM_IO_POOL_H
#define LAM_IO_POOL_H

#include "io/file.h"

int io_pool_new(unsigned limit, struct io_pool **out, struct lam_error *err);

/* The caller's own hold of it; the files of a pool have theirs. */
void io_pool_put(struct io_pool *pool);

/* How many may be open at once.  More are while more are being read. */
void io_pool_set_limit(struct io_pool *pool, unsigned limit);

/* Room for one more, which is about to be opened: the file that came last goes
 * first.  Those that came first, and are next to the top, stay. */
void io_pool_prepare(struct io_pool *pool);

/* @file, just opened, is the pool's to close and open.  -ENOMEM. */
int io_pool_add(struct io_pool *pool, struct file *file, struct lam_error *err);
void io_pool_remove(struct file *file);

/* From now on @file stays open: it is about to be written to, or its descriptor
 * is known to others.  0 or -errno. */
int io_pool_pin(struct file *file);

/* As fstat(); what was last seen of a file that is closed. */
int io_pool_stat(struct file *file, struct stat *st);

/* The slow way of file_use(). */
int io_pool_open(struct file *file);

/* The descriptor of @file until file_unuse(), if it is open now; false: it
 * would have to be opened. */
static inline bool file_use_open(struct file *file, int *fd)
{
    int users = file->pool ? atomic_load(&file->users) : 0;

    while (file->pool && users >= 0)
        if (atomic_compare_exchange_weak(&file->users, &users, users + 1))
            break;
    *fd = users < 0 ? -1 : file->fd;
    return users >= 0;
}

/* The same in any case.  0 or -errno: it was closed and cannot be opened. */
static inline int file_use(struct file *file, int *fd)
{
    if (file_use_open(file, fd))
        return 0;
    int rc = io_pool_open(file);
    if (rc == 0)
        *fd = file->fd;
    return rc;
}

static inline void file_unuse(struct file *file)
{
    if (file->pool)
        atomic_fetch_sub(&file->users, 1);
}

#endif
