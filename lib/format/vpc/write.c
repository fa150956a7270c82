/* SPDX-License-Identifier: MIT */
/*
 * write.c - blocks for what is written to a VHD, zeroes, and the table's way to
 * disk.
 *
 * A new block goes to where the last footer is: the footer moves behind it
 * first, then the bitmap takes its place.  The block's data read as zero from
 * then on, so only what the guest writes is written.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vpc/vpc.h"

struct vpc_token {
    struct claim claim;
    uint32_t index, entry;
};

static uint32_t entry_of(struct vpc *v, uint32_t index)
{
    pthread_rwlock_rdlock(&v->lock);
    uint32_t entry = v->table[index];
    pthread_rwlock_unlock(&v->lock);
    return entry;
}

/* ------------------------------------------------------------ a new block */

static int write_bitmap(struct vpc *v, uint64_t block, struct lam_error *err)
{
    lam_autofree uint8_t *bitmap = malloc(v->bitmap_bytes);

    if (!bitmap)
        return lam_fail(err, ENOMEM, "no memory for a bitmap of %" PRIu64
                        " bytes", v->bitmap_bytes);
    memset(bitmap, 0xff, v->bitmap_bytes);
    return lam_io_write(v->io, bitmap, v->bitmap_bytes, block, err);
}

/* What an interrupted program has left behind the last block would show. */
static int clear_leftovers(struct vpc *v, uint64_t data, uint64_t size,
                           struct lam_error *err)
{
    uint64_t end = min_u64(size, data + v->block_size);
    return end > data ? lam_io_zero(v->io, data, end - data, 0, err) : 0;
}

/* The next block at the end of the file, whose data are zero. */
static int take_block(struct vpc *v, uint32_t *entry, struct lam_error *err)
{
    LAM_LOCKED(&v->tail_lock);
    uint64_t block = align_up(v->end, VPC_SECTOR), size;
    uint64_t end = block + vpc_block_bytes(v);

    if (block / VPC_SECTOR >= VPC_UNUSED)
        return lam_fail(err, EFBIG, "no table entry can name offset %" PRIu64,
                        block);
    int rc = lam_io_size(v->io, &size, err);
    if (rc == 0)
        rc = clear_leftovers(v, block + v->bitmap_bytes, size, err);
    if (rc == 0)
        rc = lam_io_write(v->io, v->footer_bytes, VPC_FOOTER_BYTES,
                          max_u64(end, size < VPC_FOOTER_BYTES ? 0 :
                                  size - VPC_FOOTER_BYTES), err);
    if (rc == 0)
        rc = write_bitmap(v, block, err);
    if (rc < 0)
        return rc;
    v->end = end;
    *entry = (uint32_t)(block / VPC_SECTOR);
    return 0;
}

/* Nobody refers to it: if it is the last one, the next takes its place. */
static void give_back(struct vpc *v, uint32_t entry)
{
    LAM_LOCKED(&v->tail_lock);
    uint64_t block = (uint64_t)entry * VPC_SECTOR;

    if (v->end == block + vpc_block_bytes(v))
        v->end = block;
}

/* ------------------------------------------------- a block that is there */

/* Others look at the bitmap: it has to name what is written. */
static int name_all_sectors(struct vpc *v, uint32_t index, uint64_t block,
                            struct lam_error *err)
{
    uint8_t mask = (uint8_t)(1 << index % 8);

    pthread_rwlock_rdlock(&v->lock);
    bool known = v->whole[index / 8] & mask;
    pthread_rwlock_unlock(&v->lock);
    if (known)
        return 0;
    int rc = write_bitmap(v, block, err);
    if (rc < 0)
        return rc;
    pthread_rwlock_wrlock(&v->lock);
    v->whole[index / 8] |= mask;
    pthread_rwlock_unlock(&v->lock);
    return 0;
}

static int write_in_place(struct vpc *v, uint32_t index, uint32_t entry,
                          struct format_allocation *a, struct lam_error *err)
{
    uint64_t block;
    int rc = vpc_block_offset(v, index, entry, &block, err);

