/* SPDX-License-Identifier: MIT */
/*
 * vpc.h - an open VHD, which others call "vpc" after Virtual PC.
 *
 * A fixed disk is its bytes and a footer.  A dynamic one is
 *
 *     copy of the footer | header | ... table ... | block | block | footer
 *
 * where a block is a bitmap of its sectors, padded to a sector, and its data.
 * Which sectors the bitmap names counts in differencing disks only: there the
 * others come from the parent.  In a dynamic disk a block that exists holds all
 * of its data, whatever its bitmap says, as others read it.
 *
 * 1. An entry of the table on disk names a block only after its data and its
 *    bitmap are on disk.  Entries wait in memory for the next flush.
 * 2. Behind the last block that was given out lies a footer, and the file ends
 *    with one.
 * So a crash leaves a block that nobody names behind, or nothing.
 *
 * Locks, in this order: flush_lock; a claim (format/inflight.h) on the block
 * that is being allocated; tail_lock; lock.
 */
#ifndef LAM_VPC_VPC_H
#define LAM_VPC_VPC_H

#include <pthread.h>

#include "format/format.h"
#include "format/inflight.h"
#include "format/vpc/footer.h"

struct vpc {
    struct lam_io *io;          /* borrowed */
    struct vpc_footer footer;
    uint8_t footer_bytes[VPC_FOOTER_BYTES];     /* as it is in the file */
    uint64_t size;
    bool fixed, differencing;
    char *parent;               /* its name as a path, or NULL */

    /* Unless fixed: */
    uint64_t table_offset;
    uint32_t entries;
    uint64_t block_size, bitmap_bytes;
    pthread_rwlock_t lock;      /* guards table, dirty_..., whole */
    uint32_t *table;            /* sector numbers, VPC_UNUSED */
    uint32_t dirty_from, dirty_to;  /* entries to write */
    uint8_t *whole;             /* bit a block: its bitmap names all sectors */
    pthread_mutex_t tail_lock;  /* guards end */
    uint64_t end;               /* of the last block, where the next goes */
    pthread_mutex_t flush_lock; /* one flush at a time */
    struct inflight inflight;
};

static inline uint64_t vpc_block_bytes(const struct vpc *v)
{
    return v->bitmap_bytes + v->block_size;
}

/* Where the block that @entry names begins, if that can be.  -EUCLEAN. */
int vpc_block_offset(const struct vpc *v, uint32_t index, uint32_t entry,
                     uint64_t *offset, struct lam_error *err);

/* map.c */
int vpc_map(void *format, uint64_t offset, uint64_t length,
            struct lam_extents *out, struct lam_error *err);

/* write.c: for the table of ops. */
int vpc_write_begin(void *format, uint64_t offset, uint64_t length,
                    struct format_allocation *a, struct lam_error *err);
int vpc_write_finish(void *format, struct format_allocation *a,
                     struct lam_error *err);
void vpc_write_cancel(void *format, struct format_allocation *a);
int vpc_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
             struct lam_error *err);
int vpc_discard(void *format, uint64_t offset, uint64_t length,
                struct lam_error *err);
int vpc_flush(void *format, struct lam_error *err);

/* parent.c: the path of a differencing disk's parent; NULL if there is none
 * that could be used. */
int vpc_parent_load(struct lam_io *io, uint64_t length,
                    const struct vpc_header *header, char **path,
                    struct lam_error *err);

/* create.c */
enum { VPC_NB_OPTIONS = 3 };
extern const struct lam_option_info vpc_options[VPC_NB_OPTIONS];
int vpc_create(struct lam_io *io, struct lam_io *data,
               const struct lam_create_options *options,
               struct lam_error *err);

#endif
