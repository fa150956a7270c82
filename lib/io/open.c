/* SPDX-License-Identifier: MIT */
/*
 * open.c - from a path to a host object: which kind, which flags, who else.
 */
#include <errno.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/file.h"
#include "io/lock.h"
#include "io/pool.h"

enum { CREATE_MODE = 0644 };

static int open_path(const char *path, int flags,
                     const struct lam_io_open_options *options)
{
    if (!options->beneath)
        return open(path, flags, CREATE_MODE);
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags,
        .mode = flags & O_CREAT ? CREATE_MODE : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, options->dirfd, path, &how, sizeof how);
}

static bool is_direct(enum lam_cache_mode cache)
{
    return cache == LAM_CACHE_NONE || cache == LAM_CACHE_DIRECTSYNC;
}

static const struct lam_io_ops *
ops_for(mode_t mode, const struct lam_io_open_options *options)
{
    if (S_ISREG(mode))
        return &file_ops;
    if (S_ISCHR(mode) && options->characters)
        return &chardev_ops;
    return S_ISBLK(mode) ? &blockdev_ops : NULL;
}

static int system_failed(const char *path,
                         const struct lam_io_open_options *options, int code,
                         struct lam_error *err)
{
    return lam_fail_errno(err, code, "Could not %s '%s'",
                          options->create ? "create" : "open", path);
}

/* None is opened: a FIFO or a tape may do something when it is. */
static int refuse(const char *path, mode_t mode,
                  const struct lam_io_open_options *options,
                  struct lam_error *err)
{
    if (S_ISDIR(mode) && options->writable)
        return system_failed(path, options, EISDIR, err);
    if (S_ISSOCK(mode))
        return system_failed(path, options, ENXIO, err);
    if (S_ISCHR(mode))
        return lam_fail(err, EINVAL,
                        "'%s' is not a regular file or block device", path);
    return lam_fail(err, S_ISDIR(mode) ? EISDIR : EINVAL,
                    "'file' driver requires '%s' to be a regular file", path);
}

static int stat_path(const char *path,
                     const struct lam_io_open_options *options,
                     struct stat *st)
{
    if (!options->beneath)
        return stat(path, st);
    lam_autoclose int fd = open_path(path, O_PATH | O_CLOEXEC, options);
    return fd < 0 ? -1 : fstat(fd, st);
}

/*
 * Look at @path without opening it for use.  *@mode is 0 if there is nothing
 * and it may be created.
 */
static int look(const char *path, const struct lam_io_open_options *options,
                mode_t *mode, struct lam_error *err)
{
    struct stat st;
    *mode = 0;
    if (stat_path(path, options, &st) < 0)
        return errno == ENOENT && options->create
            ? 0 : system_failed(path, options, errno, err);
    *mode = st.st_mode;
    return ops_for(st.st_mode, options)
        ? 0 : refuse(path, st.st_mode, options, err);
}

static int open_flags(const struct lam_io_open_options *options, mode_t mode)
{
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    flags |= options->writable ? O_RDWR : O_RDONLY;
    if (is_direct(options->cache))
        flags |= O_DIRECT;
    if (options->create && !mode)
        flags |= O_CREAT;
    if (options->exclusive && S_ISBLK(mode))
        flags |= O_EXCL;
    return flags;
}

static int open_failed(const char *path,
                       const struct lam_io_open_options *options, int flags,
                       int code, struct lam_error *err)
{
    if (code == EINVAL && (flags & O_DIRECT))
        return lam_fail(err, EINVAL, "Could not open '%s': filesystem does not "
                        "support O_DIRECT", path);
    if (code == EBUSY)
        return lam_fail(err, EBUSY, "Device '%s' is in use", path);
    return system_failed(path, options, code, err);
}

static int set_up(struct file *file, const char *path,
                  const struct lam_io_open_options *options,
                  struct lam_error *err)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return lam_fail_errno(err, errno, "Could not stat '%s'", path);
    const struct lam_io_ops *ops = ops_for(st.st_mode, options);
    if (!ops)
        return refuse(path, st.st_mode, options, err);
    /* It was for opening only, and means nothing to regular files. */
    int flags = S_ISREG(st.st_mode) ? -1 : fcntl(file->fd, F_GETFL);
    if (flags >= 0)
        fcntl(file->fd, F_SETFL, flags & ~O_NONBLOCK);

    struct lock_mode mode = { .writable = options->writable, .fresh = true };
    file->lock_tried = options->lock;
    int rc = options->lock ? lock_file(file->fd, &mode, path, err) : 0;
    if (rc < 0)
        return rc;
    /* Not before the lock: somebody may be using what would be lost. */
    if (options->truncate && S_ISREG(st.st_mode) && ftruncate(file->fd, 0) < 0)
        return lam_fail_errno(err, errno, "Could not empty '%s'", path);
    file->io.ops = ops;
    file->io.writable = options->writable;
    file->io.unmap = options->unmap;
    file->io.cache = options->cache;
    file->io.limits.direct = is_direct(options->cache);
    return file_probe_kind(file, err);
}

int lam_io_open(const char *path, const struct lam_io_open_options *options,
                struct lam_io **out, struct lam_error *err)
{
    mode_t mode;
    if (options->pool)
        io_pool_prepare(options->pool);
    int rc = look(path, options, &mode, err);
    if (rc < 0)
        return rc;
    int flags = open_flags(options, mode);
    lam_autoclose int fd = open_path(path, flags, options);
    if (fd < 0)
        return open_failed(path, options, flags, errno, err);

    struct file *file = calloc(1, sizeof *file);
    if (!file)
        return lam_fail(err, ENOMEM, "no memory to open a file");
    rc = lam_io_init(&file->io, &file_ops, path, err);
    if (rc < 0) {
        free(file);
        return rc;
    }
    file->fd = fd;
    pthread_mutex_init(&file->run_lock, NULL);
    fd = -1;
    rc = set_up(file, path, options, err);
    if (rc == 0 && options->pool && file->io.ops == &file_ops)
        rc = io_pool_add(options->pool, file, err);
    if (rc < 0) {
        file_close(&file->io);
        return rc;
    }
    *out = &file->io;
    return 0;
}

static int lock_regular(struct file *file, struct lock_mode *mode,
                        struct lam_error *err)
{
    int fd;
    int rc = file_use(file, &fd);

    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not open '%s'", file->io.name);
    mode->fresh = !file->lock_tried;
    file->lock_tried = true;
    rc = lock_file(fd, mode, file->io.name, err);
    if (rc == 0)
        file->locking = mode->shared ? LAM_IO_LOCKED_SHARED : LAM_IO_LOCKED;
    file_unuse(file);
    return rc;
}

int lam_io_lock(struct lam_io *io, bool shared, struct lam_error *err)
{
    struct lock_mode mode = { .writable = io->writable, .shared = shared };
    if (io->ops == &file_ops)
        return lock_regular(file_of(io), &mode, err);
    int fd = lam_io_fd(io);
    return fd < 0 ? 0 : lock_file(fd, &mode, io->name, err);
}
