/* SPDX-License-Identifier: MIT */
/*
 * backing.h - another backing file, and an overlay with nothing in it.
 */
#ifndef LAM_QCOW2_BACKING_H
#define LAM_QCOW2_BACKING_H

#include "base/error.h"

/* As in format_ops. */
int qcow2_set_backing(void *format, const char *name,
                      const char *backing_format, struct lam_error *err);
void qcow2_take_backing(void *format);
void qcow2_expect_backing(void *format, bool expected);
int qcow2_empty(void *format, struct lam_error *err);

#endif
