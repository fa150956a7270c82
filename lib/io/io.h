/* SPDX-License-Identifier: MIT */
/*
 * io.h - a host object: bytes at host offsets, and what it can do about zeroes.
 *
 * A struct lam_io knows nothing of what its bytes mean.  Drivers embed it as
 * their first member and fill in the table of ops; everything that all drivers
 * need (bounds, short transfers, bounce buffers and read-modify-write for
 * O_DIRECT, the sync after each write of writethrough) is done once, in io.c.
 * Any number of threads may use one object at once, except lam_io_close().
 */
#ifndef LAM_IO_IO_H
#define LAM_IO_IO_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"
#include "extent/range.h"
#include "io/event.h"
#include "lamella.h"

struct lam_io;
struct io_pool;

/* What the driver found out about its object when it was opened. */
struct lam_io_limits {
    uint32_t request_alignment; /* offset and length; 1: any */
    uint32_t memory_alignment;  /* buffer address; 1: any */
    bool is_block_device;       /* or character device: has the size it has */
    bool is_loop;               /* ... whose blocks are those of a file */
    bool several;               /* the bytes are those of several objects */
    bool can_grow;              /* a write past the end extends it */
    bool direct;                /* O_DIRECT is in force */
    uint64_t write_max;         /* bytes of one writev call; 0: any */
    bool reserve_first;         /* buffered writes into holes cost less where
                                   the blocks have been reserved before */

    /* Zeroing.  A capability is what was probed; the first EOPNOTSUPP of a
     * call at run time turns it off for good (zero.h decides what follows). */
    bool can_punch;             /* frees the range, reads zero: guaranteed */
    bool can_zero_range;        /* zeroes the range, keeps it allocated */
    bool can_discard;           /* frees, says nothing about what is read */
    bool discard_reads_zero;    /* the queue promises it (rare) */
    bool discard_undefined;     /* the device says that freed blocks may read
                                   as anything, each time anew */
    uint64_t discard_granularity;   /* bytes; 0: unknown */
    uint64_t discard_alignment;
    uint64_t discard_max;       /* bytes a request; 0: not supported */
    uint64_t zero_max;          /* write_zeroes_max_bytes; 0: none */
    uint32_t logical_sector, physical_sector;
};

/* LAM_IO_ABSENT: data, as far as anybody knows, which take no place. */
enum lam_io_state { LAM_IO_DATA, LAM_IO_HOLE, LAM_IO_ABSENT };

/* Which locks an object holds: none, its own, or those of a raw image. */
enum lam_io_locking { LAM_IO_UNLOCKED, LAM_IO_LOCKED, LAM_IO_LOCKED_SHARED };

/* Exactly one entry of the table does each thing; offset and length come last
 * but for @err.  Ranges are inside the object (writes of a growing one may pass
 * its end), aligned to the limits, and lengths are never 0. */
struct lam_io_ops {
    const char *name;           /* "file", "host_device", "memory", ... */
    const char *fixed_kind;     /* lam_io_fixed_kind(); NULL: "device files" */

