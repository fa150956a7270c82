/* SPDX-License-Identifier: MIT */
/*
 * kernel-key.h - keys that the kernel keeps for a process, see keyrings(7).
 */
#ifndef LAM_CRYPTO_KERNEL_KEY_H
#define LAM_CRYPTO_KERNEL_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What the key @serial holds, with a NUL behind it; freed by the caller, who
 * wipes it. */
int kernel_key_read(int32_t serial, uint8_t **data, size_t *length,
                    struct lam_error *err);

#endif
