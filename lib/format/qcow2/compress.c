/* SPDX-License-Identifier: MIT */
/*
 * compress.c - payloads of compressed clusters: libdeflate and libzstd.
 *
 * The window of what we deflate.  The genuine tool deflates with a 4 KiB
 * window; libdeflate always uses 32 KiB.  RFC 1951 is all that the format
 * names, and the genuine tools inflate a cluster in one call into one flat
 * buffer, so that distances up to 32 KiB resolve there (tried with 7.2 and
 * 10.0, clusters of 64 KiB and 2 MiB, see tests/interop).  A reader
 * with a real 4 KiB window would fail; none is known.  In return level 1 is
 * several times faster than zlib's default and its output no larger, from
 * clusters of 32 KiB on; smaller ones need the higher levels of deflate_level()
 * for that.
 */
#include "format/qcow2/compress.h"

#include <assert.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "format/qcow2/inflate.h"

/* The genuine tool's level: 1 and 2 make larger images. */
enum { ZSTD_LEVEL = 3 };

struct codec {
    enum qcow2_compression type;
    struct libdeflate_compressor *deflate;  /* of @deflate_level; NULL: not
                                               needed yet */
    int deflate_level;
    struct libdeflate_decompressor *inflate;
    struct inflater *inflater;
    ZSTD_CCtx *zstd_c;
    ZSTD_DCtx *zstd_d;
};

void codec_free(struct codec *codec)
{
    if (!codec)
        return;
    libdeflate_free_compressor(codec->deflate);
    libdeflate_free_decompressor(codec->inflate);
    inflater_free(codec->inflater);
    ZSTD_freeCCtx(codec->zstd_c);
    ZSTD_freeDCtx(codec->zstd_d);
    free(codec);
}

int codec_new(enum qcow2_compression type, struct codec **out,
              struct lam_error *err)
{
    struct codec *codec = calloc(1, sizeof *codec);
    bool complete;

    if (!codec)
        return lam_fail(err, ENOMEM, "no memory for a compression context");
    codec->type = type;
    if (type == QCOW2_ZSTD) {
        codec->zstd_c = ZSTD_createCCtx();
        codec->zstd_d = ZSTD_createDCtx();
        complete = codec->zstd_c && codec->zstd_d;
    } else {
        codec->inflate = libdeflate_alloc_decompressor();
        codec->inflater = inflater_new();
        complete = codec->inflate && codec->inflater;
    }
    if (!complete) {
        codec_free(codec);
        return lam_fail(err, ENOMEM, "no memory for a compression context");
    }
    *out = codec;
    return 0;
}

/* ----------------------------------------------------------------- inflate */

static int inflate_deflate(struct codec *codec, const void *payload,
                           size_t length, void *cluster, size_t cluster_size,
                           struct lam_error *err)
{
    size_t used, made = 0;
    enum libdeflate_result result = libdeflate_deflate_decompress_ex(
        codec->inflate, payload, length, cluster, cluster_size, &used, &made);

    if (result == LIBDEFLATE_SUCCESS && made == cluster_size)
        return 0;
    /* More output than a cluster, or no proper end after it. */
    if (result != LIBDEFLATE_SUCCESS) {
        ptrdiff_t n = inflate_until(codec->inflater, payload, length, cluster,
                                    cluster_size, cluster_size);
        if (n < 0)
            return lam_fail(err, EUCLEAN, "compressed cluster: bad deflate "
                            "data in %zu bytes of payload", length);
        made = (size_t)n;
    }
    if (made == cluster_size)
        return 0;
    return lam_fail(err, EUCLEAN, "compressed cluster: %zu bytes of payload "
                    "inflate to %zu bytes, not to a cluster of %zu", length,
                    made, cluster_size);
}

/*
 * Frames until the cluster is full; the frame in progress must end there, and
 * its last bytes (an empty block, a checksum) may still have to be read then.
 */
