/* SPDX-License-Identifier: MIT */
/*
 * replay.c - what a VHDX's log says that has to be done [2.3.3].
 *
 * A sequence is a row of entries that are whole, one behind another in the
 * ring, with ascending numbers, of which the last names one as the first to
 * replay.  The one with the highest number counts.  If there is none, nothing
 * of the log had reached the disk, and so nothing of what it was to protect.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/vhdx/log.h"

/* Of one entry in memory. */
static const uint32_t ENTRY_MAX = 64 * VHDX_UNIT;

struct ring {
    struct lam_io *io;
    const struct vhdx_header *header;
    uint64_t budget;            /* bytes that may still be summed up: entries
                                   that contain each other would cost the
                                   square of the log's length */
    uint8_t *entry;             /* the one that was read last */
    uint32_t capacity;
};

struct sequence {
    uint32_t start;             /* of its first entry in the ring */
    uint32_t end;               /* behind its last */
    uint32_t count;
    uint64_t number;            /* of the last; 0: no sequence */
    struct vhdx_log_entry last;
};

static uint32_t wrap(const struct ring *r, uint64_t at)
{
    return (uint32_t)(at % r->header->log_length);
}

/* Past the end of the ring it goes on at its start. */
static int read_ring(struct ring *r, uint8_t *buf, uint32_t length,
                     uint32_t at, struct lam_error *err)
{
    uint64_t base = r->header->log_offset;
    uint32_t first = (uint32_t)min_u64(length, r->header->log_length - at);
    int rc = lam_io_read(r->io, buf, first, base + at, err);

    if (rc == 0 && length > first)
        rc = lam_io_read(r->io, buf + first, length - first, base, err);
    return rc;
}

static int make_room(struct ring *r, uint32_t length, struct lam_error *err)
{
    if (length > ENTRY_MAX)
        return lam_fail(err, EFBIG, "log: an entry of %" PRIu32 " bytes, the "
                        "limit is %" PRIu32, length, ENTRY_MAX);
    if (length > r->budget)
        return lam_fail(err, EUCLEAN, "log: there are too many entries that "
                        "are damaged or contain each other");
    r->budget -= length;
    if (length <= r->capacity)
        return 0;
    free(r->entry);
    r->capacity = 0;
    r->entry = malloc(length);
    if (!r->entry)
        return lam_fail(err, ENOMEM, "no memory for a log entry of %" PRIu32
                        " bytes", length);
    r->capacity = length;
    return 0;
}

/* 1: there is an entry at @at, whole and of this log; it is in r->entry. */
static int load(struct ring *r, uint32_t at, struct vhdx_log_entry *e,
                struct lam_error *err)
{
    uint8_t head[VHDX_LOG_HEADER];
    int rc = lam_io_read(r->io, head, sizeof head, r->header->log_offset + at,
                         err);

    if (rc < 0)
        return rc;
    if (!vhdx_log_peek(head, e) ||
        !vhdx_guid_equal(&e->guid, &r->header->log) ||
        e->length > r->header->log_length || e->tail >= r->header->log_length)
        return 0;
    rc = make_room(r, e->length, err);
    if (rc == 0)
        rc = read_ring(r, r->entry, e->length, at, err);
    return rc < 0 ? rc : vhdx_log_is_whole(e, r->entry);
}

/* The row of entries that starts at @start. */
static int follow(struct ring *r, uint32_t start, struct sequence *s,
                  struct lam_error *err)
{
    struct vhdx_log_entry e;
    uint64_t covered = 0;
    bool has_tail = false;
    uint32_t at = start;

    *s = (struct sequence){ .start = start, .end = start };
    for (;;) {
        int rc = load(r, at, &e, err);
        if (rc < 0)
            return rc;
        if (!rc || (s->count && e.sequence != s->number + 1) ||
            covered + e.length > r->header->log_length)
            break;
        covered += e.length;
        at = wrap(r, (uint64_t)at + e.length);
        s->end = at;
        s->count++;
        s->number = e.sequence;
        s->last = e;
    }
    if (!s->count)
        return 0;
    /* Is the tail one of them? */
    for (uint32_t i = 0, where = start; i < s->count && !has_tail; i++) {
        has_tail = where == s->last.tail;
        uint8_t head[VHDX_LOG_HEADER];
        int rc = read_ring(r, head, sizeof head, where, err);
        if (rc < 0)
            return rc;
        vhdx_log_peek(head, &e);
        where = wrap(r, (uint64_t)where + e.length);
    }
    if (!has_tail)
        s->number = 0;
    return 0;
}

