/* SPDX-License-Identifier: MIT */
/*
 * liburing.c - liburing, when it is first needed.
 */
#include "io/liburing.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/library.h"

#define LIBRARY "liburing.so.2"

LIBRARY_NOTE("io_uring", "queues of requests", LIBRARY);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct liburing functions;
static bool loaded;

static void load(void)
{
    void *library = library_open(LIBRARY, "io_uring needs", NULL);

    if (!library)
        return;
#define FIND(name)                                                          \
    library_find(library, LIBRARY, #name, &functions.name, NULL) &&
    loaded = LIBURING_FUNCTIONS(FIND) true;
#undef FIND
}

const struct liburing *liburing(void)
{
    pthread_once(&once, load);
    return loaded ? &functions : NULL;
}
