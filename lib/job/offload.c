/* SPDX-License-Identifier: MIT */
/*
 * offload.c - copies that the host does alone.
 *
 * Whether it can, only trying shows: another file system, a unit of clones that
 * our ranges do not fit.  What it refuses is read and written; once it has
 * refused before it ever worked, it is not asked again.
 */
#include "job/offload.h"

#include "image/offload.h"

bool offload_init(struct offload *o, struct lam_image *target)
{
    *o = (struct offload){ .target = target };
    return image_can_offload(target);
}

enum walk_kind offload_kind(const void *offload, struct lam_image *image,
                            const struct lam_extent *e,
                            uint64_t target_offset)
{
    const struct offload *o = offload;

    (void)target_offset;
    if (e->state != LAM_EXTENT_DATA || image->writable ||
        e->flags & (LAM_EXTENT_ENCRYPTED | LAM_EXTENT_HOST_HOLE) ||
        atomic_load(&o->refused))
        return WALK_DATA;
    const struct lam_image *t = o->target;
    return lam_io_can_copy_range(t->data ? t->data : t->io,
                                 image_extent_io(image, e)) ? WALK_OFFLOAD
                                                            : WALK_DATA;
}

static int copy_segment(struct offload *o, const struct walk_chunk *chunk,
                        const struct walk_segment *s, struct lam_error *err)
{
    const struct lam_extent *e = chunk->extents.items + s->first;

    for (size_t i = 0; i < s->count; i++, e++) {
        int rc = image_offload(o->target, s->target_offset +
                                          (e->offset - s->offset), e->length,
                               image_extent_io(s->image, e), e->host_offset,
                               err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int offload_chunk(struct offload *o, const struct walk_chunk *chunk,
                  struct lam_error *err)
{
    int rc = atomic_load(&o->refused) ? -ENOTSUP : 0;

    for (size_t i = 0; i < chunk->nb_segments && rc == 0; i++)
        rc = copy_segment(o, chunk, &chunk->segments[i], err);
    if (rc == 0)
        atomic_store(&o->works, true);
    else if (rc == -ENOTSUP && !atomic_load(&o->works))
        atomic_store(&o->refused, true);
    return rc;
}