/* Every sector of the ring could be where one starts. */
static int find(struct ring *r, struct sequence *best, struct lam_error *err)
{
    uint64_t at = 0;

    *best = (struct sequence){ 0 };
    while (at < r->header->log_length) {
        struct sequence s;
        int rc = follow(r, (uint32_t)at, &s, err);
        if (rc < 0)
            return rc;
        if (s.number > best->number)
            *best = s;
        if (s.count && s.end <= at)
            break;              /* it went around */
        at = s.count ? s.end : at + VHDX_LOG_SECTOR;
    }
    return 0;
}

static int apply_change(struct ring *r, const struct vhdx_log_change *c,
                        uint64_t limit, struct lam_error *err)
{
    if (c->offset > limit || c->length > limit - c->offset)
        return lam_fail(err, EUCLEAN, "log: a change of %" PRIu64 " bytes at "
                        "offset %" PRIu64 " is behind the file's end at %"
                        PRIu64, c->length, c->offset, limit);
    if (!c->zero)
        return lam_io_write(r->io, c->bytes, c->length, c->offset, err);
    return c->length ? lam_io_zero(r->io, c->offset, c->length, LAM_ZERO_UNMAP,
                                   err) : 0;
}

/* From the tail to the end. */
static int apply(struct ring *r, const struct sequence *s, uint64_t limit,
                 struct lam_error *err)
{
    lam_autofree struct vhdx_log_change *c = malloc(sizeof *c);
    uint32_t at = s->last.tail;
    struct vhdx_log_entry e;
    int rc = c ? 0 : lam_fail(err, ENOMEM, "no memory for a change");

    do {
        if (rc == 0)
            rc = load(r, at, &e, err);
        if (rc <= 0)
            return rc < 0 ? rc : lam_fail(err, EIO, "log: an entry has "
                                          "changed while it was read");
        uint32_t nb_data = 0;
        rc = 0;
        for (uint32_t i = 0; i < e.count && rc == 0; i++) {
            vhdx_log_change(&e, r->entry, i, &nb_data, c);
            rc = apply_change(r, c, limit, err);
        }
        at = wrap(r, (uint64_t)at + e.length);
    } while (at != s->end);
    return rc;
}

static int apply_all(struct ring *r, const struct sequence *s,
                     struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(r->io, &length, err);

    if (rc < 0)
        return rc;
    if (length < s->last.flushed)
        return lam_fail(err, EUCLEAN, "log: the file was %" PRIu64 " bytes "
                        "long, and has %" PRIu64 " now", s->last.flushed,
                        length);
    if (s->last.last > 2 * VHDX_MAX_SIZE)
        return lam_fail(err, EUCLEAN, "log: the file is to become %" PRIu64
                        " bytes long, the limit is %" PRIu64, s->last.last,
                        2 * VHDX_MAX_SIZE);
    /* Summed up once more on the way. */
    r->budget = max_u64(r->budget, r->header->log_length);
    rc = apply(r, s, max_u64(length, s->last.last), err);
    if (rc == 0)
        rc = lam_io_size(r->io, &length, err);
    if (rc == 0 && length < s->last.last)
        rc = lam_io_truncate(r->io, align_up(s->last.last, VHDX_UNIT), err);
    return rc < 0 ? rc : lam_io_flush(r->io, err);
}

int vhdx_log_replay(struct lam_io *io, const struct vhdx_header *header,
                    bool to_apply, bool *replayed, struct lam_error *err)
{
    struct ring r = {
        .io = io,
        .header = header,
        .budget = 2 * (uint64_t)header->log_length,
    };
    struct sequence s;

    int rc = find(&r, &s, err);
    *replayed = rc == 0 && s.number;
    if (*replayed && to_apply)
        rc = apply_all(&r, &s, err);
    free(r.entry);
    return rc;
}
