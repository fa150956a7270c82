/* SPDX-License-Identifier: MIT */
/*
 * convert-bitmaps.h - `convert --bitmaps`.
 */
#ifndef LAMELLA_CLI_CONVERT_BITMAPS_H
#define LAMELLA_CLI_CONVERT_BITMAPS_H

#include "convert-args.h"

/*
 * All print what is wrong and return 0 or a negative errno value; without
 * --bitmaps they do nothing.
 */

/* The sources: one image, whose bitmaps can be copied or skipped. */
int convert_bitmaps_check_source(const struct cli *cli,
                                 const struct convert_args *args,
                                 struct lam_image *source);

/* The target, before anything is copied: there is room for the names. */
int convert_bitmaps_check_target(const struct cli *cli,
                                 const struct convert_args *args,
                                 struct lam_image *source,
                                 struct lam_image *target);

/* After the data, so that its writing is in none of them. */
int convert_bitmaps_copy(const struct cli *cli,
                         const struct convert_args *args,
                         struct lam_image *source, struct lam_image *target);

#endif
