/* SPDX-License-Identifier: MIT */
/* lamella/compare.h - do two images show the same? */
#ifndef LAMELLA_COMPARE_H
#define LAMELLA_COMPARE_H

#include <lamella/error.h>
#include <lamella/job.h>

LAM_BEGIN_DECLS

struct lam_image;

enum lam_compare_verdict {
    LAM_COMPARE_EQUAL,
    LAM_COMPARE_CONTENT,        /* guest contents differ at @offset */
    LAM_COMPARE_SIZE,           /* strict only */
    LAM_COMPARE_ALLOCATION,     /* strict only: allocated in one, not in the
                                   other, at @offset */
};

enum { LAM_COMPARE_STRICT = 1 << 0 };

struct lam_compare_result {
    enum lam_compare_verdict verdict;
    uint64_t offset;            /* of the 512-byte sector that differs, or of
                                   what could not be read */
    bool beyond_end;            /* differs where only the longer image has
                                   bytes, which must be zero */
    bool sizes_differ;
    int failed_image;           /* after an error: 1 or 2 could not be read */
    bool failed_mapping;        /* ... its map rather than its data */
};

/*
 * lam_image_compare() - do @a and @b show the same to a guest?
 *
 * The shorter one counts as padded with zeroes.  What both are known to read as
 * zero is not read.  With LAM_COMPARE_STRICT in @flags sizes and what is
 * allocated have to be the same, too.  @progress (or NULL) is called from one
 * thread at a time, in bytes.  Neither image may be closed meanwhile; writes to
 * them make the verdict meaningless, and nothing worse.
 *
 * Returns 0 with the verdict in *@out, or the error of what could not be read
 * (-EIO, -EUCLEAN and so on), with @failed_image and @offset set; -ENOMEM.
 */
LAM_API int lam_image_compare(struct lam_image *a, struct lam_image *b,
                              unsigned flags, lam_progress_fn *progress,
                              void *opaque, struct lam_compare_result *out,
                              struct lam_error *err);

LAM_END_DECLS

#endif
