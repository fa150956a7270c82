/* SPDX-License-Identifier: MIT */
/*
 * amend.c - what may become of an image, and its header on the way there.
 *
 * The order makes every state in between a whole image: up to version 3 comes
 * first, down to version 2 last, when nothing is left that needs version 3.
 */
#include "format/qcow2/amend.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/alloc.h"
#include "format/qcow2/resize.h"
#include "format/qcow2/snapshot.h"

struct amendment {
    struct qcow2 *q;
    const struct lam_amend_options *o;
    unsigned version;           /* to be */
    unsigned order;             /* to be: refcounts have 1 << order bits */
    struct amend_progress progress;
};

/* ------------------------------------------------------------- the request */

static int check_refcount_bits(struct amendment *a, struct lam_error *err)
{
    unsigned bits = a->o->refcount_bits;

    a->order = a->q->g.refcount_order;
    if (!bits)
        return 0;
    if (bits > 64 || (bits & (bits - 1)))
        return lam_fail(err, EINVAL, "Refcount width must be a power of two "
                        "and may not exceed 64 bits");
    if (a->version < 3 && bits != 16 && bits != a->q->g.refcount_bits)
        return lam_fail(err, EINVAL, "Refcount widths other than 16 bits "
                        "require compatibility level 1.1 or above (use "
                        "compat=1.1 or greater)");
    a->order = (unsigned)__builtin_ctz(bits);
    return 0;
}

