/* SPDX-License-Identifier: MIT */
/*
 * vmstate.c - the state of a virtual machine, which an image keeps behind the
 * end of its disk for internal snapshots (format document 8.2).
 *
 * It is written and read as guest data are, but that nothing below the image
 * shows through.
 */
#include <inttypes.h>

#include "base/cleanup.h"
#include "extent/range.h"
#include "image/chain.h"
#include "image/graph.h"
#include "image/write.h"

/* Where byte @offset of the state is, as a guest offset.  Room is made for
 * @length bytes there, unless that is 0. */
static int find_place(struct lam_image *image, uint64_t offset,
                      uint64_t length, uint64_t *place, struct lam_error *err)
{
    if (image->metadata_only)
        return lam_fail(err, EINVAL, "'%s' was opened for its header only",
                        image->name);
    if (!image->ops->vmstate_place)
        return lam_fail_errno(err, ENOTSUP, "'%s': format '%s' keeps no VM "
                              "state", image->name, image->ops->name);
    int rc = image->ops->vmstate_place(image->format, offset, length, place,
                                       err);
    return lam_error_prefix(err, rc, "'%s'", image->name);
}

static int read_state(struct lam_image *image, void *buf, uint64_t length,
                      uint64_t place, struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    uint64_t token = image_enter(image);
    int rc = chain_map(image, place, length, 1, CHAIN_MAP_FOR_READ, &extents,
                       err);

    if (rc == 0)
        rc = image_read_extents(image, &extents, buf, length, place, err);
    image_leave(image, token);
    return rc;
}

/* Where the state is depends on the disk's size, which stays as it is; making
 * room moves the L1 table, as resizing does. */
int lam_image_read_vmstate(struct lam_image *image, void *buf,
                           uint64_t length, uint64_t offset,
                           struct lam_error *err)
{
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    uint64_t place;
    int rc = find_place(image, offset, 0, &place, err);

    if (rc == 0 && !range_fits(place, length, INT64_MAX))
        rc = lam_fail_errno(err, EFBIG, "'%s': VM state of %" PRIu64
                            " bytes at offset %" PRIu64, image->name, length,
                            offset);
    if (rc < 0 || !length)
        return rc;
    lam_io_event(image->io, IO_EVENT_VMSTATE_LOAD);
    return read_state(image, buf, length, place, err);
}

int lam_image_write_vmstate(struct lam_image *image, const void *buf,
                            uint64_t length, uint64_t offset,
                            struct lam_error *err)
{
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    uint64_t place;
    int rc = image_check_writable(image, err);

    if (rc == 0)
        rc = find_place(image, offset, length, &place, err);
    if (rc < 0 || !length)
        return rc;
    lam_io_event(image->io, IO_EVENT_VMSTATE_SAVE);
    image_lock_write(image, place, length);
    rc = image_write_pieces(image, buf, length, place, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc < 0 ? rc : image_end_write(image, 0, err);
}
