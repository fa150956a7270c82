/* SPDX-License-Identifier: MIT */
/*
 * test-full-disk.c - random operations over three layers, against byte
 * arrays.
 *
 * Each layer is written as the top of what is below it.  Now and then the disk
 * is full: then each byte of the request is as it was or as it was to be.
 * After each clean close check finds nothing, not even a leak.
 */
#include "sim.h"
#include "io/transfer.h"

/* ------------------------------------------------------ a disk that is full */

/* Passes everything on to @inner, but for writes while it is full. */
struct small_disk {
    struct lam_io io;
    struct lam_io *inner;
    uint64_t left;                      /* writes until it is full */
};

static struct small_disk *small_disk(struct lam_io *io)
{
    return (struct small_disk *)io;
}

static bool is_full(struct small_disk *d)
{
    if (d->left == UINT64_MAX)
        return false;
    return d->left == 0 || d->left-- == 0;
}

static ssize_t small_readv(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    struct lam_io *inner = small_disk(io)->inner;

    return inner->ops->readv(inner, iov, iovcnt, offset);
}

static ssize_t small_writev(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    struct lam_io *inner = small_disk(io)->inner;

    if (is_full(small_disk(io)))
        return -ENOSPC;
    ssize_t n = inner->ops->writev(inner, iov, iovcnt, offset);
    if (n > 0)
        io_grown(inner, offset + (uint64_t)n);
    return n;
}

static int small_flush(struct lam_io *io)
{
    (void)io;
    return 0;
}

static int small_size(struct lam_io *io, uint64_t *size)
{
    struct lam_io *inner = small_disk(io)->inner;

    return inner->ops->size(inner, size);
}

static int small_truncate(struct lam_io *io, uint64_t size)
{
    return lam_io_truncate(small_disk(io)->inner, size, NULL);
}

static int small_zero_range(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    struct small_disk *d = small_disk(io);

    if (is_full(d))
        return -ENOSPC;
    return lam_io_zero(d->inner, offset, length, 0, NULL);
}

/* What is discarded may read as anything. */
static int small_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct lam_io *inner = small_disk(io)->inner;
    uint8_t junk[512];

    memset(junk, 0xdd, sizeof junk);
    for (uint64_t at = offset; at + sizeof junk <= offset + length &&
                               at + sizeof junk <= atomic_load(&inner->size);
         at += sizeof junk)
        lam_io_write(inner, junk, sizeof junk, at, NULL);
    return 0;
}

static void small_close(struct lam_io *io)
{
    lam_io_deinit(io);
    free(io);
}

static const struct lam_io_ops small_ops = {
    .name = "small", .readv = small_readv, .writev = small_writev,
    .flush = small_flush, .size = small_size, .truncate = small_truncate,
    .zero_range = small_zero_range, .discard = small_discard,
    .close = small_close,
};

static struct lam_io *small_disk_new(struct lam_io *inner)
{
    struct small_disk *d = calloc(1, sizeof *d);

    assert_non_null(d);
    assert_int_equal(lam_io_init(&d->io, &small_ops, "small", NULL), 0);
    d->inner = inner;
    d->left = UINT64_MAX;
    d->io.limits = inner->limits;
    d->io.limits.can_discard = true;
    d->io.limits.discard_max = UINT64_MAX;
    d->io.writable = d->io.unmap = true;
    atomic_store(&d->io.size, atomic_load(&inner->size));
    return &d->io;
}

/* ---------------------------------------------------------------- the model */

enum { MAX_SIZE = 1 << 20, LAYERS = 3 };

struct model {
    uint64_t seed, random;
    const struct sim_kind *kind;
    struct lam_io *files[LAYERS];       /* memory; survive their images */
    uint64_t sizes[LAYERS];
    unsigned top;
    uint8_t *expect;                    /* contents of the top layer */
    struct lam_image *image;
    struct small_disk *disk;            /* of the top layer */
    uint8_t *buf;
};

/* ------------------------------------------------------------ open, close */

