/* SPDX-License-Identifier: MIT */
/*
 * no-nbd.c - exports of NBD servers, in a build without libnbd.
 */
#include "io/nbd.h"

int io_nbd_open(const char *name, const struct io_nbd_options *options,
                struct lam_io **out, struct lam_error *err)
{
    (void)name;
    (void)options;
    (void)out;
    return lam_fail(err, ENOTSUP, "this build has no NBD client");
}
