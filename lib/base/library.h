/* SPDX-License-Identifier: MIT */
/*
 * library.h - libraries that are loaded when they are first needed: most
 * commands do without them, and start sooner.
 */
#ifndef LAM_BASE_LIBRARY_H
#define LAM_BASE_LIBRARY_H

#include <stdbool.h>
#include <stdint.h>

#include "lamella.h"

/*
 * What packagers' tools read instead of a dependency of the linker's
 * (https://uapi-group.org/specifications/specs/elf_dlopen_metadata/).  Once in
 * a file, with string literals.
 */
#define LIBRARY_NOTE(feature, description, soname)                          \
    static const struct {                                                   \
        uint32_t name_size, desc_size, type;                                \
        char name[4];                                                       \
        char desc[sizeof LIBRARY_JSON(feature, description, soname)]        \
            __attribute__((aligned(4)));                                    \
    } library_note                                                          \
    __attribute__((used, section(".note.dlopen"), aligned(4))) = {          \
        4, sizeof LIBRARY_JSON(feature, description, soname), 0x407c0c0a,   \
        "FDO", LIBRARY_JSON(feature, description, soname)                   \
    }
#define LIBRARY_JSON(feature, description, soname)                          \
    "[{\"feature\":\"" feature "\",\"description\":\"" description "\","    \
    "\"priority\":\"recommended\",\"soname\":[\"" soname "\"]}]"

/* NULL, and @err says why: -ENOTSUP, beginning with @purpose ("NBD needs").
 * Never unloaded: what a library made may outlive any image. */
void *library_open(const char *soname, const char *purpose,
                   struct lam_error *err);

/* The address of function @name into *@out, a pointer to it.  False, and @err,
 * if the library has none. */
bool library_find(void *library, const char *soname, const char *name,
                  void *out, struct lam_error *err);

#endif
