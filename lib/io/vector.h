/* SPDX-License-Identifier: MIT */
/*
 * vector.h - walk through a caller's scattered buffers piece by piece.
 */
#ifndef LAM_IO_VECTOR_H
#define LAM_IO_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Where in a vector we are.  The vector itself is never changed. */
struct vector {
    const struct iovec *iov;
    int iovcnt;
    size_t skip;                /* bytes of iov[0] that are done */
};

static inline struct vector vector_make(const struct iovec *iov, int iovcnt)
{
    return (struct vector){ iov, iovcnt, 0 };
}

/* All bytes of @iov; false if that does not fit 63 bits. */
bool vector_total(const struct iovec *iov, int iovcnt, uint64_t *total);

/* True if all addresses are multiples of @memory and lengths of @request. */
bool vector_is_aligned(const struct iovec *iov, int iovcnt, uint32_t memory,
                       uint32_t request);

/*
 * The next bytes, at most @length of them, in at most @max elements of @out.
 * Returns the number of elements; *@bytes is what they hold.
 */
int vector_peek(const struct vector *v, uint64_t length, struct iovec *out,
                int max, uint64_t *bytes);

void vector_advance(struct vector *v, uint64_t length);

/* Copy the next @length bytes out of, into; or clear them.  These advance. */
void vector_gather(struct vector *v, void *to, uint64_t length);
void vector_scatter(struct vector *v, const void *from, uint64_t length);
void vector_clear(struct vector *v, uint64_t length);

#endif
