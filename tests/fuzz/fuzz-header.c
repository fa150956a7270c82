/* SPDX-License-Identifier: MIT */
/*
 * fuzz-header.c - any bytes as a header: decode, validate, encode.
 *
 * What was decoded and can be encoded again must decode to the same header.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/qcow2/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A name that begins with NUL is none. */
static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static void check_round_trip(const struct qcow2_header *h)
{
    size_t cluster_size = (size_t)1 << h->cluster_bits;
    struct qcow2_header again = { 0 };
    uint8_t *buf = calloc(1, cluster_size);
    if (!buf)
        return;
    if (header_encode(h, buf, cluster_size, NULL) == 0) {
        if (header_decode(buf, cluster_size, &again, NULL) < 0 ||
            again.size != h->size || again.l1_offset != h->l1_offset ||
            again.incompatible != h->incompatible ||
            !same_text(again.backing_file, h->backing_file) ||
            !same_text(again.data_file, h->data_file) ||
            again.nb_unknown != h->nb_unknown)
            abort();
        header_deinit(&again);
    }
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t want;
    if (size < 24 || header_peek(data, size, &want, NULL) < 0)
        return 0;

    struct qcow2_header h = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    int rc = header_decode(data, size, &h, &err);
    if (rc == 0) {
        uint64_t length = size;
        int valid = header_validate(&h, length, false, false, &err);
        header_validate(&h, length, true, false, &err);
        header_validate(&h, length, false, true, &err);
        if (valid == 0) {
            header_validate_writable(&h, length, &err);
            check_round_trip(&h);
        }
    } else if (err.message[0] == '\0') {
        abort();        /* a failure without a reason */
    }
    header_deinit(&h);
    return 0;
}
