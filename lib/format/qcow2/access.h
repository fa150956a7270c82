/* SPDX-License-Identifier: MIT */
/*
 * access.h - an image that is read becomes one that is written to, and back.
 */
#ifndef LAM_QCOW2_ACCESS_H
#define LAM_QCOW2_ACCESS_H

#include "base/error.h"

struct qcow2;

/* Puts refcounts right that may be stale, before anything trusts them (format
 * document 2.2).  What is in memory of L1 and L2 says nothing afterwards. */
int qcow2_repair_dirty(struct qcow2 *q, struct lam_error *err);

/* format_ops.set_writable */
int qcow2_set_writable(void *format, bool writable, struct lam_error *err);

#endif
