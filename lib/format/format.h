/* SPDX-License-Identifier: MIT */
/*
 * format.h - what one image's bytes mean.
 *
 * A format maps guest ranges onto host objects and changes that mapping
 * crash-safely.  It never looks at another image: where it has nothing it
 * answers "unallocated", and where a write needs bytes from below it answers
 * with COW regions, which image/write.c fills.
 *
 * Locking is the format's own affair: every op but open and close may be called
 * from any number of threads at once.
 */
#ifndef LAM_FORMAT_FORMAT_H
#define LAM_FORMAT_FORMAT_H

#include "crypto/crypt.h"
#include "extent/extent.h"
#include "extent/range.h"
#include "io/io.h"

/*
 * How a format gets at files that its header names beside the image file, such
 * as the extents of a VMDK.  Who may be opened is decided there; the names
 * count from the image's directory.  What is opened is the format's, and closed
 * in its close().
 */
struct format_files {
    int (*open)(const struct format_files *files, const char *name,
                struct lam_io **io, struct lam_error *err);
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

/* What the format needs to know when it opens an image. */
struct format_open {
    struct lam_io *io;          /* the image file; borrowed, outlives it */
    struct lam_io *header;      /* LUKS: a file of its own for the header; or
                                   NULL: it is where the image begins */
    bool writable;
    bool metadata_only;         /* header, for info */
    bool for_check;
    enum lam_overlap_check overlap_check;
    unsigned overlap_on, overlap_off;   /* classes beside those of the level
                                           (qcow2/overlap.h) */
    bool repairing;             /* by check itself, which has the image to
                                   itself: the dirty and the corrupt bit do
                                   not matter */
    bool unmap;                 /* the guest may discard */
    /* What frees space here frees it on the host, too: a guest's request,
     * snapshots that go, tables that move (format document 7.10). */
    bool pass_request, pass_snapshot, pass_other;
    bool no_unref;              /* a discarded cluster stays the guest's */
    const char *snapshot;       /* or NULL */
    uint64_t l2_cache_size, refcount_cache_size;    /* bytes, 0: default */
    uint64_t cache_size;        /* for both together; 0: not said */
    uint64_t cache_clean_interval;  /* seconds; 0: what is cached stays */
    uint64_t l2_entry_size;     /* bytes of an L2 slice; 0: default */
    enum lam_setting lazy_refcounts;    /* while it is open; KEEP: as the
                                           header says */
    uint64_t raw_offset;        /* raw: where in the file the disk starts */
    uint64_t raw_size;          /* raw: its size, if: */
    bool raw_sized;             /* it was said; else up to the file's end */
    const char *size_calc;      /* vpc: "chs", "current_size"; NULL: as who
                                   made the image means it */
    bool ahead;                 /* parallels: what follows was said; else new
                                   clusters take no more than themselves */
    bool ahead_sparse;          /* as length only, not as blocks */
    uint64_t ahead_bytes;       /* space to take behind a new cluster */
    const struct lam_keyring *keyring;      /* or NULL */
    const char *key_secret;     /* in @keyring; NULL: not said */
    const char *encrypt_format; /* what it must be, "luks"; NULL: not said */
    const char *encrypt_unknown;    /* another option of "encrypt", which only
                                       images without encryption take */
    const struct format_files *files;   /* for open() only; NULL: no others */
};

/* Other files that the header names.  Strings belong to the format. */
struct format_links {
    const char *backing_file;   /* NULL: none */
    const char *backing_format; /* NULL: not recorded */
    bool needs_data_file;
    const char *data_file;      /* name in the header, NULL: not recorded */
};

/*
 * One piece of a write, from write_begin to write_finish or write_cancel.
 *
 *     cow_start        offset          offset+length      cow_end
 *        |--- head ------|--- guest data ---|----- tail -----|
 *
 * All are guest offsets; host_offset is where the guest byte at @offset goes,
 * and the whole of [cow_start, cow_end) is contiguous on the host.
 */
struct format_allocation {
    uint64_t offset, length;    /* what this piece takes: a prefix of the ask */
    uint64_t cow_start;         /* <= offset; equal: no head */
    uint64_t cow_end;           /* >= offset + length; equal: no tail */
    uint64_t host_offset;
    struct lam_io *io;          /* host object that takes the data */
    bool host_is_zero;          /* the host range reads as zero already: a head
                                   or tail of zeroes need not be written */
    void *token;                /* NULL: in place, nothing to finish */
};

/*
 * Another virtual size.
 *
 * @below_end is where the backing file ends, 0 if there is none.  Growing, what
 * it has in whole clusters beyond the old end must not show: that becomes zero,
 * durably before the new size is.  The image layer looks after the cluster that
 * the old end lies in, unless there is a @tail: what the guest reads in it, up
 * to the old end.  A format whose clusters are preallocated whole then gives an
 * absent one a place with just that.
 */
struct format_resize {
    uint64_t size;
    uint64_t below_end;
    enum lam_preallocation preallocation;   /* OFF unless the size grows */
    unsigned flags;
    const uint8_t *tail;        /* or NULL */
};

/* Internal snapshots (lamella.h has what each does).  The caller sees to it
 * that no write is between begin and finish, and calls one at a time. */
struct format_snapshot_ops {
    int (*create)(void *format, const char *name, struct lam_error *err);
    int (*apply)(void *format, const char *id_or_name, struct lam_error *err);
    int (*remove)(void *format, const char *name, struct lam_error *err);
};

/* The files of a new image that is more than one. */
struct format_new {
    const char *path;           /* of the image file */
    struct lam_io *io;
    struct lam_io **files;      /* those that other_file() names */
    size_t nb_files;
    uint32_t below_id;          /* content_id() of the backing image, if any */
};

/* What a new image takes on the host. */
struct format_measure {
    uint64_t metadata;          /* of the fully allocated image */
    uint64_t data;              /* the disk, in whole clusters */
    uint64_t cluster_size;      /* 0: all of @data is always there */
};

/* Where a merge takes dirty ranges from: the first one at or after @offset.  1,
 * 0 if there is none, or negative. */
struct format_bitmap_source {
    int (*next)(struct format_bitmap_source *source, uint64_t offset,
                struct range *run, struct lam_error *err);
};

/* Persistent dirty bitmaps (lamella.h has what each does).  The caller sees to
 * it that no write is between begin and finish during the first five. */
struct format_bitmap_ops {
    int (*add)(void *format, const char *name, uint64_t granularity,
               bool recording, struct lam_error *err);
    int (*remove)(void *format, const char *name, struct lam_error *err);
    int (*clear)(void *format, const char *name, struct lam_error *err);
    int (*enable)(void *format, const char *name, bool recording,
                  struct lam_error *err);
    int (*merge)(void *format, const char *name,
                 struct format_bitmap_source *source, struct lam_error *err);
    /* As format_bitmap_source's. */
    int (*next)(void *format, const char *name, uint64_t offset,
                struct range *run, struct lam_error *err);
};

/* A compressed cluster on its way, in a buffer with others. */
struct format_payload {
    uint64_t guest;             /* offset of its cluster */
    uint64_t start, length;     /* in the buffer */
};

enum {
    /* Where a payload really ends is known; otherwise it may end anywhere in
     * its last sector, and lies in its sectors as in the buffer's. */
    FORMAT_PAYLOAD_EXACT = 1,
    /* Only clusters that are unallocated; the others stay as they are.  One
     * that is so in part is for its data, not for a payload. */
    FORMAT_PAYLOAD_ABSENT = 2,
};

/*
 * Compressed clusters as they are, so that they can move from one image to
 * another, and so that their place can be given out before they are written.
 * What is in a payload is not looked at, but for those that the end of the file
 * cuts.
 */
struct format_payload_ops {
    /* Images whose kinds are the same number, and not 0, understand each
     * other's payloads. */
    unsigned (*kind)(void *format);
    /* Those of @run (compressed; each begins in the one before it or right
     * behind), from the first byte of the first to the last of the last. */
    int (*read)(void *format, const struct lam_extent *run, size_t count,
                void *buf, struct lam_error *err);
    /* Whole clusters of @data, one after another into @buf, which has room for
     * @length bytes; @items has one for each, and length 0 for what does not
     * shrink. */
    int (*deflate)(void *format, uint64_t offset, const uint8_t *data,
                   uint64_t length, uint8_t *buf, struct format_payload *items,
                   struct lam_error *err);
    /*
     * Host space for the first of @items and for as many behind it as can be
     * had at once, *@count in all.  They are whole clusters, ascending by guest
     * offset; in the buffer they may share bytes, and all that lie there in the
     * same order come together on the host, where there is room for that.
     * *@token is for store() or cancel(), and holds the clusters until then.
     * *@count 0 and no token: the first cluster is absent in part.
     * @flags: FORMAT_PAYLOAD_...
     */
    int (*place)(void *format, const struct format_payload *items,
                 size_t *count, unsigned flags, void **token,
                 struct lam_error *err);
    /* From the buffer that the items lie in.  Frees the token whatever the
     * result; after a failure what was not stored yet is cancelled. */
    int (*store)(void *format, void *token, const uint8_t *buf,
                 struct lam_error *err);
    void (*cancel)(void *format, void *token);
    bool fills;                 /* place() knows FORMAT_PAYLOAD_ABSENT */
};

/* For zero(), beside LAM_ZERO_...: only what is unallocated, and what the guest
 * sees is said to stay the same. */
enum { FORMAT_ZERO_ABSENT = 1 << 16 };

/* What a name that ends in format_ops.suffix counts; raw has 1. */
enum { FORMAT_SCORE_SUFFIX = 2 };

struct format_ops {
    const char *name;           /* "raw", "qcow2" */
    bool can_compress;
    bool can_have_backing;      /* create() takes a backing file */
    /* What info cannot say of it, as in the genuine tool. */
    bool no_details;
    /* Are the file's holes those of the disk, as in a raw image?  NULL: if it
     * has no clusters that info tells of. */
    bool (*is_flat)(void *format);
    /* For create(), all that are named; NULL for those whose options all have a
     * member of their own in struct lam_create_options. */
    const struct lam_option_info *options;
    size_t nb_options;

