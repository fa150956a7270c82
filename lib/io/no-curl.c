/* SPDX-License-Identifier: MIT */
/*
 * no-curl.c - files on HTTP and FTP servers, in a build without libcurl.
 */
#include "io/curl.h"

int io_curl_open(const struct io_curl_options *options, struct lam_io **out,
                 struct lam_error *err)
{
    (void)options;
    (void)out;
    return lam_fail(err, ENOTSUP, "this build has no HTTP and FTP client");
}
