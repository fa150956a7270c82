/* SPDX-License-Identifier: MIT */
/* lamella/throttle.h - limits by name. */
#ifndef LAMELLA_THROTTLE_H
#define LAMELLA_THROTTLE_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

/* Limits by name, for nodes of the driver throttle. */
struct lam_throttles;

enum lam_throttle_kind {
    LAM_THROTTLE_BPS_TOTAL,     /* bytes a second */
    LAM_THROTTLE_BPS_READ,
    LAM_THROTTLE_BPS_WRITE,
    LAM_THROTTLE_IOPS_TOTAL,    /* requests a second */
    LAM_THROTTLE_IOPS_READ,
    LAM_THROTTLE_IOPS_WRITE,
};

enum { LAM_THROTTLE_KINDS = 6 };

/* The largest rate. */
#define LAM_THROTTLE_MAX 1000000000000000LL

struct lam_throttle_limit {
    uint64_t average;           /* a second; 0: no limit */
    uint64_t burst;             /* for @burst_seconds; 0: as the average */
    uint64_t burst_seconds;     /* at least 1 */
};

struct lam_throttle_options {
    const char *id;             /* the name it is asked for by */
    struct lam_throttle_limit limits[LAM_THROTTLE_KINDS];
    uint64_t iops_size;         /* a longer request counts as several; 0: as
                                   one */
};

#define LAM_THROTTLE_OPTIONS_INIT                                           \
    { NULL, { { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 1 },           \
              { 0, 0, 1 }, { 0, 0, 1 } }, 0 }

/*
 * lam_throttles_new() - an empty list of groups, to be freed by the caller.
 *
 * It may be used by any number of threads at once as long as nobody adds to it
 * or frees it.  Images that are in a group keep it; all of one group share its
 * limits.  -ENOMEM.
 */
LAM_API int lam_throttles_new(struct lam_throttles **out,
                              struct lam_error *err);

/* NULL is allowed and does nothing. */
LAM_API void lam_throttles_free(struct lam_throttles *throttles);

/*
 * lam_throttles_add() - a group with limits of its own.
 *
 * -EINVAL: no @id, limits that contradict each other (total and one of its
 * parts, a burst below the average), or beyond LAM_THROTTLE_MAX; -EEXIST;
 * -ENOMEM.
 */
LAM_API int lam_throttles_add(struct lam_throttles *throttles,
                              const struct lam_throttle_options *options,
                              struct lam_error *err);

LAM_END_DECLS

#endif
