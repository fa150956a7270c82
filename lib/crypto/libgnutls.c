/* SPDX-License-Identifier: MIT */
/*
 * libgnutls.c - GnuTLS, when it is first needed.
 */
#include "crypto/libgnutls.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/library.h"

#define LIBRARY "libgnutls.so.30"

LIBRARY_NOTE("tls", "encrypted connections to NBD servers", LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libgnutls functions;
static struct lam_error why_not;
static bool loaded;

static void load(void)
{
    void *library = library_open(LIBRARY, "TLS needs", &why_not);

    if (!library)
        return;
#define FIND(name)                                                          \
    library_find(library, LIBRARY, #name, &functions.name, &why_not) &&
    loaded = GNUTLS_FUNCTIONS(FIND) true;
#undef FIND
}

int libgnutls_load(const struct libgnutls **out, struct lam_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return lam_fail(err, ENOTSUP, "%s", why_not.message);
    *out = &functions;
    return 0;
}

const struct libgnutls *libgnutls(void)
{
    assert(loaded);
    return &functions;
}
