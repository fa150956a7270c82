/* SPDX-License-Identifier: MIT */
/* lamella/chain.h - moving data between the layers of a chain. */
#ifndef LAMELLA_CHAIN_H
#define LAMELLA_CHAIN_H

#include <lamella/error.h>
#include <lamella/job.h>
#include <lamella/map.h>
#include <lamella/open.h>

LAM_BEGIN_DECLS

/*
 * Jobs that move data between the layers of a chain, or change which layers it
 * has.  The disk that @image shows is the same before, after, and whenever a
 * job or the machine is stopped on the way: run again, a job does what is left.
 * Data that was moved is on disk before anything stops referring to where it
 * came from.
 *
 * @image is the top of its chain, open for writing with everything below it.
 * One of these jobs, resizes, amendments and snapshots runs on an image at a
 * time, the others wait; reads go on.
 */

struct lam_commit_options {
    struct lam_job_options job;
    unsigned depth;             /* of the layer that takes the data: 1 is the
                                   backing image, 2 the one below it */
    bool keep;                  /* the top keeps its data; always so if @depth
                                   is above 1, or its format cannot be emptied
                                   (VMDK) */
    unsigned from;              /* 0: from the top on; else layers @from to
                                   @depth - 1, which then drop out */
};

#define LAM_COMMIT_OPTIONS_INIT { LAM_JOB_OPTIONS_INIT, 1, false, 0 }

/*
 * lam_image_commit() - write what the layers above layer @depth hold into it.
 *
 * Only what they hold is written; ranges that are zero there become zero
 * clusters or holes.  A layer that is smaller than the disk grows first.  With
 * @depth 1 and without @keep the top is empty afterwards: the layer that took
 * the data shows everywhere.  Layers between the two, and any other overlay of
 * theirs or of layer @depth, no longer read as they did.
 *
 * With @from the top's own data stay where they are: layers @from to @depth - 1
 * are written down, and the layer above them has layer @depth as its backing
 * image from then on.  Their files stay, and no longer read as they did.
 *
 * @image may be open for reading only if it stays as it is (@keep, @depth).
 * Requests may go on, writes too if the top is emptied or @from is not 0: what
 * is written to a top meanwhile is copied again, and at last writes wait for as
 * long as the rest takes.  Durable when it returns 0.
 *
 * -EINVAL: no such layer, or not the top, or a layer that would drop out is too
 * small to be spared; -EAGAIN if somebody else uses layer
 * @depth; -EACCES, -EROFS, -ENOSPC, -EUCLEAN, -EIO, -ECANCELED.
 */
LAM_API int lam_image_commit(struct lam_image *image,
                             const struct lam_commit_options *options,
                             struct lam_error *err);

struct lam_rebase_options {
    struct lam_job_options job;
    const char *backing_file;   /* what the header is to call it; NULL: no
                                   backing file */
    const char *backing_format; /* of it; wanted if there is one */
    bool unsafe;                /* the caller knows that the new one reads as
                                   the old one: only the header changes, and
                                   neither is opened */
    bool compress;              /* what is copied is stored compressed, where
                                   whole clusters are copied */
    struct lam_open_options open;   /* how the new backing file is opened;
                                       format and LAM_OPEN_WRITE do not count */
};

#define LAM_REBASE_OPTIONS_INIT                                             \
    { LAM_JOB_OPTIONS_INIT, NULL, NULL, false, false, LAM_OPEN_OPTIONS_INIT }

/*
 * lam_image_rebase() - give @image another backing file, of any size.
 *
 * Where the old and the new one differ, what @image shows is copied into it
 * first; layers that both have are not compared.  Without a new one all is
 * copied that is not zero.  Unless @unsafe, the layers below @image are those
 * of the new chain when it returns 0.
 *
 * Requests may go on, and without @unsafe writes too: what the guest has
 * written stays.  -ELOOP if the new backing file has @image in its chain; as
 * lam_image_open() for the new one; -ENOTSUP, -EINVAL (a name that is too
 * long), -ENOSPC, -EUCLEAN, -EIO, -ECANCELED.
 */
LAM_API int lam_image_rebase(struct lam_image *image,
                             const struct lam_rebase_options *options,
                             struct lam_error *err);

struct lam_stream_options {
    struct lam_job_options job;
    unsigned depth;             /* of the layer that becomes the backing image:
                                   2 drops the layer below @image;
                                   LAM_DEPTH_ALL: there is none left */
    const char *backing_file;   /* what the header is to call it; NULL: as
                                   the layer above it does */
    const char *backing_format; /* NULL: the layer's format */
    bool compress;              /* as in lam_rebase_options */
};

#define LAM_STREAM_OPTIONS_INIT                                             \
    { LAM_JOB_OPTIONS_INIT, LAM_DEPTH_ALL, NULL, NULL, false }

/*
 * lam_image_stream() - pull what the layers above layer @depth hold into
 * @image, and drop them from its chain.
 *
 * Their files stay as they are.  Requests may go on, writes too: what the guest
 * has written stays.  -EINVAL: no such layer; and as
 * lam_image_rebase().
 */
LAM_API int lam_image_stream(struct lam_image *image,
                             const struct lam_stream_options *options,
                             struct lam_error *err);

LAM_END_DECLS

#endif
