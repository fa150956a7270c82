/* SPDX-License-Identifier: MIT */
/*
 * qcow2.c - struct qcow2, its ops table, open and close.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <limits.h>

#include "base/bytes.h"
#include "format/qcow2/access.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/amend.h"
#include "format/qcow2/backing.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/check.h"
#include "format/qcow2/create.h"
#include "format/qcow2/encrypt.h"
#include "format/qcow2/release.h"
#include "format/qcow2/snapshot.h"

static int qcow2_probe(const uint8_t *head, size_t length)
{
    if (length < 8 || be32_get(head + QH_MAGIC) != QCOW2_MAGIC)
        return 0;
    return be32_get(head + QH_VERSION) >= 2 ? 100 : 0;
}

/* ------------------------------------------------------------------- open */

/* Most headers end long before the first cluster does.  What a short file
 * lacks reads as zero. */
static int read_header(struct qcow2 *q, uint64_t file_length,
                       struct lam_error *err)
{
    uint8_t head[4096] = { 0 };
    uint64_t have = min_u64(file_length, sizeof head);
    uint64_t want;

    int rc = have ? lam_io_read(q->io, head, have, 0, err) : 0;
    if (rc == 0)
        rc = header_peek(head, have, &want, err);
    if (rc < 0)
        return rc;
    if (header_is_within(head, sizeof head))
        return header_decode(head, sizeof head, &q->header, err);
    lam_autofree uint8_t *cluster = calloc(1, want);
    if (!cluster)
        return lam_fail(err, ENOMEM, "no memory for a header of %" PRIu64
                        " bytes", want);
    rc = lam_io_read(q->io, cluster, min_u64(want, file_length), 0, err);
    if (rc < 0)
        return rc;
    return header_decode(cluster, want, &q->header, err);
}

static int load_l1(struct qcow2 *q, uint64_t offset, uint64_t entries,
                   struct lam_error *err)
{
    if (!entries)
        return 0;
    uint64_t bytes = entries * sizeof(uint64_t);
    lam_autofree uint64_t *l1 = malloc(bytes);

    if (!l1)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    int rc = lam_io_read(q->io, l1, bytes, offset, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read L1 table");
    for (uint64_t i = 0; i < entries; i++)
        l1[i] = be64_get(&l1[i]);
    q->l1 = lam_take(&l1);
    q->l1_size = entries;
    return 0;
}

/* The L1 table of the internal snapshot called @name, and its disk size. */
static int load_snapshot_l1(struct qcow2 *q, const char *name,
                            struct lam_error *err)
{
    struct qcow2_snapshots all = { 0 };
    const struct qcow2_geometry *g = &q->g;

    int rc = snapshots_load(q->io, &q->header, &all, err);
    const struct qcow2_snapshot *s = rc < 0 ? NULL
                                            : snapshots_find(&all, name);
    if (rc == 0 && !s)
        rc = lam_fail(err, ENOENT, "Failed to load snapshot: Can't find "
                      "snapshot '%s'", name);
    else if (rc == 0 && (!is_aligned(s->l1_offset, g->cluster_size) ||
                         s->l1_size > QCOW2_MAX_L1_ENTRIES ||
                         s->l1_size < l1_needed(g, s->disk_size)))
        rc = lam_fail(err, EUCLEAN, "snapshot '%s': L1 table of %" PRIu32
                      " entries at %#" PRIx64 " does not fit its disk of %"
                      PRIu64 " bytes", name, s->l1_size, s->l1_offset,
                      s->disk_size);
    else if (rc == 0) {
        q->size = align_down(s->disk_size, QCOW2_SECTOR);
        rc = load_l1(q, s->l1_offset, s->l1_size, err);
    }
    snapshots_deinit(&all);
    return rc;
}

struct cache_budgets { uint64_t l2, refcount; };    /* bytes; 0: default */

/* All L2 tables, if they fit, and at least four refcount blocks. */
static struct cache_budgets share_cache(const struct qcow2 *q,
                                        const struct format_open *o)
{
    struct cache_budgets b = { o->l2_cache_size, o->refcount_cache_size };
    uint64_t all = l1_needed(&q->g, q->size) * q->g.cluster_size;
    uint64_t blocks = 4 * q->g.cluster_size;

    if (!o->cache_size)
        return b;
    if (o->cache_size >= blocks && o->cache_size - blocks >= all) {
        b.l2 = all;
        b.refcount = o->cache_size - all;
    } else {
        b.refcount = max_u64(min_u64(blocks, o->cache_size / 2), 1);
        b.l2 = max_u64(o->cache_size - b.refcount, 1);
    }
    return b;
}

/* Nobody needs more than there can be tables; a disk may grow. */
static int limit_cache(const struct qcow2 *q, struct cache_budgets *b,
                       struct lam_error *err)
{
    uint64_t cs = q->g.cluster_size;
    uint64_t all = l1_needed(&q->g, q->size) * cs;

