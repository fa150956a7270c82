/* SPDX-License-Identifier: MIT */
/* lamella/create.h - making new images. */
#ifndef LAMELLA_CREATE_H
#define LAMELLA_CREATE_H

#include <lamella/error.h>
#include <lamella/encrypt.h>
#include <lamella/open.h>
#include <lamella/resize.h>

LAM_BEGIN_DECLS

#define LAM_SIZE_FROM_BACKING UINT64_MAX

/* One of lam_format_info's options: "on" or "off", a number, text. */
struct lam_named_option {
    const char *name, *value;
};

struct lam_create_options {
    const char *format;         /* "raw", "qcow2", ... */
    uint64_t size;              /* bytes, rounded up to 512 */
    const char *backing_file;   /* stored as given; NULL: none */
    const char *backing_format; /* required with backing_file */
    bool backing_unchecked;     /* do not open the backing file (-u) */
    enum lam_preallocation preallocation;
    unsigned version;           /* 3 (default) or 2 */
    uint64_t cluster_size;      /* 512 .. 2 MiB; default 65536 */
    unsigned refcount_bits;     /* 1 .. 64; default 16 */
    unsigned compression_type;  /* 0 deflate ("zlib"), 1 zstd */
    bool lazy_refcounts, extended_l2;
    const char *data_file;      /* external data file; NULL: none */
    bool data_file_raw;
    enum lam_policy policy;     /* for opening the backing file */
    bool nocow;                 /* new files: overwrite in place (btrfs) */
    uint64_t extent_size_hint;  /* new files: allocate so many bytes at once
                                   (XFS); 0: as the file system does */
    bool no_sync;               /* return before the new file is on disk: the
                                   caller goes on to write and flush it */
    struct lam_encryption_options encryption;
    const struct lam_named_option *named;   /* of other formats; the last of
                                   a name counts */
    size_t nb_named;
};

#define LAM_CREATE_OPTIONS_INIT                                             \
    { NULL, 0, NULL, NULL, false, LAM_PREALLOC_OFF, 3, 65536, 16, 0,        \
      false, false, NULL, false, LAM_POLICY_TRUST, false, 0, false,         \
      LAM_ENCRYPTION_OPTIONS_INIT, NULL, 0 }

/*
 * lam_image_create() - make a new image file at @name.
 *
 * An existing regular file is replaced, an existing block device is used as it
 * is.  @options->size may be LAM_SIZE_FROM_BACKING.  After a failure a file
 * that this call made is gone again, and one that was there is as it was
 * unless writing to it had begun.
 */
LAM_API int lam_image_create(const char *name,
                             const struct lam_create_options *options,
                             struct lam_error *err);

/*
 * lam_image_create_check() - can a new image have that name?
 *
 * -ENOTSUP: it is of a protocol that is not known, or has no files that could
 * be made.  Looks at the name alone.
 */
LAM_API int lam_image_create_check(const char *name, struct lam_error *err);

/*
 * lam_path_in_use() - does this machine itself use what @path names?
 *
 * For a block device: is it, one of its partitions, or the disk that it is a
 * partition of, mounted, a swap area, part of another device (a volume group,
 * a RAID), or held exclusively?  For a regular file, and a block device, too:
 * is a loop device that stands on it so used?  Writing to it would destroy
 * what is in use.
 *
 * Returns 0 if nothing of that kind was found, also where there is no such
 * file, and -EBUSY with *err saying what uses it, the path included.  Other
 * programs' locks on images are not looked at: opening does that.  The answer
 * may be out of date at once; LAM_OPEN_EXCLUSIVE keeps a device from being
 * mounted while it is open.  Safe from any thread.
 */
LAM_API int lam_path_in_use(const char *path, struct lam_error *err);

LAM_END_DECLS

#endif