static int inflate_zstd(struct codec *codec, const void *payload, size_t length,
                        void *cluster, size_t cluster_size,
                        struct lam_error *err)
{
    ZSTD_inBuffer in = { payload, length, 0 };
    ZSTD_outBuffer out = { cluster, cluster_size, 0 };
    size_t hint = 1;

    ZSTD_DCtx_reset(codec->zstd_d, ZSTD_reset_session_only);
    while (out.pos < out.size || hint) {
        size_t in_before = in.pos, out_before = out.pos;

        hint = ZSTD_decompressStream(codec->zstd_d, &out, &in);
        if (ZSTD_isError(hint))
            return lam_fail(err, EUCLEAN, "compressed cluster: bad zstd data "
                            "in %zu bytes of payload: %s", length,
                            ZSTD_getErrorName(hint));
        if (in.pos == in_before && out.pos == out_before)
            break;
    }
    if (out.pos == out.size && !hint)
        return 0;
    if (out.pos < out.size)
        return lam_fail(err, EUCLEAN, "compressed cluster: %zu bytes of "
                        "payload inflate to %zu bytes, not to a cluster of %zu",
                        length, out.pos, cluster_size);
    return lam_fail(err, EUCLEAN, "compressed cluster: %zu bytes of payload do "
                    "not end with a cluster of %zu", length, cluster_size);
}

int codec_inflate(struct codec *codec, const void *payload, size_t length,
                  void *cluster, size_t cluster_size, struct lam_error *err)
{
    return codec->type == QCOW2_ZSTD
               ? inflate_zstd(codec, payload, length, cluster, cluster_size,
                              err)
               : inflate_deflate(codec, payload, length, cluster, cluster_size,
                                 err);
}

/* Where the beginning is wrong, the whole says how. */
int codec_inflate_part(struct codec *codec, const void *payload, size_t length,
                       void *cluster, size_t wanted, size_t cluster_size,
                       size_t *made, struct lam_error *err)
{
    ptrdiff_t n = -1;

    assert(wanted <= cluster_size);
    if (codec->type == QCOW2_DEFLATE && wanted < cluster_size)
        n = inflate_until(codec->inflater, payload, length, cluster, wanted,
                          cluster_size);
    if (n >= (ptrdiff_t)wanted) {
        *made = (size_t)n;
        return 0;
    }
    *made = cluster_size;
    return codec_inflate(codec, payload, length, cluster, cluster_size, err);
}

/* ----------------------------------------------------------------- deflate */

/* The fastest level whose output stays within 1 % of the genuine tool's. */
static int deflate_level(size_t cluster_size)
{
    return cluster_size <= 8 * LAM_KIB ? 5 : cluster_size <= 16 * LAM_KIB ? 2
                                                                          : 1;
}

static size_t deflate_deflate(struct codec *codec, const void *cluster,
                              size_t cluster_size, void *payload, size_t room)
{
    int level = deflate_level(cluster_size);

    if (!codec->deflate || codec->deflate_level != level) {
        libdeflate_free_compressor(codec->deflate);
        codec->deflate = libdeflate_alloc_compressor(level);
        codec->deflate_level = level;
    }
    if (!codec->deflate)            /* no memory: plain is right as well */
        return 0;
    return libdeflate_deflate_compress(codec->deflate, cluster, cluster_size,
                                       payload, room);
}

size_t codec_deflate(struct codec *codec, const void *cluster,
                     size_t cluster_size, void *payload, size_t capacity)
{
    /* A payload that saves nothing is not worth a compressed cluster. */
    size_t room = capacity < cluster_size ? capacity : cluster_size - 1;

    if (codec->type != QCOW2_ZSTD)
        return deflate_deflate(codec, cluster, cluster_size, payload, room);

    size_t n = ZSTD_compressCCtx(codec->zstd_c, payload, room, cluster,
                                 cluster_size, ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : n;
}
