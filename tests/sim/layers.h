/* SPDX-License-Identifier: MIT */
/*
 * layers.h - chains in memory, and what each layer of them has to show.
 */
#ifndef TEST_SIM_LAYERS_H
#define TEST_SIM_LAYERS_H

#include "sim.h"

enum { MAX_LAYERS = 104, LAYER_SECTOR = 512 };

/* One file. */
struct layer_disk {
    const struct sim_kind *kind;    /* NULL: raw */
    char name[16];                  /* what overlays call it */
    struct lam_io *io;
    uint8_t *bytes;                 /* what it shows with all below it */
    uint64_t size;
};

/* Bottom first. */
struct layer_chain {
    uint64_t seed, random;
    struct layer_disk disks[MAX_LAYERS];
    unsigned count;
    unsigned names;                 /* given out so far */
};

static inline struct layer_disk *layers_top(struct layer_chain *c)
{
    return &c->disks[c->count - 1];
}

static inline void layer_disk_free(struct layer_disk *d)
{
    lam_io_close(d->io);
    free(d->bytes);
    memset(d, 0, sizeof *d);
}

static inline void layers_free(struct layer_chain *c)
{
    for (unsigned i = 0; i < c->count; i++)
        layer_disk_free(&c->disks[i]);
    c->count = 0;
}

static inline uint64_t layers_pick_size(struct layer_chain *c)
{
    return (200 + sim_below(&c->random, 300)) * LAYER_SECTOR;
}

static inline void layers_fill(struct layer_chain *c, uint8_t *bytes,
                               uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)sim_random(&c->random);
}

/* A raw file with noise and zeroes at the bottom. */
static inline void layers_add_raw(struct layer_chain *c)
{
    struct layer_disk *d = &c->disks[c->count++];

    *d = (struct layer_disk){ .size = layers_pick_size(c) };
    snprintf(d->name, sizeof d->name, "raw%u", c->names++);
    d->bytes = calloc(1, d->size);
    assert_non_null(d->bytes);
    for (uint64_t at = 0; at + 8192 <= d->size; at += 8192)
        if (sim_below(&c->random, 3))
            layers_fill(c, d->bytes + at, 8192);
    assert_int_equal(lam_io_memory_new(d->bytes, d->size, &d->io, NULL), 0);
}

static inline void layers_resize_model(struct layer_disk *d, uint64_t size)
{
    uint8_t *bytes = calloc(1, size ? size : 1);

    assert_non_null(bytes);
    if (d->bytes)
        memcpy(bytes, d->bytes, min_u64(d->size, size));
    free(d->bytes);
    d->bytes = bytes;
    d->size = size;
}

/* An empty overlay, of any kind and size. */
static inline void layers_add_overlay(struct layer_chain *c)
{
    struct layer_disk *below = c->count ? layers_top(c) : NULL;
    struct layer_disk *d = &c->disks[c->count++];
    struct lam_error err = LAM_ERROR_INIT;

    assert_true(c->count <= MAX_LAYERS);
    *d = (struct layer_disk){
        .kind = &sim_kinds[sim_below(&c->random, LAM_ARRAY_SIZE(sim_kinds))],
    };
    snprintf(d->name, sizeof d->name, "disk%u", c->names++);
    layers_resize_model(d, layers_pick_size(c));
    if (below)
        memcpy(d->bytes, below->bytes, min_u64(below->size, d->size));
    struct lam_create_options o = sim_create_options(d->kind, d->size, false);
    if (below) {
        o.backing_file = below->name;
        o.backing_format = below->kind ? "qcow2" : "raw";
    }
    assert_int_equal(lam_io_memory_new(NULL, 0, &d->io, &err), 0);
    if (format_qcow2.create(d->io, NULL, &o, &err) < 0)
        fail_msg("create: %s", err.message);
}

/* The image on top of the first @count disks; @records, if given, has an object
 * for each of them, which is closed with the image. */
static inline struct lam_image *layers_open(struct layer_chain *c,
                                            unsigned count, bool writable,
                                            struct lam_io **records)
{
    struct lam_image *image = NULL;

