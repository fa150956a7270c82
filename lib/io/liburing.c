/* SPDX-License-Identifier: MIT */
/*
 * liburing.c - liburing, when it is first needed.
 */
#include "io/liburing.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LIBRARY "liburing.so.2"

/* For packagers' tools, as in crypto/libcrypto.c. */
#define NOTE "[{\"feature\":\"io_uring\",\"description\":\"queues of "     \
             "requests\",\"priority\":\"recommended\",\"soname\":[\""      \
             LIBRARY "\"]}]"

static const struct {
    uint32_t name_size, desc_size, type;
    char name[4];
    char desc[sizeof NOTE] __attribute__((aligned(4)));
} note __attribute__((used, section(".note.dlopen"), aligned(4))) = {
    4, sizeof NOTE, 0x407c0c0a, "FDO", NOTE
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct liburing functions;
static bool loaded;

/* What is looked up is a function by its name's type: the only cast. */
static bool find(void *library, const char *name, void *out)
{
    void *symbol = dlsym(library, name);

    memcpy(out, &symbol, sizeof symbol);
    return symbol;
}

/* It is never unloaded. */
static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return;
#define FIND(name) find(library, #name, &functions.name) &&
    loaded = LIBURING_FUNCTIONS(FIND) true;
#undef FIND
}

const struct liburing *liburing(void)
{
    pthread_once(&once, load);
    return loaded ? &functions : NULL;
}
