/* SPDX-License-Identifier: MIT */
/*
 * bitmap.h - persistent dirty bitmaps: the directory (format document 9).
 */
#ifndef LAM_QCOW2_BITMAP_H
#define LAM_QCOW2_BITMAP_H

#include "format/qcow2/header.h"
#include "io/io.h"

enum {
    BITMAP_IN_USE = 1 << 0,     /* what is stored is not what it should be */
    BITMAP_AUTO = 1 << 1,       /* records what is written */
    BITMAP_MAX_NAME = 1023,
    BITMAP_MIN_GRANULARITY_BITS = 9,
    BITMAP_MAX_GRANULARITY_BITS = 31,
};

/* The most that the data of one bitmap may take. */
#define BITMAP_MAX_BYTES    (512 * LAM_MIB)

/* An entry of the directory.  Extra data is not supported. */
struct bitmap_entry {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;             /* BITMAP_... */
    uint8_t granularity_bits;
    const char *name;           /* not terminated */
    size_t name_length;
};

/* Bytes of @e in the directory, and putting them there. */
size_t bitmap_entry_size(const struct bitmap_entry *e);
void bitmap_entry_encode(const struct bitmap_entry *e, uint8_t *p);

/* Calls @fn for each entry of the directory, which must be as the header says.
 * @e->name is not there any more afterwards. */
typedef int bitmap_entry_fn(void *opaque, const struct bitmap_entry *e,
                            struct lam_error *err);
int bitmaps_for_each(struct lam_io *io, const struct qcow2_header *h,
                     uint64_t file_length, bitmap_entry_fn *fn, void *opaque,
                     struct lam_error *err);

/* The offset of the cluster that table entry @word names, 0 if it names none:
 * then *@ones says what its bits are.  -EUCLEAN. */
int bitmap_word_decode(const struct qcow2_header *h, const char *name,
                       size_t name_length, uint64_t word, uint64_t *offset,
                       bool *ones, struct lam_error *err);

/* Bytes that the bits of a disk of @size bytes take. */
static inline uint64_t bitmap_bytes(uint64_t size, unsigned granularity_bits)
{
    return div_up(div_up(size, UINT64_C(1) << granularity_bits), 8);
}

/* Lists the directory into @info->bitmaps without loading a bitmap. */
int bitmaps_info(struct lam_io *io, const struct qcow2_header *h,
                 struct lam_image_info *info, struct lam_error *err);

/*
 * Calls @area for each range of the file that the bitmaps occupy: directory,
 * tables, data.  Tables are read as far as the file has them.  -EUCLEAN if
 * something cannot be parsed; what @area returns if it is negative.
 */
typedef int bitmap_area_fn(void *opaque, uint64_t offset, uint64_t length,
                           struct lam_error *err);
int bitmaps_areas(struct lam_io *io, const struct qcow2_header *h,
                  uint64_t file_length, bitmap_area_fn *area, void *opaque,
                  struct lam_error *err);

#endif
