/* SPDX-License-Identifier: MIT */
/*
 * cat.c - the disk that an image shows, to standard output.
 *
 *     cat IMAGE > disk.raw
 *
 * Reads through the whole chain of backing files.  Nobody has told us where the
 * image comes from, so only files beside it are opened because it says so.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <lamella.h>

enum { PIECE = 1 << 20 };

static int copy(struct lam_image *image, char *buf, struct lam_error *err)
{
    const uint64_t size = lam_image_size(image);

    for (uint64_t offset = 0; offset < size; offset += PIECE) {
        uint64_t n = size - offset < PIECE ? size - offset : PIECE;
        int rc = lam_image_read(image, buf, n, offset, err);
        if (rc < 0)
            return rc;
        if (fwrite(buf, 1, n, stdout) != n) {
            perror("standard output");
            exit(1);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    char *buf = malloc(PIECE);

    if (argc != 2 || !buf) {
        fprintf(stderr, "usage: cat IMAGE\n");
        return 1;
    }
    options.policy = LAM_POLICY_SIBLINGS;       /* the default, in fact */
    int rc = lam_image_open(argv[1], &options, &image, &err);
    if (rc == 0) {
        rc = copy(image, buf, &err);
        lam_image_close(image, NULL);   /* it was only read: nothing to lose */
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.message);
    free(buf);
    return rc < 0 || fflush(stdout) ? 1 : 0;
}