static struct lam_image *open_layer(struct model *m, unsigned i,
                                    struct lam_image *backing)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = small_disk_new(m->files[i]);
    struct lam_image *image = NULL;

    if (i == m->top) {
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
        o.l2_cache_size = o.refcount_cache_size = 1;    /* the least */
        m->disk = small_disk(io);
    }
    int rc = image_open_io(io, "qcow2", &o, backing, &image, &err);
    SIM_CHECK(rc == 0, m->seed, "open layer %u: %s", i, err.message);
    return image;
}

static void open_chain(struct model *m)
{
    struct lam_image *image = NULL;

    for (unsigned i = 0; i <= m->top; i++)
        image = open_layer(m, i, image);
    m->image = image;
}

static void check_file(struct model *m)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(m->files[m->top], &r, &dirty, &err);
    SIM_CHECK(rc == 0, m->seed, "check: %s", err.message);
    SIM_CHECK(!dirty && !r.corruptions && !r.leaks && !r.check_errors, m->seed,
              "check: %llu corruptions, %llu leaks, dirty %d",
              (unsigned long long)r.corruptions, (unsigned long long)r.leaks,
              dirty);
}

static void close_chain(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_close(m->image, &err);

    SIM_CHECK(rc == 0, m->seed, "close: %s", err.message);
    check_file(m);
}

/* -------------------------------------------------------------- operations */

enum op { OP_WRITE, OP_COMPRESSED, OP_ZERO, OP_UNMAP, OP_DISCARD, NB_OPS };

static const char *const op_names[] = { "write", "write -c", "zero",
                                        "zero, unmap", "discard" };

static struct range pick_range(struct model *m, enum op op)
{
    uint64_t size = m->sizes[m->top], cs = m->kind->cluster_size;
    uint64_t unit = op == OP_COMPRESSED ? cs
                  : (uint64_t[]){ 1, 512, 4096, cs }[sim_below(&m->random, 4)];
    uint64_t most = sim_below(&m->random, 8) ? 4 * cs : size;
    uint64_t offset = align_down(sim_below(&m->random, size), unit);
    uint64_t length = align_up(1 + sim_below(&m->random, most), unit);

    return range_make(offset, min_u64(length, size - offset));
}

/* Mostly compressible, sometimes not. */
static void fill(struct model *m, uint8_t *p, uint64_t length)
{
    bool noise = !sim_below(&m->random, 8);
    uint8_t byte = (uint8_t)(1 + sim_below(&m->random, 255));

    for (uint64_t i = 0; i < length; i++)
        p[i] = noise ? (uint8_t)sim_random(&m->random)
                     : (uint8_t)(byte + i / 512);
}

static struct range discarded(const struct model *m, struct range r)
{
    uint64_t cs = m->kind->cluster_size, end = range_end(r);
    uint64_t start = align_up(r.offset, cs);

    if (m->kind->version == 2 && m->top > 0)
        return range_make(r.offset, 0);
    if (end != m->sizes[m->top])
        end = align_down(end, cs);
    return range_make(start, end > start ? end - start : 0);
}

static int run_op(struct model *m, enum op op, struct range r,
                  struct lam_error *err)
{
    switch (op) {
    case OP_WRITE:
        return lam_image_write(m->image, m->buf, r.length, r.offset, 0, err);
    case OP_COMPRESSED:
        return lam_image_write(m->image, m->buf, r.length, r.offset,
                               LAM_WRITE_COMPRESSED, err);
    case OP_ZERO:
        return lam_image_zero(m->image, r.offset, r.length, 0, err);
    case OP_UNMAP:
        return lam_image_zero(m->image, r.offset, r.length, LAM_ZERO_UNMAP,
                              err);
    default:
        return lam_image_discard(m->image, r.offset, r.length, err);
    }
}

static void read_back(struct model *m, struct range r, uint8_t *buf)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_read(m->image, buf, r.length, r.offset, &err);

    SIM_CHECK(rc == 0, m->seed, "read %#llx+%#llx: %s",
              (unsigned long long)r.offset, (unsigned long long)r.length,
              err.message);
}

