/* SPDX-License-Identifier: MIT */
/* lamella/format.h - the formats there are. */
#ifndef LAMELLA_FORMAT_H
#define LAMELLA_FORMAT_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

enum lam_option_kind { LAM_OPTION_TEXT, LAM_OPTION_BOOL, LAM_OPTION_NUMBER,
                       LAM_OPTION_SIZE };

/* An option that a format's new images have; everything is static. */
struct lam_option_info {
    const char *name;
    enum lam_option_kind kind;
    const char *standard;       /* the value when it is not given; NULL: not
                                   worth telling */
    const char *help;
};

struct lam_format_info {
    const char *name;
    bool can_create, can_compress, can_have_backing;
    /* In the order in which they are told.  "size", "backing_file" and
     * "backing_fmt" have members of struct lam_create_options, the others go
     * into its list.  Empty for raw, qcow2 and luks, whose options are all
     * members. */
    const struct lam_option_info *options;
    size_t nb_options;
};

/* What the library can do with the format @name, a driver's name in lower case:
 * -EINVAL if it is not known.  Which ones there are beside raw, qcow2 and luks
 * is chosen at build time.  Any thread. */
LAM_API int lam_format_describe(const char *name, struct lam_format_info *out,
                                struct lam_error *err);

LAM_END_DECLS

#endif
