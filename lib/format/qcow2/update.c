/* SPDX-License-Identifier: MIT */
/*
 * update.c - changes of single header fields, and the state of the image.
 *
 * A group of fields that belong together is one write inside the first 512
 * bytes, atomic on media with atomic sectors (format document 2.1).
 */
#include "format/qcow2/qcow2.h"

#include "base/bytes.h"

void qcow2_put_fields(const struct qcow2_header *h, uint8_t *buf)
{
    be64_put(buf + QH_SIZE, h->size);
    be32_put(buf + QH_CRYPT_METHOD, h->crypt_method);
    be32_put(buf + QH_L1_SIZE, h->l1_size);
    be64_put(buf + QH_L1_OFFSET, h->l1_offset);
    be64_put(buf + QH_REFT_OFFSET, h->reft_offset);
    be32_put(buf + QH_REFT_CLUSTERS, h->reft_clusters);
    be32_put(buf + QH_NB_SNAPSHOTS, h->nb_snapshots);
    be64_put(buf + QH_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version < 3)
        return;
    be64_put(buf + QH_INCOMPATIBLE, h->incompatible);
    be64_put(buf + QH_COMPATIBLE, h->compatible);
    be64_put(buf + QH_AUTOCLEAR, h->autoclear);
    be32_put(buf + QH_REFCOUNT_ORDER, h->refcount_order);
}

int qcow2_write_header(struct qcow2 *q, size_t from, size_t to,
                       struct lam_error *err)
{
    uint8_t buf[QH_HEADER_LENGTH] = { 0 };

    assert(from >= QH_SIZE && from < to && to <= sizeof buf);
    assert(to <= QH_V2_LENGTH || q->header.version >= 3);
    qcow2_put_fields(&q->header, buf);
    int rc = lam_io_write(q->io, buf + from, to - from, from, err);
    return lam_error_prefix(err, rc, "Could not update qcow2 header");
}

int qcow2_switch_header(struct qcow2 *q, size_t from, size_t to,
                        struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    int rc = qcow2_write_header(q, from, to, &local);

    if (rc == 0)
        rc = lam_io_flush(q->io, &local);
    if (rc < 0) {
        qcow2_fail(q, &local);
        return lam_fail(err, -rc, "%s", local.message);
    }
    return 0;
}

static bool state_may_follow(int from, int to)
{
    return to == QCOW2_READ_ONLY ||
           (from == QCOW2_READ_ONLY && to == QCOW2_WRITABLE) ||
           (from == QCOW2_WRITABLE && to == QCOW2_FAILED);
}

void qcow2_set_state(struct qcow2 *q, enum qcow2_state state)
{
    int from = atomic_exchange(&q->state, (int)state);

    (void)from;
    assert(state_may_follow(from, state));
    (void)state_may_follow;
}

/* Few layers of a thousand ever fail: there is no room for it before. */
void qcow2_keep_error(struct lam_error **kept, const struct lam_error *err)
{
    if (!*kept)
        *kept = malloc(sizeof **kept);
    if (*kept)
        **kept = *err;
}

void qcow2_fail(struct qcow2 *q, const struct lam_error *err)
{
    LAM_LOCKED(&q->failure_lock);
    if (atomic_load(&q->state) != QCOW2_WRITABLE)
        return;                     /* the first reason stays */
    qcow2_keep_error(&q->failure, err);
    qcow2_set_state(q, QCOW2_FAILED);
}

int qcow2_check_writable(struct qcow2 *q, struct lam_error *err)
{
    switch (atomic_load(&q->state)) {
    case QCOW2_WRITABLE:
        return 0;
    case QCOW2_FAILED:
        return lam_fail(err, q->failure && q->failure->code
                        ? q->failure->code : EIO,
                        "the image takes no more writes after: %s",
                        q->failure ? q->failure->message
                                   : "writing metadata failed");
    default:
        return lam_fail(err, EROFS, "the image is open read-only");
    }
}

/* Unknown bits say something about the contents that our writes would make
 * untrue; so does the bitmaps bit where we cannot maintain the bitmaps
 * (format document 2.2, 9.2). */
static int clear_autoclear(struct qcow2 *q, struct lam_error *err)
{
    uint64_t known = QCOW2_AUTOCLEAR_DATA_RAW;

    if (q->header.has_bitmaps && q->bitmaps.known)
        known |= QCOW2_AUTOCLEAR_BITMAPS;
    uint64_t keep = q->header.autoclear & known;
    if (q->header.version < 3 || keep == q->header.autoclear)
        return 0;
    uint64_t old = q->header.autoclear;
    q->header.autoclear = keep;
    int rc = qcow2_write_header(q, QH_AUTOCLEAR, QH_REFCOUNT_ORDER, err);
    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    if (rc < 0)
        q->header.autoclear = old;
    return rc;
}

int qcow2_before_change(struct qcow2 *q, struct lam_error *err)
{
    int rc = qcow2_check_writable(q, err);

    if (rc < 0 || atomic_load_explicit(&q->changed, memory_order_acquire))
        return rc;
    LAM_LOCKED(&q->alloc_lock);
    if (atomic_load(&q->changed))
        return 0;
    lam_io_grow_ahead(q->io, LAM_MIB);
    rc = bitmaps_before_change(q, err);
    if (rc == 0)
        rc = clear_autoclear(q, err);
    if (rc == 0)
        atomic_store_explicit(&q->changed, true, memory_order_release);
    return rc;
}

int qcow2_set_dirty_bit(struct qcow2 *q, bool dirty, struct lam_error *err)
{
    uint64_t old = q->header.incompatible;
    uint64_t new = dirty ? old | QCOW2_INCOMPAT_DIRTY
                         : old & ~QCOW2_INCOMPAT_DIRTY;

    if (old == new)
        return 0;
    q->header.incompatible = new;
    int rc = qcow2_write_header(q, QH_INCOMPATIBLE, QH_COMPATIBLE, err);
    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    if (rc < 0)
        q->header.incompatible = old;
    return rc;
}
