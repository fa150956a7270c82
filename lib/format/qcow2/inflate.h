/* SPDX-License-Identifier: MIT */
/*
 * inflate.h - RFC 1951 for the streams on which libdeflate gives up.
 */
#ifndef LAM_QCOW2_INFLATE_H
#define LAM_QCOW2_INFLATE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Inflates the raw stream @in into @out and stops as soon as @out is full,
 * wherever the stream stands.  Returns the number of bytes written, or -1 if
 * the stream is malformed or cut off before @out was full.
 */
ptrdiff_t inflate_until_full(const uint8_t *in, size_t in_length, uint8_t *out,
                             size_t out_length);

#endif
