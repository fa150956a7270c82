/* SPDX-License-Identifier: MIT */
/*
 * lamella.h - qcow2 images, external-snapshot chains and thin conversion.
 *
 * The whole public interface of liblamella.  Conventions that hold everywhere:
 *
 * - Offsets and lengths are bytes, uint64_t, half-open: [offset, offset +
 *   length).
 * - What can fail returns 0 or a negative errno value and fills the caller's
 *   struct lam_error (NULL is allowed).  -EINVAL: the caller's mistake, or not
 *   this format.  -ENOTSUP: a feature lamella lacks.  -EUCLEAN: corruption.
 * - The library never prints, exits, aborts or reads the environment.
 * - Any number of threads may use one struct lam_image at once, except for
 *   lam_image_close(), which needs that nobody else uses it any more.  A call
 *   back must not use the image of the call that made it.
 * - Option structs are initialised with their LAM_..._INIT macro, so that a
 *   member that is added later has its default.
 *
 * "format document" below means docs/qcow2-format.md's section numbers as used
 * throughout the sources.
 */
#ifndef LAMELLA_H
#define LAMELLA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_API __attribute__((visibility("default")))

#define LAM_VERSION_MAJOR 0
#define LAM_VERSION_MINOR 1
#define LAM_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library that is running; static storage. */
LAM_API const char *lam_version(void);

/* ------------------------------------------------------------------ errors */

/*
 * Filled in by whatever fails.  Fixed size for the life of the soname; needs no
 * free.  @message is one line of UTF-8 without a newline; control characters
 * that came out of an image are escaped.
 */
struct lam_error {
    int code;               /* positive errno value, 0 if nothing failed */
    char message[1020];
};

#define LAM_ERROR_INIT { 0, "" }

/* ----------------------------------------------------------------- extents */

enum lam_extent_state {
    LAM_EXTENT_UNALLOCATED, /* no layer that was asked has anything */
    LAM_EXTENT_ZERO,        /* reads as zeroes */
    LAM_EXTENT_DATA,        /* host bytes at host_offset */
    LAM_EXTENT_COMPRESSED,  /* host_length bytes of payload at host_offset */
};

enum {
    /* host_offset is valid (data, a zero cluster that owns its host cluster,
     * a hole of a raw file, an unused preallocated subcluster). */
    LAM_EXTENT_HAS_HOST = 1 << 0,
    /* A data extent whose host bytes are known to be a hole: reads as zero
     * (only with LAM_MAP_HOST_HOLES). */
    LAM_EXTENT_HOST_HOLE = 1 << 1,
    /* host_offset counts in the external data file, not in the image file.  Of
     * several extent files every other one has it: lam_image_extent_file(). */
    LAM_EXTENT_DATA_FILE = 1 << 2,
    /* Past the end of the layers below: a zero extent no layer has stored. */
    LAM_EXTENT_BEYOND_BACKING = 1 << 3,
    /* The host bytes are not the guest's: they are encrypted. */
    LAM_EXTENT_ENCRYPTED = 1 << 4,
};

struct lam_extent {
    uint64_t offset;        /* guest offset */
    uint64_t length;        /* bytes, never 0 */
    uint64_t host_offset;   /* of the byte at @offset; of the payload's first
                               byte if compressed */
    uint32_t host_length;   /* payload bytes if compressed, else 0 */
    uint16_t depth;         /* layer that answered: 0 is the image asked */
    uint8_t state;          /* enum lam_extent_state */
    uint8_t flags;          /* LAM_EXTENT_... */
};

/* Growable list: ascending, no gaps, owned by whoever holds it. */
struct lam_extents {
    struct lam_extent *items;
    size_t count;
    size_t capacity;
};

#define LAM_EXTENTS_INIT { NULL, 0, 0 }

/* Frees the items; the list is empty and usable afterwards. */
LAM_API void lam_extents_deinit(struct lam_extents *extents);

/* ----------------------------------------------------------------- formats */

enum lam_option_kind { LAM_OPTION_TEXT, LAM_OPTION_BOOL, LAM_OPTION_NUMBER,
                       LAM_OPTION_SIZE };

/* An option that a format's new images have; everything is static. */
struct lam_option_info {
    const char *name;
    enum lam_option_kind kind;
    const char *standard;       /* the value when it is not given; NULL: not
                                   worth telling */
    const char *help;
};

struct lam_format_info {
    const char *name;
    bool can_create, can_compress, can_have_backing;
    /* In the order in which they are told.  "size", "backing_file" and
     * "backing_fmt" have members of struct lam_create_options, the others go
     * into its list.  Empty for raw, qcow2 and luks, whose options are all
     * members. */
    const struct lam_option_info *options;
    size_t nb_options;
};

/* What the library can do with the format @name: -EINVAL if it is not known.
 * Which ones there are beside raw, qcow2 and luks is chosen at build time. */
LAM_API int lam_format_describe(const char *name, struct lam_format_info *out,
                                struct lam_error *err);

/* ----------------------------------------------------------------- secrets */

/* Passphrases by name, for images that are encrypted. */
struct lam_keyring;

/* One secret: its bytes, or the file that holds them. */
struct lam_secret {
    const char *id;         /* the name it is asked for by */
    const char *data;       /* this or @file, not both */
    const char *file;
    bool base64;            /* what is given is base64 (else the bytes) */
    const char *keyid;      /* encrypted with AES-256-CBC under this secret of
                               32 bytes, added before; NULL: in clear */
    const char *iv;         /* with @keyid: 16 bytes as base64 */
};

#define LAM_SECRET_INIT { NULL, NULL, NULL, false, NULL, NULL }

/*
 * lam_keyring_new() - an empty keyring, to be freed by the caller.
 *
 * A keyring may be used by any number of threads and images at once as long as
 * nobody adds to it or frees it.  Images copy what they need when they are
 * opened.  -ENOMEM.
 */
LAM_API int lam_keyring_new(struct lam_keyring **out, struct lam_error *err);

/* Wipes and frees; NULL is allowed and does nothing. */
LAM_API void lam_keyring_free(struct lam_keyring *keyring);

/*
 * lam_keyring_add() - read, decode and decrypt @secret, and keep a copy.
 *
 * -EINVAL: data and file both or neither, no such @keyid, not base64, key or
 * IV of a wrong length, or -EEXIST the name is taken; -ENOENT and other errors
 * of reading the file; -ENOTSUP if it is encrypted and lamella was built
 * without encryption; -ENOMEM.
 */
