/* SPDX-License-Identifier: MIT */
/*
 * chunks.h - disks made of chunks, most of them compressed, that are only read:
 * what cloop and DMG have in common.
 */
#ifndef LAM_FORMAT_CHUNKS_H
#define LAM_FORMAT_CHUNKS_H

#include "format/format.h"

/* What is in none of them reads as zero. */
enum chunk_kind { CHUNK_ZERO, CHUNK_RAW, CHUNK_ZLIB, CHUNK_BZIP2, CHUNK_ADC };

enum { CHUNK_MAX = 64 << 20 };  /* bytes, on both sides, of a compressed one */

struct chunk {
    uint64_t guest, length;     /* bytes */
    uint64_t host, host_length;
    enum chunk_kind kind;
};

struct chunks {
    const char *name;           /* of the format */
    struct lam_io *io;
    uint64_t size;              /* of the disk, bytes */
    struct chunk *items;        /* ascending once chunks_settle() was called */
    size_t count, capacity;
    pthread_mutex_t lock;       /* guards the chunk that is kept inflated */
    const struct chunk *kept;   /* or NULL */
    uint8_t *bytes;
};

/* Adds all chunks of the image, and settles them. */
typedef int chunks_load_fn(struct chunks *c, const struct format_open *o,
                           struct lam_error *err);

/* An image of the format called @name, which @load reads. */
int chunks_open(const char *name, chunks_load_fn *load,
                const struct format_open *o, void **format,
                struct lam_error *err);

/* Judged against the file's @length: -EUCLEAN. */
int chunks_add(struct chunks *c, const struct chunk *chunk, uint64_t length,
               struct lam_error *err);

/* When all are there: sorts, and refuses overlaps and what lies behind the end
 * of the disk. */
int chunks_settle(struct chunks *c, struct lam_error *err);

/* Apple's data compression, into exactly @size bytes: -1 if @in is not such. */
int chunks_inflate_adc(const uint8_t *in, size_t length, uint8_t *out,
                       size_t size);

/* Ops of format.h, for a format whose state begins with a struct chunks. */
int chunks_close(void *format, struct lam_error *err);
uint64_t chunks_size(void *format);
uint64_t chunks_none(void *format);
int chunks_map(void *format, uint64_t offset, uint64_t length,
               struct lam_extents *out, struct lam_error *err);
int chunks_read(void *format, const struct lam_extent *extent, void *buf,
                struct lam_error *err);

#define CHUNKS_OPS                                                          \
    .close = chunks_close,                                                  \
    .size = chunks_size,                                                    \
    .cluster_size = chunks_none,                                            \
    .zero_unit = chunks_none,                                               \
    .map = chunks_map,                                                      \
    .read_compressed_part = chunks_read

#endif
