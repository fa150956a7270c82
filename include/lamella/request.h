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
 * Requests.  @offset and @length are bytes of the guest's disk, of any
 * alignment where nothing else is said; @length may be 0.  All block until they
 * are done, from any number of threads.  Where two of them overlap in time and
 * place, either may come first.
 *
 * They return 0, or -EINVAL if the range ends beyond the virtual size or the
 * image was opened for its header only; -EIO and other errors of the system;
 * -EUCLEAN, -ENOMEM.  Those that write: -EROFS if it was opened read-only;
 * -ENOSPC; and once metadata could not be written, that error every time.
 */

/*
 * lam_image_read() - read guest bytes through the whole chain.
 *
 * @buf has room for @length bytes; what it holds after a failure is undefined.
 * The message names layer and offset.
 */
LAM_API int lam_image_read(struct lam_image *image, void *buf, uint64_t length,
                           uint64_t offset, struct lam_error *err);

/*
 * lam_image_write() - write guest bytes into the top layer.
 *
 * LAM_WRITE_COMPRESSED wants whole clusters (-EINVAL) and a format that has
 * such (-ENOTSUP).  In place where the cluster is ours alone, else
 * copy-on-write (docs/architecture.md, "A write").  After a failure each byte
 * of the range is the old one or the new one.  In the host's hands when it
 * returns 0; on disk with LAM_WRITE_FUA, or after a flush.
 */
LAM_API int lam_image_write(struct lam_image *image, const void *buf,
                            uint64_t length, uint64_t offset, unsigned flags,
                            struct lam_error *err);

/*
 * lam_image_zero() - make the range read as zeroes.
 *
 * By metadata where whole clusters (or subclusters) allow, else by writing
 * (format document 7.9).  @flags: LAM_WRITE_FUA; LAM_ZERO_UNMAP counts only
 * with LAM_OPEN_UNMAP; with LAM_ZERO_NO_FALLBACK -ENOTSUP where zeroes would
 * have to be written.
 */
LAM_API int lam_image_zero(struct lam_image *image, uint64_t offset,
                           uint64_t length, unsigned flags,
                           struct lam_error *err);

/*
 * lam_image_discard() - the guest no longer needs the range.
 *
 * Whole clusters inside it read as
 * zeroes afterwards (qcow2 v3; format document 7.10); the rest is unchanged.
 * Does nothing unless opened with LAM_OPEN_UNMAP.
 */
LAM_API int lam_image_discard(struct lam_image *image, uint64_t offset,
                              uint64_t length, struct lam_error *err);

/*
 * lam_image_flush() - what was written before this call is on disk when it
 * returns 0.
 *
 * Writes that other threads make meanwhile need not be.  Does nothing for an
 * image that is open read-only.  After a failure it is not known what is on
 * disk, and the image takes no more writes where that may be metadata.
 */
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