    /* 0..100: how sure @head (the first bytes of the file) is this format.
     * NULL: nothing tells. */
    int (*probe)(const uint8_t *head, size_t length);
    const char *suffix;         /* of names, where @head says nothing */

    int (*open)(const struct format_open *options, void **format,
                struct lam_error *err);
    /* The external data file, once the image layer has opened it; borrowed. */
    int (*attach_data)(void *format, struct lam_io *data,
                       struct lam_error *err);
    /* Writes back and frees; the state is gone whatever the result. */
    int (*close)(void *format, struct lam_error *err);
    /* The host objects are open for writing from now on; or are to be for
     * reading only: all is written back, and no write is under way.  After a
     * failure the image is read-only.  NULL: nothing has to be done. */
    int (*set_writable)(void *format, bool writable, struct lam_error *err);

    /* What the header names.  NULL: nothing, ever. */
    void (*links)(void *format, struct format_links *links);
    uint64_t (*size)(void *format);
    uint64_t (*cluster_size)(void *format);     /* 0: none */
    /* Smallest aligned unit that zero() takes; 0: zero() cannot be used and
     * zeroes have to be written (qcow2 v2 over a backing file). */
    uint64_t (*zero_unit)(void *format);

    /* Appends the extents of [offset, offset+length); depth is 0. */
    int (*map)(void *format, uint64_t offset, uint64_t length,
               struct lam_extents *out, struct lam_error *err);
    /* The same for a plain read: may call data what map() would find to be
     * zero, if that saves asking the host.  NULL: map() is as cheap. */
    int (*map_for_read)(void *format, uint64_t offset, uint64_t length,
                        struct lam_extents *out, struct lam_error *err);
    /* The same for an image that nobody writes to, where the answer is kept
     * elsewhere: tables are read past the cache.  NULL: map_for_read(). */
    int (*map_once)(void *format, uint64_t offset, uint64_t length,
                    struct lam_extents *out, struct lam_error *err);
    /* map_for_read() from what is in memory, waiting for nothing that takes
     * long; -EAGAIN if that is not enough.  NULL: it never is. */
    int (*map_cached)(void *format, uint64_t offset, uint64_t length,
                      struct lam_extents *out);
    /* How many bytes of this range, inside the image and not empty, from its
     * beginning are certain to be one extent that is not data; *@blank: that it
     * is unallocated.  Known without reading a table, or not known: 0.  NULL:
     * never. */
    uint64_t (*long_run)(void *format, uint64_t offset, uint64_t length,
                         bool *blank);
    /* Inflate the cluster that holds @extent (compressed) into @cluster,
     * cluster_size() bytes. */
    int (*read_compressed)(void *format, const struct lam_extent *extent,
                           void *cluster, struct lam_error *err);
    /* The same for a part of the cluster: @extent's length goes to @buf.  Is
     * cheap for what lies in a cluster that was read from a moment ago. */
    int (*read_compressed_part)(void *format, const struct lam_extent *extent,
                                void *buf, struct lam_error *err);