static void verify(struct model *m, struct range r, const char *after)
{
    uint8_t *got = malloc(r.length + 1);

    assert_non_null(got);
    read_back(m, r, got);
    for (uint64_t i = 0; i < r.length; i++)
        SIM_CHECK(got[i] == m->expect[r.offset + i], m->seed,
                  "kind %s, layer %u, after %s: byte %#llx is %#x, not %#x",
                  m->kind->name, m->top, after,
                  (unsigned long long)(r.offset + i), got[i],
                  m->expect[r.offset + i]);
    free(got);
}

/* After a full disk a byte is what it was, or what @m->buf has. */
static void adopt(struct model *m, enum op op, struct range r)
{
    uint8_t *got = malloc(r.length + 1);

    assert_non_null(got);
    read_back(m, r, got);
    for (uint64_t i = 0; i < r.length; i++) {
        uint8_t *old = &m->expect[r.offset + i];

        SIM_CHECK(got[i] == *old || got[i] == m->buf[i], m->seed,
                  "kind %s: after a failed %s byte %#llx is %#x, neither %#x "
                  "nor %#x", m->kind->name, op_names[op],
                  (unsigned long long)(r.offset + i), got[i], *old, m->buf[i]);
        *old = got[i];
    }
    free(got);
}

static void change(struct model *m)
{
    static const uint8_t weights[] = { 0, 0, 0, 0, 1, 1, 2, 3, 4 };
    enum op op = weights[sim_below(&m->random, sizeof weights)];
    struct range r = pick_range(m, op);
    struct lam_error err = LAM_ERROR_INIT;
    bool full = !sim_below(&m->random, 16);

    if (op == OP_WRITE || op == OP_COMPRESSED)
        fill(m, m->buf, r.length);
    else
        memset(m->buf, 0, r.length);
    if (full)
        m->disk->left = sim_below(&m->random, 6);
    int rc = run_op(m, op, r, &err);
    m->disk->left = UINT64_MAX;
    SIM_CHECK(rc == 0 || (full && rc == -ENOSPC), m->seed,
              "kind %s: %s %#llx+%#llx: %d %s", m->kind->name, op_names[op],
              (unsigned long long)r.offset, (unsigned long long)r.length, rc,
              err.message);
    if (rc < 0) {
        adopt(m, op, r);
        return;
    }
    struct range done = op == OP_DISCARD ? discarded(m, r) : r;
    memcpy(m->expect + done.offset, m->buf, done.length);
    verify(m, r, op_names[op]);
}

static void step(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t what = sim_below(&m->random, 64);

    if (what == 0) {
        close_chain(m);
        open_chain(m);
        verify(m, range_make(0, m->sizes[m->top]), "open");
    } else if (what < 4) {
        int rc = lam_image_flush(m->image, &err);

        SIM_CHECK(rc == 0, m->seed, "flush: %s", err.message);
    } else {
        change(m);
    }
}

/* ------------------------------------------------------------------ layers */

static void add_layer(struct model *m, uint64_t ops)
{
    uint64_t size = align_up(MAX_SIZE / 2 + sim_below(&m->random,
                                                      MAX_SIZE / 2), 512);
    uint64_t below = m->top ? m->sizes[m->top - 1] : 0;

    m->sizes[m->top] = size;
    m->files[m->top] = sim_create(m->kind, size, m->top > 0);
    if (size > below)
        memset(m->expect + below, 0, size - below);
    open_chain(m);
    for (uint64_t i = 0; i < ops; i++)
        step(m);
    verify(m, range_make(0, size), "all");
    close_chain(m);
    open_chain(m);
    verify(m, range_make(0, size), "reopening");
    close_chain(m);
}

static void run_seed(uint64_t seed, uint64_t ops)
{
    struct model m = { .seed = seed, .random = seed };

    m.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    m.expect = calloc(1, MAX_SIZE);
    m.buf = malloc(MAX_SIZE);
    assert_true(m.expect && m.buf);
    for (m.top = 0; m.top < LAYERS; m.top++)
        add_layer(&m, ops);
    for (unsigned i = 0; i < LAYERS; i++)
        lam_io_close(m.files[i]);
    free(m.expect);
    free(m.buf);
}

static void test_full_disk(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 300);

    (void)state;
    sim_seeds(2 * LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_full_disk) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
