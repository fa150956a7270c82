/* SPDX-License-Identifier: MIT */
/*
 * libnettle.c - libnettle, when it is first needed.
 */
#include "crypto/libnettle.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/library.h"

/* Of nettle 3, whose headers these are. */
#define LIBRARY "libnettle.so.8"

LIBRARY_NOTE("nettle", "images encrypted by Serpent, Twofish or CAST5",
             LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libnettle functions;
static struct lam_error why_not;
static bool loaded;

static void load(void)
{
    void *library = library_open(LIBRARY, "it needs", &why_not);

    if (!library)
        return;
#define FIND(name)                                                          \
    library_find(library, LIBRARY, #name, &functions.name, &why_not) &&
    loaded = LIBNETTLE_FUNCTIONS(FIND) true;
#undef FIND
}

int libnettle_load(const struct libnettle **out, struct lam_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return lam_fail(err, ENOTSUP, "%s", why_not.message);
    *out = &functions;
    return 0;
}

const struct libnettle *libnettle(void)
{
    assert(loaded);
    return &functions;
}
