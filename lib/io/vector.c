/* SPDX-License-Identifier: MIT */
/*
 * vector.c - walk through a caller's scattered buffers piece by piece.
 */
#include "io/vector.h"

#include <string.h>

#include "base/arith.h"

bool vector_total(const struct iovec *iov, int iovcnt, uint64_t *total)
{
    uint64_t sum = 0;
    for (int i = 0; i < iovcnt; i++)
        if (add_overflows(sum, iov[i].iov_len, &sum))
            return false;
    *total = sum;
    return sum <= INT64_MAX;
}

bool vector_is_aligned(const struct iovec *iov, int iovcnt, uint32_t memory,
                       uint32_t request)
{
    for (int i = 0; i < iovcnt; i++)
        if (!is_aligned((uintptr_t)iov[i].iov_base, memory) ||
            !is_aligned(iov[i].iov_len, request))
            return false;
    return true;
}

/* The next contiguous bytes; skips empty elements. */
static struct iovec vector_head(struct vector *v)
{
    while (v->iovcnt && v->skip == v->iov->iov_len) {
        v->iov++;
        v->iovcnt--;
        v->skip = 0;
    }
    assert(v->iovcnt > 0);
    return (struct iovec){ (char *)v->iov->iov_base + v->skip,
                           v->iov->iov_len - v->skip };
}

/* Takes at most @length of them. */
static struct iovec vector_next(struct vector *v, uint64_t length)
{
    struct iovec head = vector_head(v);
    head.iov_len = min_u64(head.iov_len, length);
    v->skip += head.iov_len;
    return head;
}

int vector_peek(const struct vector *v, uint64_t length, struct iovec *out,
                int max, uint64_t *bytes)
{
    struct vector walk = *v;
    int count = 0;
    *bytes = 0;
    while (count < max && *bytes < length) {
        out[count] = vector_next(&walk, length - *bytes);
        *bytes += out[count++].iov_len;
    }
    return count;
}

void vector_advance(struct vector *v, uint64_t length)
{
    while (length)
        length -= vector_next(v, length).iov_len;
}

void vector_gather(struct vector *v, void *to, uint64_t length)
{
    for (char *p = to; length;) {
        struct iovec piece = vector_next(v, length);
        memcpy(p, piece.iov_base, piece.iov_len);
        p += piece.iov_len;
        length -= piece.iov_len;
    }
}

void vector_scatter(struct vector *v, const void *from, uint64_t length)
{
    for (const char *p = from; length;) {
        struct iovec piece = vector_next(v, length);
        memcpy(piece.iov_base, p, piece.iov_len);
        p += piece.iov_len;
        length -= piece.iov_len;
    }
}

void vector_clear(struct vector *v, uint64_t length)
{
    while (length) {
        struct iovec piece = vector_next(v, length);
        memset(piece.iov_base, 0, piece.iov_len);
        length -= piece.iov_len;
    }
}
