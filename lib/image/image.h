/* SPDX-License-Identifier: MIT */
/*
 * image.h - one open image: a format on its host objects, and its edges to a
 * backing file and an external data file.
 *
 * A chain is a list of struct lam_image linked by @backing.  The image on top
 * owns the others, and is the one that is written to.  Requests run between
 * entering and leaving the chain's gate (graph.h); inside it nothing here
 * changes but @size, and they need no other lock of the image layer's own.
 */
#ifndef LAM_IMAGE_IMAGE_H
#define LAM_IMAGE_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buffer.h"
#include "format/format.h"
#include "image/cow-ahead.h"

enum { IMAGE_DEFAULT_MAX_DEPTH = 1024 };

struct changes;
struct graph;
struct node;
struct node_view;
struct traits;

struct lam_image {
    /* What the image is.  All of it changes places when a layer is put above
     * another (graph.c). */
    char *name;                     /* as opened */
    char *path;                     /* host file, or NULL (memory) */
    char *shown;                    /* what info calls it; NULL: its name */
    struct node_view *view;         /* how it and its files are told about; or
                                       NULL; owned */
    const char *driver;             /* what it was opened by, if that is no
                                       format; static, or NULL */
    const struct format_ops *ops;
    void *format;                   /* the format's state */
    struct lam_io *io;              /* the image file; owned */
    struct lam_io *data;            /* external data file, or NULL; owned */
    struct lam_io *header;          /* detached LUKS header, or NULL; owned */
    struct crypt *crypt;            /* data pass through it; or NULL; the
                                       format's */
    bool writable;
    bool guessed;                   /* the format was probed, not declared */
    bool metadata_only;
    bool for_check;                 /* open for check and repair only */
    bool unmap;                     /* discard and LAM_ZERO_UNMAP count */
    enum lam_detect_zeroes detect_zeroes;
    bool flush_writes;              /* writethrough: each write is flushed */
    bool unlocked;                  /* opened without locks */
    atomic_int settling;            /* 1: below the top that took its place,
                                       what was written to it before is not on
                                       disk yet; -errno: and cannot be */

    /* Where it is: its place in the chain, and the locks of that place. */
    struct lam_image *backing;      /* or NULL; owned */
    _Atomic uint64_t size;          /* virtual, bytes; read outside the gate */

    /* Zeroing part of a unit looks at the rest of it and then takes it whole:
     * it holds this for writing, and every write holds it for reading. */
    pthread_rwlock_t whole_units;
    /* Writes that go on without a thread to hold it (ready.c); who has it for
     * writing waits for them, image_lock_units(). */
    struct {
        pthread_mutex_t lock;
        pthread_cond_t none;
        uint64_t count;
    } afloat;
    struct buffer_pool buffers;     /* for what a write copies */
    struct cow_ahead ahead;         /* what it will copy next; the top's */
    pthread_mutex_t resize_lock;    /* one change of size, features or chain at
                                       a time; outermost */

    /* All layers of the chain this image was opened in, top first; @level is
     * our own place.  The array belongs to the top layer. */
    struct lam_image **layers;
    unsigned level, nb_layers;
    struct changes *changes;        /* noted for a job; or NULL */
    struct lam_image *written;      /* of the top layer: one below it that a
                                       job writes to; or NULL */
    struct graph *graph;            /* the chain's gate; the top layer's */
};

/*
 * Open a format on a host object that the caller made (tests, fuzzers, crash
 * replay).  Takes @io over also on failure.  @backing may be NULL and is taken
 * over as well.
 */
int image_open_io(struct lam_io *io, const char *format,
                  const struct lam_open_options *options,
                  struct lam_image *backing, struct lam_image **out,
                  struct lam_error *err);

/* The same with an external data file, or NULL. */
int image_open_ios(struct lam_io *io, struct lam_io *data, const char *format,
                   const struct lam_open_options *options,
                   struct lam_image *backing, struct lam_image **out,
                   struct lam_error *err);

/* The name of a new file @path is durable when its directory is. */
int image_sync_directory(const char *path, struct lam_error *err);

/* lam_image_open() for who says what it was to be opened for: its messages do
 * not begin with "Could not open" and @name. */
int image_open(const char *name, const struct lam_open_options *options,
               struct lam_image **out, struct lam_error *err);

/* The same of a node, which is taken apart, may be exchanged, and stays the
 * caller's; @traits: what the node above says, or NULL. */
int image_open_node(struct node **node, const struct traits *traits,
                    const struct lam_open_options *options,
                    struct lam_image **out, struct lam_error *err);

/* The layer @depth below @image, which the chain must have. */
struct lam_image *image_layer(struct lam_image *image, unsigned depth);

/* Number of layers from @image down, at least 1.  Inside the gate, both. */
unsigned image_depth(const struct lam_image *image);

/* (Re)number the chain whose top is @top, once it is complete. */
int image_link(struct lam_image *top, struct lam_error *err);

/* Close @image and all below it, not flushing. */
void image_free(struct lam_image *image);

/* What @image's header names; its strings live with the image. */
void image_links(const struct lam_image *image, struct format_links *links);

/* Do both lie in one file or device, as far as can be told? */
bool image_same_object(const struct lam_image *a, const struct lam_image *b);

/* True if clusters are stored compressed whatever is asked for, each once. */
bool image_compresses_all(const struct lam_image *image);

/* -EINVAL unless @image takes data requests and the range lies inside it. */
int image_check_range(struct lam_image *image, uint64_t offset, uint64_t length,
                      struct lam_error *err);

/*
 * Nothing that a map of @image answers is reused between the two; cheap, and
 * nothing at all for read-only images.
 */
uint64_t image_enter(struct lam_image *image);
void image_leave(struct lam_image *image, uint64_t token);

/* Where extents of @image's chain with LAM_EXTENT_DATA or _COMPRESSED live. */
struct lam_io *image_extent_io(struct lam_image *image,
                               const struct lam_extent *e);

/*
 * Read what @extents (a map of the whole chain, without gaps) say into @buf,
 * whose first byte is guest byte @offset; the list must cover [offset,
 * offset + length).  The caller stands between image_enter() and
 * image_leave(), and mapped in there too.
 */
int image_read_extents(struct lam_image *image,
                       const struct lam_extents *extents, void *buf,
                       uint64_t length, uint64_t offset,
                       struct lam_error *err);

/* lam_image_map() of @image itself, whose extents can be read from it: that one
 * tells of the image behind where @image is only a filter. */
int image_map(struct lam_image *image, uint64_t offset, uint64_t length,
              uint32_t depth, unsigned flags, struct lam_extents *out,
              struct lam_error *err);

/* lam_image_map_window() of @image itself. */
uint64_t image_map_window(struct lam_image *image, uint64_t offset,
                          uint32_t depth, uint64_t window);

/* The calls of the same name with lam_ in front, inside the gate. */
int image_read(struct lam_image *image, void *buf, uint64_t length,
               uint64_t offset, struct lam_error *err);
int image_flush(struct lam_image *image, struct lam_error *err);
int image_zero(struct lam_image *image, uint64_t offset, uint64_t length,
               unsigned flags, struct lam_error *err);

#endif
