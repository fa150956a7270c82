/* SPDX-License-Identifier: MIT */
/* lamella/open.h - opening and closing images; what an open one is. */
#ifndef LAMELLA_OPEN_H
#define LAMELLA_OPEN_H

#include <lamella/error.h>
#include <lamella/secret.h>
#include <lamella/throttle.h>

LAM_BEGIN_DECLS

struct lam_image;

/* As qemu-img's -t and -T.  Sync is what flush does; direct is O_DIRECT. */
enum lam_cache_mode {
    LAM_CACHE_WRITEBACK,    /* buffered, flush syncs */
    LAM_CACHE_NONE,         /* O_DIRECT, flush syncs */
    LAM_CACHE_WRITETHROUGH, /* buffered, each write is followed by a sync */
    LAM_CACHE_DIRECTSYNC,   /* O_DIRECT, each write is followed by a sync */
    LAM_CACHE_UNSAFE,       /* buffered, flush does not sync */
};

/* *@mode is the one named @name ("none", "writeback", ...), or -EINVAL. */
LAM_API int lam_cache_mode_parse(const char *name, enum lam_cache_mode *mode,
                                 struct lam_error *err);

/* Who may be opened because an image's header says so
 * (docs/architecture.md).  Where a format is not named, only with TRUST any
 * other than raw, qcow2 and luks is looked for. */
enum lam_policy {
    LAM_POLICY_SIBLINGS,    /* regular files beneath the overlay's directory */
    LAM_POLICY_TRUST,       /* whatever the header names, as qemu-img does */
    LAM_POLICY_NONE,        /* nothing: a backing or data file is an error */
};

enum {
    LAM_OPEN_WRITE = 1 << 0,        /* read-write; default is read-only */
    LAM_OPEN_FORCE_SHARE = 1 << 1,  /* take no lock (qemu-img -U) */
    LAM_OPEN_NO_BACKING = 1 << 2,   /* leave the backing file closed: what is
                                       unallocated reads as zero */
    LAM_OPEN_METADATA = 1 << 3,     /* header only, for info: opens no second
                                       file; reading data fails */
    LAM_OPEN_CHECK = 1 << 4,        /* for check: accept damage that check
                                       reports */
    LAM_OPEN_UNMAP = 1 << 5,        /* discard reaches the host */
    LAM_OPEN_TRUST_EOF = 1 << 6,    /* bytes past the file's end are zeroes */
    LAM_OPEN_IMAGE_OPTS = 1 << 7,   /* the name is "key=value,..." */
    LAM_OPEN_EXCLUSIVE = 1 << 8,    /* O_EXCL on a block device */
    LAM_OPEN_CHAIN = 1 << 9,        /* with METADATA: backing files as well,
                                       each its header only */
    LAM_OPEN_NAME_LAYERS = 1 << 10, /* errors name the layer in any case, also
                                       where qemu-img does not say which */
};

/* What becomes of a write whose bytes are all zero. */
enum lam_detect_zeroes {
    LAM_DETECT_ZEROES_OFF,      /* it is written like any other */
    LAM_DETECT_ZEROES_ON,       /* the range is zeroed: lam_image_zero() */
    LAM_DETECT_ZEROES_UNMAP,    /* ... and freed, with LAM_OPEN_UNMAP */
};

struct lam_open_options {
    const char *format;         /* "raw", "qcow2", ...; NULL: look at it */
    unsigned flags;             /* LAM_OPEN_... */
    enum lam_cache_mode cache;
    enum lam_policy policy;
    unsigned max_depth;         /* layers in a chain; 0: the default, 1,024 */
    const char *snapshot;       /* read this internal snapshot (name or id) */
    uint64_t l2_cache_size;     /* bytes; 0: default */
    uint64_t refcount_cache_size;   /* the name's options come before both */
    const struct lam_keyring *keyring;  /* secrets; may go after opening */
    const char *key_secret;     /* the one for the top image, if it is
                                   encrypted; or said by the name's options */
    enum lam_detect_zeroes detect_zeroes;   /* of the top image */
    uint64_t map_cache_size;    /* bytes for what is known of where data lie in
                                   the layers that nobody writes to, all
                                   together; 0: the default, 32 MiB */
    unsigned max_files;         /* of the layers below the top that may be open
                                   at once; 0: half of the process' limit */
    const struct lam_throttles *throttles;  /* groups; may go after opening */
};

#define LAM_OPEN_OPTIONS_INIT                                               \
    { NULL, 0, LAM_CACHE_WRITEBACK, LAM_POLICY_SIBLINGS, 0, NULL, 0, 0, NULL,\
      NULL, LAM_DETECT_ZEROES_OFF, 0, 0, NULL }

/*
 * lam_image_open() - open an image and everything its header names.
 *
 * @name is a path, "file:PATH", "file:///PATH", "json:{...}", or with
 * LAM_OPEN_IMAGE_OPTS a list "driver=qcow2,file.filename=PATH".  NULL
 * @options means LAM_OPEN_OPTIONS_INIT.  On success *@out is the caller's, to
 * be closed with lam_image_close(); after a failure it is NULL.
 *
 * Returns 0, or negative: -ENOENT, -EACCES and other errors of the system;
 * -EAGAIN if a lock is held by somebody else; -EINVAL if the file is not of
 * the format; -EUCLEAN, -ENOTSUP; -ELOOP if the chain loops or is too deep;
 * -EPERM if the policy forbids a file that a header names.
 */
LAM_API int lam_image_open(const char *name,
                           const struct lam_open_options *options,
                           struct lam_image **out, struct lam_error *err);

/*
 * lam_image_close() - flush (if opened for writing) and free.
 *
 * The image is gone whatever the result; a failure means that what was not
 * flushed before may not be on disk.  NULL is allowed and does nothing.
 */
LAM_API int lam_image_close(struct lam_image *image, struct lam_error *err);

/* Virtual size in bytes; as it is now, if another thread resizes. */
LAM_API uint64_t lam_image_size(const struct lam_image *image);

/* "raw", "qcow2"; the name it was opened under.  Both live with the image. */
LAM_API const char *lam_image_format(const struct lam_image *image);
LAM_API const char *lam_image_name(const struct lam_image *image);

/* Guest cluster size in bytes; 0 for formats without clusters. */
LAM_API uint64_t lam_image_cluster_size(const struct lam_image *image);

/* The backing image, or NULL.  Not to be closed; lives as long as @image, or
 * until a call takes it out of the chain. */
LAM_API struct lam_image *lam_image_backing(const struct lam_image *image);

LAM_END_DECLS

#endif
