/* SPDX-License-Identifier: MIT */
/*
 * settled.h - overlays that are known to fit what their backing file holds.
 *
 * A backing file that was written to after its overlay was made is suspicious,
 * unless it was us who wrote to it, by a commit of that overlay, or who saw to
 * it that the overlay fits.  Which file that was, how long it was and when it
 * was written to is kept beside the overlay, in an extended attribute of its
 * file; a copy of the overlay has it in vain.
 */
#ifndef LAMELLA_CLI_SETTLED_H
#define LAMELLA_CLI_SETTLED_H

#include "cli.h"

enum settled {
    SETTLED_UNKNOWN,            /* nothing is noted, and times say nothing */
    SETTLED_SAME,
    SETTLED_WRITTEN,            /* the file has changed */
    SETTLED_OTHER,              /* there is another file in its place */
};

/* @overlay reads right over what its backing file holds now; the other one by
 * the path of its file. */
void settled_note(struct lam_image *overlay);
void settled_note_path(const char *overlay);

/* What of it is still so, by the paths of the two files; where nothing is
 * noted, by their times. */
enum settled settled_look(const char *overlay, const char *backing);

#endif