    /* Transfer some bytes, as preadv and pwritev: the count, 0 at the end of
     * the object, or -errno without *err. */
    ssize_t (*readv)(struct lam_io *io, const struct iovec *iov, int iovcnt,
                     uint64_t offset);
    ssize_t (*writev)(struct lam_io *io, const struct iovec *iov, int iovcnt,
                      uint64_t offset);
    /* lam_io_write_past_cache(): all of it and true, or false.  NULL: never. */
    bool (*write_past_cache)(struct lam_io *io, const void *buf,
                             uint64_t length, uint64_t offset);
    int (*flush)(struct lam_io *io);
    int (*size)(struct lam_io *io, uint64_t *size);
    /* As fstat(); NULL: of the descriptor, if there is one. */
    int (*stat)(struct lam_io *io, struct stat *st);
    int (*truncate)(struct lam_io *io, uint64_t size);
    /* -EOPNOTSUPP where the object cannot. */
    int (*punch)(struct lam_io *io, uint64_t offset, uint64_t length);
    int (*zero_range)(struct lam_io *io, uint64_t offset, uint64_t length);
    int (*discard)(struct lam_io *io, uint64_t offset, uint64_t length);
    int (*allocate)(struct lam_io *io, uint64_t offset, uint64_t length);
    /* A hint: begin to write the range to the disk.  NULL: nothing to do. */
    void (*write_out)(struct lam_io *io, uint64_t offset, uint64_t length);
    /* State of the byte at @offset and how far it goes at least (clipped to
     * @length).  NULL: everything is data. */
    int (*extent)(struct lam_io *io, uint64_t offset, uint64_t length,
                  enum lam_io_state *state, uint64_t *run);
    /* lam_io_hole(); NULL: nobody knows of any. */
    uint64_t (*hole)(struct lam_io *io, uint64_t offset, uint64_t length);
    /* lam_io_set_writable(); NULL: nothing has to be done for it. */
    int (*set_writable)(struct lam_io *io, bool writable,
                        enum lam_io_locking locking, struct lam_error *err);
    /* The descriptor below, for lam_io_fd(); NULL: there is none. */
    int (*descriptor)(const struct lam_io *io);
    /* Told what the engine is about to do (event.h); NULL: does not listen. */
    void (*event)(struct lam_io *io, enum io_event event);
    /* The object that this one stands on; NULL: none. */
    struct lam_io *(*inner)(const struct lam_io *io);
    void (*close)(struct lam_io *io);
};

/* A range that somebody is changing; lives on the changer's stack.  See
 * change.c. */
struct io_change {
    struct range range;
    bool exclusive;             /* read-modify-write: nobody else meanwhile */
    struct io_change *next;
};

/* Growing ahead of the writes; see ahead.h. */
struct io_ahead {
    pthread_mutex_t lock;       /* held while a step is taken */
    _Atomic uint64_t step;      /* 0: the object does not grow ahead */
    _Atomic uint64_t end;       /* space has been taken up to here; 0: none */
    _Atomic uint64_t base;      /* where we looked last */
    _Atomic uint64_t filled;    /* bytes written behind @base */
    _Atomic uint64_t written_out;
    atomic_bool writing_out;    /* somebody is at it */
};

struct lam_io {
    const struct lam_io_ops *ops;
    char *name;                 /* for messages; owned */
    struct lam_io_limits limits;
    enum lam_cache_mode cache;
    bool writable;
    bool unmap;                 /* discard requests reach the host */

    /*
     * Reading at or past the end is an error (a truncated upload must not
     * read as zeroes), except that the rest of the last @eof_unit bytes, which
     * is partly present, reads as zero.  qcow2 sets its cluster size, raw 512.
     * UINT64_MAX: everything past the end reads as zero (trust-eof).
     */
    uint64_t eof_unit;

    _Atomic uint64_t size;      /* cached length; grows with our writes */
    atomic_bool no_punch, no_zero_range, no_discard;    /* learnt at run time */
    atomic_bool stale_pages, stale_discards;    /* so is that old data were
                                   read back: by the cache, from the device */
    uint64_t fill_min;          /* lam_io_fill(); 0: not said */
    atomic_int flush_error;     /* first failed flush; sticks: later flushes
                                   fail too, since the kernel forgets */

    pthread_mutex_t change_lock;    /* guards changes; innermost */
    pthread_cond_t change_ended;
    struct io_change *changes;

    struct io_ahead ahead;
};

/* Same object?  For loops in chains.  dev and ino (rdev for devices). */
struct lam_io_identity {
    bool known;
    bool is_block_device;
    dev_t dev;
    ino_t ino;
};

/* ------------------------------------------------------------ opening */

struct lam_io_open_options {
    bool writable;
    bool create;                /* make it if it is missing */
    bool truncate;              /* to length 0 (regular files) */
    bool exclusive;             /* O_EXCL on a block device */
    bool regular_only;          /* refuse all but regular files and block
                                   devices (names that came out of an image) */
    bool characters;            /* take character devices as well */
    bool beneath;               /* with @dirfd: RESOLVE_BENEATH */
    int dirfd;                  /* AT_FDCWD unless @beneath */
    bool lock;                  /* QEMU-compatible byte locks, see lock.h */
    bool unmap;
    enum lam_cache_mode cache;
    struct io_pool *pool;       /* of a file that is only read: may close it
                                   and open it again (pool.h); or NULL */
};

