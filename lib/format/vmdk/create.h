/* SPDX-License-Identifier: MIT */
/*
 * create.h - new VMDKs.
 */
#ifndef LAM_FORMAT_VMDK_CREATE_H
#define LAM_FORMAT_VMDK_CREATE_H

#include "format/format.h"

enum { VMDK_NB_OPTIONS = 9 };
extern const struct lam_option_info vmdk_options[VMDK_NB_OPTIONS];

int vmdk_other_file(const struct lam_create_options *options, const char *path,
                    size_t index, char **name, struct lam_error *err);
int vmdk_create_set(const struct format_new *files,
                    const struct lam_create_options *options,
                    struct lam_error *err);

#endif
