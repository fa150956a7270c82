/* SPDX-License-Identifier: MIT */
/*
 * libnbd-load.c - libnbd, when it is first needed.
 */
#include "io/libnbd-load.h"

#include <assert.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LIBRARY "libnbd.so.0"

/* For packagers' tools, as in crypto/libcrypto.c. */
#define NOTE "[{\"feature\":\"nbd\",\"description\":\"images on NBD "         \
             "servers\",\"priority\":\"recommended\",\"soname\":[\"" LIBRARY   \
             "\"]}]"

static const struct {
    uint32_t name_size, desc_size, type;
    char name[4];
    char desc[sizeof NOTE] __attribute__((aligned(4)));
} note __attribute__((used, section(".note.dlopen"), aligned(4))) = {
    4, sizeof NOTE, 0x407c0c0a, "FDO", NOTE
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libnbd functions;
static struct lam_error why_not;
static bool loaded;

static bool find(void *library, const char *name, void *out)
{
    void *symbol = dlsym(library, name);

    memcpy(out, &symbol, sizeof symbol);
    if (!symbol)
        lam_fail(&why_not, ENOTSUP, "%s has no %s()", LIBRARY, name);
    return symbol;
}

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!library) {
        const char *message = dlerror();
        lam_fail(&why_not, ENOTSUP, "NBD needs %s: %s", LIBRARY,
                 message ? message : "it cannot be loaded");
        return;
    }
#define FIND(name) find(library, #name, &functions.name) &&
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
