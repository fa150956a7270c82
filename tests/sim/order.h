/* SPDX-License-Identifier: MIT */
/*
 * order.h - short scripts on a recording, and what an image may hold after each
 * moment of them.
 *
 *   order-run.c             runs a script, with a model beside it
 *   order-scripts.c         those that several tests share
 *   order-verify.c          compares files with the model
 *   test-order.c            cutting the power
 *   test-fault-script.c     an operation of the disk fails
 */
#ifndef TEST_SIM_ORDER_H
#define TEST_SIM_ORDER_H

#include "files.h"

enum { ORDER_SECTOR = 512, ORDER_SECTORS = 1024, ORDER_OPS = 32,
       ORDER_SNAPSHOTS = 3, ORDER_BITMAPS = 3,
       ORDER_CELL = 4096,               /* bytes that a bit stands for */
       ORDER_CELLS = ORDER_SECTORS * ORDER_SECTOR / ORDER_CELL };

/* Numbers count units: a quarter of a cluster, or a sector. */
enum order_kind {
    ORDER_END,
    ORDER_WRITE, ORDER_COMPRESSED, ORDER_ZERO, ORDER_UNMAP, ORDER_DISCARD,
    ORDER_FLUSH, ORDER_REOPEN,
    ORDER_RESIZE,               /* to @first units; @count: preallocation */
    ORDER_CREATE, ORDER_APPLY, ORDER_DELETE,    /* snapshot "s@first" */
    ORDER_VERSION, ORDER_BITS, ORDER_LAZY,      /* amend: @first */
    ORDER_LENGTH,               /* amend: @first units */
    ORDER_RAW,                  /* amend: the data file is no raw image */
    ORDER_KEY,                                  /* @first: add, else erase */
    ORDER_ADD, ORDER_REMOVE, ORDER_CLEAR,       /* bitmap "b@first" */
    ORDER_ENABLE, ORDER_DISABLE,
    ORDER_MERGE,                                /* bitmap "b@count" into it */
    ORDER_NAME,                 /* amend: another name of the data file */
};

struct order_op {
    enum order_kind kind;
    unsigned first, count;
};

struct order_script {
    const char *name;
    unsigned units;                     /* of the disk */
    struct order_op setup[ORDER_OPS], ops[ORDER_OPS];
};

/* order-scripts.c: bitmaps, amendments, and both beside the rest. */
enum { ORDER_SHARED = 4 };
extern const struct order_script order_shared[ORDER_SHARED];

struct order_disk {
    uint32_t sectors;
    uint32_t value[ORDER_SECTORS];      /* each sector repeats its number */
};

struct order_bitmap {
    bool exists, recording;
    bool sure[ORDER_CELLS];             /* these are dirty; ... */
    bool maybe[ORDER_CELLS];            /* ... no others are */
};

/* What there is after an operation. */
struct order_state {
    size_t start, end;                  /* events before and after it */
    bool durable;                       /* on disk when it has ended, ... */
    bool flushes;                       /* ... with what was written before */
    struct order_disk disk;
    struct order_disk snapshots[ORDER_SNAPSHOTS];
    bool has_snapshot[ORDER_SNAPSHOTS];
    struct order_bitmap bitmaps[ORDER_BITMAPS];
    bool written;                       /* since the image was opened */
};

struct order {
    const struct order_script *script;
    const struct sim_shape *shape;
    bool interrupted;                   /* a flush before each guest write */
    uint32_t unit;                      /* sectors */
    struct sim_files files;
    struct lam_io *record, *record_data;
    /* What lies between an image and its file: takes @io over; or NULL. */
    struct lam_io *(*wrap)(struct order *t, struct lam_io *io);
    uint8_t *base, *base_data;
    uint64_t base_length, base_data_length;
    struct lam_image *image;
    uint32_t next_value;
    struct order_state *states;         /* [0]: before the script */
    size_t nb_states;
    uint64_t replays, leaks, flushes;
};

#define ORDER_CHECK(ok, t, fmt, ...)                                         \
    SIM_CHECK(ok, 0, "%s, %s%s: " fmt, (t)->script->name,                    \
              (t)->shape->kind.name, (t)->interrupted ? ", interrupted" : "",\
              __VA_ARGS__)

void order_fill(uint8_t *sector, uint32_t value);

/* Opened with the least caches; takes both over. */
struct lam_image *order_open(const struct order *t, struct lam_io *io,
                             struct lam_io *data, bool writable,
                             const char *snapshot, const char *when);

/* Make the image and run the setup: states[0] is what there is then.  False:
 * it cannot be made here. */
bool order_set_up(struct order *t);
/* Setup and script, on a recording. */
bool order_run(struct order *t);
void order_deinit(struct order *t);

/* The same step by step: some operations are not for every shape. */
bool order_makes_sense(const struct order *t, const struct order_op *op);
void order_open_session(struct order *t);
int order_try(struct order *t, const struct order_op *op,
              struct lam_error *err);
/* What it makes of @s.  @sure: it has succeeded. */
void order_model(struct order *t, const struct order_op *op, bool sure,
                 struct order_state *s);

/* False: some sector is a mixture, or cannot be read. */
bool order_read_disk(struct lam_image *image, uint32_t *value,
                     uint32_t *sectors);
/* Size, bitmaps, and which snapshots there are. */
bool order_same_structure(struct lam_image *image,
                          const struct lam_image_info *info,
                          const struct order_state *s, bool written);
/* All is as in one of the states @first to @last, but for sectors: each is as
 * in one of those or those since the flush before. */
void order_verify(struct order *t, struct sim_files *disk, size_t first,
                  size_t last, const char *when);
/* Only lazy refcounts may be wrong. */
void order_check_file(struct order *t, struct sim_files *disk,
                      const char *when);
void order_go_on(struct order *t, struct sim_files *disk, const char *when);

#endif
