/* SPDX-License-Identifier: MIT */
/*
 * inflate.c - zlib, bzip2 where there is a library, and ADC.
 */
#include "format/chunks/inflate.h"

#include <libdeflate.h>
#include <string.h>

#include "format/with.h"

#if LAM_WITH_BZIP2
#include <bzlib.h>

static bool inflate_bzip2(const uint8_t *in, size_t length, uint8_t *out,
                          size_t size)
{
    unsigned int written = (unsigned int)size;

    return BZ2_bzBuffToBuffDecompress((char *)out, &written, (char *)in,
                                      (unsigned int)length, 0, 0) == BZ_OK &&
           written == size;
}
#else
static bool inflate_bzip2(const uint8_t *in, size_t length, uint8_t *out,
                          size_t size)
{
    (void)in, (void)length, (void)out, (void)size;
    return false;
}
#endif

static bool inflate_zlib(const uint8_t *in, size_t length, uint8_t *out,
                         size_t size)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    bool good = d && libdeflate_zlib_decompress(d, in, length, out, size,
                                                NULL) == LIBDEFLATE_SUCCESS;

    if (d)
        libdeflate_free_decompressor(d);
    return good;
}

/* Literals, or a copy of what was written: two bytes for one that is short and
 * near, three for the others. */
int chunks_inflate_adc(const uint8_t *in, size_t length, uint8_t *out,
                       size_t size)
{
    size_t at = 0, done = 0;

    while (at < length && done < size) {
        uint8_t code = in[at];
        bool literal = code & 0x80, far = code & 0x40;
        size_t header = literal ? 1 : far ? 3 : 2;
        size_t count = literal ? (code & 0x7fU) + 1U
                     : far ? (code & 0x3fU) + 4U : (code >> 2 & 0xfU) + 3U;

        if (length - at < header + (literal ? count : 0) || count > size - done)
            return -1;
        if (literal) {
            memcpy(out + done, in + at + 1, count);
            at += count;
        } else {
            size_t back = far ? (size_t)in[at + 1] << 8 | in[at + 2]
                              : (size_t)(code & 3) << 8 | in[at + 1];
            if (back >= done)
                return -1;
            for (size_t i = 0; i < count; i++)
                out[done + i] = out[done + i - back - 1];
        }
        at += header;
        done += count;
    }
    return done == size ? 0 : -1;
}

int chunk_can_inflate(enum chunk_kind kind, struct lam_error *err)
{
    if (kind != CHUNK_BZIP2 || LAM_WITH_BZIP2)
        return 0;
    return lam_fail(err, ENOTSUP, "compressed with bzip2, which this build "
                    "does not have");
}

int chunk_inflate(const struct chunk *chunk, const uint8_t *payload,
                  uint8_t *out, struct lam_error *err)
{
    size_t length = chunk->host_length, size = chunk->length;
    bool good = false;

    switch (chunk->kind) {
    case CHUNK_ZLIB:
        good = inflate_zlib(payload, length, out, size);
        break;
    case CHUNK_BZIP2:
        good = inflate_bzip2(payload, length, out, size);
        break;
    case CHUNK_ADC:
        good = chunks_inflate_adc(payload, length, out, size) == 0;
        break;
    case CHUNK_ZERO:
    case CHUNK_RAW:
        break;                  /* nothing to inflate: nobody asks for it */
    }
    return good ? 0 : lam_fail(err, EIO, "the compressed data are damaged");
}
