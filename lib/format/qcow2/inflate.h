/* SPDX-License-Identifier: MIT */
/*
 * inflate.h - RFC 1951 as far as it is wanted.
 *
 * libdeflate decodes streams to their end or not at all.  This one stops where
 * the caller has what he came for, and takes streams that end otherwise.
 */
#ifndef LAM_QCOW2_INFLATE_H
#define LAM_QCOW2_INFLATE_H

#include <stddef.h>
#include <stdint.h>

/* Tables for one call at a time. */
struct inflater;

struct inflater *inflater_new(void);            /* NULL: no memory */
void inflater_free(struct inflater *inflater);

/*
 * Inflates the raw stream @in into @out until @wanted bytes or more are there,
 * wherever the stream stands then.  What lies behind them, up to @room >=
 * @wanted, may be written to as well: with some hundred bytes to spare it is
 * faster.  Returns the number of bytes that are there: less than @wanted if the
 * stream ends before, or -1 if it is malformed or cut off there.
 */
ptrdiff_t inflate_until(struct inflater *inflater, const uint8_t *in,
                        size_t in_length, uint8_t *out, size_t wanted,
                        size_t room);

#endif
