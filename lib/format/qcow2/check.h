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

/* The same, and what lies behind the end of the data file @data is a
 * corruption, too.  NULL: it is not known. */
int qcow2_check_with_data(struct lam_io *io, const struct qcow2_header *h,
                          struct lam_io *data, lam_finding_fn *finding,
                          void *opaque, struct lam_check_result *out,
                          struct lam_error *err);

struct qcow2;

/* With LAM_REPAIR_...: snapshots that cannot be read may be given up.  Not for
 * a repair that nobody asked for. */
enum { QCOW2_REPAIR_SNAPSHOTS = 1 << 8 };

/*
 * The same, and put right what @what (LAM_REPAIR_...) names and can be put
 * right (repair.c).  Nobody else uses @q, which has its header but no tables
 * in memory yet.  All is on disk when it returns 0; killed at any point, the
 * image is no worse than it was.
 */
int qcow2_repair_run(struct qcow2 *q, unsigned what, lam_finding_fn *finding,
                     void *opaque, struct lam_check_result *out,
                     struct lam_error *err);

#endif