    if (rc == 0)
        rc = name_all_sectors(v, index, block, err);
    a->host_offset = block + v->bitmap_bytes + a->offset % v->block_size;
    return rc;
}

/* ----------------------------------------------------------- the three ops */

static int allocate(struct vpc *v, struct vpc_token *t,
                    struct format_allocation *a, struct lam_error *err)
{
    int rc = take_block(v, &t->entry, err);
    if (rc < 0)
        return rc;
    a->cow_start = t->claim.range.offset;
    a->cow_end = a->cow_start + v->block_size;
    a->host_offset = (uint64_t)t->entry * VPC_SECTOR + v->bitmap_bytes +
                     (a->offset - a->cow_start);
    a->host_is_zero = true;
    return 0;
}

/* Claims the block unless its entry has come to be meanwhile; false: somebody
 * else holds it. */
static bool claim_absent(struct vpc *v, struct vpc_token *t, uint32_t *entry)
{
    bool ok = true;

    pthread_rwlock_rdlock(&v->lock);
    *entry = v->table[t->index];
    if (*entry == VPC_UNUSED) {
        t->claim.range = range_make((uint64_t)t->index * v->block_size,
                                    v->block_size);
        ok = claim_try(&v->inflight, &t->claim);
    }
    pthread_rwlock_unlock(&v->lock);
    return ok;
}

static int begin_absent(struct vpc *v, uint32_t index,
                        struct format_allocation *a, struct lam_error *err)
{
    lam_autofree struct vpc_token *t = calloc(1, sizeof *t);
    uint32_t entry;

    if (!t)
        return lam_fail(err, ENOMEM, "no memory for a write");
    t->index = index;
    while (!claim_absent(v, t, &entry))
        claim_wait(&v->inflight, a->offset);
    if (entry != VPC_UNUSED)
        return write_in_place(v, index, entry, a, err);
    int rc = allocate(v, t, a, err);
    if (rc < 0)
        claim_drop(&v->inflight, &t->claim);
    else
        a->token = lam_take(&t);
    return rc;
}

int vpc_write_begin(void *format, uint64_t offset, uint64_t length,
                    struct format_allocation *a, struct lam_error *err)
{
    struct vpc *v = format;

    *a = (struct format_allocation){ .offset = offset, .length = length,
                                     .cow_start = offset, .io = v->io };
    if (!v->fixed)
        a->length = min_u64(length, v->block_size - offset % v->block_size);
    a->cow_end = offset + a->length;
    if (v->fixed) {
        a->host_offset = offset;
        return 0;
    }
    uint32_t index = (uint32_t)(offset / v->block_size);
    uint32_t entry = entry_of(v, index);
    return entry == VPC_UNUSED ? begin_absent(v, index, a, err)
                               : write_in_place(v, index, entry, a, err);
}

int vpc_write_finish(void *format, struct format_allocation *a,
                     struct lam_error *err)
{
    struct vpc *v = format;
    struct vpc_token *t = a->token;

    (void)err;
    pthread_rwlock_wrlock(&v->lock);
    v->table[t->index] = t->entry;
    v->whole[t->index / 8] |= (uint8_t)(1 << t->index % 8);
    if (v->dirty_from == v->dirty_to)
        v->dirty_from = v->dirty_to = t->index;
    v->dirty_from = (uint32_t)min_u64(v->dirty_from, t->index);
    v->dirty_to = (uint32_t)max_u64(v->dirty_to, t->index + 1);
    pthread_rwlock_unlock(&v->lock);
    claim_drop(&v->inflight, &t->claim);
    free(t);
    return 0;
}

void vpc_write_cancel(void *format, struct format_allocation *a)
{
    struct vpc *v = format;
    struct vpc_token *t = a->token;

    give_back(v, t->entry);
    claim_drop(&v->inflight, &t->claim);
    free(t);
}

/* ------------------------------------------------------------------ zeroes */

/* What one block has of [offset, offset + length): the host's bytes; *host is 0
 * for a block that is not there. */
