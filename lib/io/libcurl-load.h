/* SPDX-License-Identifier: MIT */
/*
 * libcurl-load.h - what we call in libcurl, which is loaded by who needs it:
 * with the libraries below it, that takes longer than most commands run.
 */
#ifndef LAM_IO_LIBCURL_LOAD_H
#define LAM_IO_LIBCURL_LOAD_H

/* Its macros around functions' names do not fit members of a struct. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/error.h"

#define LIBCURL_FUNCTIONS(F)                                                \
    F(curl_easy_cleanup)                                                    \
    F(curl_easy_getinfo)                                                    \
    F(curl_easy_init)                                                       \
    F(curl_easy_perform)                                                    \
    F(curl_easy_setopt)                                                     \
    F(curl_easy_strerror)                                                   \
    F(curl_global_init)

#define LIBCURL_MEMBER(name) __typeof__(name) *name;
struct libcurl {
    LIBCURL_FUNCTIONS(LIBCURL_MEMBER)
};
#undef LIBCURL_MEMBER

/*
 * The functions, in *@out, of a library that has been initialized; any thread.
 * -ENOTSUP: there is no such library here.  It is loaded once and stays.
 */
int libcurl_load(const struct libcurl **out, struct lam_error *err);

#endif
