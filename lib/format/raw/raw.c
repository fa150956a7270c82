/* SPDX-License-Identifier: MIT */
/*
 * raw.c - the identity mapping: guest byte N is host byte N (plus an offset).
 *
 * The size shown is the file's length rounded up to 512; what the last sector
 * lacks reads as zero (format document 16.1).  Holes of the file are zero
 * extents that own their place, so that `map` can say where they are.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "format/format.h"

enum { SECTOR = 512 };

struct raw {
    struct lam_io *io;
    uint64_t offset;            /* host offset of guest byte 0 */
    _Atomic uint64_t size;
    bool window;                /* offset or size was given: no truncate */
};

/* Anything may be raw, so it claims next to nothing. */
static int raw_probe(const uint8_t *head, size_t length)
{
    (void)head;
    (void)length;
    return 1;
}

static int raw_window(struct raw *r, const struct format_open *options,
                      uint64_t length, struct lam_error *err)
{
    r->window = options->raw_offset || options->raw_sized;
    if (!r->window) {
        if (length > INT64_MAX - SECTOR)
            return lam_fail(err, EFBIG, "file length %" PRIu64
                            " is beyond the limit of 2^63", length);
        r->size = align_up(length, SECTOR);
        return 0;
    }
    if (options->raw_offset > length)
        return lam_fail(err, EINVAL, "Offset (%" PRIu64 ") cannot be greater "
                        "than size of the containing file (%" PRIu64 ")",
                        options->raw_offset, length);

    uint64_t room = length - options->raw_offset;
    if (options->raw_size > room)
        return lam_fail(err, EINVAL, "The sum of offset (%" PRIu64 ") and size"
                        " (%" PRIu64 ") has to be smaller or equal to the "
                        " actual size of the containing file (%" PRIu64 ")",
                        options->raw_offset, options->raw_size, length);
    if (options->raw_size % SECTOR)
        return lam_fail(err, EINVAL, "Specified size (%" PRIu64 ") is not a "
                        "multiple of %d", options->raw_size, SECTOR);
    r->offset = options->raw_offset;
    r->size = options->raw_sized ? options->raw_size : align_up(room, SECTOR);
    return 0;
}

static int raw_open(const struct format_open *options, void **format,
                    struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(options->io, &length, err);
    if (rc < 0)
        return rc;

    lam_autofree struct raw *r = calloc(1, sizeof *r);
    if (!r)
        return lam_fail(err, ENOMEM, "no memory for a raw image");
    r->io = options->io;
    rc = raw_window(r, options, length, err);
    if (rc < 0)
        return rc;
    /* The last sector may be partly present, wherever in the file it lies. */
    uint64_t unit = r->offset % SECTOR ? 2 * SECTOR : SECTOR;
    if (r->io->eof_unit < unit)
        r->io->eof_unit = unit;
    *format = lam_take(&r);
    return 0;
}

static int raw_close(void *format, struct lam_error *err)
{
    (void)err;
    free(format);
    return 0;
}

static uint64_t raw_size(void *format)
{
    struct raw *r = format;
    return r->size;
}

static uint64_t raw_cluster_size(void *format)
{
    (void)format;
    return 0;
}

static uint64_t raw_zero_unit(void *format)
{
    (void)format;
    return 1;
}

static int append(struct raw *r, enum lam_io_state state, uint64_t offset,
                  uint64_t length, struct lam_extents *out,
                  struct lam_error *err)
{
    struct lam_extent e = {
        .offset = offset,
        .length = length,
        .host_offset = r->offset + offset,
        .state = state == LAM_IO_HOLE ? LAM_EXTENT_ZERO : LAM_EXTENT_DATA,
        .flags = LAM_EXTENT_HAS_HOST |
                 (state == LAM_IO_ABSENT ? LAM_EXTENT_ABSENT : 0),
    };
    return extents_append(out, &e, err);
}

static int raw_map(void *format, uint64_t offset, uint64_t length,
                   struct lam_extents *out, struct lam_error *err)
{
    struct raw *r = format;

    while (length > 0) {
        enum lam_io_state state;
        uint64_t run;
        int rc = lam_io_extent(r->io, r->offset + offset, length, &state, &run,
                               err);
        if (rc < 0)
            return rc;
        assert(run > 0);
        run = min_u64(run, length);
        rc = append(r, state, offset, run, out, err);
        if (rc < 0)
            return rc;
        offset += run;
        length -= run;
    }
    return 0;
}

/* A hole of the file is one extent. */
static uint64_t raw_long_run(void *format, uint64_t offset, uint64_t length,
                             bool *blank)
{
    struct raw *r = format;

    *blank = false;
    return lam_io_hole(r->io, r->offset + offset, length);
}

static int raw_map_for_read(void *format, uint64_t offset, uint64_t length,
                            struct lam_extents *out, struct lam_error *err)
{
    return append(format, LAM_IO_DATA, offset, length, out, err);
}

static int raw_map_cached(void *format, uint64_t offset, uint64_t length,
                          struct lam_extents *out)
{
    return append(format, LAM_IO_DATA, offset, length, out, NULL);
}

