/* SPDX-License-Identifier: MIT */
/*
 * access.c - an image that is read becomes one that is written to, and back.
 *
 * What is cached for reading stays; what writing needs on top comes and goes.
 */
#include "format/qcow2/access.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"

static int begin_writing(struct qcow2 *q, struct lam_error *err)
{
    int rc = alloc_open(q, 0, err);

    if (rc == 0)
        rc = overlap_load(q, LAM_OVERLAP_CACHED, 0, 0, err);
    if (rc == 0)
        rc = bitmaps_open(q, err);
    if (rc == 0)
        qcow2_set_state(q, QCOW2_WRITABLE);
    return rc;
}

static void free_batches(struct release_batch **list)
{
    release_free_list(*list);
    *list = NULL;
}

/* What is left in the lists after a failure is leaked. */
static void forget_writing(struct qcow2 *q)
{
    alloc_close(q);
    q->alloc = (struct allocator){ 0 };
    overlap_deinit(&q->overlap);
    q->overlap = (struct overlap){ 0 };
    free_batches(&q->pending);
    free_batches(&q->written);
    free_batches(&q->durable);
    free_batches(&q->draining);
    atomic_store(&q->nb_pending, 0);
    bitmaps_deinit(&q->bitmaps);
    q->bitmaps = (struct bitmap_set){ 0 };
    bitmaps_init(&q->bitmaps);
    atomic_store(&q->changed, false);
    atomic_store(&q->wrote_payload, false);
    qcow2_set_state(q, QCOW2_READ_ONLY);
}

static int check_fit(const struct qcow2 *q, struct lam_error *err)
{
    const struct qcow2_header *h = &q->header;

    if (h->incompatible & QCOW2_INCOMPAT_CORRUPT)
        return lam_fail(err, EACCES, "qcow2: Image is corrupt; cannot be "
                        "opened read/write");
    if (h->crypt_method == QCOW2_CRYPT_AES)
        return lam_fail(err, EROFS, "qcow2: legacy AES encryption "
                        "(crypt_method %d) can be read only",
                        QCOW2_CRYPT_AES);
    return 0;
}

static int check_tables(struct qcow2 *q, struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(q->io, &length, err);

    return rc < 0 ? rc : header_validate_writable(&q->header, length, err);
}

/* The L1 table from the file, and nothing cached of what it names.  Pinned
 * slices serve those who read from them to the end. */
static int read_tables_again(struct qcow2 *q, struct lam_error *err)
{
    uint64_t bytes = q->l1_size * sizeof *q->l1;
    lam_autofree uint64_t *l1 = malloc(bytes ? bytes : 1);

    if (!l1)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    int rc = bytes ? lam_io_read(q->io, l1, bytes, q->header.l1_offset, err)
                   : 0;
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read L1 table");
    pthread_rwlock_wrlock(&q->lock);
    for (size_t i = 0; i < q->l1_size; i++) {
        cache_forget(&q->l2, entry_offset(q->l1[i]), q->g.cluster_size);
        q->l1[i] = be64_get(&l1[i]);
    }
    pthread_rwlock_unlock(&q->lock);
    return 0;
}

static int repair(struct qcow2 *q, struct lam_error *err)
{
    if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    int rc = qcow2_repair_dirty(q, err);
    return rc < 0 ? rc : read_tables_again(q, err);
}

int qcow2_set_writable(void *format, bool writable, struct lam_error *err)
{
    struct qcow2 *q = format;

    if (!writable) {
        int rc = qcow2_write_back_last(q, err);
        forget_writing(q);
        return rc;
    }
    assert(atomic_load(&q->state) == QCOW2_READ_ONLY && !q->metadata_only);
    int rc = check_fit(q, err);
    if (rc == 0)
        rc = repair(q, err);
    if (rc == 0)
        rc = check_tables(q, err);
    if (rc == 0)
        rc = begin_writing(q, err);
    if (rc < 0)
        forget_writing(q);
    return rc;
}
