/* SPDX-License-Identifier: MIT */
/*
 * provision.h - what a block device makes of requests to free and to zero.
 *
 * A queue's limits say which requests there are, not what they do to blocks.
 * Where the device itself, or those beneath it, say more, it is found here.
 */
#ifndef LAM_IO_PROVISION_H
#define LAM_IO_PROVISION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct provision {
    bool zeroing_keeps;         /* zeroing with leave to unmap keeps blocks */
    bool discard_undefined;     /* what was freed may read as anything, and as
                                   something else each time */
    uint64_t discard_alignment; /* of the first granule on the device, where
                                   the disk tells it; 0: it does not */
};

/* All false and 0 where nothing is known. */
void provision_probe(dev_t device, struct provision *out);

/* What the logical block provisioning page (SCSI, VPD 0xb2) says of unmapped
 * blocks; false also if it is too short to say. */
bool provision_page_undefined(const uint8_t *page, size_t length);

/* The first granule's offset, in logical blocks, that the block limits page
 * (0xb0) tells; 0 if it does not. */
uint32_t provision_page_alignment(const uint8_t *page, size_t length);

#endif