    /* The object that a data extent lies in (or began to, before it was
     * clipped); NULL: the image file, or the external data file. */
    struct lam_io *(*extent_io)(void *format, const struct lam_extent *extent);
    /* The files that it opened beside the image file; NULL behind the last one.
     * NULL: none. */
    struct lam_io *(*file)(void *format, size_t index);

    /* Between enter and leave no host cluster that a map answered is given to
     * somebody else.  Cheap; NULL where nothing ever moves. */
    uint64_t (*enter)(void *format);
    void (*leave)(void *format, uint64_t token);

    /* NULL, as all that changes anything: images are only read. */
    int (*write_begin)(void *format, uint64_t offset, uint64_t length,
                       struct format_allocation *a, struct lam_error *err);
    int (*write_finish)(void *format, struct format_allocation *a,
                        struct lam_error *err);
    void (*write_cancel)(void *format, struct format_allocation *a);

    /* write_begin() where nothing but the data has to be written and nothing
     * finished, from what is in memory, waiting for nothing that takes long;
     * -EAGAIN otherwise.  NULL: it never is like that. */
    int (*write_in_place)(void *format, uint64_t offset, uint64_t length,
                          struct format_allocation *a);

    /* @data is whole guest clusters, the last one zero-padded; deflated outside
     * any lock.  A cluster that does not shrink is stored plain. */
    int (*write_compressed)(void *format, uint64_t offset, const uint8_t *data,
                            uint64_t length, struct lam_error *err);
    /* Is that the only way to write, each cluster once?  NULL: no. */
    bool (*compresses_all)(void *format);
    const struct format_payload_ops *payloads;      /* NULL: none */

