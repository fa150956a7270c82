/* SPDX-License-Identifier: MIT */
/*
 * header.h - the header of a sparse extent, be it one of a hosted product or
 * one of an ESX server's (COWD, or seSparse since its release 6.5), and the
 * markers of a stream-optimized one.
 *
 * Numbers are little-endian and places count in sectors of 512 bytes.
 */
#ifndef LAM_FORMAT_VMDK_HEADER_H
#define LAM_FORMAT_VMDK_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arith.h"
#include "base/error.h"
#include "format/vmdk/descriptor.h"

enum {
    VMDK_MAGIC = 0x564d444b,        /* "KDMV" */
    VMDK_HEADER_SIZE = 512,
    VMDK_GTES = 512,                /* entries of a grain table */
    VMDK_TABLE_SIZE = 4 * VMDK_GTES,
    VMDK_COWD_MAGIC = 0x44574f43,   /* "COWD" */
    VMDK_COWD_HEADER_SIZE = 2048,
    VMDK_COWD_GTES = 4096,
    VMDK_SE_GTES = 4096,
    VMDK_GTE_ZERO = 1,              /* a zeroed grain, with that flag */
    VMDK_MARKER_SIZE = 12,          /* in front of a compressed grain */
};

enum {
    VMDK_FLAG_NEWLINES = 1 << 0,    /* the bytes that tell of bad transfers */
    VMDK_FLAG_REDUNDANT = 1 << 1,   /* there is a second grain directory */
    VMDK_FLAG_ZEROED = 1 << 2,      /* entries of value 1 are zero grains */
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS = 1 << 17,
};

/* The directory is at the end: the footer, a copy of the header, knows. */
#define VMDK_GD_AT_END UINT64_MAX

/* Of an extent of the kind seSparse. */
#define VMDK_SE_MAGIC UINT64_C(0xcafebabe)

/* As it is on disk, in sectors. */
struct vmdk_header {
    bool cowd, se;
    uint32_t version;               /* 1 to 3 */
    uint32_t flags;                 /* VMDK_FLAG_... */
    uint64_t capacity;
    uint64_t grain_size;
    uint64_t descriptor_offset, descriptor_size;
    uint32_t gtes;                  /* entries of a grain table */
    uint64_t rgd_offset, gd_offset;
    uint64_t overhead;              /* where the first grain may be */
    bool unclean;
    uint16_t compression;           /* 0 none, 1 deflate in a zlib wrapper */
    /* Of seSparse, where entries number what lies in a region. */
    uint64_t volatile_offset;       /* of the other header */
    uint64_t gt_offset, host_tables;
    uint64_t grains_offset, host_grains;
};

bool vmdk_is_header(const uint8_t *head, size_t length);
bool vmdk_is_cowd(const uint8_t *head, size_t length);

bool vmdk_is_se(const uint8_t *head, size_t length);

/* Of VMDK_HEADER_SIZE bytes, without a look at the magic; and is the other
 * header good?  -EUCLEAN, and -ENOTSUP for what we lack. */
int vmdk_se_decode(const uint8_t *buf, struct vmdk_header *h,
                   struct lam_error *err);
int vmdk_se_judge_volatile(const uint8_t *buf, struct lam_error *err);

/* What @raw is in memory: 0 is absent; a table's number comes with 1 added, a
 * grain's with 2.  -EUCLEAN. */
int vmdk_se_directory_entry(const struct vmdk_header *h, uint64_t raw,
                            uint32_t *out, struct lam_error *err);
int vmdk_se_table_entry(const struct vmdk_header *h, uint64_t raw,
                        uint32_t *out, struct lam_error *err);

/* Of VMDK_COWD_HEADER_SIZE bytes with that magic. */
int vmdk_cowd_decode(const uint8_t *buf, struct vmdk_header *h,
                     struct lam_error *err);

/* -EINVAL: not this format.  The fields are not looked at. */
int vmdk_header_decode(const uint8_t *buf, struct vmdk_header *h,
                       struct lam_error *err);
void vmdk_header_encode(const struct vmdk_header *h, uint8_t *buf);

/* Do the fields go together, in a file of @length bytes?  -EUCLEAN, and
 * -ENOTSUP for what we lack. */
int vmdk_header_validate(const struct vmdk_header *h, uint64_t length,
                         struct lam_error *err);

static inline bool vmdk_has_flag(const struct vmdk_header *h, uint32_t flag)
{
    return h->flags & flag;
}

/* Bytes in the file of the header, and of a grain table. */
static inline uint64_t vmdk_header_bytes(const struct vmdk_header *h)
{
    return h->cowd ? VMDK_COWD_HEADER_SIZE : VMDK_HEADER_SIZE;
}

static inline uint64_t vmdk_table_bytes(const struct vmdk_header *h)
{
    return (h->se ? 8 : 4) * (uint64_t)h->gtes;
}

/* Where the table and the grain are that an entry (not 0) names, in bytes. */
static inline uint64_t vmdk_table_host(const struct vmdk_header *h,
                                       uint32_t entry)
{
    return h->se ? h->gt_offset * VMDK_SECTOR +
                   (entry - 1) * vmdk_table_bytes(h)
                 : (uint64_t)entry * VMDK_SECTOR;
}

static inline uint64_t vmdk_grain_host(const struct vmdk_header *h,
                                       uint32_t entry)
{
    return h->se ? (h->grains_offset +
                    (uint64_t)(entry - 2) * h->grain_size) * VMDK_SECTOR
                 : (uint64_t)entry * VMDK_SECTOR;
}

/* Entries of the grain directory. */
uint64_t vmdk_nb_tables(const struct vmdk_header *h);

#endif
