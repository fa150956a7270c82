/* SPDX-License-Identifier: MIT */
/*
 * describe.h - a list of keys → the image that it describes.
 */
#ifndef LAM_IMAGE_DESCRIBE_H
#define LAM_IMAGE_DESCRIBE_H

#include "image/keylist.h"
#include "image/name.h"

/* Every key must be one that means something to the driver it is for. */
int node_from_keys(struct keylist *keys, struct node **out,
                   struct lam_error *err);

#endif
