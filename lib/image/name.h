/* SPDX-License-Identifier: MIT */
/*
 * name.h - what a user or a header calls an image → a tree of nodes.
 *
 * A node is a driver with its options; below it are further nodes: "file" that
 * it stands on, "backing", and others that only some drivers know.  It is taken
 * apart while it is opened, from the top down (host.h): what an option means
 * depends on a driver that may have to be found out by reading.
 *
 * Pure but for memory: nothing is opened here.
 */
#ifndef LAM_IMAGE_NAME_H
#define LAM_IMAGE_NAME_H

#include <stdint.h>

#include "image/keylist.h"

struct node {
    struct keylist keys;        /* its options, and those of nodes below it */
    char *driver;               /* NULL: not said */
    char *plain;                /* "disk.img", "file:disk.img": a name that is
                                   no tree; NULL: it is one */
};

void node_free(struct node *node);

/* A path as it is, for names that must not be taken for anything else. */
int node_from_path(const char *path, struct node **out, struct lam_error *err);

/* PATH, PROTOCOL:..., json:{...} (-EINVAL if that is not well formed). */
int node_from_name(const char *name, struct node **out, struct lam_error *err);

/* "driver=qcow2,file.filename=PATH"; ",," is a comma. */
int node_from_options(const char *text, struct node **out,
                      struct lam_error *err);

/*
 * The node that @node calls @name, taken out of it; NULL if it has none.
 * -EINVAL if it is the name of a node instead: there are none that have one.
 */
int node_take_child(struct node *node, const char *name, struct node **out,
                    struct lam_error *err);

/* True if @node says what @name is, be it that there is none (JSON's null). */
bool node_has_child(const struct node *node, const char *name);

/* ----------------------------------------------------------------- options */

enum node_switch { NODE_UNSET, NODE_OFF, NODE_ON };

/* *@out is left as it was where the option is not given. */
int node_take_switch(struct node *node, const char *key, enum node_switch *out,
                     struct lam_error *err);
/* Bytes, with a suffix K, M, G, T, P or E. */
int node_take_bytes(struct node *node, const char *key, uint64_t *out,
                    struct lam_error *err);
int node_take_number(struct node *node, const char *key, uint64_t *out,
                     struct lam_error *err);
/* The text of the option, which belongs to @node; NULL: not given. */
const char *node_take_text(struct node *node, const char *key);

/* ------------------------------------------------------------------- names */

/* True if what stands before the first ':' is a protocol and not a path. */
bool name_has_protocol(const char *name);

/* The file at @path as a name: with "./" in front where it would be taken for
 * a protocol's.  The caller frees it; NULL: no memory. */
char *name_of_path(const char *path);

/*
 * @backing, as a header has it, seen from the image at @overlay (format
 * document 11.2): unchanged if absolute, "json:" or of some protocol, else
 * behind the textual directory part of @overlay.  NULL: no memory.
 */
char *name_resolve(const char *overlay, const char *backing);

/* False if @backing would count from a directory and @overlay, an export of an
 * NBD server, has none. */
bool name_resolves(const char *overlay, const char *backing);

/* How a header of the image file @from, which need not be there yet, names the
 * file @path: by the way from the one's directory to the other.  Looks at the
 * directories. */
int name_relative(const char *from, const char *path, char **out,
                  struct lam_error *err);

#endif
