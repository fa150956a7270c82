/* SPDX-License-Identifier: MIT */
/*
 * release.h - host space that entries have dropped, on its way to be free.
 */
#ifndef LAM_QCOW2_RELEASE_H
#define LAM_QCOW2_RELEASE_H

#include "format/qcow2/qcow2.h"

void epoch_init(struct epoch *e);
void epoch_deinit(struct epoch *e);
uint64_t epoch_enter(struct epoch *e);
void epoch_leave(struct epoch *e, uint64_t token);

#endif
