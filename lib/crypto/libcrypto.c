/* SPDX-License-Identifier: MIT */
/*
 * libcrypto.c - libcrypto, when it is first needed.
 */
#include "crypto/libcrypto.h"

#include <dlfcn.h>
#include <openssl/opensslv.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/arith.h"

#define STRING(x) #x
#define SONAME(version) "libcrypto.so." STRING(version)
#define LIBRARY SONAME(OPENSSL_SHLIB_VERSION)

/*
 * What packagers' tools read instead of a dependency of the linker's
 * (https://uapi-group.org/specifications/specs/elf_dlopen_metadata/).
 */
#define NOTE "[{\"feature\":\"crypto\",\"description\":\"encrypted images, "  \
             "digests\",\"priority\":\"recommended\",\"soname\":[\"" LIBRARY   \
             "\"]}]"

static const struct {
    uint32_t name_size, desc_size, type;
    char name[4];
    char desc[sizeof NOTE] __attribute__((aligned(4)));
} note __attribute__((used, section(".note.dlopen"), aligned(4))) = {
    4, sizeof NOTE, 0x407c0c0a, "FDO", NOTE
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libcrypto functions;
static struct lam_error why_not;
static bool loaded;

/* What is looked up is a function by its name's type: the only cast. */
static bool find(void *library, const char *name, void *out)
{
    void *symbol = dlsym(library, name);

    memcpy(out, &symbol, sizeof symbol);
    if (!symbol)
        lam_fail(&why_not, ENOTSUP, "%s has no %s()", LIBRARY, name);
    return symbol;
}

/* It is never unloaded: what it made may outlive any image. */
static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!library) {
        const char *message = dlerror();
        lam_fail(&why_not, ENOTSUP, "encryption and digests need %s: %s",
                 LIBRARY, message ? message : "it cannot be loaded");
        return;
    }
#define FIND(name) find(library, #name, &functions.name) &&
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
