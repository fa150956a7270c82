/* SPDX-License-Identifier: MIT */
/*
 * libnbd-load.c - libnbd, when it is first needed.
 */
#include "io/libnbd-load.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/library.h"

#define LIBRARY "libnbd.so.0"

LIBRARY_NOTE("nbd", "images on NBD servers", LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libnbd functions;
static struct lam_error why_not;
static bool loaded;

static void load(void)
{
    void *library = library_open(LIBRARY, "NBD needs", &why_not);

    if (!library)
        return;
#define FIND(name)                                                          \
    library_find(library, LIBRARY, #name, &functions.name, &why_not) &&
    loaded = LIBNBD_FUNCTIONS(FIND) true;
#undef FIND
}

int libnbd_load(const struct libnbd **out, struct lam_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return lam_fail(err, ENOTSUP, "%s", why_not.message);
    *out = &functions;
    return 0;
}

const struct libnbd *libnbd(void)
{
    assert(loaded);
    return &functions;
}
