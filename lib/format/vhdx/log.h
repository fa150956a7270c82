/* SPDX-License-Identifier: MIT */
/*
 * log.h - the log of a VHDX [2.3]: entries of 4 KiB sectors in a ring, that say
 * what sectors of the metadata are to become.
 *
 * An entry is a header and descriptors, and behind them a sector for each
 * descriptor with data.  Its first 8 and last 4 bytes are in the descriptor, so
 * that the sector has room for the entry's number at both ends.
 */
#ifndef LAM_VHDX_LOG_H
#define LAM_VHDX_LOG_H

#include "format/vhdx/layout.h"
#include "io/io.h"

enum {
    VHDX_LOG_SECTOR = 4096,
    VHDX_LOG_HEADER = 64,
    VHDX_LOG_DESCRIPTOR = 32,
    /* So many in the first sector, behind the header. */
    VHDX_LOG_FIRST = (VHDX_LOG_SECTOR - VHDX_LOG_HEADER) / VHDX_LOG_DESCRIPTOR,
    /* An entry that we write has no more: two fit into the smallest log. */
    VHDX_LOG_BATCH = 120,
};

struct vhdx_log_entry {
    uint32_t length;            /* bytes, with everything */
    uint32_t tail;              /* where in the log the first of those begins
                                   that have to be replayed */
    uint64_t sequence;
    uint32_t count;             /* descriptors */
    struct vhdx_guid guid;
    uint64_t flushed, last;     /* lengths of the file */
};

/* The first sector of an entry; false if it is none that could be. */
bool vhdx_log_peek(const uint8_t *bytes, struct vhdx_log_entry *out);

/* Is the entry at @bytes, @entry->length of them, complete? */
bool vhdx_log_is_whole(const struct vhdx_log_entry *entry,
                       const uint8_t *bytes);

/* One change that an entry says. */
struct vhdx_log_change {
    uint64_t offset, length;    /* in the file; multiples of 4 KiB */
    bool zero;                  /* else one sector: */
    uint8_t bytes[VHDX_LOG_SECTOR];
};

/* The one of descriptor @i, out of an entry that is whole.  They are taken in
 * order: *@nb_data, 0 for the first, counts those with data. */
void vhdx_log_change(const struct vhdx_log_entry *entry, const uint8_t *bytes,
                     uint32_t i, uint32_t *nb_data,
                     struct vhdx_log_change *out);

/* Bytes of an entry with @count sectors of data. */
uint32_t vhdx_log_length(uint32_t count);

/* @entry's length is vhdx_log_length(count); @sectors are what is to be at
 * @offsets. */
void vhdx_log_encode(const struct vhdx_log_entry *entry,
                     const uint64_t *offsets, const uint8_t *sectors,
                     uint8_t *bytes);

/*
 * Does what the log in force says, if there is anything.  *@replayed: there was
 * (and, unless @apply, still is).  The header goes on saying so.
 */
int vhdx_log_replay(struct lam_io *io, const struct vhdx_header *header,
                    bool apply, bool *replayed, struct lam_error *err);

#endif
