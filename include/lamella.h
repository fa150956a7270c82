/* SPDX-License-Identifier: MIT */
/*
 * lamella.h - qcow2 images, external-snapshot chains and thin conversion.
 *
 * The whole public interface of liblamella, one header a subject; each of them
 * can be included alone.  Conventions that hold everywhere:
 *
 * - Offsets and lengths are bytes, uint64_t, half-open: [offset, offset +
 *   length).
 * - What can fail returns 0 or a negative errno value and fills the caller's
 *   struct lam_error (NULL is allowed), which says nothing after a success, nor
 *   does errno after any call.  -EINVAL: the caller's mistake, or not this
 *   format.  -ENOTSUP: a feature lamella lacks.  -EUCLEAN: corruption.
 * - Flags that a function does not know, and values that an enum does not have,
 *   are -EINVAL: they may mean something one day.
 * - Pointers are not NULL where their description does not allow it.  Strings
 *   are read during the call only, unless something else is said.
 * - The library never prints, exits, aborts or reads the environment.
 * - Any number of threads may use one struct lam_image at once, except for
 *   lam_image_close(), which needs that nobody else uses it any more.  A call
 *   back must not use the image of the call that made it.
 * - Descriptors are closed by execve().  After fork() the child uses no image
 *   that its parent has open, not even to close it: threads that work for it
 *   are not there, and locks are the parent's.
 * - No signal handler is installed or changed; a call that is interrupted goes
 *   on.  Writing to a pipe that nobody reads raises SIGPIPE as always.
 * - Option structs are initialised with their LAM_..._INIT macro, so that a
 *   member that is added later has its default.
 *
 * "format document" means docs/qcow2-format.md, by the section numbers that the
 * sources use, too.
 */
#ifndef LAMELLA_H
#define LAMELLA_H

#include <lamella/api.h>       /* what every other header needs; the version */
#include <lamella/error.h>     /* what went wrong */
#include <lamella/format.h>    /* the formats there are */
#include <lamella/secret.h>    /* passphrases by name */
#include <lamella/tls.h>       /* credentials for connections to servers */
#include <lamella/throttle.h>  /* limits by name */
#include <lamella/open.h>      /* opening and closing images */
#include <lamella/request.h>   /* reading and writing the guest's bytes */
#include <lamella/queue.h>     /* many requests under way from few threads */
#include <lamella/resize.h>    /* changing the virtual size */
#include <lamella/map.h>       /* where the guest's bytes lie */
#include <lamella/info.h>      /* what is known of an image */
#include <lamella/check.h>     /* finding and repairing damage */
#include <lamella/snapshot.h>  /* internal snapshots */
#include <lamella/bitmap.h>    /* persistent dirty bitmaps */
#include <lamella/encrypt.h>   /* encryption of new images, and key slots */
#include <lamella/create.h>    /* making new images */
#include <lamella/measure.h>   /* the size that a new image will have */
#include <lamella/amend.h>     /* changing what an image is */
#include <lamella/overlay.h>   /* external snapshots: new overlays */
#include <lamella/job.h>       /* what long work has in common */
#include <lamella/convert.h>   /* copying whole disks, thinly */
#include <lamella/chain.h>     /* moving data between the layers of a chain */
#include <lamella/compare.h>   /* do two images show the same? */
#include <lamella/break.h>     /* stopping a request half-way, for tests */

#endif