    for (unsigned i = 0; i < count; i++) {
        struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        struct layer_disk *d = &c->disks[i];
        struct lam_io *io;

        o.flags = LAM_OPEN_UNMAP;
        if (writable && i == count - 1)
            o.flags |= LAM_OPEN_WRITE;
        o.l2_cache_size = o.refcount_cache_size = 1;
        assert_int_equal(lam_io_record_new(records ? records[i] : d->io, &io,
                                           NULL), 0);
        int rc = image_open_io(io, d->kind ? "qcow2" : "raw", &o, image,
                               &image, &err);
        SIM_CHECK(rc == 0, c->seed, "open %s: %s", d->name, err.message);
    }
    return image;
}

static inline void layers_close(struct layer_chain *c, struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_close(image, &err);

    SIM_CHECK(rc == 0, c->seed, "close: %s", err.message);
}

/* @image, which is open, shows what @d has to. */
static inline void layers_compare(struct layer_chain *c,
                                  const struct layer_disk *d,
                                  struct lam_image *image, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t size = lam_image_size(image);

    SIM_CHECK(size == d->size, c->seed, "%s: %s has %llu bytes, not %llu", when,
              d->name, (unsigned long long)size, (unsigned long long)d->size);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, size, 0, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: read %s: %s", when, d->name, err.message);
    for (uint64_t i = 0; i < size; i++)
        SIM_CHECK(bytes[i] == d->bytes[i], c->seed, "%s: %s (%s) holds %#x "
                  "instead of %#x at %#llx", when, d->name,
                  d->kind ? d->kind->name : "raw", bytes[i], d->bytes[i],
                  (unsigned long long)i);
    free(bytes);
}

/* The image on top of the first @count disks shows what it has to. */
static inline void layers_verify(struct layer_chain *c, unsigned count,
                                 const char *when)
{
    struct lam_image *image = layers_open(c, count, false, NULL);

    layers_compare(c, &c->disks[count - 1], image, when);
    layers_close(c, image);
}

/* No corruption; no leak either, if @clean. */
static inline void layers_check(struct layer_chain *c, bool clean,
                                const char *when)
{
    for (unsigned i = 0; i < c->count; i++) {
        struct layer_disk *d = &c->disks[i];
        struct lam_check_result r;
        struct lam_error err = LAM_ERROR_INIT;
        bool dirty = false;

        if (!d->kind)
            continue;
        int rc = sim_check(d->io, &r, &dirty, &err);
        SIM_CHECK(rc == 0, c->seed, "%s: check %s: %s", when, d->name,
                  err.message);
        SIM_CHECK(dirty || (!r.corruptions && !r.check_errors), c->seed,
                  "%s: %s (%s): %llu corruptions", when, d->name,
                  d->kind->name, (unsigned long long)r.corruptions);
        SIM_CHECK(!clean || (!dirty && !r.leaks), c->seed, "%s: %s (%s): %llu "
                  "leaks", when, d->name, d->kind->name,
                  (unsigned long long)r.leaks);
    }
}

/* --------------------------------------------------------- the top's guest */

/* A change of @image, which is the top of the chain. */
static inline void layers_guest(struct layer_chain *c, struct lam_image *image)
{
    struct layer_disk *d = layers_top(c);
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t unit = d->kind->cluster_size, what = sim_below(&c->random, 10);
    uint64_t at = sim_below(&c->random, d->size / LAYER_SECTOR) * LAYER_SECTOR;
    uint64_t n = (1 + sim_below(&c->random, 2 * unit / LAYER_SECTOR + 8)) *
                 LAYER_SECTOR;
    int rc;

    if (what < 4)
        at = align_down(at, unit);
    n = min_u64(what < 2 ? unit : n, d->size - at);
    if (what < 7) {
        layers_fill(c, d->bytes + at, n);
        rc = lam_image_write(image, d->bytes + at, n, at,
                             what < 2 ? LAM_WRITE_COMPRESSED : 0, &err);
    } else {
        memset(d->bytes + at, 0, n);
        rc = lam_image_zero(image, at, n, what < 9 ? LAM_ZERO_UNMAP : 0, &err);
    }
    SIM_CHECK(rc == 0, c->seed, "guest: %s", err.message);
}

#endif
