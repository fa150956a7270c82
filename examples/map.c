/* SPDX-License-Identifier: MIT */
/*
 * map.c - where the bytes of a disk lie: one line an extent.
 *
 *     map IMAGE
 */
#include <inttypes.h>
#include <stdio.h>

#include <lamella.h>

/* A map grows with fragmentation, so a large disk is asked for in windows. */
static const uint64_t WINDOW = UINT64_C(1) << 30;

static const char *const states[] = {
    [LAM_EXTENT_UNALLOCATED] = "unallocated",
    [LAM_EXTENT_ZERO] = "zero",
    [LAM_EXTENT_DATA] = "data",
    [LAM_EXTENT_COMPRESSED] = "compressed",
};

static void print(struct lam_image *image, const struct lam_extent *e)
{
    printf("%12" PRIu64 " %12" PRIu64 "  %-11s", e->offset, e->length,
           states[e->state]);
    if (e->flags & LAM_EXTENT_HAS_HOST) {
        const char *file = lam_image_extent_file(image, e);
        printf("  %s:%" PRIu64, file ? file : "?", e->host_offset);
    }
    putchar('\n');
}

static int map(struct lam_image *image, struct lam_error *err)
{
    const uint64_t size = lam_image_size(image);
    struct lam_extents extents = LAM_EXTENTS_INIT;
    int rc = 0;

    for (uint64_t offset = 0; offset < size && rc == 0; offset += WINDOW) {
        uint64_t n = size - offset < WINDOW ? size - offset : WINDOW;
        rc = lam_image_map(image, offset, n, LAM_DEPTH_ALL, LAM_MAP_HOST_HOLES,
                           &extents, err);
        for (size_t i = 0; rc == 0 && i < extents.count; i++)
            print(image, &extents.items[i]);
        lam_extents_deinit(&extents);
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (argc != 2) {
        fprintf(stderr, "usage: map IMAGE\n");
        return 1;
    }
    int rc = lam_image_open(argv[1], NULL, &image, &err);
    if (rc == 0) {
        rc = map(image, &err);
        lam_image_close(image, NULL);
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.message);
    return rc < 0 || fflush(stdout) ? 1 : 0;
}
