/* SPDX-License-Identifier: MIT */
/*
 * create.h - lay out a new image: header, refcount table, refcount block, L1
 * (format document 1, 17), as the genuine tool does, byte for byte.
 */
#ifndef LAM_QCOW2_CREATE_H
#define LAM_QCOW2_CREATE_H

#include "format/format.h"
#include "format/qcow2/header.h"
#include "io/io.h"

int qcow2_create(struct lam_io *io, struct lam_io *data,
                 const struct lam_create_options *options,
                 struct lam_error *err);

/* Cluster size, refcount width and the like, without looking at files. */
int qcow2_check_widths(const struct lam_create_options *o,
                       struct lam_error *err);

/* (measure.c) */
int qcow2_measure(const struct lam_create_options *o,
                  struct format_measure *out, struct lam_error *err);

#endif
