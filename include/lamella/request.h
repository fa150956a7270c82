/* SPDX-License-Identifier: MIT */
/* lamella/request.h - reading and writing the guest's bytes. */
#ifndef LAMELLA_REQUEST_H
#define LAMELLA_REQUEST_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

enum {
    LAM_WRITE_FUA = 1 << 0,         /* on disk when the call returns */
    LAM_WRITE_COMPRESSED = 1 << 1,  /* whole clusters (or the last, cut one) */
    LAM_ZERO_UNMAP = 1 << 2,        /* zeroing may free what is stored */
    LAM_ZERO_NO_FALLBACK = 1 << 3,  /* -ENOTSUP rather than write zeroes */
};

/*
 * lam_image_read() - read guest bytes through the whole chain.
 *
 * Any alignment.  -EINVAL if the range ends beyond the virtual size; -EIO,
 * -EUCLEAN, -ENOMEM; the message names layer and offset.
 */
LAM_API int lam_image_read(struct lam_image *image, void *buf, uint64_t length,
                           uint64_t offset, struct lam_error *err);

/*
 * lam_image_write() - write guest bytes into the top layer.
 *
 * Any alignment (LAM_WRITE_COMPRESSED: clusters).  In place where the cluster
 * is ours alone, else copy-on-write (docs/architecture.md, "A write").  What
 * was there stays if the call fails.  -EROFS if opened read-only, -ENOSPC.
 */
LAM_API int lam_image_write(struct lam_image *image, const void *buf,
                            uint64_t length, uint64_t offset, unsigned flags,
                            struct lam_error *err);

/* Make the range read as zeroes; @flags LAM_ZERO_..., LAM_WRITE_FUA. */
LAM_API int lam_image_zero(struct lam_image *image, uint64_t offset,
                           uint64_t length, unsigned flags,
                           struct lam_error *err);

/*
 * The guest no longer needs the range.  Whole clusters inside it read as
 * zeroes afterwards (qcow2 v3; format document 7.10); the rest is unchanged.
 * Does nothing unless opened with LAM_OPEN_UNMAP.
 */
LAM_API int lam_image_discard(struct lam_image *image, uint64_t offset,
                              uint64_t length, struct lam_error *err);

/* What was written before this call is on disk when it returns 0. */
LAM_API int lam_image_flush(struct lam_image *image, struct lam_error *err);

/*
 * lam_image_read_vmstate(), lam_image_write_vmstate() - the state of a virtual
 * machine, which a qcow2 image keeps behind the end of its disk, for internal
 * snapshots to take along.
 *
 * @offset and @length are bytes of the state, of any alignment.  What was never
 * written reads as zeroes, and nothing of a backing file shows.  A change of
 * the disk's size drops it.  -ENOTSUP for formats that keep none; -EFBIG if the
 * format cannot address so much; -EROFS; otherwise as reads and writes.  Safe
 * from any thread, one at a time.
 */
LAM_API int lam_image_read_vmstate(struct lam_image *image, void *buf,
                                   uint64_t length, uint64_t offset,
                                   struct lam_error *err);
LAM_API int lam_image_write_vmstate(struct lam_image *image, const void *buf,
                                    uint64_t length, uint64_t offset,
                                    struct lam_error *err);

LAM_END_DECLS

#endif
