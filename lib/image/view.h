/* SPDX-License-Identifier: MIT */
/*
 * view.h - how the nodes of an open image are told about: `info` shows them as
 * a tree, each by a name under which it could be opened again.
 */
#ifndef LAM_IMAGE_VIEW_H
#define LAM_IMAGE_VIEW_H

#include "image/name.h"
#include "io/io.h"

struct lam_image;
struct lam_image_info;

struct node_view {
    struct node_view *next;     /* the one opened before it, under the same
                                   node */
    struct node_view *below;    /* the one opened last under this node */
    const char *child;          /* what the node above calls it; static */
    char *driver;
    char *json;                 /* the name as a JSON object */
    char *shown;                /* the plain name, or "json:" and the object */
    char *backing;              /* of an image whose backing file is not what
                                   its header names: JSON, "null"; or NULL */
    bool backing_by_keys;       /* ... and is that file with ids of secrets */
    bool plain;                 /* @shown is plain */
    bool path_and_keys;         /* what it is not plain for are secrets' ids */
    bool protocol;              /* of a driver that reads something itself */
    struct lam_io *io;          /* what it is; borrowed.  NULL: */
    struct lam_image *image;    /* ... an image, which has its own views */
};

int view_new(const char *child, const char *driver, struct node_view **out,
             struct lam_error *err);
void view_free(struct node_view *view);

int view_set_driver(struct node_view *view, const char *driver,
                    struct lam_error *err);

/* @below, which is taken over, is the node opened last under @view. */
void view_add(struct node_view *view, struct node_view *below);

/*
 * (Re)makes the name of @view, once the nodes below it have theirs.  @keys,
 * which ends with NULL, are those that belong into a name, in the genuine
 * order: "driver", nodes below it, and options.  @plain: how it is called if no
 * option of those was given; NULL: it always takes a "json:" name.
 */
int view_name(struct node_view *view, const struct node *node,
              const char *const *keys, const char *plain,
              struct lam_error *err);

/* The same name as @from has. */
int view_copy_name(struct node_view *view, const struct node_view *from,
                   struct lam_error *err);

/* The file that the image stands on in the end; NULL: none. */
const char *view_path(const struct node_view *view);

/* How the object that an image's data lie in is called; not a filter on it. */
const char *view_data_name(const struct node_view *view);

/* The image that compressed data are handed on to by filters, of which only
 * some do so; NULL: none. */
struct lam_image *view_compressing(const struct node_view *view);

/* Tells of the nodes below @view as children of @info. */
int view_describe(const struct node_view *view, struct lam_image_info *info,
                  struct lam_error *err);

#endif
