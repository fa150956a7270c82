/* SPDX-License-Identifier: MIT */
/*
 * names.h - find a name in a table of them.
 */
#ifndef LAM_CRYPTO_NAMES_H
#define LAM_CRYPTO_NAMES_H

#include <stddef.h>
#include <string.h>

/* Index of the first @length bytes of @name, or -1. */
static inline int names_find(const char *const *names, size_t count,
                             const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(names[i]) == length && !memcmp(names[i], name, length))
            return (int)i;
    }
    return -1;
}

#endif
