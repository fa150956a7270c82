/* SPDX-License-Identifier: MIT */
/*
 * descriptor.h - the text that says what a VMDK is made of.
 *
 * It is a file of its own, or lies inside the only extent.  Section numbers
 * are those of VMware's "Virtual Disk Format 5.0".
 */
#ifndef LAM_FORMAT_VMDK_DESCRIPTOR_H
#define LAM_FORMAT_VMDK_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { VMDK_SECTOR = 512 };

/* A descriptor is never longer, and names no more files than that. */
enum { VMDK_MAX_DESCRIPTOR = 1 << 20, VMDK_MAX_EXTENTS = 2048 };

/* There is no parent. */
#define VMDK_NO_CID UINT32_MAX

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };

enum vmdk_line_type { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO, VMDK_VMFS,
                      VMDK_VMFS_SPARSE, VMDK_SE_SPARSE };

/* RW 4192256 SPARSE "test-s001.vmdk" */
struct vmdk_line {
    enum vmdk_access access;
    enum vmdk_line_type type;
    uint64_t sectors;
    char *name;                 /* as written; NULL: none (ZERO) */
    uint64_t offset;            /* FLAT: in the file, in sectors */
};

struct vmdk_descriptor {
    uint32_t cid;               /* changes when the content does */
    uint32_t parent_cid;        /* the parent's when this one was made */
    /* Where in the text they are written. */
    size_t cid_at, cid_digits, parent_cid_at, parent_cid_digits;
    size_t length;              /* of the text */
    size_t room;                /* for it; 0: as much as it needs */
    char *create_type;          /* "monolithicSparse" */
    char *parent;               /* parentFileNameHint, or NULL */
    struct vmdk_line *lines;
    size_t nb_lines;
};

/* "FLAT" */
const char *vmdk_line_type_name(enum vmdk_line_type type);

/* Does @text begin as a descriptor does? */
bool vmdk_is_descriptor(const char *text, size_t length);

/*
 * @text ends with its @length bytes or the first 0.  Lines about extents are
 * not looked at if it is @embedded in the only one.  -EINVAL: this is no
 * descriptor, or a line is wrong; -ENOTSUP for extents that we do not know.
 * @out is to be deinitialised in any case.
 */
int vmdk_descriptor_parse(const char *text, size_t length, bool embedded,
                          struct vmdk_descriptor *out, struct lam_error *err);
void vmdk_descriptor_deinit(struct vmdk_descriptor *d);

#endif