LAM_API int lam_keyring_add(struct lam_keyring *keyring,
                            const struct lam_secret *secret,
                            struct lam_error *err);

/* --------------------------------------------------------------- throttles */

/* Limits by name, for nodes of the driver throttle. */
struct lam_throttles;

enum lam_throttle_kind {
    LAM_THROTTLE_BPS_TOTAL,     /* bytes a second */
    LAM_THROTTLE_BPS_READ,
    LAM_THROTTLE_BPS_WRITE,
    LAM_THROTTLE_IOPS_TOTAL,    /* requests a second */
    LAM_THROTTLE_IOPS_READ,
    LAM_THROTTLE_IOPS_WRITE,
};

enum { LAM_THROTTLE_KINDS = 6 };

/* The largest rate. */
#define LAM_THROTTLE_MAX 1000000000000000LL

struct lam_throttle_limit {
    uint64_t average;           /* a second; 0: no limit */
    uint64_t burst;             /* for @burst_seconds; 0: as the average */
    uint64_t burst_seconds;     /* at least 1 */
};

struct lam_throttle_options {
    const char *id;             /* the name it is asked for by */
    struct lam_throttle_limit limits[LAM_THROTTLE_KINDS];
    uint64_t iops_size;         /* a longer request counts as several; 0: as
                                   one */
};

#define LAM_THROTTLE_OPTIONS_INIT                                           \
    { NULL, { { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 1 }, { 0, 0, 1 },           \
              { 0, 0, 1 }, { 0, 0, 1 } }, 0 }

/*
 * lam_throttles_new() - an empty list of groups, to be freed by the caller.
 *
 * It may be used by any number of threads at once as long as nobody adds to it
 * or frees it.  Images that are in a group keep it; all of one group share its
 * limits.  -ENOMEM.
 */
LAM_API int lam_throttles_new(struct lam_throttles **out,
                              struct lam_error *err);

/* NULL is allowed and does nothing. */
LAM_API void lam_throttles_free(struct lam_throttles *throttles);

/*
 * lam_throttles_add() - a group with limits of its own.
 *
 * -EINVAL: limits that contradict each other (total and one of its parts, a
 * burst below the average), or beyond LAM_THROTTLE_MAX; -EEXIST; -ENOMEM.
 */
LAM_API int lam_throttles_add(struct lam_throttles *throttles,
                              const struct lam_throttle_options *options,
                              struct lam_error *err);

/* ----------------------------------------------------------------- opening */

struct lam_image;

/* As qemu-img's -t and -T.  Sync is what flush does; direct is O_DIRECT. */
enum lam_cache_mode {
    LAM_CACHE_WRITEBACK,    /* buffered, flush syncs */
    LAM_CACHE_NONE,         /* O_DIRECT, flush syncs */
    LAM_CACHE_WRITETHROUGH, /* buffered, each write is followed by a sync */
    LAM_CACHE_DIRECTSYNC,   /* O_DIRECT, each write is followed by a sync */
    LAM_CACHE_UNSAFE,       /* buffered, flush does not sync */
};

/* The mode named @name ("none", "writeback", ...), or -EINVAL. */
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
};

/* Which of the image's own tables a write is checked against before it goes
 * where it never went since opening (format document 7.8).  A hit is not
 * written: the call fails with -EIO, the image takes no more writes, and is
 * marked corrupt. */
