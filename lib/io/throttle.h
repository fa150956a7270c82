/* SPDX-License-Identifier: MIT */
/*
 * throttle.h - groups of host objects that together do no more than so much a
 * second.
 */
#ifndef LAM_IO_THROTTLE_H
#define LAM_IO_THROTTLE_H

#include "io/io.h"

struct throttle_group;

/* Each returns what it was given, or NULL. */
struct throttle_group *throttle_group_get(struct throttle_group *group);
void throttle_group_put(struct throttle_group *group);

/* Wait until a request of @bytes is within the limits of @group. */
void throttle_wait(struct throttle_group *group, bool write, uint64_t bytes);

/* The group called @id, with a reference of the caller's; NULL. */
struct throttle_group *throttle_find(const struct lam_throttles *throttles,
                                     const char *id);

/* Takes @inner over, also on failure, and a reference to @group of its own. */
int lam_io_throttle_new(struct lam_io *inner, struct throttle_group *group,
                        struct lam_io **out, struct lam_error *err);

#endif
