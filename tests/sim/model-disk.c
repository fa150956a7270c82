/* SPDX-License-Identifier: MIT */
/*
 * model-disk.c - the model's disk: opening, writing, reading.
 */
#include "model.h"

const char *const model_op_names[MODEL_NB_OPS] = {
    "write", "write -c", "zero", "zero, unmap", "discard", "read", "map",
    "flush", "reopen", "grow", "shrink", "snapshot", "apply", "delete",
    "amend", "key slot", "bitmap add", "bitmap remove", "bitmap clear",
    "bitmap enable or disable", "bitmap merge",
};

bool model_settle(struct model *m, int rc, bool may_refuse,
                  const struct lam_error *err)
{
    bool refused = may_refuse && (rc == -EINVAL || rc == -ENOTSUP);

    MODEL_CHECK(rc == 0 || refused, m, "%d %s", rc, err->message);
    MODEL_CHECK(rc == 0 || err->message[0], m, "%d without a message", rc);
    *(rc == 0 ? &m->done[m->op] : &m->refused[m->op]) += 1;
    return rc == 0;
}

/* ------------------------------------------------------------ open, close */

static struct lam_io_ops junk_ops;

/* What is discarded may read as anything. */
static int junk_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    uint64_t end = min_u64(offset + length, atomic_load(&io->size));
    uint8_t junk[4096];

    memset(junk, 0xdd, sizeof junk);
    while (offset < end) {
        size_t n = min_u64(sizeof junk, end - offset);
        struct iovec iov = { junk, n };

        if (io->ops->writev(io, &iov, 1, offset) < 0)
            return -EIO;
        offset += n;
    }
    return 0;
}

static struct lam_io *hostile(struct lam_io *file)
{
    struct lam_io *io;

    if (!file)
        return NULL;
    assert_int_equal(lam_io_record_new(file, &io, NULL), 0);
    junk_ops = *io->ops;
    junk_ops.discard = junk_discard;
    io->ops = &junk_ops;
    return io;
}

static struct lam_image *open_layer(struct model *m, unsigned i,
                                    const struct lam_open_options *options,
                                    struct lam_image *backing)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    int rc = sim_open(hostile(m->files[i].image), hostile(m->files[i].data),
                      options, backing, &image, &err);
    MODEL_CHECK(rc == 0, m, "open layer %u: %s", i, err.message);
    return image;
}

struct lam_image *model_open_chain(struct model *m, unsigned flags,
                                   const char *snapshot)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;

    for (unsigned i = 0; i < m->top; i++)
        image = open_layer(m, i, &o, image);
    o.flags = flags;
    o.snapshot = snapshot;
    if (m->detect)
        o.detect_zeroes = LAM_DETECT_ZEROES_UNMAP;
    if (model_below(m, 3))
        o.l2_cache_size = o.refcount_cache_size = 1;    /* the least */
    if (m->other_key && model_below(m, 2))
        o.key_secret = "other";
    return open_layer(m, m->top, &o, image);
}

void model_open(struct model *m)
{
    m->unmap = model_below(m, 4);
    m->detect = !model_below(m, 4);
    m->image = model_open_chain(m, LAM_OPEN_WRITE |
                                (m->unmap ? LAM_OPEN_UNMAP : 0), NULL);
    MODEL_CHECK(lam_image_size(m->image) == model_size(m), m,
                "the disk has %llu bytes",
                (unsigned long long)lam_image_size(m->image));
}

static void check_file(struct model *m)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(m->files[m->top].image, &r, &dirty, &err);
    MODEL_CHECK(rc == 0, m, "check: %s", err.message);
    MODEL_CHECK(!dirty && !r.corruptions && !r.leaks && !r.check_errors, m,
                "check: %llu corruptions, %llu leaks, dirty %d",
                (unsigned long long)r.corruptions,
                (unsigned long long)r.leaks, dirty);
}

void model_close(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_close(m->image, &err);

    m->image = NULL;
    MODEL_CHECK(rc == 0, m, "close: %s", err.message);
    check_file(m);
}

/* ----------------------------------------------------------------- reading */

static void read_back(struct model *m, struct range r, uint8_t *buf)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_read(m->image, buf, r.length, r.offset, &err);

    MODEL_CHECK(rc == 0, m, "read %#llx+%#llx: %s",
                (unsigned long long)r.offset, (unsigned long long)r.length,
                err.message);
}

static void verify_range(struct model *m, struct range r, const char *when)
{
    read_back(m, r, m->got);
    if (!memcmp(m->got, m->expect + r.offset, r.length))
        return;
    for (uint64_t i = 0; i < r.length; i++)
        MODEL_CHECK(m->got[i] == m->expect[r.offset + i], m,
                    "%s: byte %#llx is %#x, not %#x", when,
                    (unsigned long long)(r.offset + i), m->got[i],
                    m->expect[r.offset + i]);
}

/* A raw data file is the disk. */
static void verify_data_file(struct model *m, const char *when)
{
    uint64_t length;

    if (model_shape(m)->store != SIM_DATA_RAW)
        return;
    uint8_t *bytes = sim_bytes(m->files[m->top].data, &length);
    MODEL_CHECK(length == model_size(m), m, "%s: the raw data file has %llu "
                "bytes", when, (unsigned long long)length);
    MODEL_CHECK(!memcmp(bytes, m->expect, length), m,
                "%s: the raw data file differs", when);
    free(bytes);
}

void model_verify(struct model *m, const char *when)
{
    if (m->image)
        verify_range(m, range_make(0, model_size(m)), when);
    verify_data_file(m, when);
    model_verify_snapshots(m, when);
    model_verify_bitmaps(m, when);
}

