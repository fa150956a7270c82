/* SPDX-License-Identifier: MIT */
/*
 * values.h - what a format has to say of an image, and is told of a new one, by
 * name.
 */
#ifndef LAM_FORMAT_VALUES_H
#define LAM_FORMAT_VALUES_H

#include "base/error.h"
#include "lamella.h"

/*
 * For info(): each appends one to @info's values.  @name is static, in the
 * words of the JSON form ("create-type"), and NULL for the items of a list.
 * What values_begin() begins, a list or an object, values_end() ends.
 */
int values_text(struct lam_image_info *info, const char *name,
                const char *text, struct lam_error *err);
int values_number(struct lam_image_info *info, const char *name,
                  uint64_t number, struct lam_error *err);
int values_bool(struct lam_image_info *info, const char *name, bool value,
                struct lam_error *err);
int values_begin(struct lam_image_info *info, const char *name,
                 enum lam_value_kind kind, struct lam_error *err);
int values_end(struct lam_image_info *info, struct lam_error *err);

/*
 * For create() and measure(): the option @name, or what is to hold if it was
 * not given.  -EINVAL, in qemu-img's words, if the value is of another kind.
 */
const char *option_text(const struct lam_create_options *options,
                        const char *name, const char *standard);
int option_bool(const struct lam_create_options *options, const char *name,
                bool standard, bool *value, struct lam_error *err);
/* Bytes or a count, plain digits or with one of the suffixes k M G T P E. */
int option_size(const struct lam_create_options *options, const char *name,
                uint64_t standard, uint64_t *value, struct lam_error *err);

#endif
