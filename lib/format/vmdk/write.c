/* SPDX-License-Identifier: MIT */
/*
 * write.c - guest bytes into grains: in place, or into new ones at the end of
 * the file; and zeroes.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

/* ------------------------------------------------------------------ writes */

int vmdk_begin_change(struct vmdk *v, const struct vmdk_extent *e,
                      struct lam_error *err)
{
    assert(v->writable);
    if (e->access != VMDK_RW)
        return lam_fail(err, EROFS, "extent '%s' is RDONLY in the descriptor",
                        e->name ? e->name : "");
    if (!e->io)
        return lam_fail(err, EROFS, "a ZERO extent has no place for data");
    return vmdk_change_cid(v, err);
}

struct write_token {
    struct vmdk_run run;
    uint64_t host;
};

static void in_place(const struct vmdk_extent *e, struct range guest,
                     uint64_t host, struct format_allocation *a)
{
    *a = (struct format_allocation){
        .offset = guest.offset,
        .length = guest.length,
        .cow_start = guest.offset,
        .cow_end = range_end(guest),
        .host_offset = host,
        .io = e->io,
    };
}

/* New grains for the run of @token, which begins at or before @guest. */
static int allocate(struct vmdk *v, struct write_token *token,
                    struct range guest, struct format_allocation *a,
                    struct lam_error *err)
{
    const struct vmdk_run *run = &token->run;
    struct vmdk_extent *e = run->e;
    uint64_t start = e->guest.offset + run->offset;
    uint64_t end = start + run->length;
    int rc = vmdk_reserve(v, e, align_up(run->length, e->sparse->grain_size),
                          &token->host, err);

    if (rc < 0)
        return rc;
    *a = (struct format_allocation){
        .offset = guest.offset,
        .length = min_u64(guest.length, end - guest.offset),
        .cow_start = start,
        .cow_end = end,
        .host_offset = token->host + (guest.offset - start),
        .io = e->io,
        .host_is_zero = true,
        .token = token,
    };
    return 0;
}

/* The claim lives on in the token: it must not move while it is in the list. */
static int write_sparse(struct vmdk *v, struct vmdk_extent *e,
                        struct range guest, struct format_allocation *a,
                        struct lam_error *err)
{
    uint64_t offset = guest.offset - e->guest.offset;
    struct write_token *token = malloc(sizeof *token);

    if (!token)
        return lam_fail(err, ENOMEM, "no memory for a write");
    int rc = vmdk_run_begin(v, e, offset, offset + guest.length, &token->run,
                            err);
    if (rc == 0 && token->run.state != VMDK_GRAIN_STORED) {
        rc = allocate(v, token, guest, a, err);
        if (rc == 0)
            return 0;
        vmdk_run_drop(v, &token->run);
    } else if (rc == 0) {
        const struct vmdk_run *run = &token->run;
        uint64_t skip = offset - run->offset;
        guest.length = min_u64(guest.length, run->length - skip);
        in_place(e, guest, run->host + skip, a);
    }
    free(token);
    return rc;
}

static int refuse_compressed(struct lam_error *err)
{
    return lam_fail(err, EIO, "Could not write to allocated cluster for "
                    "streamOptimized");
}

int vmdk_write_begin(void *format, uint64_t offset, uint64_t length,
                     struct format_allocation *a, struct lam_error *err)
{
    struct vmdk *v = format;
    struct vmdk_extent *e = vmdk_extent_at(v, offset);
    struct range guest = range_intersect(range_make(offset, length), e->guest);

    if (e->sparse && e->sparse->compressed)
        return refuse_compressed(err);
    int rc = vmdk_begin_change(v, e, err);
    if (rc < 0)
        return rc;
    if (e->sparse)
        return write_sparse(v, e, guest, a, err);
    in_place(e, guest, e->file_offset + (offset - e->guest.offset), a);
    return 0;
}

