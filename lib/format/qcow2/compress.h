/* SPDX-License-Identifier: MIT */
/*
 * compress.h - deflate and zstd payloads of whole clusters (format document
 * 4.2, 4.3).  Pure: no table, no I/O.  One codec serves one call at a time;
 * threads take one each from a pool.
 */
#ifndef LAM_QCOW2_COMPRESS_H
#define LAM_QCOW2_COMPRESS_H

#include "base/error.h"
#include "format/qcow2/header.h"

struct codec;

int codec_new(enum qcow2_compression type, struct codec **out,
              struct lam_error *err);
void codec_free(struct codec *codec);

/*
 * Payload of @length bytes → exactly @cluster_size bytes.  Deflate: a 32 KiB
 * window is accepted, output beyond the cluster is dropped, trailing garbage
 * ignored, a shorter result is -EUCLEAN.  zstd: frames that add up to the
 * cluster exactly; what follows is ignored.
 */
int codec_inflate(struct codec *codec, const void *payload, size_t length,
                  void *cluster, size_t cluster_size, struct lam_error *err);

/*
 * The first @wanted bytes of the cluster at least; *@made tells how many there
 * are.  Deflate is not decoded much further, and not judged there: a stream may
 * be bad behind *@made.  All of @cluster may be written to.
 */
int codec_inflate_part(struct codec *codec, const void *payload, size_t length,
                       void *cluster, size_t wanted, size_t cluster_size,
                       size_t *made, struct lam_error *err);

/*
 * A cluster → at most @capacity payload bytes.  Returns the payload's length,
 * or 0 if it does not fit (store it plain).  Deflate is written with a window
 * of at most 4 KiB where the library can promise it (see compress.c for what
 * we do and why readers accept it).
 */
size_t codec_deflate(struct codec *codec, const void *cluster,
                     size_t cluster_size, void *payload, size_t capacity);

#endif
