/* SPDX-License-Identifier: MIT */
/*
 * fuzz-inflate.c - any bytes as a deflate stream of which a part is wanted.
 *
 * Bytes 0 and 1 say how much, byte 2 how much room there is behind that; the
 * rest is the stream.  The answer must be that of the plain decoder, and the
 * bytes those of libdeflate where it takes the stream.
 */
#include <libdeflate.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/plain-inflate.h"
#include "format/qcow2/inflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 17 };

static void compare(const uint8_t *in, size_t n, const uint8_t *out,
                    ptrdiff_t made, size_t wanted)
{
    static uint8_t expected[MOST];
    static struct libdeflate_decompressor *whole;
    size_t all;

    ptrdiff_t plain = plain_inflate(in, n, expected, wanted);
    if (plain < 0 ? made >= 0
                  : made < plain || (made > plain && plain < (ptrdiff_t)wanted))
        abort();
    if (plain > 0 && memcmp(out, expected, (size_t)plain) != 0)
        abort();
    if (!whole)
        whole = libdeflate_alloc_decompressor();
    if (made > 0 && whole &&
        libdeflate_deflate_decompress(whole, in, n, expected, MOST, &all) ==
            LIBDEFLATE_SUCCESS &&
        ((size_t)made > all || memcmp(out, expected, (size_t)made) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct inflater *inflater;

    if (!inflater)
        inflater = inflater_new();
    if (size < 3 || !inflater)
        return 0;
    size_t wanted = data[0] | (size_t)data[1] << 8;
    size_t room = wanted + data[2] * 4u;
    /* Copies, so that a step beyond them is seen. */
    uint8_t *in = malloc(size - 3 + (size == 3)), *out = malloc(room + !room);

    if (in && out) {
        memcpy(in, data + 3, size - 3);
        ptrdiff_t made = inflate_until(inflater, in, size - 3, out, wanted,
                                       room);
        if (made > (ptrdiff_t)room)
            abort();
        compare(in, size - 3, out, made, wanted);
    }
    free(in);
    free(out);
    return 0;
}
