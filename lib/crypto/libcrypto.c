/* SPDX-License-Identifier: MIT */
/*
 * libcrypto.c - libcrypto, when it is first needed.
 */
#include "crypto/libcrypto.h"

#include <assert.h>
#include <errno.h>
#include <openssl/opensslv.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/library.h"

#define STRING(x) #x
#define SONAME(version) "libcrypto.so." STRING(version)
#define LIBRARY SONAME(OPENSSL_SHLIB_VERSION)

LIBRARY_NOTE("crypto", "encrypted images, digests", LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libcrypto functions;
static struct lam_error why_not;
static bool loaded;

static void load(void)
{
    void *library = library_open(LIBRARY, "encryption and digests need",
                                 &why_not);

    if (!library)
        return;
#define FIND(name)                                                          \
    library_find(library, LIBRARY, #name, &functions.name, &why_not) &&
    loaded = LIBCRYPTO_FUNCTIONS(FIND) true;
#undef FIND
}

int libcrypto_load(const struct libcrypto **out, struct lam_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return lam_fail(err, ENOTSUP, "%s", why_not.message);
    *out = &functions;
    return 0;
}

const struct libcrypto *libcrypto(void)
{
    assert(loaded);
    return &functions;
}
