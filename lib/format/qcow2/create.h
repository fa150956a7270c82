/* SPDX-License-Identifier: MIT */
/*
 * create.h - lay out a new image: header, refcount table, refcount block, L1
 * (format document 1, 17), as the genuine tool does, byte for byte.
 */
#ifndef LAM_QCOW2_CREATE_H
#define LAM_QCOW2_CREATE_H

#include "format/qcow2/header.h"
#include "io/io.h"

int qcow2_create(struct lam_io *io, struct lam_io *data,
                 const struct lam_create_options *options,
                 struct lam_error *err);

#endif
