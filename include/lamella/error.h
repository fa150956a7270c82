/* SPDX-License-Identifier: MIT */
/* lamella/error.h - what went wrong. */
#ifndef LAMELLA_ERROR_H
#define LAMELLA_ERROR_H

#include <lamella/api.h>

LAM_BEGIN_DECLS

/*
 * Filled in by whatever fails.  Fixed size for the life of the soname; needs no
 * free.  @message is one line of UTF-8 without a newline; control characters
 * that came out of an image are escaped.
 */
struct lam_error {
    int code;               /* positive errno value, 0 if nothing failed */
    char message[1020];
};

#define LAM_ERROR_INIT { 0, "" }

LAM_END_DECLS

#endif
