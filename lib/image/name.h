/* SPDX-License-Identifier: MIT */
/*
 * name.h - what a user or a header calls an image → which file, which drivers.
 *
 * Pure but for memory: nothing is opened here.
 */
#ifndef LAM_IMAGE_NAME_H
#define LAM_IMAGE_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct node_debug;

enum node_switch { NODE_UNSET, NODE_OFF, NODE_ON };

/* One image of a graph as described by its name. */
struct node {
    char *filename;             /* host path */
    char *driver;               /* format; NULL: not said */
    const char *protocol;       /* "file", "host_device"; NULL: not said */
    bool described;             /* json: or key=value, not a plain name */
    struct node_debug *debug;   /* how its host object fails; or NULL */
    char *shown;                /* what info calls it; NULL: see node_show() */
    uint64_t raw_offset, raw_size;          /* of driver raw */
    uint64_t window_offset, window_size;    /* of a raw node below another
                                               format */
    enum node_switch read_only, direct, no_flush, unmap;
    bool has_detect_zeroes;
    enum lam_detect_zeroes detect_zeroes;
    struct node_caches {        /* of driver qcow2 */
        bool has_total, has_l2, has_refcount;
        uint64_t total, l2, refcount;   /* bytes */
        uint64_t l2_entry;      /* bytes of a slice; 0: not said */
        bool has_clean_interval;
        uint64_t clean_interval;    /* seconds; 0: never */
    } caches;
    enum node_switch lazy_refcounts;
    char *key_secret;           /* id of the secret; NULL: not said */
    char *encrypt_format;       /* "luks", "aes"; NULL: not said */
    enum lam_overlap_check overlap_check;
    unsigned overlap_on, overlap_off;   /* single classes, OVERLAP_... */
    enum node_switch pass_request, pass_snapshot, pass_other, no_unref;
    bool no_backing;            /* "backing": null */
    struct node *backing;       /* instead of what the header names */
    struct node *data_file;     /* likewise */
};

void node_free(struct node *node);

/* A path as it is, for names that must not be taken for anything else. */
int node_from_path(const char *path, struct node **out, struct lam_error *err);

/* PATH, file:PATH, file:///PATH, blkdebug:CONFIG:PATH, json:{...}.  -EINVAL, -ENOTSUP for drivers
 * and options that we do not have, by name. */
int node_from_name(const char *name, struct node **out, struct lam_error *err);

/* "driver=qcow2,file.filename=PATH"; ",," is a comma. */
int node_from_options(const char *text, struct node **out,
                      struct lam_error *err);

/* What to show for @node, which is open as @driver: its file's path, or a json:
 * name if that does not say all.  NULL: no memory. */
char *node_show(const struct node *node, const char *driver);

/* True if what stands before the first ':' is a protocol and not a path. */
bool name_has_protocol(const char *name);

/*
 * @backing, as a header has it, seen from the image at @overlay (format
 * document 11.2): unchanged if absolute, "json:" or of some protocol, else
 * behind the textual directory part of @overlay.  NULL: no memory.
 */
char *name_resolve(const char *overlay, const char *backing);

/* How a header of the image file @from, which need not be there yet, names the
 * file @path: by the way from the one's directory to the other.  Looks at the
 * directories. */
int name_relative(const char *from, const char *path, char **out,
                  struct lam_error *err);

#endif
