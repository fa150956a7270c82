/* SPDX-License-Identifier: MIT */
/*
 * encrypt.h - encrypted qcow2 images (format document 10): whose guest data
 * clusters, and nothing else, are encrypted.
 */
#ifndef LAM_QCOW2_ENCRYPT_H
#define LAM_QCOW2_ENCRYPT_H

#include "format/qcow2/qcow2.h"

/* Find the key, if the image is encrypted and data are going to be read. */
int qcow2_open_crypt(struct qcow2 *q, const struct format_open *options,
                     struct lam_error *err);
void qcow2_close_crypt(struct qcow2 *q);

/* Guest bytes that the format itself has to write: whole sectors, which are
 * encrypted in place where the image is. */
int qcow2_write_data(struct qcow2 *q, const struct format_allocation *a,
                     void *data, struct lam_error *err);

struct crypt *qcow2_crypt(void *format);
int qcow2_key_slot(void *format, const struct lam_key_slot_options *options,
                   struct lam_error *err);
int qcow2_encryption_info(struct qcow2 *q, struct lam_image_info *info,
                          struct lam_error *err);

#endif
