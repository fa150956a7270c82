/* SPDX-License-Identifier: MIT */
/*
 * libcurl-load.c - libcurl, when it is first needed.
 */
#include "io/libcurl-load.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/library.h"

#define LIBRARY "libcurl.so.4"
/* The same functions over another library for TLS. */
#define OTHER_LIBRARY "libcurl-gnutls.so.4"

LIBRARY_NOTE("curl", "images on HTTP and FTP servers", LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libcurl functions;
static struct lam_error why_not;
static bool loaded;

static void load(void)
{
    struct lam_error other = LAM_ERROR_INIT;
    const char *name = LIBRARY;
    void *library = library_open(LIBRARY, "HTTP and FTP need", &why_not);

    if (!library) {
        name = OTHER_LIBRARY;
        library = library_open(OTHER_LIBRARY, "HTTP and FTP need", &other);
    }
    if (!library)
        return;
#define FIND(function)                                                      \
    library_find(library, name, #function, &functions.function, &why_not) &&
    loaded = LIBCURL_FUNCTIONS(FIND) true;
#undef FIND
    if (loaded && functions.curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        loaded = lam_fail(&why_not, ENOTSUP, "%s cannot be initialized",
                          name) == 0;
}

int libcurl_load(const struct libcurl **out, struct lam_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return lam_fail(err, ENOTSUP, "%s", why_not.message);
    *out = &functions;
    return 0;
}
