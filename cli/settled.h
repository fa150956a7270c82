/* SPDX-License-Identifier: MIT */
/*
 * settled.h - overlays that are known to fit what their backing file holds.
 *
 * A backing file that was written to after its overlay was made is suspicious,
 * unless it was us who wrote to it, by a commit of that overlay, or who saw to
 * it that the overlay fits.  The backing file's time of change at that moment
 * is kept beside the overlay, in an extended attribute of its file; where the
 * file system has none, the suspicion stays.
 */
#ifndef LAMELLA_CLI_SETTLED_H
#define LAMELLA_CLI_SETTLED_H

#include "cli.h"

/* @overlay reads right over what its backing file holds now. */
void settled_note(struct lam_image *overlay);

/* Whether that was noted of the file @overlay when @backing was written to for
 * the last time. */
bool settled_is_noted(const char *overlay, const char *backing);

#endif
