/* SPDX-License-Identifier: MIT */
/*
 * curl.h - a file on an HTTP or FTP server as a host object, for reading.
 */
#ifndef LAM_IO_CURL_H
#define LAM_IO_CURL_H

#include "io/io.h"

/* Texts that are NULL have not been given. */
struct io_curl_options {
    const char *url;            /* the object's name, too */
    const char *protocols;      /* of what it may be redirected to: "http" */
    const char *cookie;
    const char *username, *password;
    const char *proxy_username, *proxy_password;
    uint64_t readahead;         /* bytes fetched behind what is asked for */
    unsigned timeout;           /* seconds without an answer; 0: for ever */
    bool no_verify;             /* of certificates */
    enum lam_cache_mode cache;
};

/*
 * Asks for the length.  What is read goes by several connections, made as they
 * are needed, in requests for ranges of bytes.  -ENOTSUP if this build has no
 * libcurl, or the server no ranges; else -EIO with the server's answer, or what
 * kept it from giving one.
 */
int io_curl_open(const struct io_curl_options *options, struct lam_io **out,
                 struct lam_error *err);

#endif