#define LAM_IO_OPEN_INIT { .dirfd = AT_FDCWD, .lock = true }

/*
 * lam_io_open() - open the file or block device at @path.
 *
 * Opened with O_NONBLOCK first, so that a FIFO cannot hang us.  The message is
 * "No such file or directory" and the like; the caller prefixes the name.
 * Lock conflicts answer -EAGAIN with qemu's words on one line: Failed to get
 * "write" lock. Is another process using the image [PATH]?  (or: shared
 * "write").
 */
int lam_io_open(const char *path, const struct lam_io_open_options *options,
                struct lam_io **out, struct lam_error *err);

/*
 * Take or change the locks of an object opened without (lock = false) or with
 * them.  @shared is for raw images, whose users QEMU lets live side by side:
 * says what we use, bars nobody.  Nothing happens if there is no file below.
 */
int lam_io_lock(struct lam_io *io, bool shared, struct lam_error *err);

/*
 * Open for writing from now on, or for reading only; requests may be under way.
 * @locking says which locks it holds: they change along, and -EAGAIN means that
 * somebody else's are in the way.  After a failure all is as it was.
 */
int lam_io_set_writable(struct lam_io *io, bool writable,
                        enum lam_io_locking locking, struct lam_error *err);

/* A byte array that grows; starts with a copy of @bytes (may be NULL, 0). */
int lam_io_memory_new(const void *bytes, uint64_t length, struct lam_io **out,
                      struct lam_error *err);

/* Frees @io; locks and descriptors go with it.  Does not flush; NULL: no-op. */
void lam_io_close(struct lam_io *io);

/* For drivers: set defaults (read-only, any alignment, end of the object
 * strict) and the name; and undo that. */
int lam_io_init(struct lam_io *io, const struct lam_io_ops *ops,
                const char *name, struct lam_error *err);
void lam_io_deinit(struct lam_io *io);

/* Tells the object what the engine is about to do to it.  May not return before
 * somebody else has said so (a breakpoint, blkdebug.h). */
static inline void lam_io_event(struct lam_io *io, enum io_event event)
{
    if (io->ops->event)
        io->ops->event(io, event);
}

/* ------------------------------------------------------------ transfers */

/* All of it or an error, which names the object and the host offset. */
int lam_io_read(struct lam_io *io, void *buf, uint64_t length, uint64_t offset,
                struct lam_error *err);
int lam_io_write(struct lam_io *io, const void *buf, uint64_t length,
                 uint64_t offset, struct lam_error *err);
int lam_io_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                 uint64_t offset, struct lam_error *err);
int lam_io_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                  uint64_t offset, struct lam_error *err);

/*
 * As lam_io_write(), for what is written by the megabyte and not read soon: the
 * host's page cache is not filled with it, where that can be had.
 */
int lam_io_write_past_cache(struct lam_io *io, const void *buf, uint64_t length,
                            uint64_t offset, struct lam_error *err);

/* Barrier and durability: what was written before is on disk after.  Does
 * nothing in cache mode unsafe. */
int lam_io_flush(struct lam_io *io, struct lam_error *err);

/* The current length; asks the host again. */
int lam_io_size(struct lam_io *io, uint64_t *size, struct lam_error *err);
int lam_io_truncate(struct lam_io *io, uint64_t size, struct lam_error *err);

/*
 * The same bytes at @to_offset as @from has at @from_offset, by the host alone:
 * as shared blocks or, unless one of the two is open with O_DIRECT, copied in
 * the kernel.  -ENOTSUP: it would not, whatever the reason; part of it may have
 * been done.  Never inside one object.
 */
int lam_io_copy_range(struct lam_io *to, uint64_t to_offset,
                      const struct lam_io *from, uint64_t from_offset,
                      uint64_t length, struct lam_error *err);

/* False: there is no use in trying. */
bool lam_io_can_copy_range(const struct lam_io *to, const struct lam_io *from);

/* ------------------------------------------------------------ zeroes */