static int raw_write_begin(void *format, uint64_t offset, uint64_t length,
                           struct format_allocation *a, struct lam_error *err)
{
    struct raw *r = format;

    (void)err;
    *a = (struct format_allocation){
        .offset = offset,
        .length = length,
        .cow_start = offset,
        .cow_end = offset + length,
        .host_offset = r->offset + offset,
        .io = r->io,
    };
    return 0;
}

static int raw_write_in_place(void *format, uint64_t offset, uint64_t length,
                              struct format_allocation *a)
{
    return raw_write_begin(format, offset, length, a, NULL);
}

static int raw_zero(void *format, uint64_t offset, uint64_t length,
                    unsigned flags, struct lam_error *err)
{
    struct raw *r = format;
    return lam_io_zero(r->io, r->offset + offset, length, flags, err);
}

static int raw_discard(void *format, uint64_t offset, uint64_t length,
                       struct lam_error *err)
{
    struct raw *r = format;
    int rc;

    if (!r->io->unmap)
        return lam_io_discard(r->io, r->offset + offset, length, err);
    /* Who asks for it is told what went wrong, but for that there is no way. */
    rc = lam_io_free(r->io, r->offset + offset, length, err);
    return rc == -ENOTSUP ? 0 : rc;
}

static int raw_flush(void *format, struct lam_error *err)
{
    struct raw *r = format;
    return lam_io_flush(r->io, err);
}

/* A failure leaves the file as long as it was. */
static int raw_grow(struct raw *r, uint64_t size,
                    enum lam_preallocation preallocation,
                    struct lam_error *err)
{
    uint64_t old;
    int rc = lam_io_size(r->io, &old, err);

    if (rc < 0)
        return rc;
    if (preallocation != LAM_PREALLOC_OFF && old < size)
        rc = lam_io_preallocate(r->io, old, size - old, preallocation, err);
    if (rc == 0)
        rc = lam_io_truncate(r->io, size, err);
    else
        lam_io_truncate(r->io, old, NULL);
    return rc;
}

static int check_preallocation(enum lam_preallocation mode,
                               struct lam_error *err)
{
    if (mode != LAM_PREALLOC_METADATA)
        return 0;
    return lam_fail(err, EINVAL, "Unsupported preallocation mode: metadata");
}

static int raw_truncate(void *format, const struct format_resize *to,
                        struct lam_error *err)
{
    struct raw *r = format;
    uint64_t size = to->size;

    if (r->window)
        return lam_fail(err, ENOTSUP,
                        "Cannot resize fixed-size raw disks");
    int rc = check_preallocation(to->preallocation, err);
    if (rc < 0)
        return rc;
    if (r->io->limits.is_block_device) {
        if (size != r->size)
            return lam_fail(err, EINVAL, "Cannot resize %s",
                            lam_io_fixed_kind(r->io));
        return 0;
    }
    rc = size > r->size ? raw_grow(r, size, to->preallocation, err)
                        : lam_io_truncate(r->io, size, err);
    if (rc < 0)
        return rc;
    r->size = align_up(size, SECTOR);
    return 0;
}

static int raw_create(struct lam_io *io, struct lam_io *data,
                      const struct lam_create_options *options,
                      struct lam_error *err)
{
    uint64_t size = align_up(options->size, SECTOR), length;

    assert(!data);
    int rc = check_preallocation(options->preallocation, err);
    if (rc < 0)
        return rc;
    if (!io->limits.is_block_device) {
        rc = lam_io_truncate(io, size, err);
        if (rc == 0 && options->preallocation == LAM_PREALLOC_OFF)
            return options->no_sync ? 0 : lam_io_first_block(io, size, err);
        if (rc < 0)
            return rc;
        rc = lam_io_preallocate(io, 0, size, options->preallocation, err);
        return lam_error_prefix(err, rc, "Could not preallocate data for the "
                                "new file");
    }
    rc = lam_io_size(io, &length, err);
    if (rc < 0)
        return rc;
    if (length < size)
        return lam_fail(err, ENOSPC, "Cannot grow %s", lam_io_fixed_kind(io));
    return 0;
}

static int raw_measure(const struct lam_create_options *options,
                       struct format_measure *out, struct lam_error *err)
{
    if (options->size > INT64_MAX - SECTOR)
        return lam_fail(err, EFBIG, "size %" PRIu64 " is beyond the limit of "
                        "2^63", options->size);
    *out = (struct format_measure){ .data = align_up(options->size, SECTOR) };
    return 0;
}

const struct format_ops format_raw = {
    .name = "raw",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .size = raw_size,
    .cluster_size = raw_cluster_size,
    .zero_unit = raw_zero_unit,
    .map = raw_map,
    .map_for_read = raw_map_for_read,
    .map_cached = raw_map_cached,
    .long_run = raw_long_run,
    .write_begin = raw_write_begin,
    .write_in_place = raw_write_in_place,
    .zero = raw_zero,
    .discard = raw_discard,
    .flush = raw_flush,
    .truncate = raw_truncate,
    .create = raw_create,
    .measure = raw_measure,
};
