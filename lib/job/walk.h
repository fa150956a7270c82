/* SPDX-License-Identifier: MIT */
/*
 * walk.h - cuts the concatenated sources of a copy into chunks.
 *
 * One walk is shared by all workers: whoever asks gets the next chunk.  The
 * sources' maps are asked for in windows that grow while there is little in
 * them, so an empty terabyte costs some calls and a fragmented one some
 * hundred kilobytes.
 */
#ifndef LAM_JOB_WALK_H
#define LAM_JOB_WALK_H

#include <pthread.h>

#include "base/error.h"
#include "lamella.h"

enum walk_kind {
    WALK_DATA,      /* pieces to read */
    WALK_ZERO,      /* known to read as zero */
    WALK_SHARED,    /* the target's backing file has it already */
    WALK_PAYLOAD,   /* compressed clusters that go over as they are */
    WALK_OFFLOAD,   /* data that the host may copy alone */
};

/* What is to be done with data extent @e of @image, which goes to
 * @target_offset: WALK_DATA, or one of the last two. */
typedef enum walk_kind walk_kind_fn(const void *opaque,
                                    struct lam_image *image,
                                    const struct lam_extent *e,
                                    uint64_t target_offset);

struct walk_source {
    struct lam_image *image;
    uint64_t start;         /* where its first byte goes in the target */
    uint64_t skip;          /* guest offset of that byte */
    uint64_t size;          /* bytes from there on */
    uint32_t depth;         /* layers above what the target's backing file
                               has; LAM_DEPTH_ALL: all are to be copied */
    uint64_t shared_end;    /* guest offset up to which @depth holds */
};

/* Extents of one image that follow each other. */
struct walk_segment {
    struct lam_image *image;
    uint64_t target_offset;
    uint64_t offset, length;    /* in @image */
    bool shared;                /* the extents do not answer: to be read
                                   through the whole chain */
    size_t first, count;        /* in the chunk's extents */
};

struct walk_chunk {
    uint64_t offset, length;    /* in the target */
    uint64_t sequence;          /* 0, 1, 2 ... in ascending offset */
    enum walk_kind kind;
    /* Cover the chunk unless it is zero; both owned. */
    struct walk_segment *segments;
    size_t nb_segments, max_segments;
    struct lam_extents extents;
};

/* An extent, and what it means for the copy. */
struct walk_piece {
    struct lam_image *image;
    uint64_t target_offset;
    enum walk_kind kind;
    struct lam_extent extent;
};

struct walk_options {
    uint64_t unit;          /* chunks begin and end at multiples of it (but
                               for the end of everything); a power of two */
    uint64_t data_max;      /* bytes of a data chunk, a multiple of @unit */
    uint64_t bare_max;      /* bytes of the others, a multiple of @unit */
    uint64_t split_min;     /* shorter zero runs stay inside a data chunk */
    bool salvage;           /* what the map does not tell is data, to be read
                               as far as it can be */
};

struct walk {
    struct walk_options options;
    struct walk_source *sources;
    size_t nb_sources;
    uint64_t total;             /* bytes in the target */
    walk_kind_fn *kind_of_data; /* set after walk_init(); NULL: WALK_DATA */
    const void *kind_opaque;
    uint64_t zero_max;          /* the same: bytes of a zero chunk where that
                                   costs nothing, and of a shared one; */
    uint64_t shared_max;        /* 0: bare_max */

    pthread_mutex_t lock;       /* all below */
    uint64_t offset;            /* next chunk begins here */
    uint64_t sequence;
    uint64_t mapped_end;        /* pieces reach up to here */
    uint64_t window;            /* bytes to map next */
    size_t source;              /* that mapped_end lies in */
    struct walk_piece *pieces;  /* not yet handed out, from @first on */
    size_t first, count, capacity;
};

/* Takes no ownership of the images.  @sources is copied. */
int walk_init(struct walk *walk, const struct walk_options *options,
              const struct walk_source *sources, size_t nb_sources,
              struct lam_error *err);
void walk_deinit(struct walk *walk);

/* Begin at @offset of the target, rounded down to a unit, instead of at 0;
 * before the first chunk is asked for. */
void walk_seek(struct walk *walk, uint64_t offset);

/*
 * The next chunk into *@chunk (zero it before the first call; its arrays
 * are reused).  1: there is one; 0: that was all; negative: failed.
 * Safe from any thread.
 */
int walk_next(struct walk *walk, struct walk_chunk *chunk,
              struct lam_error *err);
void walk_chunk_deinit(struct walk_chunk *chunk);

#endif
