/* SPDX-License-Identifier: MIT */
/*
 * memory-image.h - raw images in memory, as sources and targets of jobs.
 */
#ifndef LAM_TESTS_MEMORY_IMAGE_H
#define LAM_TESTS_MEMORY_IMAGE_H

#include "unit.h"

#include "image/image.h"

/* A copy of @length bytes; NULL: zeroes. */
static inline struct lam_io *new_memory(const void *bytes, uint64_t length,
                                        unsigned flags)
{
    struct lam_io *io;

    assert_int_equal(lam_io_memory_new(bytes, length, &io, NULL), 0);
    io->writable = flags & LAM_OPEN_WRITE;
    return io;
}

/* Takes @io over. */
static inline struct lam_image *open_raw(struct lam_io *io, unsigned flags)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;

    options.flags = flags;
    assert_int_equal(image_open_io(io, "raw", &options, NULL, &image, NULL),
                     0);
    return image;
}

static inline struct lam_image *open_memory(const void *bytes, uint64_t length,
                                            unsigned flags)
{
    return open_raw(new_memory(bytes, length, flags), flags);
}

#endif