    if (b->refcount / cs > INT_MAX)
        return lam_fail(err, EINVAL, "Refcount cache size too big");
    b->refcount = min_u64(b->refcount, QCOW2_MAX_REFCOUNT_TABLE / 8 * cs);
    b->l2 = min_u64(b->l2, max_u64(all, 1024 * LAM_MIB));
    return 0;
}

static int check_entry_size(const struct qcow2 *q, uint64_t size,
                            struct lam_error *err)
{
    if (!size || (size >= QCOW2_SECTOR && size <= q->g.cluster_size &&
                  is_power_of_two(size)))
        return 0;
    return lam_fail(err, EINVAL, "L2 cache entry size must be a power of "
                    "two between %d and the cluster size (%" PRIu64 ")",
                    QCOW2_SECTOR, q->g.cluster_size);
}

/*
 * L2 slices that cover the whole disk, but no more than 32 MiB of them.  Where
 * they cannot cover it they are small, so that what lies scattered finds room.
 */
static int init_l2_cache(struct qcow2 *q, uint64_t budget, uint64_t entry_size,
                         struct lam_error *err)
{
    const struct qcow2_geometry *g = &q->g;
    uint64_t all = l1_needed(g, q->size) * g->cluster_size;
    uint64_t slice = min_u64(g->cluster_size, 64 * LAM_KIB);

