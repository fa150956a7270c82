/* SPDX-License-Identifier: MIT */
/*
 * vhdx.h - an open VHDX.
 *
 * 1. The table of blocks on disk names a block only after its data are on disk.
 *    Entries wait in memory for the next flush.
 * 2. A sector of the table is written only after the log has it on disk, and
 *    the header says that there is a log.
 * 3. What the newest log entry says is what the table was last, or was to be,
 *    so that replaying it is right at any time.  No entry overwrites the one
 *    before.
 * 4. The header says that nobody else writes: both GUIDs are new before the
 *    first change of an opening.
 * So a crash leaves a log to replay, and blocks that nobody names.
 *
 * Locks, in this order: flush_lock; a claim (format/inflight.h) on the block
 * that is being allocated; tail_lock; header_lock; lock.
 */
#ifndef LAM_VHDX_VHDX_H
#define LAM_VHDX_VHDX_H

#include <pthread.h>

#include "format/format.h"
#include "format/inflight.h"
#include "format/vhdx/layout.h"

enum {
    VHDX_SECTOR_ENTRIES = 4096 / 8,     /* of the table, in a logged sector */
};

struct vhdx {
    struct lam_io *io;          /* borrowed */
    bool writable, for_check;
    bool replayed;              /* the log was, as this was opened */
    struct vhdx_header header;  /* in force; under header_lock */
    bool other_header;          /* the second one is it */
    _Atomic bool announced;     /* invariant 4 */
    pthread_mutex_t header_lock;
    struct vhdx_regions regions;
    struct vhdx_metadata m;
    uint64_t chunk_ratio;
    char *parent;               /* its name as a path, or NULL */

    pthread_rwlock_t lock;      /* guards table, dirty, nb_dirty */
    uint64_t nb_entries;
    uint64_t *table;            /* native */
    uint8_t *dirty;             /* bit a logged sector */
    uint64_t nb_dirty;          /* of those */

    pthread_mutex_t tail_lock;  /* guards end */
    uint64_t end;               /* where the next block goes */
    pthread_mutex_t flush_lock; /* one flush at a time; guards the log */
    uint64_t log_sequence;
    uint32_t log_at;            /* where the next entry goes */
    struct inflight inflight;
};

static inline uint64_t vhdx_nb_sectors(const struct vhdx *v)
{
    return div_up(v->nb_entries, VHDX_SECTOR_ENTRIES);
}

/* load.c: everything that open() reads.  Replays the log if @v is writable. */
int vhdx_load(struct vhdx *v, struct lam_error *err);

/*
 * Whether the entry of a block with data can be: 1; 0 with what is wrong in
 * @text.  @length is the file's.
 */
enum { VHDX_TEXT = 160 };
bool vhdx_entry_is_sound(const struct vhdx *v, uint64_t index, uint64_t length,
                         char text[VHDX_TEXT]);

/* parent.c: the path out of the parent locator at @bytes; NULL if it has none
 * that could be used. */
int vhdx_parent_decode(const uint8_t *bytes, size_t length, char **path,
                       struct lam_error *err);

/* map.c */
int vhdx_map(void *format, uint64_t offset, uint64_t length,
             struct lam_extents *out, struct lam_error *err);
uint64_t vhdx_entry(struct vhdx *v, uint64_t index);

/* write.c: for the table of ops. */
int vhdx_write_begin(void *format, uint64_t offset, uint64_t length,
                     struct format_allocation *a, struct lam_error *err);
int vhdx_write_finish(void *format, struct format_allocation *a,
                      struct lam_error *err);
void vhdx_write_cancel(void *format, struct format_allocation *a);
int vhdx_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
              struct lam_error *err);
int vhdx_discard(void *format, uint64_t offset, uint64_t length,
                 struct lam_error *err);

/* header.c */
/* Invariant 4; cheap after the first time. */
int vhdx_announce(struct vhdx *v, struct lam_error *err);
/* The header names the log @guid, or none, from now on. */
int vhdx_set_log(struct vhdx *v, const struct vhdx_guid *guid,
                 struct lam_error *err);
int vhdx_guid_make(struct vhdx_guid *out, struct lam_error *err);

/* flush.c */
int vhdx_flush(void *format, struct lam_error *err);
/* All is written back, and there is no log any more. */
int vhdx_settle(struct vhdx *v, struct lam_error *err);

/* check.c */
int vhdx_check(void *format, lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err);
int vhdx_repair(void *format, unsigned what, lam_finding_fn *finding,
                void *opaque, struct lam_check_result *out,
                struct lam_error *err);

/* create.c */
enum { VHDX_NB_OPTIONS = 5 };
extern const struct lam_option_info vhdx_options[VHDX_NB_OPTIONS];
int vhdx_create(struct lam_io *io, struct lam_io *data,
                const struct lam_create_options *options,
                struct lam_error *err);

#endif
