/* SPDX-License-Identifier: MIT */
/* lamella/measure.h - the size that a new image will have. */
#ifndef LAMELLA_MEASURE_H
#define LAMELLA_MEASURE_H

#include <lamella/create.h>
#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_measure {
    uint64_t required;          /* bytes, for the data there is */
    uint64_t fully_allocated;   /* bytes, once every cluster is written */
    bool has_bitmaps;           /* both can hold persistent bitmaps: */
    uint64_t bitmaps;           /* bytes, for the source's */
};

/*
 * lam_measure() - the file size that a new image needs (format document 15).
 *
 * @target says what is to be made; its size counts only without @source, the
 * image to be converted (NULL: an empty disk), whose map is read and whose data
 * is not.  Metadata is that of the full image, so @required is an upper bound,
 * and with a backing file for the target it is that of all data.  Creates and
 * changes nothing.
 *
 * Returns 0, or -EINVAL (options), -ENOTSUP (a format that cannot tell),
 * -EFBIG, -EUCLEAN, -EIO, -ENOMEM.
 */
LAM_API int lam_measure(const struct lam_create_options *target,
                        struct lam_image *source, struct lam_measure *out,
                        struct lam_error *err);

LAM_END_DECLS

#endif
