/* SPDX-License-Identifier: MIT */
/*
 * queue.h - which way the requests of a queue went: for tests.
 */
#ifndef LAM_IMAGE_QUEUE_H
#define LAM_IMAGE_QUEUE_H

#include "image/image.h"

struct queue_statistics {
    bool has_ring;
    uint64_t by_ring;           /* transfers */
    uint64_t by_worker;         /* requests */
};
void queue_statistics(struct lam_queue *queue, struct queue_statistics *out);

#endif
