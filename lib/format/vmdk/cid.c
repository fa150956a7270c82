/* SPDX-License-Identifier: MIT */
/*
 * cid.c - the content IDs in the descriptor: of this image, which changes with
 * its content, and of the parent as it was when this image was made.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

/* As many digits as there were, so that nothing else of the text moves and one
 * write of a few bytes does it. */
static int write_id(struct vmdk *v, size_t at, size_t digits, uint32_t id,
                    struct lam_error *err)
{
    char text[9];

    assert(digits > 0 && digits <= 8);
    snprintf(text, sizeof text, "%0*" PRIx32, (int)digits, id);
    int rc = lam_io_write(v->io, text, digits, v->descriptor_offset + at, err);
    return lam_error_prefix(err, rc, "content ID");
}

static bool fits(uint64_t id, size_t digits)
{
    return id < UINT64_C(1) << (4 * digits);
}

static int choose_id(const struct vmdk *v, uint32_t *id, struct lam_error *err)
{
    uint64_t limit = UINT64_C(1) << (4 * v->d.cid_digits);

    do {
        if (getrandom(id, sizeof *id, 0) != sizeof *id)
            return lam_fail_errno(err, errno, "no random number for the "
                                  "content ID");
        *id = (uint32_t)(*id % limit);
    } while (*id == v->d.cid || *id == VMDK_NO_CID);
    return 0;
}

int vmdk_change_cid(struct vmdk *v, struct lam_error *err)
{
    uint32_t id;

    if (v->cid_changed)
        return 0;
    LAM_LOCKED(&v->cid_lock);
    if (v->cid_changed)
        return 0;
    int rc = choose_id(v, &id, err);
    if (rc == 0)
        rc = write_id(v, v->d.cid_at, v->d.cid_digits, id, err);
    if (rc < 0)
        return rc;
    v->d.cid = id;
    v->cid_changed = true;
    return 0;
}

/* ------------------------------------------------------------ the parent's */

/* The text with @id in place of the number that has too few digits. */
static int rewrite(struct vmdk *v, uint32_t id, struct lam_error *err)
{
    const struct vmdk_descriptor *d = &v->d;
    size_t behind = d->parent_cid_at + d->parent_cid_digits;
    size_t length = d->length - d->parent_cid_digits + 8;
    lam_autofree char *text = calloc(1, d->length + 16);

    if (!text)
        return lam_fail(err, ENOMEM, "no memory for a descriptor");
    if (d->room && length > d->room)
        return lam_fail(err, ENOSPC, "the descriptor has no room for a longer "
                        "parentCID: %zu bytes (limit: %zu)", length, d->room);
    int rc = lam_io_read(v->io, text, d->length, v->descriptor_offset, err);
    if (rc < 0)
        return rc;
    memmove(text + d->parent_cid_at + 8, text + behind, d->length - behind);
    char digits[9];
    snprintf(digits, sizeof digits, "%08" PRIx32, id);
    memcpy(text + d->parent_cid_at, digits, 8);
    rc = lam_io_write(v->io, text, length, v->descriptor_offset, err);
    if (rc < 0)
        return rc;
    if (d->cid_at > d->parent_cid_at)
        v->d.cid_at += 8 - d->parent_cid_digits;
    v->d.length = length;
    v->d.parent_cid_digits = 8;
    return 0;
}

int vmdk_adopt_backing(void *format, const struct format_ops *ops,
                       void *below, struct lam_error *err)
{
    struct vmdk *v = format;
    int rc = 0;

    assert(v->writable);
    if (!vmdk_is_parent(v, ops))
        return 0;
    const struct vmdk *parent = below;
    LAM_LOCKED(&v->cid_lock);
    uint32_t id = parent->d.cid;
    if (id == v->d.parent_cid)
        return 0;
    rc = fits(id, v->d.parent_cid_digits)
        ? write_id(v, v->d.parent_cid_at, v->d.parent_cid_digits, id, err)
        : rewrite(v, id, err);
    if (rc < 0)
        return rc;
    v->d.parent_cid = id;
    return lam_io_flush(v->io, err);
}
