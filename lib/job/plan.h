/* SPDX-License-Identifier: MIT */
/*
 * plan.h - the thin plan: what a zero range costs on a target, and why.
 *
 * Pure: from what was probed and what was asked to a method and two lines of
 * text.  Whatever touches the target is in zeroing.c.
 */
#ifndef LAM_JOB_PLAN_H
#define LAM_JOB_PLAN_H

#include "io/io.h"

/* Major and minor of a kernel release in one number that compares. */
#define PLAN_KERNEL(major, minor) ((unsigned)(major) << 16 | (unsigned)(minor))

/*
 * From this release on both ways of freeing a range of a block device, the
 * fallocate call and the BLKDISCARD ioctl, drop the range's cached pages.
 * Before, a buffered reader could be shown what had been discarded.
 */
#define PLAN_KERNEL_DROPS_PAGES PLAN_KERNEL(4, 15)

/* Zeroes are looked for in blocks of this size at most, unless asked for in
 * larger ones. */
enum { PLAN_FINE_GRANULE = 4096 };

struct plan_input {
    struct lam_io_limits limits;    /* of the host object */
    enum lam_cache_mode cache;
    bool has_metadata;              /* the format itself knows zeroes: qcow2 */
    bool stores_all;                /* the format knows no zeroes, and what is
                                       zero on the host is not to the guest:
                                       luks */
    bool has_backing;
    uint64_t cluster_size;          /* for the text; 0: none */
    unsigned convert_flags;         /* LAM_CONVERT_... */
    uint64_t sparse_size;           /* -S; 0: everything allocated */
    unsigned kernel;                /* PLAN_KERNEL(); 0: not known */
    bool pages_survive;             /* reading back has shown stale pages */
    bool discards_stale;            /* ... and that what was discarded had to
                                       be zeroed */
};

/* Is a range zeroed by the host for less than writing it costs, and for
 * certain? */
bool plan_host_zeroes(const struct plan_input *in);

void plan_decide(const struct plan_input *in, struct lam_thin_plan *plan);

/* "6.1.0-13-amd64" as PLAN_KERNEL(6, 1); 0 if it does not look like that. */
unsigned plan_kernel_parse(const char *release);

#endif
