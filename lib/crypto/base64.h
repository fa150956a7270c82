/* SPDX-License-Identifier: MIT */
/*
 * base64.h - bytes written as letters.
 */
#ifndef LAM_CRYPTO_BASE64_H
#define LAM_CRYPTO_BASE64_H

#include <stddef.h>
#include <stdint.h>

/*
 * Decodes @length characters of @text into @out, which has room for 3 bytes
 * for every 4 of them and 3 more; white space is skipped.  The number of bytes,
 * or -EINVAL.
 */
int base64_decode(const char *text, size_t length, uint8_t *out, size_t *bytes);

/*
 * The same, as QEMU reads secrets: groups of less than four characters are
 * dropped, and "=" may stand anywhere.  White space but for line ends, and what
 * is no character of base64, are -EINVAL.
 */
int base64_decode_secret(const char *text, size_t length, uint8_t *out,
                         size_t *bytes);

#endif
