/* SPDX-License-Identifier: MIT */
/* lamella/break.h - stopping a request half-way, for tests. */
#ifndef LAMELLA_BREAK_H
#define LAMELLA_BREAK_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

/* A request has begun to wait at breakpoints with these tags. */
typedef void lam_stopped_fn(void *opaque, const char *const *tags,
                            unsigned count);

/*
 * lam_image_break() - stop a request at what the engine is about to do.
 *
 * For tests of programs and of this library; only for images opened through
 * the driver blkdebug ("blkdebug:CONFIG:FILE", or driver=blkdebug in a
 * description).  The next request that comes to @event waits until
 * lam_image_resume() is called with @tag; if several breakpoints are set for
 * the event, until that was done for each of them.  Events have the names of
 * QEMU's driver of that name: "write_aio", "l2_load", "cow_read" and so on.
 *
 * @stopped is called on the request's thread, under a lock, once for all of
 * them (of the one set last): it must not call the library.  -ENOENT: there is
 * no such event; -ENOTSUP: the image was not opened through blkdebug; -E2BIG:
 * 64 are set already; -ENOMEM.
 *
 * All three are safe from any thread.  While a request waits, the image must
 * not be closed, nor its chain or size be changed.
 */
LAM_API int lam_image_break(struct lam_image *image, const char *event,
                            const char *tag, lam_stopped_fn *stopped,
                            void *opaque, struct lam_error *err);

/* Takes back all breakpoints called @tag that no request has come to.
 * -ENOENT: there was none; -ENOTSUP. */
LAM_API int lam_image_remove_break(struct lam_image *image, const char *tag,
                                   struct lam_error *err);

/* One request that waits at @tag goes on, the last one first.  -ENOENT: none
 * waits there; -ENOTSUP. */
LAM_API int lam_image_resume(struct lam_image *image, const char *tag,
                             struct lam_error *err);

LAM_END_DECLS

#endif
