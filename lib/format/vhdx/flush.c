/* SPDX-License-Identifier: MIT */
/*
 * flush.c - the table of blocks on its way to disk, through the log.
 *
 *     barrier: data, and the file's length
 *     log entry, barrier
 *     the first time: the header says that there is a log, barrier
 *     sectors of the table, barrier
 *
 * An entry alone is a sequence: once its sectors are in the table it is not
 * needed, and may be replayed any number of times until the next one is whole.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vhdx/log.h"
#include "format/vhdx/vhdx.h"

/* Sectors of the table as they were at one moment. */
struct batch {
    uint32_t count;
    uint64_t sectors[VHDX_LOG_BATCH];   /* numbers */
    uint64_t offsets[VHDX_LOG_BATCH];   /* in the file */
    uint8_t bytes[VHDX_LOG_BATCH * VHDX_LOG_SECTOR];
};

/* Entries behind the last that the disk needs stay zero. */
static void encode_sector(const struct vhdx *v, uint64_t sector, uint8_t *bytes)
{
    uint64_t first = sector * VHDX_SECTOR_ENTRIES;
    uint64_t n = min_u64(VHDX_SECTOR_ENTRIES, v->nb_entries - first);

    for (uint64_t i = 0; i < n; i++)
        le64_put(bytes + i * 8, v->table[first + i]);
}

/* Of the last sector, what is in the file behind the entries that we know. */
static int load_rest(struct vhdx *v, struct batch *b, struct lam_error *err)
{
    uint64_t known = v->nb_entries % VHDX_SECTOR_ENTRIES * 8;

    for (uint32_t i = 0; known && i < b->count; i++) {
        if (b->sectors[i] != vhdx_nb_sectors(v) - 1)
            continue;
        return lam_io_read(v->io,
                           b->bytes + (uint64_t)i * VHDX_LOG_SECTOR + known,
                           VHDX_LOG_SECTOR - known, b->offsets[i] + known, err);
    }
    return 0;
}

/* Takes up to a batch of dirty sectors, which are clean then. */
static void take_dirty(struct vhdx *v, struct batch *b)
{
    uint64_t nb = vhdx_nb_sectors(v);

    b->count = 0;
    pthread_rwlock_wrlock(&v->lock);
    for (uint64_t s = 0; s < nb && v->nb_dirty && b->count < VHDX_LOG_BATCH;
         s++) {
        uint8_t bit = (uint8_t)(1 << s % 8);
        if (!v->dirty[s / 8]) {
            s |= 7;
            continue;
        }
        if (!(v->dirty[s / 8] & bit))
            continue;
        v->dirty[s / 8] &= (uint8_t)~bit;
        v->nb_dirty--;
        b->sectors[b->count] = s;
        b->offsets[b->count] = v->regions.table.offset + s * VHDX_LOG_SECTOR;
        encode_sector(v, s, b->bytes + (size_t)b->count++ * VHDX_LOG_SECTOR);
    }
    pthread_rwlock_unlock(&v->lock);
}

static void dirty_again(struct vhdx *v, const struct batch *b)
{
    pthread_rwlock_wrlock(&v->lock);
    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t s = b->sectors[i];
        uint8_t bit = (uint8_t)(1 << s % 8);
        v->nb_dirty += !(v->dirty[s / 8] & bit);
        v->dirty[s / 8] |= bit;
    }
    pthread_rwlock_unlock(&v->lock);
}

static int begin_log(struct vhdx *v, const struct vhdx_guid *guid,
                     struct lam_error *err)
{
    return vhdx_guid_is_zero(&v->header.log) ? vhdx_set_log(v, guid, err) : 0;
}

/* An entry at a time goes to the start of the ring or behind the one before. */
static int write_entry(struct vhdx *v, const struct batch *b,
                       struct lam_error *err)
{
    uint32_t length = vhdx_log_length(b->count);
    lam_autofree uint8_t *bytes = malloc(length);
    struct vhdx_log_entry e = {
        .length = length,
        .sequence = v->log_sequence + 1,
        .count = b->count,
        .guid = v->header.log,
    };

    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a log entry of %" PRIu32
                        " bytes", length);
    int rc = vhdx_guid_is_zero(&e.guid) ? vhdx_guid_make(&e.guid, err) : 0;
    if (rc == 0)
        rc = lam_io_size(v->io, &e.flushed, err);
    e.last = e.flushed;
    if (v->log_at + length > v->header.log_length)
        v->log_at = 0;
    e.tail = v->log_at;
    if (rc < 0)
        return rc;
    vhdx_log_encode(&e, b->offsets, b->bytes, bytes);
    rc = lam_io_write(v->io, bytes, length, v->header.log_offset + e.tail, err);
    if (rc == 0)
        rc = lam_io_flush(v->io, err);
    if (rc < 0)
        return rc;
    v->log_sequence = e.sequence;
    v->log_at = e.tail + length;
    return begin_log(v, &e.guid, err);
}

static int write_sectors(struct vhdx *v, const struct batch *b,
                         struct lam_error *err)
{
    int rc = 0;

    for (uint32_t i = 0; i < b->count && rc == 0; i++)
        rc = lam_io_write(v->io, b->bytes + (size_t)i * VHDX_LOG_SECTOR,
                          VHDX_LOG_SECTOR, b->offsets[i], err);
    return rc < 0 ? rc : lam_io_flush(v->io, err);
}

static int flush_batch(struct vhdx *v, struct batch *b, struct lam_error *err)
{
    int rc = lam_io_flush(v->io, err);      /* invariant 1 */

    if (!b->count || rc < 0)
        return rc;
    rc = load_rest(v, b, err);
    if (rc == 0)
        rc = write_entry(v, b, err);
    if (rc == 0)
        rc = write_sectors(v, b, err);
    return rc;
}

static bool has_dirty(struct vhdx *v)
{
    pthread_rwlock_rdlock(&v->lock);
    bool dirty = v->nb_dirty > 0;
    pthread_rwlock_unlock(&v->lock);
    return dirty;
}

static int flush_table(struct vhdx *v, struct lam_error *err)
{
    int rc;

    if (!has_dirty(v))
        return lam_io_flush(v->io, err);
    lam_autofree struct batch *b = malloc(sizeof *b);
    if (!b)
        return lam_fail(err, ENOMEM, "no memory to write the BAT");
    do {
        take_dirty(v, b);
        rc = flush_batch(v, b, err);
        if (rc < 0)
            dirty_again(v, b);
    } while (rc == 0 && has_dirty(v));
    return rc;
}

int vhdx_flush(void *format, struct lam_error *err)
{
    struct vhdx *v = format;
    LAM_LOCKED(&v->flush_lock);
    return flush_table(v, err);
}

int vhdx_settle(struct vhdx *v, struct lam_error *err)
{
    static const struct vhdx_guid none;
    LAM_LOCKED(&v->flush_lock);

    int rc = has_dirty(v) ? flush_table(v, err) : 0;
    if (rc < 0 || vhdx_guid_is_zero(&v->header.log))
        return rc;
    rc = vhdx_set_log(v, &none, err);
    v->log_at = 0;
    return rc;
}