enum lam_overlap_check {
    LAM_OVERLAP_CACHED,         /* the default: all but what ALL adds */
    LAM_OVERLAP_NONE,
    LAM_OVERLAP_CONSTANT,       /* header, L1, refcount table, snapshot table,
                                   bitmap directory */
    LAM_OVERLAP_ALL,            /* L2 tables of snapshots, too, which opening
                                   has to read the L1 tables for */
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
 * be closed with lam_image_close().
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

/* Virtual size in bytes. */
LAM_API uint64_t lam_image_size(const struct lam_image *image);

/* "raw", "qcow2"; the name it was opened under.  Both live with the image. */
LAM_API const char *lam_image_format(const struct lam_image *image);
LAM_API const char *lam_image_name(const struct lam_image *image);

/* Guest cluster size in bytes; 0 for formats without clusters. */
LAM_API uint64_t lam_image_cluster_size(const struct lam_image *image);

/* The backing image, or NULL.  Not to be closed; lives as long as @image, or
 * until a call takes it out of the chain. */
LAM_API struct lam_image *lam_image_backing(const struct lam_image *image);

/* Called now and then by long work: @done of @total, in some unit. */
typedef void lam_progress_fn(void *opaque, uint64_t done, uint64_t total);

/* ----------------------------------------------------------------- requests */

enum {
    LAM_WRITE_FUA = 1 << 0,         /* on disk when the call returns */
    LAM_WRITE_COMPRESSED = 1 << 1,  /* whole clusters (or the last, cut one) */
    LAM_ZERO_UNMAP = 1 << 2,        /* zeroing may free what is stored */
    LAM_ZERO_NO_FALLBACK = 1 << 3,  /* -ENOTSUP rather than write zeroes */
};

/*
 * lam_image_read() - read guest bytes through the whole chain.
 *
 * Any alignment.  -EINVAL if the range ends beyond the virtual size; -EIO,
 * -EUCLEAN, -ENOMEM; the message names layer and offset.
 */
LAM_API int lam_image_read(struct lam_image *image, void *buf, uint64_t length,
                           uint64_t offset, struct lam_error *err);

/*
 * lam_image_write() - write guest bytes into the top layer.
 *
 * Any alignment (LAM_WRITE_COMPRESSED: clusters).  In place where the cluster
 * is ours alone, else copy-on-write (docs/architecture.md, "A write").  What
 * was there stays if the call fails.  -EROFS if opened read-only, -ENOSPC.
 */
LAM_API int lam_image_write(struct lam_image *image, const void *buf,
                            uint64_t length, uint64_t offset, unsigned flags,
                            struct lam_error *err);

/* Make the range read as zeroes; @flags LAM_ZERO_..., LAM_WRITE_FUA. */
LAM_API int lam_image_zero(struct lam_image *image, uint64_t offset,
                           uint64_t length, unsigned flags,
                           struct lam_error *err);

/*
 * The guest no longer needs the range.  Whole clusters inside it read as
 * zeroes afterwards (qcow2 v3; format document 7.10); the rest is unchanged.
 * Does nothing unless opened with LAM_OPEN_UNMAP.
 */
LAM_API int lam_image_discard(struct lam_image *image, uint64_t offset,
                              uint64_t length, struct lam_error *err);

/* What was written before this call is on disk when it returns 0. */
LAM_API int lam_image_flush(struct lam_image *image, struct lam_error *err);

/*
 * lam_image_read_vmstate(), lam_image_write_vmstate() - the state of a virtual
 * machine, which a qcow2 image keeps behind the end of its disk, for internal
 * snapshots to take along.
 *
 * @offset and @length are bytes of the state, of any alignment.  What was never
 * written reads as zeroes, and nothing of a backing file shows.  A change of
 * the disk's size drops it.  -ENOTSUP for formats that keep none; -EFBIG if the
 * format cannot address so much; -EROFS; otherwise as reads and writes.  Safe
 * from any thread, one at a time.
 */
LAM_API int lam_image_read_vmstate(struct lam_image *image, void *buf,
                                   uint64_t length, uint64_t offset,
                                   struct lam_error *err);
LAM_API int lam_image_write_vmstate(struct lam_image *image, const void *buf,
                                    uint64_t length, uint64_t offset,
                                    struct lam_error *err);

/* -------------------------------------------------------------- breakpoints */

/* A request has begun to wait at breakpoints with these tags. */
typedef void lam_stopped_fn(void *opaque, const char *const *tags,
                            unsigned count);

/*
 * lam_image_break() - stop a request at what the engine is about to do.
 *
 * For tests of programs and of this library; only for images opened through
 * the driver blkdebug ("blkdebug:CONFIG:FILE", or driver=blkdebug in a
 * description).  The next request that comes to @event waits until
 * lam_image_resume() is called with @tag; if several breakpoints are set for
 * the event, until that was done for each of them.  Events have the names of
 * QEMU's driver of that name: "write_aio", "l2_load", "cow_read" and so on.
 *
 * @stopped is called on the request's thread, under a lock, once for all of
 * them (of the one set last): it must not call the library.  -ENOENT: there is
 * no such event; -ENOTSUP: the image was not opened through blkdebug; -E2BIG:
 * 64 are set already; -ENOMEM.
 *
 * All three are safe from any thread.  While a request waits, the image must
 * not be closed, nor its chain or size be changed.
 */
LAM_API int lam_image_break(struct lam_image *image, const char *event,
                            const char *tag, lam_stopped_fn *stopped,
                            void *opaque, struct lam_error *err);

/* Takes back all breakpoints called @tag that no request has come to.
 * -ENOENT: there was none; -ENOTSUP. */
LAM_API int lam_image_remove_break(struct lam_image *image, const char *tag,
                                   struct lam_error *err);

/* One request that waits at @tag goes on, the last one first.  -ENOENT: none
 * waits there; -ENOTSUP. */
LAM_API int lam_image_resume(struct lam_image *image, const char *tag,
                             struct lam_error *err);

/* What is stored for an area that nobody has written to yet. */
enum lam_preallocation {
    LAM_PREALLOC_OFF,           /* nothing */
    LAM_PREALLOC_METADATA,      /* its place in the image; the host file has a
                                   hole there (qcow2) */
    LAM_PREALLOC_FALLOC,        /* ... host space reserved */
    LAM_PREALLOC_FULL,          /* ... zeroes written */
};

enum { LAM_TRUNCATE_SHRINK = 1 << 0 };

/*
 * lam_image_resize() - change the virtual size (format document 13).
 *
 * @size is in bytes, a multiple of 512 unless the image is raw, and smaller
 * than now only with LAM_TRUNCATE_SHRINK in @flags: what lies behind the new
 * end is gone.  A new area reads as zeroes, whatever a longer backing file has
 * there and whatever the image held before it was shrunk; @preallocation says
 * what is stored for it and must be LAM_PREALLOC_OFF when shrinking.
 *
 * The size changes in one step: after a crash it is the old one or the new
 * one, and so is the disk.  What is left over of clusters costs space only.
 * Durable when it returns 0.
 *
 * Returns 0, or negative: -EINVAL, -ENOTSUP (version 2 with internal snapshots,
 * an object that cannot be resized), -EFBIG (beyond the format's limits),
 * -ENOSPC, -EROFS, -EIO, -EUCLEAN.  Safe beside other requests; those to an
 * area that is cut off may still reach it.
 */
LAM_API int lam_image_resize(struct lam_image *image, uint64_t size,
                             enum lam_preallocation preallocation,
                             unsigned flags, struct lam_error *err);

/* The same without preallocation. */
LAM_API int lam_image_truncate(struct lam_image *image, uint64_t size,
                               unsigned flags, struct lam_error *err);

#define LAM_DEPTH_ALL UINT32_MAX

enum {
    /* Ask the host file about holes under data extents (costs a system call
     * an extent). */
    LAM_MAP_HOST_HOLES = 1 << 0,
};

/*
 * lam_image_map() - how a guest range is stored.
 *
 * Appends to @out the extents that cover [offset, offset + length): ascending,
 * without gaps, neighbours in one state merged (compressed clusters are not
 * merged).  @depth is the number of layers to look through: 1 is this image
 * alone, LAM_DEPTH_ALL the whole chain.  Any alignment, inside
 * lam_image_size().  The list grows with fragmentation: ask for a large image
 * in windows.
 *
 * @out belongs to the caller and is unchanged after a failure.  Returns 0, or
 * -EINVAL if the range ends beyond the image; -EUCLEAN if metadata contradicts
 * itself; -EIO, -ENOMEM.  May read metadata from disk.
 */
LAM_API int lam_image_map(struct lam_image *image, uint64_t offset,
                          uint64_t length, uint32_t depth, unsigned flags,
                          struct lam_extents *out, struct lam_error *err);

/*
 * The file that the data of @extent, out of a map of @image's chain, lie in:
 * the image file of its layer, an external data file, or one of several
 * extents; a "json:" name if it is seen through a window.  NULL: an object
 * without a name.  Lives as long as the layer.
 */
LAM_API const char *lam_image_extent_file(struct lam_image *image,
                                          const struct lam_extent *extent);

/* --------------------------------------------------------------- inspection */

struct lam_snapshot_info {
    char *id, *name;
    uint64_t vm_state_size;     /* bytes */
    uint64_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;            /* UINT64_MAX: not recorded */
    uint64_t disk_size;         /* virtual size when it was taken */
};

struct lam_bitmap_info {
    char *name;
    uint64_t granularity;       /* bytes */
    bool in_use, automatic;
};

enum { LAM_KEY_SLOTS = 8 };

/* How an image is encrypted (format document 10); no passphrase is needed to
 * know.  All but @format is set for LUKS only. */
struct lam_encryption_info {
    const char *format;         /* "aes", "luks"; static, as the others */
    const char *cipher_alg;     /* "aes-256" */
    const char *cipher_mode;    /* "xts" */
    const char *ivgen_alg;      /* "plain64" */
    const char *ivgen_hash_alg; /* NULL: not named */
    const char *hash_alg;
    char uuid[48];
    uint64_t payload_offset;    /* bytes */
    uint64_t master_key_iterations;
    struct {
        bool active;
        uint64_t iterations;    /* of an active slot */
        uint64_t key_offset;    /* bytes from the start of the LUKS header */
        uint32_t stripes;
    } slots[LAM_KEY_SLOTS];
};

/* What a format has to say of an image, as a tree in one list: LAM_VALUE_LIST
 * and LAM_VALUE_OBJECT begin what LAM_VALUE_END ends. */
enum lam_value_kind { LAM_VALUE_TEXT, LAM_VALUE_NUMBER, LAM_VALUE_BOOL,
                      LAM_VALUE_LIST, LAM_VALUE_OBJECT, LAM_VALUE_END };

struct lam_value {
    const char *name;           /* "create-type", static; NULL inside a list */
    enum lam_value_kind kind;
    char *text;
    uint64_t number;            /* of a bool: 0 or 1 */
};

/* A file that an image is made of beside its image file. */
struct lam_file_info {
    char *filename;
    uint64_t length;            /* bytes */
    uint64_t actual_size;       /* bytes allocated on the host */
};

struct lam_image_child;

/* What `info` shows.  Strings are NULL where the image has no such thing. */
struct lam_image_info {
    char *filename;             /* as opened, or json:{...} */
    char *format;
    uint64_t virtual_size;
    uint64_t actual_size;       /* bytes allocated on the host, by the image
                                   file and all @files */
    uint64_t file_length;       /* length of the image file (device size) */
    uint64_t cluster_size;      /* 0: none */
    bool encrypted;
    bool dirty;
    char *backing_filename;     /* as the header has it */
    char *full_backing_filename;/* resolved against the image's name */
    char *backing_format;
    /* qcow2 */
    bool is_qcow2;
    unsigned version;           /* 2 or 3 */
    const char *compression_type;   /* "zlib", "zstd"; static */
    bool lazy_refcounts, corrupt, extended_l2;
    unsigned refcount_bits;
    char *data_file;
    bool data_file_raw;
    struct lam_snapshot_info *snapshots;
    size_t nb_snapshots;
    struct lam_bitmap_info *bitmaps;
    size_t nb_bitmaps;
    bool bitmaps_lost;          /* there are some, but a program that knows
                                   none has written to the image since: they
                                   go with the next change */
    struct lam_encryption_info *encryption; /* NULL: none */
    struct lam_value *values;   /* of formats other than qcow2 and luks */
    size_t nb_values;
    bool dirty_unknown;         /* the format does not tell */
    struct lam_file_info *files;    /* extents of their own; each once */
    size_t nb_files;
    /* The nodes that it stands on, its file above all, and what those stand on;
     * all are described as images are. */
    struct lam_image_child *children;
    size_t nb_children;
    bool protocol;              /* a child that is no image: @format says how
                                   it is read ("file", "host_device"), and the
                                   virtual size is that of the file */
};

struct lam_image_child {
    const char *name;           /* "file", "backing", "data-file"; static */
    struct lam_image_info *info;
};

/* Free with lam_image_info_free(); opens no file. */
LAM_API int lam_image_info(struct lam_image *image,
                           struct lam_image_info **out, struct lam_error *err);
LAM_API void lam_image_info_free(struct lam_image_info *info);

/* ------------------------------------------------------ internal snapshots */

/*
 * Internal snapshots: states of the disk kept inside the image file, listed by
 * lam_image_info() (format document 8).  @image is open for writing.
 *
 * All three are on disk when they return 0.  One write of the header decides:
 * whenever power fails, the image is what it was or what it was to become.
 * Data written before the call is part of what happens, a write that another
 * thread makes meanwhile waits; reads go on.
 *
 * Returns 0, or -EROFS; -ENOTSUP if the format has no snapshots, or the image
 * an external data file; -ENOSPC; -EUCLEAN if a reference on the way is
 * impossible or not counted; -EIO, -ENOMEM.  Nothing has changed then, unless
 * the disk failed in the middle of the switch: the image takes no more writes
 * after that.
 */

/*
 * Keep the disk as it is now as @name (any string up to 65,535 bytes, which
 * need not be new).  The id is the highest numeric one and one more.  -EINVAL
 * if a refcount is too narrow for one more reference; -EFBIG beyond 65,536
 * snapshots.
 */
LAM_API int lam_image_snapshot_create(struct lam_image *image,
                                      const char *name, struct lam_error *err);

/*
 * Make the disk what it was, in size too; what it is now is lost.  @id_or_name
 * is looked for among the ids first.  -ENOENT.  Reads under way in other
 * threads see the old or the new disk, or some of both.
 */
LAM_API int lam_image_snapshot_apply(struct lam_image *image,
                                     const char *id_or_name,
                                     struct lam_error *err);

/* Forget the first snapshot called @name (ids are not looked at).  -ENOENT. */
LAM_API int lam_image_snapshot_delete(struct lam_image *image,
                                      const char *name, struct lam_error *err);

/* --------------------------------------------------------- dirty bitmaps */

/*
 * Persistent dirty bitmaps: which parts of the disk were written since the
 * bitmap was made or cleared, kept inside a qcow2 image of version 3 and listed
 * by lam_image_info() (format document 9).  @image is open for writing.
 *
 * Bitmaps that record are kept up to date by every write through this library,
 * and are stored when the image is closed: after a crash those are marked as in
 * use, and can only be removed.  A change by one of these functions is on disk
 * when it returns 0, but for the contents of a bitmap that records, or did so,
 * in an image that has been written to: they are at lam_image_close().
 *
 * Returns 0, or -EROFS; -ENOTSUP; -ENOENT if there is no bitmap @name; -EINVAL
 * if it was left in use by a program that did not close the image; -ENOSPC;
 * -EUCLEAN, -EIO, -ENOMEM.  Nothing has changed then, unless the disk failed in
 * the middle: the image takes no more writes after that.  A write that another
 * thread makes meanwhile waits.
 */

enum { LAM_BITMAP_DISABLED = 1 << 0 };

/*
 * Make a bitmap with nothing in it.  @name has 1 to 1,023 bytes and is new
 * (-EEXIST).  @granularity is the number of bytes that one bit stands for, a
 * power of two from 512 to 2 GiB; 0: the cluster size, but 4 KiB to 64 KiB.
 * @flags: with LAM_BITMAP_DISABLED it does not record.  -EFBIG beyond 65,535
 * bitmaps, or if the bits take more than 512 MiB.
 */
LAM_API int lam_image_bitmap_add(struct lam_image *image, const char *name,
                                 uint64_t granularity, unsigned flags,
                                 struct lam_error *err);

/* Also one that was left in use. */
LAM_API int lam_image_bitmap_remove(struct lam_image *image, const char *name,
                                    struct lam_error *err);

/* Nothing is dirty any more. */
LAM_API int lam_image_bitmap_clear(struct lam_image *image, const char *name,
                                   struct lam_error *err);

/* Begin or stop recording; the contents stay. */
LAM_API int lam_image_bitmap_enable(struct lam_image *image, const char *name,
                                    struct lam_error *err);
LAM_API int lam_image_bitmap_disable(struct lam_image *image, const char *name,
                                     struct lam_error *err);

/*
 * What is dirty in @source_name of @source (which may be @image, and may be
 * open read-only) becomes dirty in @name as well.  Granularities may differ,
 * virtual sizes must not (-EINVAL).
 */
LAM_API int lam_image_bitmap_merge(struct lam_image *image, const char *name,
                                   struct lam_image *source,
                                   const char *source_name,
                                   struct lam_error *err);

/*
 * The first dirty range at or after @offset, also of an image that is open
 * read-only: *@length is 0 and *@start the virtual size if there is none.
 */
LAM_API int lam_image_bitmap_next(struct lam_image *image, const char *name,
                                  uint64_t offset, uint64_t *start,
                                  uint64_t *length, struct lam_error *err);

enum lam_finding_kind { LAM_FINDING_CORRUPTION, LAM_FINDING_LEAK,
                        LAM_FINDING_ERROR };

/* One line a finding, as `check` prints it, without newline. */
typedef void lam_finding_fn(void *opaque, enum lam_finding_kind kind,
                            const char *text);

struct lam_check_result {
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters, allocated_clusters;
    uint64_t compressed_clusters, fragmented_clusters;
};

/*
 * lam_image_check() - count every reference and compare (format document 14).
 *
 * Reports only.  -ENOTSUP for formats without metadata to check.  Findings are
 * told to @finding (NULL: nobody) as they are met.
 */
LAM_API int lam_image_check(struct lam_image *image, lam_finding_fn *finding,
                            void *opaque, struct lam_check_result *out,
                            struct lam_error *err);

enum {
    LAM_REPAIR_LEAKS = 1 << 0,  /* refcounts that are too high; and COPIED
                                   bits if nothing else is wrong */
    LAM_REPAIR_ERRORS = 1 << 1, /* all else that can be put right */
    LAM_REPAIR_ALL = LAM_REPAIR_LEAKS | LAM_REPAIR_ERRORS,
};

/*
 * lam_image_repair() - check, and put right what @what names (format document
 * 14.3).
 *
 * @image is open with LAM_OPEN_CHECK | LAM_OPEN_WRITE, and nobody else uses
 * it.  @out has what was put right in leaks_fixed and corruptions_fixed, and
 * what is left over in the other counters; a check afterwards tells whether
 * repairs have made more visible.  No data is thrown away for the sake of a
 * clean result: where a table cannot be read, what only it could refer to
 * stays.  The dirty and the corrupt bit are cleared when they are no longer
 * true.
 *
 * On disk when it returns 0.  Killed at any point, the image is no worse than
 * it was.  -ENOTSUP for formats without metadata to check; -EROFS; -EIO also
 * if the refcount structures have to be rebuilt and @what is leaks only;
 * -ENOSPC, -EFBIG, -ENOMEM.
 */
LAM_API int lam_image_repair(struct lam_image *image, unsigned what,
                             lam_finding_fn *finding, void *opaque,
                             struct lam_check_result *out,
                             struct lam_error *err);

/* ---------------------------------------------------------------- key slots */

/* One change of the passphrases that open an image (LUKS has eight slots). */
struct lam_key_slot_options {
    bool active;                /* add a passphrase; else take some away */
    const struct lam_keyring *keyring;
    const char *new_secret;     /* add: the passphrase */
    const char *old_secret;     /* take away: all slots that it opens, or */
    int slot;                   /* this one; -1: not said, or add: any free */
    uint64_t iter_time;         /* add: as in lam_encryption_options */
    bool force;                 /* overwrite an active slot, and take the last
                                   one away: nobody opens the image again */
};

#define LAM_KEY_SLOT_OPTIONS_INIT { false, NULL, NULL, NULL, -1, 0, false }

/*
 * lam_image_key_slot() - add a passphrase to an encrypted image, or erase some.
 *
 * @image is open for writing, with a passphrase.  One write of a sector
 * decides: whenever power fails, each slot is what it was or what it was to
 * become.  What is erased is overwritten several times; a device that maps its
 * sectors may keep copies all the same.  Durable when it returns 0.
 *
 * -ENOTSUP if the image is not LUKS; -EINVAL: no free slot, no such slot or
 * secret, or without @force a slot that is active or the last one; -EROFS,
 * -EIO, -ENOMEM.  One at a time; safe beside other requests.
 */
LAM_API int lam_image_key_slot(struct lam_image *image,
                               const struct lam_key_slot_options *options,
                               struct lam_error *err);

/* ----------------------------------------------------------------- creating */

#define LAM_SIZE_FROM_BACKING UINT64_MAX

/*
 * How a new image is to be encrypted.  Names are qemu's ("aes-256", "xts",
 * "plain64", "essiv", "sha256"); NULL: the default, which is these but essiv.
 */
struct lam_encryption_options {
    const char *format;         /* "luks"; NULL: not encrypted (qcow2) */
    const char *key_secret;     /* the passphrase, in @keyring */
    const struct lam_keyring *keyring;
    const char *cipher_alg, *cipher_mode, *ivgen_alg, *ivgen_hash_alg;
    const char *hash_alg;
    uint64_t iter_time;         /* processor time that a try of a passphrase
                                   costs on this machine, milliseconds;
                                   0: 2000 */
};

#define LAM_ENCRYPTION_OPTIONS_INIT                                         \
    { NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0 }

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

/* --------------------------------------------------------------- amending */

enum lam_setting { LAM_SETTING_KEEP, LAM_SETTING_OFF, LAM_SETTING_ON };

#define LAM_SIZE_KEEP UINT64_MAX

struct lam_amend_options {
    unsigned version;           /* qcow2 version 2 or 3; 0: as it is */
    unsigned refcount_bits;     /* 1 .. 64, a power of two; 0: as it is */
    enum lam_setting lazy_refcounts;
    enum lam_setting data_file_raw;     /* ON is refused: nobody knows whether
                                           the data file is a raw image now */
    const char *data_file;      /* what the header calls the external data
                                   file; "": nothing; NULL: as it is */
    uint64_t size;              /* bytes, up or down; LAM_SIZE_KEEP */
    lam_progress_fn *progress;  /* of the longest step; or NULL */
    void *progress_opaque;
};

#define LAM_AMEND_OPTIONS_INIT                                              \
    { 0, 0, LAM_SETTING_KEEP, LAM_SETTING_KEEP, NULL, LAM_SIZE_KEEP, NULL,  \
      NULL }

/*
 * lam_image_amend() - change what an image is without changing the disk (but
 * for its size, if that is asked for; format document 17 "Version change",
 * 5.4).
 *
 * All that is asked for is checked before anything changes.  Each step (up to
 * version 3 and other features of the header; refcounts of another width; size;
 * down to version 2) is made by one write of the header: killed at any point,
 * the image is what it was before a step or what it is after it, and the disk
 * is the same.  Durable when it returns 0.
 *
 * For version 2, zero clusters become unallocated ones, or over a backing file
 * normal ones that share a cluster of zeroes.
 *
 * Returns 0, or negative: -EINVAL for values that do not go together, or if a
 * refcount does not fit the new width; -ENOTSUP if the format has nothing to
 * amend, or version 2 cannot hold the image (external data file, extended L2,
 * persistent bitmaps, zstd clusters, snapshots of another size); and as
 * lam_image_resize().  -EROFS, -ENOSPC, -EIO, -EUCLEAN, -ENOMEM.  Safe beside
 * other requests; writes wait.
 */
LAM_API int lam_image_amend(struct lam_image *image,
                            const struct lam_amend_options *options,
                            struct lam_error *err);

/* ------------------------------------------------------ external snapshots */

struct lam_overlay_options {
    const char *backing_name;   /* what the overlay's header calls the image;
                                   NULL: its path, seen from the overlay */
    uint64_t cluster_size;      /* bytes; 0: the default */
    bool lazy_refcounts, extended_l2;
    struct lam_encryption_options encryption;   /* of the overlay */
};

#define LAM_OVERLAY_OPTIONS_INIT                                            \
    { NULL, 0, false, false, LAM_ENCRYPTION_OPTIONS_INIT }

/*
 * lam_image_snapshot_external() - go on writing in a new overlay.
 *
 * Makes the qcow2 file @overlay, which must not be there yet, with @image's
 * size and @image as its backing file, its name and format recorded.  @image
 * stays the caller's handle and is the overlay from now on; what it was is
 * lam_image_backing(image) and takes no more writes: its locks are those of a
 * reader.  @options may be NULL.
 *
 * Safe beside all other requests but lam_image_close(): they wait for as long
 * as the requests under way take to end, and one after the other sees the
 * overlay.  Nothing of that waits for the disk.  The call itself returns when
 * all that was written before it is on disk; until then a flush sees to that.
 * Whenever power fails after the call began, @overlay, if it is there and
 * whole, is the image as it was flushed last; what it is made from alone lacks
 * what was written after the change.
 *
 * Returns 0, or negative: -EEXIST, -EROFS; -EINVAL if @image is not the top of
 * its chain, has no file name that a header could hold, or is encrypted and the
 * overlay would not be; -ENOSPC, -EACCES and so on: all is as it was, and there
 * is no file @overlay.  If the last of what was written before fails to reach
 * the disk, the change has been made, and each flush of the image fails.
 */
LAM_API int lam_image_snapshot_external(struct lam_image *image,
                                        const char *overlay,
                                        const struct lam_overlay_options
                                            *options,
                                        struct lam_error *err);

/*
 * lam_image_overlay_create() - make an overlay of an image that nobody writes
 * to.
 *
 * The same file as above, and @image, which is open read-only, stays as it is.
 * While @image is open, nobody else can open it for writing who looks at locks.
 * An existing file @overlay is -EEXIST, or replaced with @replace unless it is
 * in @image's own chain.
 *
 * -EAGAIN if somebody has @image open for writing; else as above.
 */
LAM_API int lam_image_overlay_create(struct lam_image *image,
                                     const char *overlay, bool replace,
                                     const struct lam_overlay_options *options,
                                     struct lam_error *err);

struct lam_measure {
    uint64_t required;          /* bytes, for the data there is */
    uint64_t fully_allocated;   /* bytes, once every cluster is written */
    bool has_bitmaps;           /* both can hold persistent bitmaps: */
    uint64_t bitmaps;           /* bytes, for the source's */
};

/*
 * lam_measure() - the file size that a new image needs (format document 15).
 *
 * @target says what is to be made; its size counts only without @source, the
 * image to be converted (NULL: an empty disk), whose map is read and whose data
 * is not.  Metadata is that of the full image, so @required is an upper bound,
 * and with a backing file for the target it is that of all data.  Creates and
 * changes nothing.
 *
 * Returns 0, or -EINVAL (options), -ENOTSUP (a format that cannot tell),
 * -EFBIG, -EUCLEAN, -EIO, -ENOMEM.
 */
LAM_API int lam_measure(const struct lam_create_options *target,
                        struct lam_image *source, struct lam_measure *out,
                        struct lam_error *err);

/* --------------------------------------------------------------- conversion */

/* What a zero range costs on a target (docs/architecture.md, "The thin
 * plan"). */
enum lam_zero_method {
    LAM_ZERO_BY_SKIP,           /* reads as zero already: nothing is done */
    LAM_ZERO_BY_CLEAR_ONCE,     /* the target was cleared at the start */
    LAM_ZERO_BY_PUNCH,          /* hole or unmapped range, reads zero */
    LAM_ZERO_BY_ZERO_RANGE,     /* zeroed by the host, stays allocated */
    LAM_ZERO_BY_DISCARD_PROVE,  /* discarded, read back, written if not zero */
    LAM_ZERO_BY_METADATA,       /* unallocated or zero clusters (qcow2) */
    LAM_ZERO_BY_WRITE,          /* zeroes are written */
};

struct lam_thin_plan {
    enum lam_zero_method method;
    bool thin;                  /* zero ranges end up not allocated */
    bool lost_thinness;         /* thin was asked for and cannot be had */
    char reason[256];           /* one line: why this method */
    char limits[512];           /* one line: what the target can do */
};


enum {
    LAM_CONVERT_COMPRESS = 1 << 0,
    LAM_CONVERT_TARGET_IS_ZERO = 1 << 1,    /* caller's promise */
    LAM_CONVERT_NEW_TARGET = 1 << 2,        /* just created: reads as zero
                                               where it is a file or qcow2 */
    LAM_CONVERT_NO_SYNC = 1 << 3,           /* return before it is on disk */
    LAM_CONVERT_STRICT_CACHE = 1 << 4,      /* historic rule for cached
                                               writes to block devices */
    LAM_CONVERT_TARGET_HAS_BACKING = 1 << 5,/* -B: copy only what differs from
                                               unallocated in the source */
    LAM_CONVERT_OFFLOAD = 1 << 7,           /* let the host copy alone where it
                                               can: share blocks between files
                                               of one file system, or copy in
                                               the kernel; zeroes in data are
                                               not looked for.  Tried also with
                                               sparse_size 0 */
    LAM_CONVERT_SALVAGE = 1 << 8,           /* what cannot be read becomes
                                               zeroes: see @unreadable */
};

/*
 * Told of each range of the target, in bytes, that stands for something in
 * @source that could not be read; @err says why.  Called from one thread at a
 * time, in any order.
 */
typedef void lam_unreadable_fn(void *opaque, struct lam_image *source,
                               uint64_t offset, uint64_t length,
                               const struct lam_error *err);

struct lam_convert_options {
    unsigned flags;             /* LAM_CONVERT_... */
    unsigned workers;           /* threads; 0: one a core */
    unsigned requests;          /* in flight (-m); 0: default 8 */
    uint64_t sparse_size;       /* bytes (-S); 0: write zeroes, allocated */
    lam_progress_fn *progress;  /* called from one thread at a time */
    void *progress_opaque;
    const volatile int *cancel; /* non-zero: stop with -ECANCELED; or NULL */
    uint64_t rate;              /* bytes of data a second at most; 0: as fast
                                   as it goes */
    lam_unreadable_fn *unreadable;  /* with LAM_CONVERT_SALVAGE; or NULL */
    void *unreadable_opaque;
    const char *digest;         /* one of lam_digest_name(), or NULL: of the
                                   sources' bytes, as they reach the target */
    uint64_t source_offset;     /* of the only source, copy what is here ... */
    uint64_t source_length;     /* ... and so long; 0: up to its end */
    const char *journal;        /* a file, or NULL: see lam_convert() */
    unsigned journal_interval;  /* milliseconds between records; 0: 1000 */
};

#define LAM_CONVERT_OPTIONS_INIT                                            \
    { 0, 0, 0, 4096, NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, 0, NULL, 0 }

/* "NAME:HEX" and its end. */
#define LAM_DIGEST_TEXT 160

struct lam_convert_result {
    uint64_t bytes_read, bytes_written, bytes_zeroed, bytes_skipped;
    uint64_t bytes_guest;       /* of the sources: what there was to copy */
    uint64_t bytes_discarded;   /* freed in the target before the copy */
    uint64_t bytes_unreadable;  /* LAM_CONVERT_SALVAGE: are zeroes now */
    uint64_t bytes_resumed;     /* complete before, says the journal */
    char digest[LAM_DIGEST_TEXT];   /* "NAME:HEX", or "" */
};

/*
 * The name of the @i-th digest; NULL after the last.  "sha256" and the like are
 * what hashing a raw image gives; every zero of a hole is hashed, at one or two
 * GB/s.  "sha256-tree" and the like are the digest of the digests (binary, in a
 * row) of all 1 MiB blocks, of which the last may be short: blocks of zeroes
 * cost nothing, the others are hashed in parallel.
 */
LAM_API const char *lam_digest_name(size_t i);

/* -EINVAL with the list of all, if there is none called @name. */
LAM_API int lam_digest_check(const char *name, struct lam_error *err);

/* Decide what zero ranges cost on @target, without touching it. */
LAM_API int lam_convert_plan(struct lam_image *target,
                             const struct lam_convert_options *options,
                             struct lam_thin_plan *plan, struct lam_error *err);

/* The same for a regular file that lam_image_create() would make from
 * @create; touches nothing. */
LAM_API void lam_convert_plan_new(const struct lam_create_options *create,
                                  const struct lam_convert_options *options,
                                  struct lam_thin_plan *plan);

/*
 * lam_convert() - copy the concatenated guest contents of @sources to @target.
 *
 * @target is open for writing and at least as large.  Afterwards the target
 * reads as the sources do; beyond their end an existing target reads as it
 * did.  Returns 0 when all is on disk (unless LAM_CONVERT_NO_SYNC).
 * @result may be NULL.
 *
 * With @options->journal, a target that is a raw image can be completed after
 * whatever ended the job: the same call goes on where the journal says that
 * all before is on disk.  The file is made if it is missing and removed after
 * a success.  -EINVAL if it belongs to another conversion (sources with their
 * layers, their sizes and times; target; options) or is no journal; -EBUSY if
 * another process uses it.  No digest; no LAM_CONVERT_NO_SYNC.
 */
LAM_API int lam_convert(struct lam_image *const *sources, size_t nb_sources,
                        struct lam_image *target,
                        const struct lam_convert_options *options,
                        struct lam_convert_result *result,
                        struct lam_error *err);

/*
 * lam_convert_verify() - read @target, and compare it with the sources.
 *
 * For after lam_convert() with the same sources and options, of which workers,
 * progress, cancel, source_offset, source_length and LAM_CONVERT_SALVAGE
 * count.  The host's cache of the target is dropped first, where the system
 * allows it; for its metadata to be read back as well, close the image and
 * open it again before.  Where the source knows zeroes, those that the target
 * knows without reading are believed.
 *
 * Returns 0 if the target begins with what the sources have, and -EIO with the
 * offset of a byte that differs.
 */
LAM_API int lam_convert_verify(struct lam_image *const *sources,
                               size_t nb_sources, struct lam_image *target,
                               const struct lam_convert_options *options,
                               struct lam_error *err);

/* The same as raw bytes, in order, into a pipe or any file descriptor. */
LAM_API int lam_convert_to_fd(struct lam_image *const *sources,
                              size_t nb_sources, int fd,
                              const struct lam_convert_options *options,
                              struct lam_convert_result *result,
                              struct lam_error *err);

/* ----------------------------------------------------------- before writing */

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

/* ------------------------------------------------------- layers of a chain */

/*
 * Jobs that move data between the layers of a chain, or change which layers it
 * has.  The disk that @image shows is the same before, after, and whenever a
 * job or the machine is stopped on the way: run again, a job does what is left.
 * Data that was moved is on disk before anything stops referring to where it
 * came from.
 *
 * @image is the top of its chain, open for writing with everything below it.
 * One of these jobs, resizes, amendments and snapshots runs on an image at a
 * time, the others wait; reads go on.
 */
struct lam_job_options {
    unsigned workers;           /* threads; 0: one a core */
    uint64_t rate;              /* bytes a second to move; 0: no limit */
    lam_progress_fn *progress;  /* called from one thread at a time; or NULL */
    void *progress_opaque;
    const volatile int *cancel; /* non-zero: stop with -ECANCELED; or NULL */
};

#define LAM_JOB_OPTIONS_INIT { 0, 0, NULL, NULL, NULL }

struct lam_commit_options {
    struct lam_job_options job;
    unsigned depth;             /* of the layer that takes the data: 1 is the
                                   backing image, 2 the one below it */
    bool keep;                  /* the top keeps its data; always so if @depth
                                   is above 1, or its format cannot be emptied
                                   (VMDK) */
    unsigned from;              /* 0: from the top on; else layers @from to
                                   @depth - 1, which then drop out */
};

#define LAM_COMMIT_OPTIONS_INIT { LAM_JOB_OPTIONS_INIT, 1, false, 0 }

/*
 * lam_image_commit() - write what the layers above layer @depth hold into it.
 *
 * Only what they hold is written; ranges that are zero there become zero
 * clusters or holes.  A layer that is smaller than the disk grows first.  With
 * @depth 1 and without @keep the top is empty afterwards: the layer that took
 * the data shows everywhere.  Layers between the two, and any other overlay of
 * theirs or of layer @depth, no longer read as they did.
 *
 * With @from the top's own data stay where they are: layers @from to @depth - 1
 * are written down, and the layer above them has layer @depth as its backing
 * image from then on.  Their files stay, and no longer read as they did.
 *
 * @image may be open for reading only if it stays as it is (@keep, @depth).
 * Requests may go on, writes too if the top is emptied or @from is not 0: what
 * is written to a top meanwhile is copied again, and at last writes wait for as
 * long as the rest takes.  Durable when it returns 0.
 *
 * -EINVAL: no such layer, or not the top, or a layer that would drop out is too
 * small to be spared; -EAGAIN if somebody else uses layer
 * @depth; -EACCES, -EROFS, -ENOSPC, -EUCLEAN, -EIO, -ECANCELED.
 */
LAM_API int lam_image_commit(struct lam_image *image,
                             const struct lam_commit_options *options,
                             struct lam_error *err);

struct lam_rebase_options {
    struct lam_job_options job;
    const char *backing_file;   /* what the header is to call it; NULL: no
                                   backing file */
    const char *backing_format; /* of it; wanted if there is one */
    bool unsafe;                /* the caller knows that the new one reads as
                                   the old one: only the header changes, and
                                   neither is opened */
    bool compress;              /* what is copied is stored compressed, where
                                   whole clusters are copied */
    struct lam_open_options open;   /* how the new backing file is opened;
                                       format and LAM_OPEN_WRITE do not count */
};

#define LAM_REBASE_OPTIONS_INIT                                             \
    { LAM_JOB_OPTIONS_INIT, NULL, NULL, false, false, LAM_OPEN_OPTIONS_INIT }

/*
 * lam_image_rebase() - give @image another backing file, of any size.
 *
 * Where the old and the new one differ, what @image shows is copied into it
 * first; layers that both have are not compared.  Without a new one all is
 * copied that is not zero.  Unless @unsafe, the layers below @image are those
 * of the new chain when it returns 0.
 *
 * Requests may go on, and without @compress and @unsafe writes too: what the
 * guest has written stays.  -ELOOP if the new backing file
 * has @image in its chain; as lam_image_open() for the new one; -ENOTSUP,
 * -EINVAL (a name that is too long), -ENOSPC, -EUCLEAN, -EIO, -ECANCELED.
 */
LAM_API int lam_image_rebase(struct lam_image *image,
                             const struct lam_rebase_options *options,
                             struct lam_error *err);

struct lam_stream_options {
    struct lam_job_options job;
    unsigned depth;             /* of the layer that becomes the backing image:
                                   2 drops the layer below @image;
                                   LAM_DEPTH_ALL: there is none left */
    const char *backing_file;   /* what the header is to call it; NULL: as
                                   the layer above it does */
    const char *backing_format; /* NULL: the layer's format */
    bool compress;              /* as in lam_rebase_options */
};

#define LAM_STREAM_OPTIONS_INIT                                             \
    { LAM_JOB_OPTIONS_INIT, LAM_DEPTH_ALL, NULL, NULL, false }

/*
 * lam_image_stream() - pull what the layers above layer @depth hold into
 * @image, and drop them from its chain.
 *
 * Their files stay as they are.  Requests may go on, and without @compress
 * writes too: what the guest has written stays.  -EINVAL: no such layer; and as
 * lam_image_rebase().
 */
LAM_API int lam_image_stream(struct lam_image *image,
                             const struct lam_stream_options *options,
                             struct lam_error *err);

/* --------------------------------------------------------------- comparison */

enum lam_compare_verdict {
    LAM_COMPARE_EQUAL,
    LAM_COMPARE_CONTENT,        /* guest contents differ at @offset */
    LAM_COMPARE_SIZE,           /* strict only */
    LAM_COMPARE_ALLOCATION,     /* strict only: allocated in one, not in the
                                   other, at @offset */
};

enum { LAM_COMPARE_STRICT = 1 << 0 };

struct lam_compare_result {
    enum lam_compare_verdict verdict;
    uint64_t offset;            /* of the 512-byte sector that differs, or of
                                   what could not be read */
    bool beyond_end;            /* differs where only the longer image has
                                   bytes, which must be zero */
    bool sizes_differ;
    int failed_image;           /* after an error: 1 or 2 could not be read */
    bool failed_mapping;        /* ... its map rather than its data */
};

/* Compare guest contents; the shorter image counts as zero-padded. */
LAM_API int lam_image_compare(struct lam_image *a, struct lam_image *b,
                              unsigned flags, lam_progress_fn *progress,
                              void *opaque, struct lam_compare_result *out,
                              struct lam_error *err);

#ifdef __cplusplus
}
#endif

#endif
