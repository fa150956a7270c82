/* SPDX-License-Identifier: MIT */
/*
 * ready.h - requests that are nothing but transfers: where their bytes are is
 * in memory, nothing has to be allocated, copied or written beside them, and
 * whatever has to be held meanwhile can be had at once.
 *
 * Such a request may go on without a thread (async.h).  It is inside the gate
 * of the chain until it ends, nothing that it was told of is reused, and its
 * place in the file is announced, as for any other request.  One that is not
 * ready, or whose transfers do not all come back whole, is an ordinary one.
 */
#ifndef LAM_IMAGE_READY_H
#define LAM_IMAGE_READY_H

#include "image/image.h"
#include "io/async.h"

enum { READY_PARTS = 4 };

struct ready {
    struct lam_image *image;
    unsigned inside;            /* the gate's token */
    uint64_t token;             /* image_enter()'s */
    bool write;
    unsigned nb_parts;          /* 0: the request is done */
    struct io_async parts[READY_PARTS];
};

/* False: it is not ready.  @owner is what the parts will have.  Until
 * ready_end(), which any thread may call. */
bool ready_begin(struct lam_image *image, const struct lam_request *request,
                 void *owner, struct ready *ready);
void ready_end(struct ready *ready);

#endif
