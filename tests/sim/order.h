/* SPDX-License-Identifier: MIT */
/*
 * order.h - short scripts on a recording, and what an image may hold after each
 * moment of them.
 *
 *   order-run.c     runs a script, with a model beside it
 *   test-order.c    the scripts; cutting the power
 */
#ifndef TEST_SIM_ORDER_H
#define TEST_SIM_ORDER_H

#include "files.h"

enum { ORDER_SECTOR = 512, ORDER_SECTORS = 1024, ORDER_OPS = 32,
       ORDER_SNAPSHOTS = 3, ORDER_BITMAPS = 3 };

/* Numbers count units: a quarter of a cluster, or a sector. */
enum order_kind {
    ORDER_END,
    ORDER_WRITE, ORDER_COMPRESSED, ORDER_ZERO, ORDER_UNMAP, ORDER_DISCARD,
    ORDER_FLUSH, ORDER_REOPEN,
    ORDER_RESIZE,               /* to @first units; @count: preallocation */
    ORDER_CREATE, ORDER_APPLY, ORDER_DELETE,    /* snapshot "s@first" */
    ORDER_VERSION, ORDER_BITS, ORDER_LAZY,      /* amend: @first */
    ORDER_KEY,                                  /* @first: add, else erase */
    ORDER_ADD, ORDER_REMOVE,                    /* bitmap "b@first" */
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

struct order_disk {
    uint32_t sectors;
    uint32_t value[ORDER_SECTORS];      /* each sector repeats its number */
};

/* What there is after an operation. */
struct order_state {
    size_t start, end;                  /* events before and after it */
    bool durable;                       /* on disk when it has ended, ... */
    bool flushes;                       /* ... with what was written before */
    struct order_disk disk;
    struct order_disk snapshots[ORDER_SNAPSHOTS];
    bool has_snapshot[ORDER_SNAPSHOTS], has_bitmap[ORDER_BITMAPS];
};

struct order {
    const struct order_script *script;
    const struct sim_shape *shape;
    bool interrupted;                   /* a flush before each guest write */
    uint32_t unit;                      /* sectors */
    struct sim_files files;
    struct lam_io *record, *record_data;
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

/* Make the image, run setup and script.  False: it cannot be made here. */
bool order_run(struct order *t);
void order_deinit(struct order *t);

#endif
