/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - an overlay of an image that nobody writes to.
 *
 * Whoever has the image open for writing would change what the overlay shows,
 * so the image is locked against that while the overlay is made.  The file gets
 * its name when it is complete: who is killed before leaves nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
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

/* -1: the host knows no files without a name, or not there. */
static int open_unnamed(const char *path)
{
#ifdef O_TMPFILE
    const char *slash = strrchr(path, '/');
    lam_autofree char *folder = !slash ? strdup(".")
        : strndup(path, slash == path ? 1 : (size_t)(slash - path));

    return folder ? open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644) : -1;
#else
    (void)path;
    return -1;
#endif
}

/*
 * The whole overlay in a file that has no name yet.  -ENOTSUP: not here, or it
 * failed; made under its name, that fails again with the right words.
 */
static int create_unnamed(struct lam_image *image, const char *overlay,
                          const struct lam_overlay_options *options,
                          struct lam_error *err)
{
    char path[64];
    struct stat st;

    /* What is there is replaced where it is, and a colon may say that the name
     * is no path. */
    if (strchr(overlay, ':') || lstat(overlay, &st) == 0)
        return -ENOTSUP;
    lam_autoclose int fd = open_unnamed(overlay);
    if (fd < 0)
        return -ENOTSUP;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (external_create(image, overlay, path, options, NULL) < 0)
        return -ENOTSUP;
    if (linkat(AT_FDCWD, path, AT_FDCWD, overlay, AT_SYMLINK_FOLLOW) == 0)
        return image_sync_directory(overlay, err);
    return errno == EEXIST
        ? lam_fail_errno(err, EEXIST, "Could not create '%s'", overlay)
        : -ENOTSUP;
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
    if (rc < 0)
        return rc;
    rc = create_unnamed(image, overlay, options, err);
    return rc != -ENOTSUP ? rc
        : external_create(image, overlay, NULL, options, err);
}
