/* SPDX-License-Identifier: MIT */
/*
 * grain.h - compressed grains: RFC 1950 streams.
 */
#ifndef LAM_FORMAT_VMDK_GRAIN_H
#define LAM_FORMAT_VMDK_GRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* No payload of a grain is longer. */
size_t grain_bound(size_t grain_size);

/* Fills @grain; @needed bytes have to come out of it, the rest is zero. */
int grain_inflate(const uint8_t *payload, size_t length, uint8_t *grain,
                  size_t needed, size_t grain_size, struct lam_error *err);

struct libdeflate_compressor;

/* Bytes of @payload, which has grain_bound() of room. */
size_t grain_deflate(struct libdeflate_compressor *compressor,
                     const uint8_t *grain, size_t grain_size,
                     uint8_t *payload);

#endif
