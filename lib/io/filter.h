/* SPDX-License-Identifier: MIT */
/*
 * filter.h - a host object that stands on another one: what all such have in
 * common.
 *
 * A filter embeds struct io_filter as its first member and takes for its table
 * of ops the functions below but for those that it changes.  Requests go to the
 * object below through its front door, which bounces what O_DIRECT does not
 * allow: the filter itself has no alignment.
 */
#ifndef LAM_IO_FILTER_H
#define LAM_IO_FILTER_H

#include "io/io.h"

struct io_filter {
    struct lam_io io;
    struct lam_io *inner;       /* owned */
    uint64_t offset;            /* where our byte 0 is in @inner */
    uint64_t length;            /* our length; IO_FILTER_WHOLE: all there is
                                   behind @offset, and it may grow */
};

#define IO_FILTER_WHOLE UINT64_MAX

static inline struct io_filter *io_filter_of(const struct lam_io *io)
{
    return (struct io_filter *)io;
}

/*
 * Set up @filter, which is zeroed memory of the size of the filter's own
 * struct, on @inner, of which [@offset, @offset + @length) is shown.  After a
 * failure both are still the caller's; after success io_filter_close(), which
 * is the default of the table, closes @inner and frees @filter.
 */
int io_filter_init(struct io_filter *filter, const struct lam_io_ops *ops,
                   struct lam_io *inner, uint64_t offset, uint64_t length,
                   struct lam_error *err);

/* What each op does unless the filter has something else in mind. */
ssize_t io_filter_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                        uint64_t offset);
ssize_t io_filter_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                         uint64_t offset);
int io_filter_flush(struct lam_io *io);
int io_filter_size(struct lam_io *io, uint64_t *size);
int io_filter_truncate(struct lam_io *io, uint64_t size);
int io_filter_punch(struct lam_io *io, uint64_t offset, uint64_t length);
int io_filter_zero_range(struct lam_io *io, uint64_t offset, uint64_t length);
int io_filter_discard(struct lam_io *io, uint64_t offset, uint64_t length);
int io_filter_allocate(struct lam_io *io, uint64_t offset, uint64_t length);
int io_filter_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                     enum lam_io_state *state, uint64_t *run);
uint64_t io_filter_hole(struct lam_io *io, uint64_t offset, uint64_t length);
int io_filter_stat(struct lam_io *io, struct stat *st);
int io_filter_set_writable(struct lam_io *io, bool writable,
                           enum lam_io_locking locking, struct lam_error *err);
int io_filter_descriptor(const struct lam_io *io);
struct lam_io *io_filter_inner(const struct lam_io *io);
void io_filter_event(struct lam_io *io, enum io_event event);
void io_filter_close(struct lam_io *io);

/* All of the above, for a table that begins with them. */
#define IO_FILTER_OPS                                                       \
    .readv = io_filter_readv, .writev = io_filter_writev,                   \
    .flush = io_filter_flush, .size = io_filter_size,                       \
    .stat = io_filter_stat,                                                 \
    .truncate = io_filter_truncate, .punch = io_filter_punch,               \
    .zero_range = io_filter_zero_range, .discard = io_filter_discard,       \
    .allocate = io_filter_allocate, .extent = io_filter_extent,             \
    .hole = io_filter_hole,                                                 \
    .set_writable = io_filter_set_writable,                                 \
    .descriptor = io_filter_descriptor, .inner = io_filter_inner,           \
    .event = io_filter_event, .close = io_filter_close

/* What is behind @offset, and may grow: the driver raw inside a tree of nodes.
 * Takes @inner over, also on failure.  -EINVAL: it is behind the end. */
int lam_io_through_new(struct lam_io *inner, uint64_t offset,
                       struct lam_io **out, struct lam_error *err);

#endif
