/* SPDX-License-Identifier: MIT */
/*
 * cache-mode.c - the names of the cache modes.
 */
#include <string.h>

#include "base/arith.h"
#include "base/error.h"

int lam_cache_mode_parse(const char *name, enum lam_cache_mode *mode,
                         struct lam_error *err)
{
    static const struct {
        const char *name;
        enum lam_cache_mode mode;
    } modes[] = {
        { "writeback", LAM_CACHE_WRITEBACK },
        { "none", LAM_CACHE_NONE },
        { "off", LAM_CACHE_NONE },
        { "writethrough", LAM_CACHE_WRITETHROUGH },
        { "directsync", LAM_CACHE_DIRECTSYNC },
        { "unsafe", LAM_CACHE_UNSAFE },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(modes); i++) {
        if (strcmp(name, modes[i].name) == 0) {
            *mode = modes[i].mode;
            return 0;
        }
    }
    return lam_fail(err, EINVAL, "Invalid cache option: %s", name);
}
