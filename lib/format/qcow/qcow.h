/* SPDX-License-Identifier: MIT */
/*
 * qcow.h - qcow images, the first version: what opening, compression and making
 * new ones share.
 */
#ifndef LAM_FORMAT_QCOW_H
#define LAM_FORMAT_QCOW_H

#include "format/tables/tables.h"

enum {                          /* every field big-endian */
    QH1_MAGIC = 0,              /* u32 */
    QH1_VERSION = 4,            /* u32  1 */
    QH1_NAME_OFFSET = 8,        /* u64  bytes; 0: no backing file */
    QH1_NAME_SIZE = 16,         /* u32  bytes */
    QH1_SIZE = 24,              /* u64  bytes */
    QH1_CLUSTER_BITS = 32,      /* u8 */
    QH1_L2_BITS = 33,           /* u8   entries of an L2 table */
    QH1_CRYPT = 36,             /* u32  0, or 1: AES */
    QH1_L1_OFFSET = 40,         /* u64  bytes */
    QH1_BYTES = 48,
};
#define QCOW1_MAGIC UINT32_C(0x514649fb)

struct qcow {
    struct tables t;            /* first: see ../tables/tables.h */
    unsigned cluster_bits;
    char *backing;              /* or NULL */
    bool encrypted;
};

/* Bit 63 of an entry; below it the payload's length, then its place. */
#define QCOW1_COMPRESSED (UINT64_C(1) << 63)

int qcow_read_compressed(void *format, const struct lam_extent *extent,
                         void *cluster, struct lam_error *err);
int qcow_read_compressed_part(void *format, const struct lam_extent *extent,
                              void *buf, struct lam_error *err);
int qcow_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                          uint64_t length, struct lam_error *err);
extern const struct format_payload_ops qcow_payloads;
int qcow_create(struct lam_io *io, struct lam_io *data,
                const struct lam_create_options *options,
                struct lam_error *err);

#endif
