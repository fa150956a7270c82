/* SPDX-License-Identifier: MIT */
/*
 * library.c - libraries that are loaded when they are first needed.
 */
#include "base/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"

void *library_open(const char *soname, const char *purpose,
                   struct lam_error *err)
{
    void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

    if (!library) {
        const char *message = dlerror();
        lam_fail(err, ENOTSUP, "%s %s: %s", purpose, soname,
                 message ? message : "it cannot be loaded");
    }
    return library;
}

/* ISO C converts no object's address to a function's: POSIX has both of one
 * kind, so the bytes are copied. */
bool library_find(void *library, const char *soname, const char *name,
                  void *out, struct lam_error *err)
{
    void *symbol = dlsym(library, name);

    memcpy(out, &symbol, sizeof symbol);
    if (!symbol)
        lam_fail(err, ENOTSUP, "%s has no %s()", soname, name);
    return symbol;
}
