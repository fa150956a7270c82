/* SPDX-License-Identifier: MIT */
/*
 * convert-target.h - the target of `convert`: made if need be, opened, and gone
 * again if the conversion fails.
 */
#ifndef LAMELLA_CLI_CONVERT_TARGET_H
#define LAMELLA_CLI_CONVERT_TARGET_H

#include "convert-args.h"

struct convert_target {
    const char *name;
    struct lam_image *image;    /* NULL while it is not open */
    char *path;                 /* of the host file, or NULL; owned */
    char *data_path;            /* of an external data file that we make */
    bool existed, data_existed; /* before us */
    bool made;                  /* we have created or emptied it */
    struct lam_image_info *info;    /* of the one that we have made, or NULL */
    struct lam_create_options create;
};

/*
 * Judge what is asked of the target as far as that goes without touching it:
 * format, -o, -B.  @size is what the sources need.  Everything below prints
 * what is wrong and returns 0 or a negative errno value.
 */
int convert_target_init(const struct cli *cli, struct convert_args *args,
                        uint64_t size, struct convert_target *target);

/* Refuse a target that one of the images, or what they read from, lies in. */
int convert_target_distinct(const struct cli *cli,
                            const struct convert_target *target,
                            struct lam_image *const *sources, size_t count);

/* With -n: open it; else make it, and open it. */
int convert_target_open(const struct cli *cli, const struct convert_args *args,
                        struct convert_target *target);
/* Close it, and open it again to read what is on the disk. */
int convert_target_reopen(const struct cli *cli,
                          const struct convert_args *args,
                          struct convert_target *target);
/* For --explain: it exists and would be written into as it is. */
bool convert_target_is_given(const struct convert_args *args,
                             const struct convert_target *target);
int convert_target_open_given(const struct cli *cli,
                              const struct convert_args *args,
                              struct convert_target *target);

/* What a conversion that was not finished has left of its target. */
enum target_rest {
    TARGET_UNTOUCHED, TARGET_REMOVED, TARGET_INCOMPLETE,
    TARGET_RESUMABLE,           /* a journal says how far it is complete */
};

/* "is removed again" */
const char *target_rest_text(enum target_rest rest);

/*
 * Close; after a failure (@rc), remove what we made, and say what is left
 * behind, *@rest, unless that is what was there before.  Returns @rc, or how
 * closing failed.
 */
int convert_target_end(const struct cli *cli, const struct convert_args *args,
                       struct convert_target *target, int rc,
                       enum target_rest *rest);

#endif
