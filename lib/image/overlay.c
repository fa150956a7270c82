/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - an overlay of an image that nobody writes to.
 *
 * Whoever has the image open for writing would change what the overlay shows,
 * so the image is locked against that while the overlay is made.
 */
#include <sys/stat.h>

#include "image/external.h"

static int check_target(const struct lam_image *image, const char *overlay,
                        bool replace, struct lam_error *err)
{
    struct stat st;

    if (stat(overlay, &st) < 0)
        return 0;
    if (!replace)
        return lam_fail_errno(err, EEXIST, "Could not create '%s'", overlay);
    for (const struct lam_image *i = image; i; i = i->backing) {
        struct lam_io_identity id;

        lam_io_identity(i->io, &id);
        if (id.known && !id.is_block_device && id.dev == st.st_dev &&
            id.ino == st.st_ino)
            return lam_fail(err, EINVAL, "'%s' is in the chain that it would "
                            "be an overlay of", overlay);
    }
    return 0;
}

int lam_image_overlay_create(struct lam_image *image, const char *overlay,
                             bool replace,
                             const struct lam_overlay_options *options,
                             struct lam_error *err)
{
    static const struct lam_overlay_options defaults =
        LAM_OVERLAY_OPTIONS_INIT;

    if (!options)
        options = &defaults;
    if (!image->path && !options->backing_name)
        return lam_fail(err, EINVAL, "'%s' has no file name that an overlay "
                        "could record", image->name);
    if (image->crypt && !options->encryption.format)
        return lam_fail(err, EINVAL, "'%s' is encrypted, and the overlay would "
                        "not be", image->name);
    int rc = check_target(image, overlay, replace, err);
    /* A raw image is otherwise shared with whoever writes to it. */
    if (rc == 0 && !image->unlocked)
        rc = lam_io_lock(image->io, false, err);
    return rc < 0 ? rc : external_create(image, overlay, options, err);
}
