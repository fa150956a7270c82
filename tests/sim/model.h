/* SPDX-License-Identifier: MIT */
/*
 * model.h - what an image holds, as byte arrays: its disk, its snapshots, its
 * bitmaps; and operations that change both.
 *
 *   model-disk.c    opening; writing, zeroing, discarding, reading
 *   model-change.c  resizing, internal snapshots, amending, passphrases
 *   model-bitmap.c  persistent bitmaps
 */
#ifndef TEST_SIM_MODEL_H
#define TEST_SIM_MODEL_H

#include "files.h"

enum { MODEL_LAYERS = 3, MODEL_SNAPSHOTS = 3, MODEL_BITMAPS = 3,
       MODEL_SECTOR = 512 };

enum model_op {
    MODEL_WRITE, MODEL_COMPRESSED, MODEL_ZERO, MODEL_UNMAP, MODEL_DISCARD,
    MODEL_READ, MODEL_MAP, MODEL_FLUSH, MODEL_REOPEN,
    MODEL_GROW, MODEL_SHRINK, MODEL_CREATE, MODEL_APPLY, MODEL_DELETE,
    MODEL_AMEND, MODEL_KEY,
    MODEL_BITMAP_ADD, MODEL_BITMAP_REMOVE, MODEL_BITMAP_CLEAR,
    MODEL_BITMAP_SWITCH, MODEL_BITMAP_MERGE,
    MODEL_NB_OPS
};

extern const char *const model_op_names[MODEL_NB_OPS];

struct model_snapshot {
    char name[16];
    uint64_t size;
    uint8_t *bytes;
};

/* What the bit of a sector may be. */
enum model_bit { BIT_CLEAN, BIT_MAYBE, BIT_DIRTY };

struct model_bitmap {
    char name[16];
    bool recording;
    uint64_t granularity;
    uint8_t *bits;              /* enum model_bit, by sector */
};

struct model {
    uint64_t seed, random;
    struct sim_shape shapes[MODEL_LAYERS];  /* as they are now */
    struct sim_files files[MODEL_LAYERS];
    uint64_t sizes[MODEL_LAYERS];
    unsigned top;
    uint64_t capacity;          /* bytes that no disk goes beyond */
    uint8_t *expect;            /* contents of the top layer */
    uint8_t *buf, *got;
    struct lam_image *image;
    bool unmap, detect;         /* how it was opened */
    bool other_key;             /* "other" opens it, too */
    struct model_snapshot snapshots[MODEL_SNAPSHOTS];
    unsigned nb_snapshots, next_name;
    struct model_bitmap bitmaps[MODEL_BITMAPS];
    unsigned nb_bitmaps;
    enum model_op op;           /* under way */
    uint64_t done[MODEL_NB_OPS], refused[MODEL_NB_OPS];
};

#define MODEL_CHECK(ok, m, fmt, ...)                                         \
    SIM_CHECK(ok, (m)->seed, "%s, layer %u, %s: " fmt,                       \
              (m)->shapes[(m)->top].kind.name, (m)->top,                     \
              model_op_names[(m)->op], __VA_ARGS__)

static inline uint64_t model_below(struct model *m, uint64_t limit)
{
    return sim_below(&m->random, limit);
}

static inline const struct sim_shape *model_shape(const struct model *m)
{
    return &m->shapes[m->top];
}

static inline uint64_t model_size(const struct model *m)
{
    return m->sizes[m->top];
}

/* A refusal that the caller expects counts and changes nothing; anything else
 * but success fails the test.  True: done. */
bool model_settle(struct model *m, int rc, bool may_refuse,
                  const struct lam_error *err);

/* ---------------------------------------------------------- model-disk.c */

void model_open(struct model *m);
/* Check finds nothing at all after it. */
void model_close(struct model *m);
/* An open image: its disk and bitmaps.  A closed one: snapshots and bitmaps. */
void model_verify(struct model *m, const char *when);
void model_disk_op(struct model *m);

/* -------------------------------------------------------- model-change.c */

void model_change_op(struct model *m);
void model_verify_snapshots(struct model *m, const char *when);
/* No image is open, and none of @backing's is: the chain that @name shows. */
struct lam_image *model_open_chain(struct model *m, unsigned flags,
                                   const char *snapshot);

/* -------------------------------------------------------- model-bitmap.c */

void model_bitmap_op(struct model *m);
void model_verify_bitmaps(struct model *m, const char *when);
/* Guest bytes have changed (or, BIT_MAYBE, may have been marked). */
void model_mark(struct model *m, uint64_t offset, uint64_t length,
                enum model_bit bit);
void model_resize_bitmaps(struct model *m, uint64_t old, uint64_t size);
void model_remove_bitmaps(struct model *m);

#endif