/*
 * Make [offset, offset + length) read as zero, by the cheapest call that the
 * object has: with LAM_ZERO_UNMAP punch, else zero_range; else writes, unless
 * LAM_ZERO_NO_FALLBACK (then -ENOTSUP).  Without LAM_ZERO_UNMAP the range stays
 * allocated.  May extend a growing object.
 */
int lam_io_zero(struct lam_io *io, uint64_t offset, uint64_t length,
                unsigned flags, struct lam_error *err);

/* The bytes are not needed any more and may read as anything.  A no-op unless
 * io->unmap; failures to discard are not errors. */
int lam_io_discard(struct lam_io *io, uint64_t offset, uint64_t length,
                   struct lam_error *err);

/* The same for who has to know: asks the host whatever io->unmap says, and
 * tells when it could not (-ENOTSUP) or would not. */
int lam_io_free(struct lam_io *io, uint64_t offset, uint64_t length,
                struct lam_error *err);

/* Reserve space (posix_fallocate); -ENOTSUP if the host cannot. */
int lam_io_allocate(struct lam_io *io, uint64_t offset, uint64_t length,
                    struct lam_error *err);

/*
 * Make [offset, offset + length) exist and read as zero: with OFF or METADATA
 * as holes where possible, FALLOC reserved, FULL written.  Extends a growing
 * object, and never cuts what somebody else appends meanwhile.
 */
int lam_io_preallocate(struct lam_io *io, uint64_t offset, uint64_t length,
                       enum lam_preallocation mode, struct lam_error *err);

/*
 * Makes the first block of a new disk of @size bytes be there, though zero: who
 * opens the file with O_DIRECT finds out there how requests have to be aligned.
 * The disk that a conversion fills is better left as thin as its source.
 */
int lam_io_first_block(struct lam_io *io, uint64_t size, struct lam_error *err);

/*
 * From now on the object takes space behind its end ahead of what is written
 * there, in steps that grow from @step bytes, a power of two, to 16 MiB, and
 * gives back what is too much when it is closed.  For files whose length means
 * nothing: a crash leaves them longer.  Does nothing where the host cannot.
 */
void lam_io_grow_ahead(struct lam_io *io, uint64_t step);

/* No steps any more: what is written from now on leaves gaps, which are to take
 * no space. */
void lam_io_grow_with_gaps(struct lam_io *io);

/*
 * Nearly all that is written from now on goes into holes.  Where the host likes
 * it better that way, writes of @min bytes and more reserve their blocks first.
 * Call before the writes begin.
 */
void lam_io_fill(struct lam_io *io, uint64_t min);

/* Data or hole at @offset, for at least *@run bytes.  Past the end: hole. */
int lam_io_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                  enum lam_io_state *state, uint64_t *run,
                  struct lam_error *err);

/* How much of the range, from its beginning, is a hole as far as the host
 * knows: 0 for data, and for what reaches beyond the end.  It costs less than
 * asking how long data go on. */
uint64_t lam_io_hole(struct lam_io *io, uint64_t offset, uint64_t length);

/* Bytes of host storage in use (st_blocks * 512; 0 for devices as qemu-img). */
int lam_io_allocated_size(struct lam_io *io, uint64_t *bytes,
                          struct lam_error *err);

void lam_io_identity(const struct lam_io *io, struct lam_io_identity *id);

/* False as well if either does not know. */
bool lam_io_same_object(const struct lam_io *a, const struct lam_io *b);

/* What an object of fixed size is called where somebody asks for another. */
static inline const char *lam_io_fixed_kind(const struct lam_io *io)
{
    return io->ops->fixed_kind ? io->ops->fixed_kind : "device files";
}

/* As fstat(); 0 or -errno, -EBADF for what is no file or device. */
int lam_io_stat(const struct lam_io *io, struct stat *st);

/* The descriptor behind a file or device, -1 for others.  It stays open from
 * then on: of the files of a chain, of which there may be more than
 * descriptors, borrow it. */
int lam_io_fd(const struct lam_io *io);

/* Whether there is one; and the same until it is given back, -1 if it cannot
 * be had, where nothing is to be given back. */
bool lam_io_has_fd(const struct lam_io *io);
int lam_io_borrow_fd(const struct lam_io *io);
void lam_io_return_fd(const struct lam_io *io);

#endif
