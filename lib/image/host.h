/* SPDX-License-Identifier: MIT */
/*
 * host.h - a node → the host object that an image stands on.
 *
 * That may be a file or device, memory of nothing, one of those behind a filter
 * or seen through a window, or another image with all its layers: whoever reads
 * it need not know.
 */
#ifndef LAM_IMAGE_HOST_H
#define LAM_IMAGE_HOST_H

#include "image/describe.h"
#include "image/layer.h"
#include "image/view.h"

/* What is opened for one layer. */
struct host_opening {
    const struct layer_request *request;
    unsigned depth;             /* of nodes that are being opened */
    bool unlocked;              /* out: a node asks for no locks */
    bool auto_read_only;        /* out: a node may be open for reading only */
    bool read_only;             /* out: a node must be */
    bool has_detect_zeroes;     /* out: a node says what becomes of zeroes */
    enum lam_detect_zeroes detect_zeroes;
};

struct host_driver;

/* A node while it is opened by its driver. */
struct host_node {
    struct host_opening *opening;
    struct node *node;
    const struct host_driver *driver;
    struct traits traits;
    bool pooled;                /* it is a layer's own file */
    bool driver_said;           /* and not concluded from the name */
    struct node_view *view;
    const char *plain;          /* out: its plain name, if it can have one; of
                                   @node or static, or: */
    char *own_plain;            /* the same, made for it; freed with this */
};

struct host_driver {
    const char *name;
    const char *prefix;         /* "null-co:": plain names that mean it, or
                                   NULL */
    bool protocol;              /* it reads something itself */
    bool makes_files;           /* new images can be made on it, */
    bool uses_files;            /* ... if there is something already */
    const char *const *shown;   /* view_name()'s keys */
    /* The options that the plain name @name, prefix and all, stands for.
     * NULL: it has no plain name. */
    int (*parse_name)(struct node *node, const char *name,
                      struct lam_error *err);
    /* Opens what has the plain name @name for a new image to be written to.
     * NULL: that is a file or device, which has a path. */
    int (*open_new)(const char *name, enum lam_cache_mode cache,
                    struct lam_io **out, struct lam_error *err);
    /* Opens what is below, takes all options that are its own. */
    int (*open)(struct host_node *n, struct lam_io **out,
                struct lam_error *err);
};

/* The driver called @name, or whose plain names begin as @plain; NULL. */
const struct host_driver *host_driver_find(const char *name);
const struct host_driver *host_driver_of(const char *plain);

/* For drivers: may what is opened be written to?  Which cache? */
bool host_is_writable(const struct host_node *n);
enum lam_cache_mode host_cache(const struct lam_open_options *options,
                               const struct traits *traits);

/*
 * Opens @node, which stays the caller's, as the node that is called @child
 * (static) below @view; @above are the traits of that.
 */
int host_open(struct host_opening *opening, struct node *node,
              const struct traits *above, const char *child, bool pooled,
              struct node_view *view, struct lam_io **out,
              struct lam_error *err);

/* The same by @driver, whatever the node says, for the node of an image: its
 * view is @view itself. */
int host_open_as(struct host_opening *opening, struct node *node,
                 const struct host_driver *driver, const struct traits *traits,
                 struct node_view *view, struct lam_io **out,
                 struct lam_error *err);

/* For drivers: the node @name below theirs (static).  -EINVAL if there is
 * none. */
int host_open_child(struct host_node *n, const char *name, struct lam_io **out,
                    struct lam_error *err);

/* For drivers: the same for a node that is an image, with whatever format it
 * has: @node, which stays the caller's. */
int host_open_image_child(struct host_node *n, struct node *node,
                          const char *name, struct lam_io **out,
                          struct lam_error *err);

/* The node that a driver or format stands on: "file", or the one that its plain
 * name stands for.  -EINVAL if there is neither. */
int host_take_child(struct node *node, const char *name, struct node **out,
                    struct lam_error *err);

/* host-filters.c, host-debug.c, host-quorum.c, host-nbd.c, host-curl.c,
 * host-log.c, host-before.c */
extern const struct host_driver host_throttle, host_preallocate,
                                host_copy_on_read, host_compress,
                                host_blkdebug, host_quorum, host_blkverify,
                                host_nbd, host_nbd_tcp, host_nbd_unix,
                                host_http, host_https, host_ftp, host_ftps,
                                host_log_writes, host_before_write,
                                host_snapshot_access;

#endif
