/* SPDX-License-Identifier: MIT */
/*
 * open.h - the descriptor and the extents of a VMDK, opened.
 */
#ifndef LAM_FORMAT_VMDK_OPEN_H
#define LAM_FORMAT_VMDK_OPEN_H

#include "format/vmdk/vmdk.h"

/* Everything in @v behind metadata_only; vmdk_close_extents() undoes it, also
 * after a failure. */
int vmdk_open_extents(struct vmdk *v, const struct format_files *files,
                      struct lam_error *err);
void vmdk_close_extents(struct vmdk *v);

/* May its extents be written to? */
int vmdk_judge_writable(const struct vmdk *v, struct lam_error *err);

#endif
