/* SPDX-License-Identifier: MIT */
/*
 * utf8.h - characters of UTF-8 text.
 */
#ifndef LAM_BASE_UTF8_H
#define LAM_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that @text, which ends with a NUL, begins with, and
 * its code point.  0: no valid UTF-8, or the end. */
size_t utf8_decode(const char *text, uint32_t *code_point);

#endif
