/* SPDX-License-Identifier: MIT */
/*
 * file.h - what regular files and devices have in common: a descriptor.
 */
#ifndef LAM_IO_FILE_H
#define LAM_IO_FILE_H

#include <sys/stat.h>

#include "io/io.h"

struct io_pool;

struct file {
    struct lam_io io;
    int fd;
    atomic_bool no_zero_range;  /* the file system lacks ZERO_RANGE */
    pthread_mutex_t run_lock;   /* the two below */
    uint64_t run_start, run_end;/* data without a hole, as last seen */

    /* Of a pool, or NULL: then @fd stays open.  See pool.h. */
    struct io_pool *pool;
    atomic_int users;           /* who use @fd right now; -1: it is closed */
    atomic_bool recent;         /* used since the pool looked */
    enum lam_io_locking locking;
    bool lock_tried;            /* some byte may be locked */
    char *path;                 /* once it was closed */
    struct stat was;            /* when it was closed */
};

static inline struct file *file_of(struct lam_io *io)
{
    return (struct file *)io;
}

extern const struct lam_io_ops file_ops;
extern const struct lam_io_ops blockdev_ops;
extern const struct lam_io_ops chardev_ops;

/* Fill in limits and size of a descriptor that has just been opened. */
int file_probe(struct file *file, struct lam_error *err);
int blockdev_probe(struct file *file, struct lam_error *err);
int chardev_probe(struct file *file, struct lam_error *err);

static inline int file_probe_kind(struct file *file, struct lam_error *err)
{
    if (file->io.ops == &file_ops)
        return file_probe(file, err);
    return file->io.ops == &blockdev_ops ? blockdev_probe(file, err)
                                         : chardev_probe(file, err);
}

/* Ops that are the same for both. */
ssize_t file_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                   uint64_t offset);
ssize_t file_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                    uint64_t offset);
int file_flush(struct lam_io *io);
int file_punch(struct lam_io *io, uint64_t offset, uint64_t length);
int file_set_writable(struct lam_io *io, bool writable,
                      enum lam_io_locking locking, struct lam_error *err);
int file_descriptor(const struct lam_io *io);
void file_close(struct lam_io *io);

/* Memory and request alignment of O_DIRECT, from the kernel; false if it does
 * not say. */
bool file_direct_alignment(int fd, uint32_t *memory, uint32_t *request);

#endif
