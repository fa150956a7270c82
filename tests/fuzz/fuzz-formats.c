/* SPDX-License-Identifier: MIT */
/*
 * fuzz-formats.c - any bytes as an image of one of the formats beside qcow2:
 * open, info, map, read, check, and a few writes.
 *
 * The first byte chooses the format (FORMATS in test_fuzz.py has the same
 * order), its highest bit whether the image is written to.
 */
#include <stdint.h>
#include <stdlib.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
    "vdi", "parallels", "qed", "qcow", "bochs", "cloop", "dmg", "vmdk",
};

enum { WINDOW = 1 << 20, WRITABLE = 0x80 };

static void must_say_why(int rc, const struct lam_error *err)
{
    if (rc < 0 && !err->message[0])
        abort();
}

/* A map has no gaps, and what it says is inside the disk. */
static void check_map(const struct lam_extents *extents, uint64_t length)
{
    uint64_t at = 0;

    for (size_t i = 0; i < extents->count; i++) {
        if (extents->items[i].offset != at || !extents->items[i].length)
            abort();
        at += extents->items[i].length;
    }
    if (at != length)
        abort();
}

static void look(struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_image_info *info = NULL;
    struct lam_check_result result;
    uint64_t size = lam_image_size(image);
    uint64_t length = size < WINDOW ? size : WINDOW;
    uint8_t *buf = malloc(WINDOW);

    must_say_why(lam_image_info(image, &info, &err), &err);
    lam_image_info_free(info);
    int rc = lam_image_map(image, 0, length, 1, 0, &extents, &err);
    must_say_why(rc, &err);
    if (rc == 0)
        check_map(&extents, length);
    lam_extents_deinit(&extents);
    if (buf)
        must_say_why(lam_image_read(image, buf, length, size - length, &err),
                     &err);
    free(buf);
    must_say_why(lam_image_check(image, NULL, NULL, &result, &err), &err);
}

/* What was written is read back, whatever lies around it. */
static void change(struct lam_image *image)
{
    static const uint8_t bytes[700] = { 1, 2, 3 };
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t back[sizeof bytes];
    uint64_t size = lam_image_size(image);

    if (size < sizeof bytes)
        return;
    int rc = lam_image_write(image, bytes, sizeof bytes, size / 2 -
                             sizeof bytes / 2, 0, &err);
    must_say_why(rc, &err);
    if (rc == 0)
        must_say_why(lam_image_read(image, back, sizeof back, size / 2 -
                                    sizeof bytes / 2, &err), &err);
    must_say_why(lam_image_zero(image, 0, size < WINDOW ? size : WINDOW, 0,
                                &err), &err);
    must_say_why(lam_image_flush(image, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    if (!size || lam_io_memory_new(data + 1, size - 1, &io, NULL) < 0)
        return 0;
    bool writable = data[0] & WRITABLE;
    options.flags = writable ? LAM_OPEN_WRITE : 0;
    io->writable = writable;
    int rc = image_open_io(io, names[data[0] % 8], &options, NULL, &image,
                           &err);
    must_say_why(rc, &err);
    if (rc < 0)
        return 0;
    look(image);
    if (writable && image->ops->write_begin)
        change(image);
    lam_image_close(image, NULL);
    return 0;
}
