/* SPDX-License-Identifier: MIT */
/* lamella/snapshot.h - internal snapshots. */
#ifndef LAMELLA_SNAPSHOT_H
#define LAMELLA_SNAPSHOT_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

/*
 * Internal snapshots: states of the disk kept inside the image file, listed by
 * lam_image_info() (format document 8).  @image is open for writing.
 *
 * All three are on disk when they return 0.  One write of the header decides:
 * whenever power fails, the image is what it was or what it was to become.
 * Data written before the call is part of what happens, a write that another
 * thread makes meanwhile waits; reads go on.
 *
 * Returns 0, or -EROFS; -ENOTSUP if the format has no snapshots, or the image
 * an external data file; -ENOSPC; -EUCLEAN if a reference on the way is
 * impossible or not counted; -EIO, -ENOMEM.  Nothing has changed then, unless
 * the disk failed in the middle of the switch: the image takes no more writes
 * after that.
 */

/*
 * Keep the disk as it is now as @name (any string up to 65,535 bytes, which
 * need not be new).  The id is the highest numeric one and one more.  -EINVAL
 * if a refcount is too narrow for one more reference; -EFBIG beyond 65,536
 * snapshots.
 */
LAM_API int lam_image_snapshot_create(struct lam_image *image,
                                      const char *name, struct lam_error *err);

/*
 * Make the disk what it was, in size too; what it is now is lost.  @id_or_name
 * is looked for among the ids first.  -ENOENT.  Reads under way in other
 * threads see the old or the new disk, or some of both.
 */
LAM_API int lam_image_snapshot_apply(struct lam_image *image,
                                     const char *id_or_name,
                                     struct lam_error *err);

/* Forget the first snapshot called @name (ids are not looked at).  -ENOENT. */
LAM_API int lam_image_snapshot_delete(struct lam_image *image,
                                      const char *name, struct lam_error *err);

LAM_END_DECLS

#endif
