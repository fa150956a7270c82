/* SPDX-License-Identifier: MIT */
/*
 * grain.c - compressed grains, by libdeflate.
 */
#include "format/vmdk/grain.h"

#include <libdeflate.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

size_t grain_bound(size_t grain_size)
{
    /* What is not compressible is stored in blocks of 5 bytes more each;
     * other writers may be less clever. */
    return grain_size + grain_size / 8 + 512;
}

static void decompressor_deinit(struct libdeflate_decompressor **d)
{
    libdeflate_free_decompressor(*d);
}

int grain_inflate(const uint8_t *payload, size_t length, uint8_t *grain,
                  size_t needed, size_t grain_size, struct lam_error *err)
{
    struct libdeflate_decompressor *d lam_cleanup(decompressor_deinit) =
        libdeflate_alloc_decompressor();
    size_t used, made = 0;

    if (!d)
        return lam_fail(err, ENOMEM, "no memory for a decompressor");
    enum libdeflate_result result = libdeflate_zlib_decompress_ex(
        d, payload, length, grain, grain_size, &used, &made);
    if (result != LIBDEFLATE_SUCCESS)
        return lam_fail(err, EUCLEAN, "compressed grain: bad zlib data in %zu "
                        "bytes of payload", length);
    if (made < needed)
        return lam_fail(err, EUCLEAN, "compressed grain: %zu bytes of payload "
                        "inflate to %zu bytes, not to %zu", length, made,
                        needed);
    memset(grain + made, 0, grain_size - made);
    return 0;
}

size_t grain_deflate(struct libdeflate_compressor *compressor,
                     const uint8_t *grain, size_t grain_size, uint8_t *payload)
{
    size_t length = libdeflate_zlib_compress(compressor, grain, grain_size,
                                             payload, grain_bound(grain_size));

    assert(length > 0);
    return length;
}
