/* SPDX-License-Identifier: MIT */
/*
 * utf16.h - UTF-16, in which Windows' formats keep names.
 */
#ifndef LAM_BASE_UTF16_H
#define LAM_BASE_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * @length bytes, up to the first zero character, as a string that the caller
 * frees.  -EINVAL for half a surrogate pair or a control character, which no
 * name has.
 */
int utf16_to_utf8(const uint8_t *bytes, size_t length, bool big_endian,
                  char **out, struct lam_error *err);

#endif
