/* SPDX-License-Identifier: MIT */
/* lamella/check.h - finding and repairing damage. */
#ifndef LAMELLA_CHECK_H
#define LAMELLA_CHECK_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

enum lam_finding_kind { LAM_FINDING_CORRUPTION, LAM_FINDING_LEAK,
                        LAM_FINDING_ERROR };

/* One line a finding, as `check` prints it, without newline. */
typedef void lam_finding_fn(void *opaque, enum lam_finding_kind kind,
                            const char *text);

struct lam_check_result {
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters, allocated_clusters;
    uint64_t compressed_clusters, fragmented_clusters;
};

/*
 * lam_image_check() - count every reference and compare (format document 14).
 *
 * Reports only; open the image with LAM_OPEN_CHECK, else damage of some kinds
 * keeps it from being opened.  Findings are told to @finding (NULL: nobody) as
 * they are met, on the caller's thread; their text is valid during the call.
 *
 * Returns 0 whatever was found: *@out counts it.  -ENOTSUP for formats without
 * metadata to check; -EIO, -EFBIG, -ENOMEM if the check could not end.  While
 * others write to the image, what they change may look like damage.
 */
LAM_API int lam_image_check(struct lam_image *image, lam_finding_fn *finding,
                            void *opaque, struct lam_check_result *out,
                            struct lam_error *err);

enum {
    LAM_REPAIR_LEAKS = 1 << 0,  /* refcounts that are too high; and COPIED
                                   bits if nothing else is wrong */
    LAM_REPAIR_ERRORS = 1 << 1, /* all else that can be put right */
    LAM_REPAIR_ALL = LAM_REPAIR_LEAKS | LAM_REPAIR_ERRORS,
};

/*
 * lam_image_repair() - check, and put right what @what names (format document
 * 14.3).
 *
 * @image is open with LAM_OPEN_CHECK | LAM_OPEN_WRITE, and nobody else uses
 * it.  @out has what was put right in leaks_fixed and corruptions_fixed, and
 * what is left over in the other counters; a check afterwards tells whether
 * repairs have made more visible.  No data is thrown away for the sake of a
 * clean result: where a table cannot be read, what only it could refer to
 * stays.  The dirty and the corrupt bit are cleared when they are no longer
 * true.
 *
 * On disk when it returns 0.  Killed at any point, the image is no worse than
 * it was.  -ENOTSUP for formats without metadata to check; -EROFS; -EIO also
 * if the refcount structures have to be rebuilt and @what is leaks only;
 * -ENOSPC, -EFBIG, -ENOMEM.
 */
LAM_API int lam_image_repair(struct lam_image *image, unsigned what,
                             lam_finding_fn *finding, void *opaque,
                             struct lam_check_result *out,
                             struct lam_error *err);

LAM_END_DECLS

#endif