int vmdk_write_finish(void *format, struct format_allocation *a,
                      struct lam_error *err)
{
    struct vmdk *v = format;
    struct write_token *token = a->token;

    (void)err;
    vmdk_run_set(v, &token->run, (uint32_t)(token->host / VMDK_SECTOR),
                 (uint32_t)token->run.e->sparse->h.grain_size);
    vmdk_run_drop(v, &token->run);
    free(token);
    return 0;
}

/* The place at the end of the file is lost until somebody copies the image. */
void vmdk_write_cancel(void *format, struct format_allocation *a)
{
    struct write_token *token = a->token;

    vmdk_run_drop(format, &token->run);
    free(token);
}

/* ------------------------------------------------------------------ zeroes */

/* Without zeroed grains an absent one cannot hide what a parent has. */
uint64_t vmdk_zero_unit(void *format)
{
    const struct vmdk *v = format;
    bool parent = v->d.parent_cid != VMDK_NO_CID;

    for (size_t i = 0; i < v->nb_extents; i++) {
        const struct vmdk_sparse *s = v->extents[i].sparse;
        if (s && parent && (!s->zeroed || s->compressed))
            return 0;
        /* Units have to be those of the disk. */
        if (!is_aligned(v->extents[i].guest.offset,
                        v->grain_size ? v->grain_size : 1))
            return 0;
    }
    return v->grain_size ? v->grain_size : VMDK_SECTOR;
}

/* What is stored is zeroed where it is; what is not becomes a zero grain if a
 * parent would show. */
static int zero_run(struct vmdk *v, struct vmdk_run *run, struct range r,
                    unsigned flags, struct lam_error *err)
{
    if (run->state == VMDK_GRAIN_STORED) {
        if (flags & FORMAT_ZERO_ABSENT)
            return 0;
        if (run->e->sparse->compressed)
            return refuse_compressed(err);
        return lam_io_zero(run->e->io, run->host + (r.offset - run->offset),
                           r.length, flags & ~(unsigned)FORMAT_ZERO_ABSENT,
                           err);
    }
    if (run->state == VMDK_GRAIN_ABSENT && run->e->sparse->zeroed)
        vmdk_run_set(v, run, VMDK_GTE_ZERO, 0);
    return 0;
}

/* @r counts within the extent, and is whole grains but for its end. */
static int zero_sparse(struct vmdk *v, struct vmdk_extent *e, struct range r,
                       unsigned flags, struct lam_error *err)
{
    while (r.length) {
        struct vmdk_run run;
        int rc = vmdk_run_begin(v, e, r.offset, range_end(r), &run, err);
        if (rc < 0)
            return rc;
        uint64_t n = min_u64(r.length, run.offset + run.length - r.offset);
        rc = zero_run(v, &run, range_make(r.offset, n), flags, err);
        vmdk_run_drop(v, &run);
        if (rc < 0)
            return rc;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

static int zero_extent(struct vmdk *v, struct vmdk_extent *e, struct range r,
                       unsigned flags, struct lam_error *err)
{
    if (!e->io)
        return 0;
    int rc = vmdk_begin_change(v, e, err);
    if (rc < 0)
        return rc;
    if (e->sparse)
        return zero_sparse(v, e, r, flags, err);
    if (flags & FORMAT_ZERO_ABSENT)
        return 0;
    return lam_io_zero(e->io, e->file_offset + r.offset, r.length, flags, err);
}

int vmdk_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
              struct lam_error *err)
{
    struct vmdk *v = format;
    struct range r = range_make(offset, length);

    while (r.length) {
        struct vmdk_extent *e = vmdk_extent_at(v, r.offset);
        struct range part = range_intersect(r, e->guest);
        int rc = zero_extent(v, e, range_make(part.offset - e->guest.offset,
                                              part.length), flags, err);
        if (rc < 0)
            return rc;
        r = range_make(range_end(part), r.length - part.length);
    }
    return 0;
}
