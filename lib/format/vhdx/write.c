/* SPDX-License-Identifier: MIT */
/*
 * write.c - blocks for what is written to a VHDX, and zeroes.
 *
 * A new block goes behind the end of the file, where everything reads as zero:
 * only what the guest writes is written.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/vhdx/vhdx.h"

struct vhdx_token {
    struct claim claim;
    uint64_t index;             /* of the entry */
    uint64_t host;              /* offset of the block */
};

/* The host offset of guest byte @offset; 0 if its block is not there. */
static int find_data(struct vhdx *v, uint64_t offset, uint64_t *host,
                     struct lam_error *err)
{
    uint64_t block = offset / v->m.block_size;
    uint64_t entry = vhdx_entry(v, vhdx_entry_of_block(&v->m, block));
    enum vhdx_state state = vhdx_entry_state(entry);

    *host = 0;
    if (state == VHDX_FULLY_PRESENT)
        *host = vhdx_entry_offset(entry) + offset % v->m.block_size;
    if (state != 4 && state != VHDX_PARTIALLY_PRESENT)
        return 0;
    return lam_fail(err, EUCLEAN, "block %" PRIu64 ": state %u has no meaning "
                    "here", block, (unsigned)state);
}

/* ------------------------------------------------------------ a new block */

static int take_block(struct vhdx *v, uint64_t *host, struct lam_error *err)
{
    LAM_LOCKED(&v->tail_lock);
    uint64_t end = v->end + v->m.block_size;

    if (end > 2 * VHDX_MAX_SIZE)
        return lam_fail(err, EFBIG, "the file would become longer than %" PRIu64
                        " bytes", 2 * VHDX_MAX_SIZE);
    int rc = lam_io_truncate(v->io, end, err);
    if (rc < 0)
        return rc;
    *host = v->end;
    v->end = end;
    return 0;
}

/* Nobody refers to it: if it is the last one, it goes. */
static void give_back(struct vhdx *v, uint64_t host)
{
    LAM_LOCKED(&v->tail_lock);
    if (v->end == host + v->m.block_size &&
        lam_io_truncate(v->io, host, NULL) == 0)
        v->end = host;
}

/* False: somebody else is adding the block. */
static bool claim_absent(struct vhdx *v, struct vhdx_token *t, bool *absent)
{
    bool ok = true;

    pthread_rwlock_rdlock(&v->lock);
    *absent = vhdx_entry_state(v->table[t->index]) != VHDX_FULLY_PRESENT;
    if (*absent)
        ok = claim_try(&v->inflight, &t->claim);
    pthread_rwlock_unlock(&v->lock);
    return ok;
}

static int begin_absent(struct vhdx *v, struct format_allocation *a,
                        struct lam_error *err)
{
    uint64_t block = a->offset / v->m.block_size;
    lam_autofree struct vhdx_token *t = calloc(1, sizeof *t);
    bool absent;

    if (!t)
        return lam_fail(err, ENOMEM, "no memory for a write");
    t->index = vhdx_entry_of_block(&v->m, block);
    t->claim.range = range_make(block * v->m.block_size, v->m.block_size);
    while (!claim_absent(v, t, &absent))
        claim_wait(&v->inflight, a->offset);
    if (!absent)
        return find_data(v, a->offset, &a->host_offset, err);
    int rc = take_block(v, &t->host, err);
    if (rc < 0) {
        claim_drop(&v->inflight, &t->claim);
        return rc;
    }
    a->cow_start = t->claim.range.offset;
    a->cow_end = a->cow_start + v->m.block_size;
    a->host_offset = t->host + (a->offset - a->cow_start);
    a->host_is_zero = true;
    a->token = lam_take(&t);
    return 0;
}

int vhdx_write_begin(void *format, uint64_t offset, uint64_t length,
                     struct format_allocation *a, struct lam_error *err)
{
    struct vhdx *v = format;

    length = min_u64(length, v->m.block_size - offset % v->m.block_size);
    *a = (struct format_allocation){
        .offset = offset,
        .length = length,
        .cow_start = offset,
        .cow_end = offset + length,
        .io = v->io,
    };
    int rc = vhdx_announce(v, err);
    if (rc == 0)
        rc = find_data(v, offset, &a->host_offset, err);
    return rc < 0 || a->host_offset ? rc : begin_absent(v, a, err);
}

int vhdx_write_finish(void *format, struct format_allocation *a,
                      struct lam_error *err)
{
    struct vhdx *v = format;
    struct vhdx_token *t = a->token;
    uint64_t sector = t->index / VHDX_SECTOR_ENTRIES;
    uint8_t bit = (uint8_t)(1 << sector % 8);

    (void)err;
    pthread_rwlock_wrlock(&v->lock);
    v->table[t->index] = t->host | VHDX_FULLY_PRESENT;
    v->nb_dirty += !(v->dirty[sector / 8] & bit);
    v->dirty[sector / 8] |= bit;
    pthread_rwlock_unlock(&v->lock);
    claim_drop(&v->inflight, &t->claim);
    free(t);
    return 0;
}

void vhdx_write_cancel(void *format, struct format_allocation *a)
{
    struct vhdx *v = format;
    struct vhdx_token *t = a->token;

    give_back(v, t->host);
    claim_drop(&v->inflight, &t->claim);
    free(t);
}

/* ------------------------------------------------------------------ zeroes */

typedef int clear_fn(struct lam_io *io, uint64_t offset, uint64_t length,
                     unsigned flags, struct lam_error *err);

static int discard(struct lam_io *io, uint64_t offset, uint64_t length,
                   unsigned flags, struct lam_error *err)
{
    (void)flags;
    return lam_io_discard(io, offset, length, err);
}

/* @clear what is there; what is missing is zero. */
static int clear_blocks(struct vhdx *v, uint64_t offset, uint64_t length,
                        unsigned flags, clear_fn *clear, struct lam_error *err)
{
    int rc = vhdx_announce(v, err);

    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, v->m.block_size -
                                     offset % v->m.block_size);
        uint64_t host;
        rc = find_data(v, offset, &host, err);
        if (rc == 0 && host)
            rc = clear(v->io, host, n, flags, err);
        offset += n;
        length -= n;
    }
    return rc;
}

int vhdx_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
              struct lam_error *err)
{
    if (flags & FORMAT_ZERO_ABSENT)
        return 0;
    return clear_blocks(format, offset, length, flags, lam_io_zero, err);
}

int vhdx_discard(void *format, uint64_t offset, uint64_t length,
                 struct lam_error *err)
{
    return clear_blocks(format, offset, length, 0, discard, err);
}
