/* SPDX-License-Identifier: MIT */
/*
 * header.c - changing the header of a VHDX [2.2.2].
 *
 * The one that is not in force is written, with the next number, and is it
 * then; and the same again for the other one, so that both say the same.
 */
#include <string.h>

#include "base/cleanup.h"
#include "crypto/hash.h"
#include "format/vhdx/vhdx.h"

int vhdx_guid_make(struct vhdx_guid *out, struct lam_error *err)
{
    int rc = crypto_random(out->bytes, sizeof out->bytes, err);

    /* Version 4, in the mixed order of bytes that a GUID has. */
    out->bytes[7] = (uint8_t)((out->bytes[7] & 0x0f) | 0x40);
    out->bytes[8] = (uint8_t)((out->bytes[8] & 0x3f) | 0x80);
    return rc;
}

static int write_other(struct vhdx *v, const struct vhdx_header *h,
                       struct lam_error *err)
{
    uint8_t bytes[VHDX_HEADER_BYTES];
    struct vhdx_header next = *h;

    next.sequence = v->header.sequence + 1;
    vhdx_header_encode(&next, bytes);
    int rc = lam_io_write(v->io, bytes, sizeof bytes,
                          v->other_header ? VHDX_PART : 2 * VHDX_PART, err);
    if (rc == 0)
        rc = lam_io_flush(v->io, err);
    if (rc < 0)
        return rc;
    v->header = next;
    v->other_header = !v->other_header;
    return 0;
}

static int write_both(struct vhdx *v, const struct vhdx_header *h,
                      struct lam_error *err)
{
    int rc = write_other(v, h, err);
    return rc < 0 ? rc : write_other(v, h, err);
}

int vhdx_announce(struct vhdx *v, struct lam_error *err)
{
    if (atomic_load(&v->announced))
        return 0;
    LAM_LOCKED(&v->header_lock);
    if (atomic_load(&v->announced))
        return 0;
    struct vhdx_header h = v->header;
    int rc = vhdx_guid_make(&h.file_write, err);
    if (rc == 0)
        rc = vhdx_guid_make(&h.data_write, err);
    if (rc == 0)
        rc = write_both(v, &h, err);
    if (rc == 0)
        atomic_store(&v->announced, true);
    return rc;
}

int vhdx_set_log(struct vhdx *v, const struct vhdx_guid *guid,
                 struct lam_error *err)
{
    LAM_LOCKED(&v->header_lock);
    struct vhdx_header h = v->header;

    h.log = *guid;
    return write_both(v, &h, err);
}
