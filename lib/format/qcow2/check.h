/* SPDX-License-Identifier: MIT */
/*
 * check.h - count every reference and compare with the refcounts (format
 * document 14).  Reads the tables from @io itself, past all caches: the caller
 * has flushed.
 */
#ifndef LAM_QCOW2_CHECK_H
#define LAM_QCOW2_CHECK_H

#include "format/qcow2/header.h"
#include "io/io.h"

int qcow2_check_run(struct lam_io *io, const struct qcow2_header *h,
                    lam_finding_fn *finding, void *opaque,
                    struct lam_check_result *out, struct lam_error *err);

#endif