    /* Aligned to zero_unit() (the end may be the end of the disk); a format
     * with bitmaps takes any range, records that, and makes whole units zero,
     * the rest of which reads so already.  NULL if zero_unit() is always 0. */
    int (*zero)(void *format, uint64_t offset, uint64_t length,
                unsigned flags, struct lam_error *err);
    /* Any alignment; what is not a whole cluster is left alone.  NULL: nothing
     * is ever freed. */
    int (*discard)(void *format, uint64_t offset, uint64_t length,
                   struct lam_error *err);
    int (*flush)(void *format, struct lam_error *err);
    /* *@place: the guest offset, behind the disk, of byte @offset of the VM
     * state.  With @length not 0 there is room afterwards to write so much
     * there; as truncate(), one call at a time.  NULL: it keeps none. */
    int (*vmstate_place)(void *format, uint64_t offset, uint64_t length,
                         uint64_t *place, struct lam_error *err);
    /* After -ENOSPC: makes free what waits to be freed; -ENOSPC if that is
     * nothing.  Between no enter and leave of the caller's.  Or NULL. */
    int (*reclaim)(void *format, struct lam_error *err);
    /* One call at a time.  NULL: the size never changes. */
    int (*truncate)(void *format, const struct format_resize *to,
                    struct lam_error *err);

    /* All but the size; options->size is not looked at.  The caller sees to it
     * that no write is between begin and finish.  NULL: there is nothing that
     * could be amended. */
    int (*amend)(void *format, const struct lam_amend_options *options,
                 struct lam_error *err);
    /* Refuses what amend() would refuse, and what truncate() would: the size
     * counts here.  Changes nothing; as amend().  NULL as amend(). */
    int (*amend_check)(void *format, const struct lam_amend_options *options,
                       struct lam_error *err);

