/* SPDX-License-Identifier: MIT */
/* lamella/convert.h - copying whole disks, thinly. */
#ifndef LAMELLA_CONVERT_H
#define LAMELLA_CONVERT_H

#include <lamella/create.h>
#include <lamella/error.h>
#include <lamella/job.h>

LAM_BEGIN_DECLS

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
    LAM_CONVERT_OUT_OF_ORDER = 1 << 9,      /* a target with tables may lay out
                                               its clusters as writes come;
                                               otherwise in the order of the
                                               guest, and the same at each
                                               run */
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
    unsigned workers;           /* threads; 0: one a core, at least 4 */
    unsigned requests;          /* in flight (-m); 0: default 8 */
    uint64_t sparse_size;       /* bytes (-S): blocks of this size, counted from
                                   the start of the disk, are left out if they
                                   are zero; rounded down to a power of two;
                                   0: write zeroes, allocated */
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

/* Decide what zero ranges cost on @target, without touching it.  NULL @options:
 * LAM_CONVERT_OPTIONS_INIT.  -EINVAL if it was opened for its header only. */
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
 * NULL @options: LAM_CONVERT_OPTIONS_INIT.  @result may be NULL; what it counts
 * holds after a failure, too.
 *
 * -EINVAL: the target is too small or one of the sources, or options that do
 * not go together; -EROFS: it is not open for writing; -ENOTSUP: compression,
 * which its format lacks; -ECANCELED; -ENOSPC, -EUCLEAN, -EIO, -ENOMEM.  The
 * target holds part of the data then.
 *
 * Sources may be in use: each place is copied as it is at some moment.  With
 * LAM_CONVERT_TARGET_HAS_BACKING a change of the source's chain, a snapshot of
 * it say, waits until the conversion has ended.
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

/*
 * The same as raw bytes, in order, into a pipe or any file descriptor, from
 * where it stands on; it stays the caller's, and is not synced.  Errors are as
 * above and those of write(), -EBADF and -EPIPE among them.  No journal
 * (-ENOTSUP).
 */
LAM_API int lam_convert_to_fd(struct lam_image *const *sources,
                              size_t nb_sources, int fd,
                              const struct lam_convert_options *options,
                              struct lam_convert_result *result,
                              struct lam_error *err);

LAM_END_DECLS

#endif
