/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - an external snapshot of an image in use.
 *
 *     overlay IMAGE OVERLAY
 *
 * Writes to IMAGE, goes on in a new OVERLAY, writes there, and shows that IMAGE
 * has kept what it had.  Other threads might read and write all the time.
 */
#include <stdio.h>
#include <string.h>

#include <lamella.h>

static int write_text(struct lam_image *image, const char *text,
                      struct lam_error *err)
{
    return lam_image_write(image, text, strlen(text) + 1, 0, 0, err);
}

static int show(struct lam_image *image, struct lam_error *err)
{
    char text[32];
    int rc = lam_image_read(image, text, sizeof text, 0, err);

    if (rc == 0)
        printf("%s: %.*s\n", lam_image_name(image), (int)sizeof text, text);
    return rc;
}

static int go_on_in(struct lam_image *image, const char *overlay,
                    struct lam_error *err)
{
    int rc = write_text(image, "before", err);

    if (rc == 0)
        rc = lam_image_snapshot_external(image, overlay, NULL, err);
    /* The same handle is the overlay now. */
    if (rc == 0)
        rc = write_text(image, "after", err);
    if (rc == 0)
        rc = show(image, err);
    return rc < 0 ? rc : show(lam_image_backing(image), err);
}

int main(int argc, char **argv)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (argc != 3) {
        fprintf(stderr, "usage: overlay IMAGE OVERLAY\n");
        return 1;
    }
    options.flags = LAM_OPEN_WRITE;
    int rc = lam_image_open(argv[1], &options, &image, &err);
    if (rc == 0) {
        rc = go_on_in(image, argv[2], &err);
        /* What close cannot write is lost: its result counts. */
        int closed = lam_image_close(image, rc < 0 ? NULL : &err);
        rc = rc < 0 ? rc : closed;
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.message);
    return rc < 0 || fflush(stdout) ? 1 : 0;
}
