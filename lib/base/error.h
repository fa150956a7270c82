/* SPDX-License-Identifier: MIT */
/*
 * error.h - the one way in which the library reports a failure.
 *
 * What can fail returns 0 or a negative errno value and fills the caller's
 * struct lam_error (public, see lamella.h).  The message is one line, names
 * the field, the value and the limit, and has no trailing newline.  A NULL
 * error is allowed everywhere and discards the text.
 */
#ifndef LAM_BASE_ERROR_H
#define LAM_BASE_ERROR_H

#include <errno.h>
#include <stdarg.h>

#include "lamella.h"

#ifndef EUCLEAN
#define EUCLEAN EILSEQ
#endif

/* Formats the message and returns -code.  @code is a positive errno value. */
int lam_fail(struct lam_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Like lam_fail(), and appends ": " and the system's text for @code, as in
 * "Could not read L1 table: Input/output error".
 */
int lam_fail_errno(struct lam_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Puts "prefix: " in front of a message that is already there, for the caller
 * who knows the file or the layer.  Does nothing if @rc says that nothing
 * failed, and returns @rc, so that it can end a function:
 *     return lam_error_prefix(err, rc, "Could not open '%s'", name);
 */
int lam_error_prefix(struct lam_error *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * -EINVAL for bits of a caller's @flags that are not in @known: what they will
 * mean one day is not what is done now.
 */
int lam_check_flags(unsigned flags, unsigned known, struct lam_error *err);

/* -EINVAL for a caller's enum @value beyond its @last; @what is its name. */
int lam_check_choice(unsigned value, unsigned last, const char *what,
                     struct lam_error *err);

#endif
