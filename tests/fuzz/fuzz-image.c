/* SPDX-License-Identifier: MIT */
/*
 * fuzz-image.c - any bytes as a qcow2 file: info, map, read, check, write.
 *
 * Nothing may crash, hang or need memory out of proportion, whatever the file
 * says.  What is written must read back, even from a damaged image, unless the
 * write failed.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WINDOW = 64 << 20, MOST = 256 << 10 };

static struct lam_image *open_image(const uint8_t *data, size_t size,
                                    unsigned flags)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    options.flags = flags | LAM_OPEN_NO_BACKING;
    options.policy = LAM_POLICY_NONE;
    struct lam_io *io;
    if (lam_io_memory_new(data, size, &io, NULL) < 0)
        return NULL;
    struct lam_image *image = NULL;
    if (image_open_io(io, "qcow2", &options, NULL, &image, NULL) < 0)
        return NULL;
    return image;
}

/* Map and read at the start, in the middle and at the end. */
static void look_around(struct lam_image *image)
{
    uint64_t size = lam_image_size(image);
    uint64_t places[] = { 0, size / 2, size > MOST ? size - MOST : 0 };
    char *buf = malloc(MOST);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        uint64_t left = size - places[i];
        uint64_t length = left < WINDOW ? left : WINDOW;
        struct lam_extents list = LAM_EXTENTS_INIT;
        if (lam_image_map(image, places[i], length, LAM_DEPTH_ALL,
                          LAM_MAP_HOST_HOLES, &list, NULL) == 0) {
            uint64_t at = places[i];
            for (size_t k = 0; k < list.count; k++) {
                if (list.items[k].offset != at || !list.items[k].length)
                    abort();
                at += list.items[k].length;
            }
            if (at != places[i] + length)
                abort();
        }
        lam_extents_deinit(&list);
        if (buf)
            lam_image_read(image, buf, left < MOST ? left : MOST, places[i],
                           NULL);
    }
    free(buf);
}

static void inspect(struct lam_image *image)
{
    struct lam_image_info *info = NULL;
    if (lam_image_info(image, &info, NULL) == 0)
        lam_image_info_free(info);
    struct lam_check_result result;
    lam_image_check(image, NULL, NULL, &result, NULL);
}

static void write_and_read(struct lam_image *image)
{
    uint64_t size = lam_image_size(image);
    if (size < 8192)
        return;
    uint8_t pattern[3000], found[3000];
    memset(pattern, 0xa5, sizeof pattern);
    uint64_t places[] = { 700, size / 2, size - sizeof pattern };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (lam_image_write(image, pattern, sizeof pattern, places[i], 0,
                            NULL) == 0 &&
            lam_image_read(image, found, sizeof found, places[i], NULL) == 0 &&
            memcmp(pattern, found, sizeof found) != 0)
            abort();
    }
    lam_image_zero(image, 0, size < MOST ? size : MOST, LAM_ZERO_UNMAP, NULL);
    lam_image_discard(image, size / 2, size - size / 2 < MOST
                      ? size - size / 2 : MOST, NULL);
    lam_image_flush(image, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lam_image *image = open_image(data, size, 0);
    if (image) {
        look_around(image);
        inspect(image);
        lam_image_close(image, NULL);
    }
    image = open_image(data, size, LAM_OPEN_CHECK);
    if (image) {
        inspect(image);
        lam_image_close(image, NULL);
    }
    image = open_image(data, size, LAM_OPEN_WRITE | LAM_OPEN_UNMAP);
    if (image) {
        write_and_read(image);
        lam_image_close(image, NULL);
    }
    return 0;
}
