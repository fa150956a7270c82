/* SPDX-License-Identifier: MIT */
/*
 * libcurl-linked.c - libcurl where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "io/libcurl-load.h"

#include <errno.h>
#include <pthread.h>

#define ADDRESS(name) .name = name,
static const struct libcurl functions = { LIBCURL_FUNCTIONS(ADDRESS) };
#undef ADDRESS

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode started;

static void start(void)
{
    started = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int libcurl_load(const struct libcurl **out, struct lam_error *err)
{
    pthread_once(&once, start);
    if (started != CURLE_OK)
        return lam_fail(err, ENOTSUP, "libcurl cannot be initialized");
    *out = &functions;
    return 0;
}