static int find_data(struct vpc *v, uint64_t offset, uint64_t *host,
                     struct lam_error *err)
{
    uint32_t index = (uint32_t)(offset / v->block_size);
    uint32_t entry = entry_of(v, index);
    uint64_t block;

    *host = 0;
    if (entry == VPC_UNUSED)
        return 0;
    int rc = vpc_block_offset(v, index, entry, &block, err);
    if (rc == 0)
        *host = block + v->bitmap_bytes + offset % v->block_size;
    return rc;
}

/* Of a block that is missing nothing has to be done; one that a write is about
 * to add is zero but for what that write changes. */
int vpc_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
             struct lam_error *err)
{
    struct vpc *v = format;
    int rc = 0;

    if (flags & FORMAT_ZERO_ABSENT)
        return 0;
    if (v->fixed)
        return lam_io_zero(v->io, offset, length, flags, err);
    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, v->block_size - offset % v->block_size);
        uint64_t host;
        rc = find_data(v, offset, &host, err);
        if (rc == 0 && host)
            rc = lam_io_zero(v->io, host, n, flags, err);
        offset += n;
        length -= n;
    }
    return rc;
}

int vpc_discard(void *format, uint64_t offset, uint64_t length,
                struct lam_error *err)
{
    struct vpc *v = format;
    int rc = 0;

    if (v->fixed)
        return lam_io_discard(v->io, offset, length, err);
    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, v->block_size - offset % v->block_size);
        uint64_t host;
        rc = find_data(v, offset, &host, err);
        if (rc == 0 && host)
            rc = lam_io_discard(v->io, host, n, err);
        offset += n;
        length -= n;
    }
    return rc;
}

/* ---------------------------------------------------------------- to disk */

struct entries {
    uint32_t from, to;
    uint8_t *bytes;
};

/* The entries that have changed, as they are written; they are clean now. */
static int take_dirty(struct vpc *v, struct entries *e, struct lam_error *err)
{
    int rc = 0;

    pthread_rwlock_wrlock(&v->lock);
    *e = (struct entries){ v->dirty_from, v->dirty_to, NULL };
    if (e->from < e->to) {
        e->bytes = malloc((size_t)(e->to - e->from) * 4);
        if (!e->bytes)
            rc = lam_fail(err, ENOMEM, "no memory for %" PRIu32
                          " table entries", e->to - e->from);
        else
            v->dirty_from = v->dirty_to = 0;
    }
    for (uint32_t i = e->from; e->bytes && i < e->to; i++)
        be32_put(e->bytes + (size_t)(i - e->from) * 4, v->table[i]);
    pthread_rwlock_unlock(&v->lock);
    return rc;
}

static void dirty_again(struct vpc *v, const struct entries *e)
{
    pthread_rwlock_wrlock(&v->lock);
    bool none = v->dirty_from == v->dirty_to;
    v->dirty_from = none ? e->from : (uint32_t)min_u64(v->dirty_from, e->from);
    v->dirty_to = (uint32_t)max_u64(v->dirty_to, e->to);
    pthread_rwlock_unlock(&v->lock);
}

static int flush_table(struct vpc *v, struct lam_error *err)
{
    struct entries e;
    int rc = take_dirty(v, &e, err);
    lam_autofree uint8_t *bytes = e.bytes;

    if (rc < 0)
        return rc;
    rc = lam_io_flush(v->io, err);      /* invariant 1 */
    if (!bytes)
        return rc;
    if (rc == 0)
        rc = lam_io_write(v->io, bytes, (uint64_t)(e.to - e.from) * 4,
                          v->table_offset + (uint64_t)e.from * 4, err);
    if (rc == 0)
        rc = lam_io_flush(v->io, err);
    if (rc < 0)
        dirty_again(v, &e);
    return rc;
}

int vpc_flush(void *format, struct lam_error *err)
{
    struct vpc *v = format;

    if (v->fixed)
        return lam_io_flush(v->io, err);
    LAM_LOCKED(&v->flush_lock);
    return flush_table(v, err);
}
