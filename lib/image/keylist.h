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

#include "base/error.h"

/* How JSON wrote it; what is shown later is written in the same way. */
enum key_kind { KEY_STRING, KEY_NUMBER, KEY_BOOL, KEY_NULL };

struct keyitem {
    char *key;                  /* "file.filename" */
    char *value;                /* "on" and "off" of KEY_BOOL; NULL: KEY_NULL */
    enum key_kind kind;
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

/* "key=value,key=value"; ",," is a comma; a bare key means on, or off if it
 * begins with "no"; a bare word in front is the value of "file". */
int keylist_from_options(struct keylist *list, const char *text,
                         struct lam_error *err);

/* @value is copied; NULL with KEY_NULL. */
int keylist_add(struct keylist *list, const char *key, const char *value,
                enum key_kind kind, struct lam_error *err);

/* The item @key, marked as used; NULL if there is none.  The last one counts
 * where a key was given twice. */
struct keyitem *keylist_find(struct keylist *list, const char *key);

/* The first item whose key is @name followed by a dot and more; NULL. */
const struct keyitem *keylist_below(const struct keylist *list,
                                    const char *name);

/* Moves those items to @below, without "@name.". */
int keylist_split(struct keylist *list, const char *name,
                  struct keylist *below, struct lam_error *err);

/* The first key that nobody asked for; NULL if all were. */
const char *keylist_unused(const struct keylist *list);

/* The same of those that begin with "@name."; what follows that. */
const char *keylist_unused_below(const struct keylist *list, const char *name);

#endif
