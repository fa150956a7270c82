/* SPDX-License-Identifier: MIT */
/*
 * keylist.h - descriptions of images as a flat list of keys and values.
 *
 * json:{"file":{"filename":"x"}}, json:{"file.filename":"x"} and the option
 * list file.filename=x all say the same, and are the same from here on.
 */
#ifndef LAM_IMAGE_KEYLIST_H
#define LAM_IMAGE_KEYLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct keyitem {
    char *key;                  /* "file.filename" */
    char *value;                /* NULL: the JSON null */
    bool used;                  /* somebody asked for it */
};

struct keylist {
    struct keyitem *items;
    size_t count, capacity;
};

#define KEYLIST_INIT { NULL, 0, 0 }

void keylist_deinit(struct keylist *list);

/* A JSON object; nested objects and arrays become dotted keys. */
int keylist_from_json(struct keylist *list, const char *text,
                      struct lam_error *err);

/* "key=value,key=value"; ",," is a comma; a bare key means on. */
int keylist_from_options(struct keylist *list, const char *text,
                         struct lam_error *err);

/* The item @prefix@key, marked as used; NULL if there is none.  The last one
 * counts where a key was given twice. */
struct keyitem *keylist_find(struct keylist *list, const char *prefix,
                             const char *key);

/* True if some key begins with @prefix@key followed by a dot. */
bool keylist_has_below(const struct keylist *list, const char *prefix,
                       const char *key);

/* The first key that begins with @prefix and nobody asked for, without the
 * prefix; NULL if all were. */
const char *keylist_unused(const struct keylist *list, const char *prefix);

/* The size @prefix@key in bytes, maybe with a suffix, into *@out, which stays
 * if it is not there.  *@given, unless @given is NULL: it is. */
int keylist_take_bytes(struct keylist *list, const char *prefix,
                       const char *key, uint64_t *out, bool *given,
                       struct lam_error *err);

#endif