    /* The header names this backing file from now on, NULL: none; what was
     * written before is on disk by then.  One call at a time, as amend().
     * NULL: the format knows no backing files. */
    int (*set_backing)(void *format, const char *name,
                       const char *backing_format, struct lam_error *err);
    /* After set_backing(): links() says so, too.  While no request is under
     * way; and where this is NULL, set_backing() is called like that and does
     * it itself. */
    void (*take_backing)(void *format);
    /* From now on zeroes are stored as if there were a backing file, or (false)
     * as the header has it: the image is about to get its first.  While no
     * request is under way.  NULL as set_backing(). */
    void (*expect_backing)(void *format, bool expected);
    /* All becomes unallocated, at once and durably.  As amend(). */
    int (*empty)(void *format, struct lam_error *err);

    /* What guest data pass through on their way to and from the host, in whole
     * sectors; compressed clusters do not.  NULL, or answers NULL: they are
     * stored as they are. */
    struct crypt *(*crypt)(void *format);
    int (*key_slot)(void *format, const struct lam_key_slot_options *options,
                    struct lam_error *err);

    /* Fills in what the format knows; the image layer does the rest.  NULL: it
     * knows nothing more. */
    int (*info)(void *format, struct lam_image_info *info,
                struct lam_error *err);
    int (*check)(void *format, lam_finding_fn *finding, void *opaque,
                 struct lam_check_result *out, struct lam_error *err);
    /* Only if opened for_check and writable; LAM_REPAIR_...  NULL: no check
     * either. */
    int (*repair)(void *format, unsigned what, lam_finding_fn *finding,
                  void *opaque, struct lam_check_result *out,
                  struct lam_error *err);
    const struct format_snapshot_ops *snapshots;    /* NULL: it has none */
    const struct format_bitmap_ops *bitmaps;        /* NULL: it has none */
    /* Write a new empty image onto @io (length 0 or a device).  @data is the
     * external data file or NULL.  All checks of @options come before the
     * first change of @io or @data: they are also run alone that way.  NULL:
     * new images cannot be made. */
    int (*create)(struct lam_io *io, struct lam_io *data,
                  const struct lam_create_options *options,
                  struct lam_error *err);
    /*
     * Instead of create(), where an image is more than one file, or names
     * itself or what is below it; under the same rules.  other_file() names
     * the @index-th file beside the one at @path: 1 and *@name, which is the
     * caller's, or 0 behind the last one.
     */
    int (*other_file)(const struct lam_create_options *options,
                      const char *path, size_t index, char **name,
                      struct lam_error *err);
    int (*create_set)(const struct format_new *files,
                      const struct lam_create_options *options,
                      struct lam_error *err);
    /* A number that changes with the content: an overlay's header has the one
     * that its backing image had.  NULL: there is none. */
    uint32_t (*content_id)(void *format);
    /* Is the open image @below, of @ops, what the header of @format calls its
     * backing image?  NULL: any is. */
    int (*accept_backing)(void *format, const struct format_ops *ops,
                          void *below, struct lam_error *err);
    /* It is from now on: what has changed in it was this image's own.  On disk
     * at the end. */
    int (*adopt_backing)(void *format, const struct format_ops *ops,
                         void *below, struct lam_error *err);
    /* How large an image made from @options gets; touches nothing.  NULL: not
     * known. */
    int (*measure)(const struct lam_create_options *options,
                   struct format_measure *out, struct lam_error *err);
};

/* The format called @name, or NULL. */
const struct format_ops *format_find(const char *name);

/* The format of a new image: a plain file is a raw one. */
const struct format_ops *format_find_new(const char *name);

/* The format that claims @head, or @name (NULL: none), with most confidence;
 * raw if none does.  @own_only: only raw, qcow2 and luks are thought of. */
const struct format_ops *format_probe(const uint8_t *head, size_t length,
                                      const char *name, bool own_only);

extern const struct format_ops format_raw, format_qcow2, format_luks;

#endif
