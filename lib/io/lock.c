/* SPDX-License-Identifier: MIT */
/*
 * lock.c - byte locks on image files, compatible with QEMU's.
 *
 * Byte 100 + n says "I use permission n", byte 200 + n "I cannot bear others
 * using permission n".  All are taken shared, so that many programs can say the
 * same thing; then each looks whether somebody says the opposite, by asking
 * whether it could take the counterpart exclusively.  Saying it first and
 * looking afterwards makes two starters see each other, at worst both give up.
 */
#include "io/lock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/arith.h"

enum {
    USES = 100, BARS = 200,
    CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3,
};

static int lock_byte(int fd, short type, off_t byte)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET,
                          .l_start = byte, .l_len = 1 };
    int rc;
    do
        rc = fcntl(fd, F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

/* Does somebody else hold any of the bytes [@from, @to)? */
static bool any_is_held(int fd, off_t from, off_t to)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
                          .l_start = from, .l_len = to - from };
    int rc;
    do
        rc = fcntl(fd, F_OFD_GETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc == 0 && lock.l_type != F_UNLCK;
}

/* Who holds a byte; raw images are shared by those who know what they do. */
enum { BY_WRITER = 1, BY_READER = 2, BY_RAW_WRITER = 4, BY_RAW_READER = 8 };

static const struct intention {
    off_t byte;                 /* what we hold */
    unsigned holders;           /* BY_... */
    off_t against;              /* what must not be held by others */
    const char *message;
} intentions[] = {
    { USES + CONSISTENT_READ,
      BY_WRITER | BY_READER | BY_RAW_WRITER | BY_RAW_READER,
      BARS + CONSISTENT_READ, "Failed to get \"consistent read\" lock" },
    { USES + WRITE, BY_WRITER | BY_RAW_WRITER, BARS + WRITE,
      "Failed to get \"write\" lock" },
    { USES + RESIZE, BY_WRITER, BARS + RESIZE,
      "Failed to get \"resize\" lock" },
    { BARS + WRITE, BY_WRITER | BY_READER, USES + WRITE,
      "Failed to get shared \"write\" lock" },
    { BARS + RESIZE, BY_WRITER | BY_READER, USES + RESIZE,
      "Failed to get shared \"resize\" lock" },
};

static bool is_ours(const struct intention *i, const struct lock_mode *mode)
{
    unsigned us = mode->shared ? mode->writable ? BY_RAW_WRITER : BY_RAW_READER
                  : mode->writable ? BY_WRITER : BY_READER;
    return i->holders & us;
}

static bool means_unsupported(int rc)
{
    return rc == -EINVAL || rc == -ENOLCK || rc == -EOPNOTSUPP ||
           rc == -ENOSYS;
}

static int conflict(const struct intention *i, const char *name,
                    struct lam_error *err)
{
    return lam_fail(err, EAGAIN,
                    "%s. Is another process using the image [%s]?",
                    i->message, name);
}

/* Takes the byte if it is ours, gives it back (from an earlier mode) if not. */
static int settle_byte(int fd, const struct intention *i,
                       const struct lock_mode *mode)
{
    bool ours = is_ours(i, mode);

    if (!ours && mode->fresh)
        return 0;
    return lock_byte(fd, ours ? F_RDLCK : F_UNLCK, i->byte);
}

/* What a reader must not find lies in a range where others seldom have
 * anything: one question, and not three, for each layer of a long chain. */
static bool nothing_against_reader(int fd, const struct lock_mode *mode)
{
    return !mode->writable && !mode->shared &&
           !any_is_held(fd, USES + WRITE, BARS + CONSISTENT_READ + 1);
}

int lock_file(int fd, const struct lock_mode *mode, const char *name,
              struct lam_error *err)
{
    for (size_t k = 0; k < LAM_ARRAY_SIZE(intentions); k++) {
        const struct intention *i = &intentions[k];
        int rc = settle_byte(fd, i, mode);
        if (means_unsupported(rc))
            return 0;
        if (rc == -EAGAIN || rc == -EACCES)
            return conflict(i, name, err);
        if (rc < 0)
            return lam_fail_errno(err, -rc, "Failed to lock byte %lld",
                                  (long long)i->byte);
    }
    if (nothing_against_reader(fd, mode))
        return 0;
    for (size_t k = 0; k < LAM_ARRAY_SIZE(intentions); k++) {
        const struct intention *i = &intentions[k];
        if (is_ours(i, mode) && any_is_held(fd, i->against, i->against + 1))
            return conflict(i, name, err);
    }
    return 0;
}

void lock_same(int fd, const struct lock_mode *mode)
{
    for (size_t k = 0; k < LAM_ARRAY_SIZE(intentions); k++)
        settle_byte(fd, &intentions[k], mode);
}
