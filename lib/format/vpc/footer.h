/* SPDX-License-Identifier: MIT */
/*
 * footer.h - the two structures of a VHD ("Virtual Hard Disk Image Format
 * Specification" 1.0): the footer, of which sparse disks keep a copy at the
 * start of the file, and the header of sparse disks.  Pure; big-endian.
 */
#ifndef LAM_VPC_FOOTER_H
#define LAM_VPC_FOOTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum {
    VPC_SECTOR = 512,
    VPC_FOOTER_BYTES = 512,
    VPC_HEADER_BYTES = 1024,
    VPC_LOCATORS = 8,
    VPC_NAME_BYTES = 512,       /* of the parent's name, UTF-16BE */
};

/* Entries are sector numbers of 32 bits, and the last 2^24 are left out: disks
 * end at 2040 GiB. */
#define VPC_MAX_SECTORS UINT64_C(0xff000000)

#define VPC_UNUSED UINT32_MAX   /* table entry of a block that is not there */

enum vpc_disk_type {
    VPC_FIXED = 2,
    VPC_DYNAMIC = 3,
    VPC_DIFFERENCING = 4,
};

struct vpc_geometry {
    uint16_t cylinders;
    uint8_t heads, sectors;
};

struct vpc_footer {
    uint64_t data_offset;       /* of the header; all ones: fixed */
    uint32_t timestamp;         /* seconds since 2000 */
    char creator[4];
    uint32_t creator_version;
    char creator_os[4];
    uint64_t original_size, current_size;
    struct vpc_geometry geometry;
    uint32_t type;              /* enum vpc_disk_type, or anything */
    uint8_t uuid[16];
};

struct vpc_locator {
    uint32_t platform;          /* a code of four letters */
    uint32_t length;
    uint64_t offset;            /* in the file */
};

struct vpc_header {
    uint64_t table_offset;
    uint32_t entries;           /* of the block allocation table */
    uint32_t block_size;        /* bytes, without the bitmap */
    uint8_t parent_name[VPC_NAME_BYTES];
    struct vpc_locator locators[VPC_LOCATORS];
};

/* One's complement of the sum of all bytes but the four at @at. */
uint32_t vpc_checksum(const uint8_t *bytes, uint32_t length, uint32_t at);

bool vpc_is_footer(const uint8_t *bytes);

/* -EINVAL unless @bytes begin with the cookie; -EUCLEAN for a wrong sum. */
int vpc_footer_decode(const uint8_t *bytes, struct vpc_footer *out,
                      struct lam_error *err);
void vpc_footer_encode(const struct vpc_footer *footer, uint8_t *bytes);

/*
 * The size of the disk in bytes.  Two programs round it up to what can be said
 * as cylinders, heads and sectors and have the guest see that; with all others,
 * and where it is more than can be said, the size itself counts.
 */
uint64_t vpc_footer_size(const struct vpc_footer *footer);
/* The same, whoever made it. */
uint64_t vpc_footer_size_by(const struct vpc_footer *footer, bool geometry);

int vpc_header_decode(const uint8_t *bytes, struct vpc_header *out,
                      struct lam_error *err);
/* All but the parent. */
void vpc_header_encode(const struct vpc_header *header, uint8_t *bytes);

/* The specification's geometry for a disk of @sectors. */
struct vpc_geometry vpc_geometry(uint64_t sectors);

/* The smallest one that holds @sectors; the largest that there is, if none
 * does.  That one says nothing about the size. */
struct vpc_geometry vpc_geometry_for(uint64_t sectors);
uint64_t vpc_geometry_sectors(struct vpc_geometry g);
bool vpc_geometry_is_largest(struct vpc_geometry g);
extern const struct vpc_geometry vpc_geometry_largest;

#endif