    if (!budget)
        budget = min_u64(32 * LAM_MIB, all);
    if (budget < all)
        slice = min_u64(slice, 4 * LAM_KIB);
    if (entry_size)
        slice = entry_size;
    return cache_init(&q->l2, (size_t)slice, budget, err);
}

static int set_lazy(struct qcow2 *q, enum lam_setting lazy,
                    struct lam_error *err)
{
    if (lazy == LAM_SETTING_ON && q->header.version < 3)
        return lam_fail(err, EINVAL, "Lazy refcounts require a qcow2 image "
                        "with at least qemu 1.1 compatibility level");
    if (lazy != LAM_SETTING_KEEP)
        q->lazy = lazy == LAM_SETTING_ON;
    return 0;
}

static void init_geometry(struct qcow2 *q)
{
    const struct qcow2_header *h = &q->header;

    q->g = qcow2_geometry_make(h->cluster_bits, h->refcount_order,
                               h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    q->size = align_down(h->size, QCOW2_SECTOR);
    q->data_file = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    q->has_backing = h->backing_file != NULL;
    q->lazy = h->compatible & QCOW2_COMPAT_LAZY;
    q->l2_context = (struct l2_context){
        &q->g, h->version, q->data_file, h->crypt_method != QCOW2_CRYPT_NONE,
    };
    if (q->io->eof_unit != UINT64_MAX)
        q->io->eof_unit = q->g.cluster_size;
}

/* What the header says about opening for data, beyond its being valid. */
static int check_usable(const struct qcow2 *q, const struct format_open *o,
                        struct lam_error *err)
{
    const struct qcow2_header *h = &q->header;

    if (o->metadata_only)
        return 0;
    if (o->no_unref && h->version < 3)
        return lam_fail(err, EINVAL, "discard-no-unref is only supported since "
                        "qcow2 version 3");
    if (!o->writable || o->for_check)
        return 0;
    if ((h->incompatible & QCOW2_INCOMPAT_CORRUPT) && !o->repairing)
        return lam_fail(err, EACCES, "qcow2: Image is corrupt; cannot be "
                        "opened read/write");
    if (o->snapshot)
        return lam_fail(err, EINVAL, "an internal snapshot can be opened "
                        "read-only only");
    return 0;
}

/* The refcounts may be stale.  They are put right before anything trusts them
 * (format document 2.2). */
int qcow2_repair_dirty(struct qcow2 *q, struct lam_error *err)
{
    struct lam_check_result r;

    if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    int rc = qcow2_repair_run(q, LAM_REPAIR_ALL, NULL, NULL, &r, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "qcow2: the image was not closed "
                                "cleanly: repairing its refcounts");
    if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    return lam_fail(err, EUCLEAN, "qcow2: the image was not closed cleanly, "
                    "and its refcounts cannot be repaired: %" PRIu64
                    " corruptions and %" PRIu64 " errors are left",
                    r.corruptions, r.check_errors);
}

/* Before the first write: the dirty ones have been repaired by now. */
static int check_writable(struct qcow2 *q, struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(q->io, &length, err);

    return rc < 0 ? rc : header_validate_writable(&q->header, length, err);
}

static int open_tables(struct qcow2 *q, const struct format_open *o,
                       struct lam_error *err)
{
    struct cache_budgets budgets = share_cache(q, o);
    bool writable = o->writable && !o->for_check;
    int rc = limit_cache(q, &budgets, err);

    if (rc == 0 && writable && !o->repairing)
        rc = qcow2_repair_dirty(q, err);
    if (rc == 0 && writable && !o->repairing)
        rc = check_writable(q, err);
    if (rc == 0)
        rc = o->snapshot
           ? load_snapshot_l1(q, o->snapshot, err)
           : load_l1(q, q->header.l1_offset, q->header.l1_size, err);

    cleaner_init(&q->cleaner, o->cache_clean_interval);
    if (rc == 0)
        rc = init_l2_cache(q, budgets.l2, o->l2_entry_size, err);
    if (rc == 0)
        rc = set_lazy(q, o->lazy_refcounts, err);
    if (rc == 0 && writable) {
        rc = alloc_open(q, budgets.refcount, err);
        if (rc == 0)
            rc = overlap_load(q, o->overlap_check, o->overlap_on,
                              o->overlap_off, err);
        if (rc == 0)
            rc = bitmaps_open(q, err);
        if (rc == 0)
            qcow2_set_state(q, QCOW2_WRITABLE);
    }
    return rc;
}

static int open_into(struct qcow2 *q, const struct format_open *o,
                     struct lam_error *err)
{
    uint64_t file_length;

    int rc = lam_io_size(q->io, &file_length, err);
    if (rc == 0)
        rc = read_header(q, file_length, err);
    if (rc == 0)
        rc = header_validate(&q->header, file_length, o->for_check,
                             o->metadata_only, err);
    if (rc == 0)
        rc = check_usable(q, o, err);
    if (rc < 0)
        return rc;
    /* A table behind the end of the file is for check to report. */
    if (o->for_check)
        q->io->eof_unit = UINT64_MAX;
    q->io->unmap = true;        /* what is told to the host is decided here */
    init_geometry(q);
    rc = check_entry_size(q, o->l2_entry_size, err);
    if (rc == 0)
        rc = qcow2_open_crypt(q, o, err);
    if (rc < 0)
        return rc;
    return o->metadata_only ? 0 : open_tables(q, o, err);
}

static struct qcow2 *qcow2_new(const struct format_open *o)
{
    struct qcow2 *q = calloc(1, sizeof *q);

    if (!q)
        return NULL;
    q->io = q->data_io = o->io;
    q->metadata_only = o->metadata_only;
    q->unmap = o->unmap;
    q->pass_request = o->pass_request;
    q->pass_snapshot = o->pass_snapshot;
    q->pass_other = o->pass_other;
    q->no_unref = o->no_unref;
    q->state = QCOW2_READ_ONLY;
    pthread_mutex_init(&q->alloc_lock, NULL);
    pthread_rwlock_init(&q->lock, NULL);
    inflight_init(&q->inflight);
    pthread_mutex_init(&q->flusher.lock, NULL);
    pthread_cond_init(&q->flusher.changed, NULL);
    pthread_mutex_init(&q->codecs.lock, NULL);
    inflated_init(&q->inflated);
    pthread_mutex_init(&q->failure_lock, NULL);
    bitmaps_init(&q->bitmaps);
    epoch_init(&q->epoch);
    return q;
}

static void qcow2_free(struct qcow2 *q)
{
    release_free_list(q->pending);
    release_free_list(q->written);
    release_free_list(q->durable);
    release_free_list(q->draining);
    alloc_close(q);
    overlap_deinit(&q->overlap);
    cache_deinit(&q->l2);
    codec_pool_deinit(&q->codecs);
    inflated_deinit(&q->inflated);
    bitmaps_deinit(&q->bitmaps);
    epoch_deinit(&q->epoch);
    pthread_mutex_destroy(&q->alloc_lock);
    pthread_rwlock_destroy(&q->lock);
    inflight_deinit(&q->inflight);
    pthread_mutex_destroy(&q->flusher.lock);
    pthread_cond_destroy(&q->flusher.changed);
    pthread_mutex_destroy(&q->failure_lock);
    qcow2_close_crypt(q);
    header_deinit(&q->header);
    free(q->flusher.error);
    free(q->failure);
    free(q->l1);
    free(q);
}

static int qcow2_open(const struct format_open *options, void **format,
                      struct lam_error *err)
{
    struct qcow2 *q = qcow2_new(options);

    if (!q)
        return lam_fail(err, ENOMEM, "no memory for an open image");
    int rc = open_into(q, options, err);
    if (rc < 0) {
        qcow2_free(q);
        return rc;
    }
    *format = q;
    return 0;
}

static int qcow2_attach_data(void *format, struct lam_io *data,
                             struct lam_error *err)
{
    struct qcow2 *q = format;

    if (!q->data_file)
        return lam_fail(err, EINVAL, "the image has no external data file");
    q->data_io = data;
    data->unmap = true;
    return 0;
}

static int qcow2_close(void *format, struct lam_error *err)
{
    struct qcow2 *q = format;

    int rc = qcow2_write_back_last(q, err);
    qcow2_free(q);
    return rc;
}

/* ----------------------------------------------------------------- answers */

static void qcow2_links(void *format, struct format_links *links)
{
    const struct qcow2 *q = format;

    *links = (struct format_links){
        .backing_file = q->header.backing_file,
        .backing_format = q->header.backing_format,
        .needs_data_file = q->data_file,
        .data_file = q->header.data_file,
    };
}

static uint64_t qcow2_size(void *format)
{
    struct qcow2 *q = format;

    return q->size;
}

static uint64_t qcow2_cluster_size(void *format)
{
    const struct qcow2 *q = format;

    return q->g.cluster_size;
}

static uint64_t qcow2_zero_unit(void *format)
{
    struct qcow2 *q = format;

    if (qcow2_version(q) < 3)
        return q->has_backing ? 0 : q->g.cluster_size;
    return q->g.subcluster_size;
}

static uint64_t qcow2_enter(void *format)
{
    struct qcow2 *q = format;

    return epoch_enter(&q->epoch);
}

static void qcow2_leave(void *format, uint64_t token)
{
    struct qcow2 *q = format;

    epoch_leave(&q->epoch, token);
}

static int qcow2_info(void *format, struct lam_image_info *info,
                      struct lam_error *err)
{
    struct qcow2 *q = format;
    const struct qcow2_header *h = &q->header;
    struct qcow2_snapshots all = { 0 };

    info->is_qcow2 = true;
    info->version = h->version;
    info->cluster_size = q->g.cluster_size;
    info->compression_type =
        h->compression_type == QCOW2_ZSTD ? "zstd" : "zlib";
    info->lazy_refcounts = h->compatible & QCOW2_COMPAT_LAZY;
    info->dirty = h->incompatible & QCOW2_INCOMPAT_DIRTY;
    info->corrupt = h->incompatible & QCOW2_INCOMPAT_CORRUPT;
    info->extended_l2 = q->g.extended_l2;
    info->refcount_bits = q->g.refcount_bits;
    info->data_file_raw = h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW;
    if (h->data_file && q->data_file) {
        info->data_file = strdup(h->data_file);
        if (!info->data_file)
            return lam_fail(err, ENOMEM, "no memory for a file name");
    }
    int rc = qcow2_encryption_info(q, info, err);
    if (rc < 0)
        return rc;
    rc = snapshots_load(q->io, h, &all, err);
    if (rc == 0)
        rc = snapshots_info(&all, info, err);
    snapshots_deinit(&all);
    return rc < 0 ? rc : bitmaps_info(q->io, h, info, err);
}

static int qcow2_check(void *format, lam_finding_fn *finding, void *opaque,
                       struct lam_check_result *out, struct lam_error *err)
{
    struct qcow2 *q = format;

    return qcow2_check_with_data(q->io, &q->header, qcow2_open_data(q),
                                 finding, opaque, out, err);
}

static int qcow2_repair(void *format, unsigned what, lam_finding_fn *finding,
                        void *opaque, struct lam_check_result *out,
                        struct lam_error *err)
{
    if (what & LAM_REPAIR_ERRORS)
        what |= QCOW2_REPAIR_SNAPSHOTS;
    return qcow2_repair_run(format, what, finding, opaque, out, err);
}

const struct format_ops format_qcow2 = {
    .name = "qcow2",
    .can_have_backing = true,
    .can_compress = true,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .attach_data = qcow2_attach_data,
    .close = qcow2_close,
    .set_writable = qcow2_set_writable,
    .links = qcow2_links,
    .size = qcow2_size,
    .cluster_size = qcow2_cluster_size,
    .zero_unit = qcow2_zero_unit,
    .map = qcow2_map,
    .map_cached = qcow2_map_cached,
    .map_once = qcow2_map_once,
    .long_run = qcow2_long_run,
    .read_compressed = qcow2_read_compressed,
    .read_compressed_part = qcow2_read_compressed_part,
    .enter = qcow2_enter,
    .leave = qcow2_leave,
    .write_begin = qcow2_write_begin,
    .write_in_place = qcow2_write_in_place,
    .write_finish = qcow2_write_finish,
    .write_cancel = qcow2_write_cancel,
    .write_compressed = qcow2_write_compressed,
    .payloads = &qcow2_payloads,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .flush = qcow2_flush,
    .vmstate_place = qcow2_vmstate_place,
    .reclaim = qcow2_reclaim,
    .truncate = qcow2_truncate,
    .amend = qcow2_amend,
    .amend_check = qcow2_amend_check,
    .set_backing = qcow2_set_backing,
    .take_backing = qcow2_take_backing,
    .expect_backing = qcow2_expect_backing,
    .empty = qcow2_empty,
    .crypt = qcow2_crypt,
    .key_slot = qcow2_key_slot,
    .info = qcow2_info,
    .check = qcow2_check,
    .repair = qcow2_repair,
    .snapshots = &qcow2_snapshot_ops,
    .bitmaps = &qcow2_bitmap_ops,
    .create = qcow2_create,
    .measure = qcow2_measure,
};