static int check_data_file(const struct amendment *a, struct lam_error *err)
{
    const struct qcow2_header *h = &a->q->header;

    if (a->o->data_file && !a->q->data_file)
        return lam_fail(err, EINVAL, "data-file can only be set for images "
                        "that use an external data file");
    if (a->o->data_file_raw == LAM_SETTING_ON &&
        !(h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW))
        return lam_fail(err, EINVAL, "data-file-raw cannot be set on existing "
                        "images");
    if (a->version < 3 && (h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return lam_fail(err, ENOTSUP, "Cannot downgrade an image with a data "
                        "file");
    return 0;
}

/* Whether version 2 can hold the image. */
static int check_downgrade(const struct amendment *a, struct lam_error *err)
{
    const struct qcow2_header *h = &a->q->header;
    uint64_t features = h->incompatible & ~(QCOW2_INCOMPAT_DIRTY |
                                            QCOW2_INCOMPAT_COMPRESSION);

    if (a->order != 4)
        return lam_fail(err, EINVAL, "compat=0.10 requires refcount_bits=16");
    if (features)
        return lam_fail(err, ENOTSUP, "Cannot downgrade an image with "
                        "incompatible features 0x%" PRIx64 " set", features);
    if (header_has_bitmaps(h) && h->nb_bitmaps)
        return lam_fail(err, ENOTSUP, "Cannot downgrade an image with %" PRIu32
                        " persistent bitmaps; remove them first",
                        h->nb_bitmaps);
    return 0;
}

static uint64_t size_to_be(const struct amendment *a)
{
    return a->o->size == LAM_SIZE_KEEP ? a->q->size : a->o->size;
}

/* Version 2 records neither another disk size nor much VM state. */
static int check_snapshots(const struct amendment *a, struct lam_error *err)
{
    struct qcow2_snapshots list = { 0 };
    struct qcow2 *q = a->q;
    int rc = snapshots_load(q->io, &q->header, &list, err);

    for (size_t i = 0; rc == 0 && i < list.count; i++)
        if (list.items[i].disk_size != size_to_be(a) ||
            list.items[i].vm_state_size > UINT32_MAX)
            rc = lam_fail(err, ENOTSUP, "Internal snapshots prevent downgrade "
                          "of image");
    snapshots_deinit(&list);
    return rc;
}

static int check(struct amendment *a, struct lam_error *err)
{
    if (a->version < 2 || a->version > 3)
        return lam_fail(err, EINVAL, "qcow2 version %u (2 and 3 are known)",
                        a->version);
    int rc = check_refcount_bits(a, err);
    /* What is on already is no request, and goes with the version. */
    if (rc == 0 && a->version < 3 && a->o->lazy_refcounts == LAM_SETTING_ON &&
        !(a->q->header.compatible & QCOW2_COMPAT_LAZY))
        rc = lam_fail(err, EINVAL, "Lazy refcounts only supported with "
                      "compatibility level 1.1 and above (use compat=1.1 or "
                      "greater)");
    if (rc == 0)
        rc = check_data_file(a, err);
    if (rc < 0 || a->version >= a->q->header.version)
        return rc;
    rc = check_downgrade(a, err);
    return rc < 0 ? rc : check_snapshots(a, err);
}

/* -------------------------------------------------------------- the header */

/* Refcounts are to be right from now on, without the dirty bit's help. */
static int clean_refcounts(struct qcow2 *q, struct lam_error *err)
{
    if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    int rc = alloc_write_back(q, err);

    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    return rc < 0 ? rc : qcow2_set_dirty_bit(q, false, err);
}

/* What follows from the header for requests; they read it under lock. */
static void header_changed(struct qcow2 *q)
{
    pthread_rwlock_wrlock(&q->lock);
    q->l2_context.version = q->header.version;
    pthread_rwlock_unlock(&q->lock);
    q->lazy = q->header.compatible & QCOW2_COMPAT_LAZY;
}

/* Requests look at the version under lock. */
static void set_header(struct qcow2 *q, const struct qcow2_header *h)
{
    pthread_rwlock_wrlock(&q->lock);
    q->header = *h;
    pthread_rwlock_unlock(&q->lock);
}

/* The header is @new from now on, or as it was.  What one of them has and the
 * other has not is freed by the caller. */
static int replace_header(struct qcow2 *q, const struct qcow2_header *new,
                          struct lam_error *err)
{
    struct qcow2_header old = q->header;

    set_header(q, new);
    int rc = qcow2_rewrite_header(q, err);
    if (rc < 0)
        set_header(q, &old);
    else
        header_changed(q);
    return rc;
}

static void raise_version(struct qcow2_header *h)
{
    if (h->version >= 3)
        return;
    h->version = 3;
    h->header_length = QH_V3_LENGTH;
    h->refcount_order = 4;
    h->incompatible = h->compatible = h->autoclear = 0;
    h->has_feature_names = h->cluster_bits > 12;    /* it has room for them */
}

/* But for the name of the data file. */
static struct qcow2_header header_to_be(const struct amendment *a)
{
    struct qcow2_header new = a->q->header;

    if (a->version == 3)
        raise_version(&new);
    if (a->o->lazy_refcounts == LAM_SETTING_ON)
        new.compatible |= QCOW2_COMPAT_LAZY;
    if (a->o->lazy_refcounts == LAM_SETTING_OFF)
        new.compatible &= ~QCOW2_COMPAT_LAZY;
    if (a->o->data_file_raw == LAM_SETTING_OFF)
        new.autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
    return new;
}

static bool header_changes(const struct amendment *a,
                           const struct qcow2_header *new)
{
    const struct qcow2_header *h = &a->q->header;

    return a->o->data_file || new->version != h->version ||
           new->compatible != h->compatible || new->autoclear != h->autoclear;
}

/* Version up, features on and off, another name. */
static int change_header(struct amendment *a, struct lam_error *err)
{
    struct qcow2 *q = a->q;
    struct qcow2_header new = header_to_be(a);
    lam_autofree char *name = NULL;
    int rc = 0;

    if (a->o->data_file) {
        new.data_file = NULL;
        if (*a->o->data_file && !(new.data_file = strdup(a->o->data_file)))
            return lam_fail(err, ENOMEM, "no memory for a file name");
        name = new.data_file;
    }
    if (!header_changes(a, &new))
        return 0;
    if (q->lazy && !(new.compatible & QCOW2_COMPAT_LAZY)) {
        rc = clean_refcounts(q, err);
        new.incompatible = q->header.incompatible;
    }
    char *old_name = q->header.data_file;
    if (rc == 0)
        rc = replace_header(q, &new, err);
    if (rc == 0 && a->o->data_file) {
        name = NULL;
        free(old_name);
    }
    return rc;
}

/* ------------------------------------------------------------------- steps */

/* Version 3 wants to know each snapshot's disk size; the fields may be there in
 * version 2 as well. */
static int complete_snapshots(struct bulk *b, struct lam_error *err)
{
    struct qcow2_snapshots list = { 0 };
    int rc = snapshots_load(b->q->io, &b->q->header, &list, err);
    bool incomplete = false;

    for (size_t i = 0; rc == 0 && i < list.count; i++)
        incomplete |= list.items[i].extra_length < SN_EXTRA;
    if (rc == 0 && incomplete)
        rc = snapshots_renew(b, &list, NULL, err);
    if (rc == 0 && incomplete)
        rc = bulk_commit(b, err);
    snapshots_deinit(&list);
    return rc;
}

static int step_features(struct amendment *a, struct lam_error *err)
{
    struct bulk b;
    int rc = bulk_begin(&b, a->q, err);

    if (rc == 0 && a->version > a->q->header.version)
        rc = complete_snapshots(&b, err);
    if (rc == 0)
        rc = change_header(a, err);
    bulk_end(&b);
    return rc;
}

static int step_refcounts(struct amendment *a, struct lam_error *err)
{
    struct bulk b;
    int rc;

    if (a->order == a->q->g.refcount_order)
        return 0;
    rc = bulk_begin(&b, a->q, err);
    if (rc == 0)
        rc = amend_refcount_width(&b, a->order, &a->progress, err);
    bulk_end(&b);
    return rc;
}

/* Fields and extensions that version 2 has not. */
static int lower_version(struct qcow2 *q, struct lam_error *err)
{
    struct qcow2_header new = q->header;
    uint8_t *fields = new.unknown_fields, *names = new.feature_names;

    new.version = 2;
    new.header_length = QH_V2_LENGTH;
    new.incompatible = new.compatible = new.autoclear = 0;
    new.compression_type = QCOW2_DEFLATE;
    new.has_feature_names = new.has_bitmaps = false;
    new.feature_names = new.unknown_fields = NULL;
    new.feature_names_length = new.unknown_fields_length = 0;
    int rc = replace_header(q, &new, err);
    if (rc < 0)
        return rc;
    codec_pool_empty(&q->codecs);   /* of another type, perhaps */
    free(fields);
    free(names);
    return 0;
}

static int step_downgrade(struct amendment *a, struct lam_error *err)
{
    struct qcow2 *q = a->q;
    bool changed = false;
    struct bulk b;

    if (a->version >= q->header.version)
        return 0;
    int rc = bulk_begin(&b, q, err);
    if (rc == 0)
        rc = amend_remove_zeroes(&b, q->header.compression_type !=
                                 QCOW2_DEFLATE, &changed, &a->progress, err);
    if (rc == 0 && changed)
        rc = bulk_commit(&b, err);
    if (rc == 0)
        rc = clean_refcounts(q, err);
    if (rc == 0)
        rc = lower_version(q, err);
    bulk_end(&b);
    return rc;
}

static struct amendment amendment_make(struct qcow2 *q,
                                       const struct lam_amend_options *o)
{
    return (struct amendment){
        .q = q, .o = o,
        .version = o->version ? o->version : q->header.version,
        .progress = { o->progress, o->progress_opaque },
    };
}

/* ------------------------------------------------------------ looking ahead */

/* How many steps have something to do.  A flush may set the dirty bit. */
static unsigned count_steps(const struct amendment *a)
{
    LAM_LOCKED(&a->q->alloc_lock);
    struct qcow2_header new = header_to_be(a);

    return (unsigned)header_changes(a, &new) +
           (a->order != a->q->g.refcount_order) +
           (a->version < a->q->header.version) + (size_to_be(a) != a->q->size);
}

/* A step that comes alone refuses by itself, with nothing changed.  Later ones
 * must not find out what forbids them when others have been taken. */
static int look_ahead(struct amendment *a, struct lam_error *err)
{
    struct qcow2 *q = a->q;
    bool narrower = a->order < q->g.refcount_order;
    bool down = a->version < q->header.version;
    struct bulk b;

    if (count_steps(a) < 2 || (!narrower && !down))
        return 0;
    int rc = bulk_begin(&b, q, err);
    if (rc == 0 && narrower)
        rc = amend_check_width(&b, a->order, err);
    if (rc == 0 && down)
        rc = amend_check_entries(&b, q->header.compression_type !=
                                     QCOW2_DEFLATE, err);
    bulk_end(&b);
    return rc;
}

int qcow2_amend_check(void *format, const struct lam_amend_options *options,
                      struct lam_error *err)
{
    struct qcow2 *q = format;
    struct amendment a = amendment_make(q, options);
    int rc = check(&a, err);

    /* The size comes before a step down, and after one up. */
    if (rc == 0 && size_to_be(&a) != q->size)
        rc = resize_check(q, (unsigned)max_u64(a.version, q->header.version),
                          size_to_be(&a), LAM_TRUNCATE_SHRINK, err);
    return rc < 0 ? rc : look_ahead(&a, err);
}

int qcow2_amend(void *format, const struct lam_amend_options *options,
                struct lam_error *err)
{
    struct amendment a = amendment_make(format, options);
    int rc = check(&a, err);

    if (rc == 0)
        rc = step_features(&a, err);
    if (rc == 0)
        rc = step_refcounts(&a, err);
    return rc < 0 ? rc : step_downgrade(&a, err);
}
