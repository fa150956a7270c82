/* SPDX-License-Identifier: MIT */
/*
 * access.h - an image that is read becomes one that is written to, and back.
 */
#ifndef LAM_QCOW2_ACCESS_H
#define LAM_QCOW2_ACCESS_H

#include "base/error.h"

/* format_ops.set_writable */
int qcow2_set_writable(void *format, bool writable, struct lam_error *err);

#endif
