/* SPDX-License-Identifier: MIT */
/*
 * access.c - an object that is open for reading becomes one that may be
 * written to, and back.
 *
 * The file is opened anew through its descriptor, so that it is the same file
 * whatever its name says by now, and takes the descriptor's place: requests
 * that run meanwhile use either.  Locks belong to what was opened, so the old
 * opening says first what the new one is going to say, and nobody can slip in
 * between.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "io/ahead.h"
#include "io/file.h"
#include "io/lock.h"
#include "io/pool.h"

static int open_again(const struct file *file, bool writable,
                      struct lam_error *err)
{
    char path[64];
    int flags = fcntl(file->fd, F_GETFL);

    if (flags < 0)
        return lam_fail_errno(err, errno, "Could not look at '%s'",
                              file->io.name);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
    int fd = open(path, (flags & O_DIRECT) | O_CLOEXEC | O_NOCTTY |
                        (writable ? O_RDWR : O_RDONLY));
    return fd < 0 ? lam_fail_errno(err, errno, "Could not open '%s'",
                                   file->io.name) : fd;
}

/* The locks of the old opening are as before again. */
static int give_up(struct file *file, const struct lock_mode *before, int rc)
{
    if (before)
        lock_file(file->fd, before, file->io.name, NULL);
    return rc;
}

int file_set_writable(struct lam_io *io, bool writable,
                      enum lam_io_locking locking, struct lam_error *err)
{
    struct file *file = file_of(io);
    bool shared = locking == LAM_IO_LOCKED_SHARED;
    struct lock_mode after = { .writable = writable, .shared = shared };
    struct lock_mode old = { .writable = io->writable, .shared = shared };
    struct lock_mode *before = locking == LAM_IO_UNLOCKED ? NULL : &old;
    int rc = io_pool_pin(file);

    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not open '%s'", io->name);
    rc = before && writable ? lock_file(file->fd, &after, io->name, err) : 0;

    if (rc < 0)
        return give_up(file, before, rc);
    lam_autoclose int fd = open_again(file, writable, err);
    if (fd < 0)
        return give_up(file, before, fd);
    if (before)
        lock_same(fd, &after);
    /* The old opening lives on until the last request that uses it has ended,
     * which may be after the writer.  It only reads. */
    if (before)
        lock_same(file->fd, writable ? &old : &after);
    if (dup3(fd, file->fd, O_CLOEXEC) < 0)
        return give_up(file, before, lam_fail_errno(err, errno, "Could not "
                                                    "open '%s'", io->name));
    io->writable = writable;
    rc = writable ? file_probe_kind(file, err) : 0;
    if (rc < 0)
        file_set_writable(io, false, locking, NULL);
    return rc;
}

int lam_io_set_writable(struct lam_io *io, bool writable,
                        enum lam_io_locking locking, struct lam_error *err)
{
    if (io->writable == writable)
        return 0;
    if (!writable)
        io_ahead_stop(io);
    if (io->ops->set_writable)
        return io->ops->set_writable(io, writable, locking, err);
    io->writable = writable;
    return 0;
}