/* What is called zero is zero. */
static void map_op(struct model *m, struct range r)
{
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t at = r.offset;

    int rc = lam_image_map(m->image, r.offset, r.length, LAM_DEPTH_ALL, 0,
                           &extents, &err);
    model_settle(m, rc, false, &err);
    for (size_t i = 0; i < extents.count; i++) {
        const struct lam_extent *e = &extents.items[i];

        MODEL_CHECK(e->offset == at, m, "extent %zu is at %#llx", i,
                    (unsigned long long)e->offset);
        at += e->length;
        for (uint64_t k = e->offset; k < at; k++)
            MODEL_CHECK(!m->expect[k] || (e->state != LAM_EXTENT_ZERO &&
                                          e->state != LAM_EXTENT_UNALLOCATED),
                        m, "byte %#llx is not zero", (unsigned long long)k);
    }
    MODEL_CHECK(at == range_end(r), m, "the map ends at %#llx",
                (unsigned long long)at);
    lam_extents_deinit(&extents);
}

/* ----------------------------------------------------------------- writing */

static struct range pick_range(struct model *m)
{
    uint64_t size = model_size(m), cs = model_shape(m)->kind.cluster_size;
    uint64_t unit = m->op == MODEL_COMPRESSED ? cs
                  : (uint64_t[]){ 1, 512, 4096, cs }[model_below(m, 4)];
    uint64_t most = min_u64(4 * cs, 256 * LAM_KIB);

    if (m->op == MODEL_COMPRESSED)
        most = cs > 256 * LAM_KIB ? cs : 3 * cs;
    else if (!model_below(m, 24))
        most = size;
    uint64_t offset = align_down(model_below(m, size), unit);
    uint64_t length = align_up(1 + model_below(m, most), unit);

    return range_make(offset, min_u64(length, size - offset));
}

/* Mostly compressible, sometimes not, sometimes nothing. */
static void fill(struct model *m, uint8_t *p, uint64_t length)
{
    uint64_t what = model_below(m, 12);
    uint8_t byte = (uint8_t)(1 + model_below(m, 255));

    if (what == 0 && m->op == MODEL_WRITE) {
        memset(p, 0, length);
        return;
    }
    for (uint64_t i = 0; i < length; i++)
        p[i] = what == 1 ? (uint8_t)sim_random(&m->random)
                         : (uint8_t)(byte + i / 512);
}

static struct range discarded(const struct model *m, struct range r)
{
    const struct sim_kind *kind = &model_shape(m)->kind;
    uint64_t start = align_up(r.offset, kind->cluster_size);
    uint64_t end = range_end(r);

    if (!m->unmap || (kind->version == 2 && m->top > 0))
        return range_make(r.offset, 0);
    if (end != model_size(m))
        end = align_down(end, kind->cluster_size);
    return range_make(start, end > start ? end - start : 0);
}

static int run(struct model *m, struct range r, struct lam_error *err)
{
    unsigned fua = model_below(m, 16) ? 0 : LAM_WRITE_FUA;

    switch (m->op) {
    case MODEL_WRITE:
        return lam_image_write(m->image, m->buf, r.length, r.offset, fua, err);
    case MODEL_COMPRESSED:
        return lam_image_write(m->image, m->buf, r.length, r.offset,
                               LAM_WRITE_COMPRESSED | fua, err);
    case MODEL_ZERO:
        return lam_image_zero(m->image, r.offset, r.length, fua, err);
    case MODEL_UNMAP:
        return lam_image_zero(m->image, r.offset, r.length,
                              LAM_ZERO_UNMAP | fua, err);
    default:
        return lam_image_discard(m->image, r.offset, r.length, err);
    }
}

static void change(struct model *m)
{
    bool zeroes = m->op != MODEL_WRITE && m->op != MODEL_COMPRESSED;
    bool plain = !sim_has_data_file(model_shape(m)) &&
                 model_shape(m)->store != SIM_LUKS;
    struct lam_error err = LAM_ERROR_INIT;
    struct range r = pick_range(m);

    if (zeroes)
        memset(m->buf, 0, r.length);
    else
        fill(m, m->buf, r.length);
    if (!model_settle(m, run(m, r, &err), m->op == MODEL_COMPRESSED && !plain,
                      &err))
        return;
    struct range done = m->op == MODEL_DISCARD ? discarded(m, r) : r;
    memcpy(m->expect + done.offset, m->buf, done.length);
    if (m->op != MODEL_DISCARD || m->unmap)
        model_mark(m, r.offset, r.length, BIT_DIRTY);
    verify_range(m, r, "afterwards");
}

void model_disk_op(struct model *m)
{
    static const uint8_t weights[] = {
        MODEL_WRITE, MODEL_WRITE, MODEL_WRITE, MODEL_WRITE, MODEL_WRITE,
        MODEL_WRITE, MODEL_WRITE, MODEL_WRITE, MODEL_COMPRESSED,
        MODEL_COMPRESSED, MODEL_ZERO, MODEL_UNMAP, MODEL_DISCARD,
        MODEL_DISCARD, MODEL_READ, MODEL_MAP, MODEL_FLUSH,
    };
    struct lam_error err = LAM_ERROR_INIT;

    m->op = weights[model_below(m, sizeof weights)];
    if (m->op < MODEL_READ) {
        change(m);
    } else if (m->op == MODEL_READ) {
        verify_range(m, pick_range(m), "just so");
        m->done[m->op]++;
    } else if (m->op == MODEL_MAP) {
        map_op(m, pick_range(m));
    } else {
        model_settle(m, lam_image_flush(m->image, &err), false, &err);
    }
}
