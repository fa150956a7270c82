/* SPDX-License-Identifier: MIT */
/*
 * test-fault.c - one host operation of a workload fails, each in turn.
 *
 * The n-th read, write, flush, truncate, zeroing or discard fails with EIO or
 * ENOSPC, once or from then on; a write may have gone half-way before.  Each
 * request then ends well or with an error that says something.  While the
 * image is open its sectors are as of the last write that succeeded, or as a
 * failed one meant them to be; opened again, as of the last flush that
 * succeeded or later.  Check finds leaks at worst, and writing goes on.
 */
#include "bad-disk.h"

/* ------------------------------------------------------------ the workload */

enum { SECTOR = 512, MAX_SECTORS = 768, MAX_OPS = 256 };

enum op_kind { OP_WRITE, OP_COMPRESSED, OP_ZERO, OP_UNMAP, OP_DISCARD,
               OP_GROW, OP_SNAPSHOT, OP_DELETE, OP_FLUSH, OP_REOPEN };

/* Sectors hold one number, repeated: which operation wrote them. */
struct op {
    enum op_kind kind;
    uint32_t first, count;      /* sectors */
    uint32_t value;             /* 0: zeroes */
    bool done, flushed;         /* succeeded; what was before is on disk */
};

struct fault {
    uint64_t seed;
    const struct sim_kind *kind;
    struct trouble trouble;
    bool backing;
    uint32_t first_sectors, sectors;    /* at first, and when it has grown */
    uint64_t nb_ops, n;
    struct lam_io *file;        /* memory; survives its images */
    struct lam_image *image;    /* NULL: could not be opened again */
    struct op ops[MAX_OPS];
    uint64_t now;               /* the next operation */
    bool failed;                /* some request has */
    uint64_t leaks;
};

#define FAULT_CHECK(ok, f, fmt, ...)                                         \
    SIM_CHECK(ok, (f)->seed, "kind %s, %s at operation %llu: " fmt,          \
              (f)->kind->name, (f)->trouble.mode->name,                       \
              (unsigned long long)(f)->n,                                    \
              __VA_ARGS__)

static void fill_sectors(uint8_t *p, uint32_t count, uint32_t value)
{
    for (size_t i = 0; i < (size_t)count * SECTOR; i += sizeof value)
        memcpy(p + i, &value, sizeof value);
}

static struct lam_image *open_backing(const struct fault *f)
{
    struct lam_image *image = NULL;
    struct lam_io *io;
    uint8_t *bytes = malloc((size_t)f->sectors * SECTOR);

    assert_non_null(bytes);
    for (uint32_t i = 0; i < f->sectors; i++)
        fill_sectors(bytes + (size_t)i * SECTOR, 1, 0x80000000u | i);
    assert_int_equal(lam_io_memory_new(bytes, (uint64_t)f->sectors * SECTOR,
                                       &io, NULL), 0);
    free(bytes);
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &image, NULL), 0);
    return image;
}

static int open_image(struct fault *f, struct lam_io *io,
                      struct lam_image **out, struct lam_error *err)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;

    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    return image_open_io(io, "qcow2", &o, f->backing ? open_backing(f) : NULL,
                         out, err);
}

/* Nothing fails meanwhile, and nothing counts. */
static int open_spared(struct fault *f, struct lam_error *err)
{
    struct trouble saved = trouble_spare(&f->trouble);
    int rc = open_image(f, bad_disk_new(f->file, &f->trouble), &f->image, err);
    f->trouble = saved;
    return rc;
}

/* An error says what it is, and success leaves no error. */
static void judge(struct fault *f, int rc, const struct lam_error *err,
                  const char *what)
{
    if (rc == 0)
        return;
    FAULT_CHECK(rc < 0 && err->code == -rc && err->message[0], f,
                "%s: %d without a message (%s)", what, rc, err->message);
    FAULT_CHECK(trouble_has_come(&f->trouble), f,
                "%s fails, but no operation did: %s", what, err->message);
    f->failed = true;
}

static int write_sectors(struct fault *f, const struct op *op,
                         struct lam_error *err)
{
    uint8_t *buf = malloc((size_t)op->count * SECTOR + 1);

    assert_non_null(buf);
    fill_sectors(buf, op->count, op->value);
    int rc = lam_image_write(f->image, buf, (uint64_t)op->count * SECTOR,
                             (uint64_t)op->first * SECTOR,
                             op->kind == OP_COMPRESSED ? LAM_WRITE_COMPRESSED
                                                       : 0, err);
    free(buf);
    return rc;
}

static int reopen(struct fault *f, struct lam_error *err)
{
    int rc = lam_image_close(f->image, err);

    f->image = NULL;
    judge(f, rc, err, "close");
    if (rc < 0)
        return rc;
    return open_spared(f, err);
}

static int run_op(struct fault *f, const struct op *op, struct lam_error *err)
{
    uint64_t offset = (uint64_t)op->first * SECTOR;
    uint64_t length = (uint64_t)op->count * SECTOR;

    switch (op->kind) {
    case OP_WRITE:
    case OP_COMPRESSED:
        return write_sectors(f, op, err);
    case OP_ZERO:
        return lam_image_zero(f->image, offset, length, 0, err);
    case OP_UNMAP:
        return lam_image_zero(f->image, offset, length, LAM_ZERO_UNMAP, err);
    case OP_DISCARD:
        return lam_image_discard(f->image, offset, length, err);
    case OP_GROW:
        return lam_image_truncate(f->image, (uint64_t)f->sectors * SECTOR, 0,
                                  err);
    case OP_SNAPSHOT:
        return lam_image_snapshot_create(f->image, "s", err);
    case OP_DELETE:
        return lam_image_snapshot_delete(f->image, "s", err);
    case OP_FLUSH:
        return lam_image_flush(f->image, err);
    default:
        return reopen(f, err);
    }
}

static const char *const op_names[] = {
    "write", "write -c", "zero", "zero, unmap", "discard", "grow", "snapshot",
    "delete", "flush", "reopen",
};

static bool is_global(enum op_kind kind)
{
    return kind >= OP_GROW;
}

static void pick_op(struct fault *f, uint64_t *random, uint32_t now,
                    struct op *op)
{
    static const uint8_t weights[] = {
        OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_COMPRESSED,
        OP_COMPRESSED, OP_ZERO, OP_UNMAP, OP_DISCARD, OP_DISCARD, OP_FLUSH,
    };
    uint32_t cluster = (uint32_t)(f->kind->cluster_size / SECTOR);
    uint32_t unit = 1;

    op->kind = weights[sim_below(random, sizeof weights)];
    if (op->kind == OP_COMPRESSED || op->kind == OP_DISCARD)
        unit = cluster;
    op->first = (uint32_t)sim_below(random, now / unit) * unit;
    op->count = (uint32_t)(1 + sim_below(random, 2 * cluster / unit + 1)) *
                unit;
    if (op->count > now - op->first)
        op->count = now - op->first;
    op->value = 0;
    if (op->kind == OP_WRITE || op->kind == OP_COMPRESSED)
        op->value = (uint32_t)(op - f->ops) + 1;
}

/* The same for each n. */
static void plan(struct fault *f)
{
    uint64_t random = f->seed, n = f->nb_ops;
    uint32_t now = f->first_sectors;
    /* Version 2 does not grow with a snapshot, and small counters overflow. */
    bool snapshot = f->kind->version > 2 && f->kind->refcount_bits >= 8;

    for (uint64_t i = 0; i < n; i++) {
        struct op *op = &f->ops[i];

        pick_op(f, &random, now, op);
        if (i == n / 2)
            op->kind = OP_GROW;
        else if (snapshot && i == n / 3)
            op->kind = OP_SNAPSHOT;
        else if (snapshot && i == 2 * n / 3)
            op->kind = OP_DELETE;
        else if (i == n / 4 || i == 3 * n / 4)
            op->kind = OP_REOPEN;
        if (op->kind == OP_GROW) {
            op->first = f->first_sectors;
            op->count = f->sectors - f->first_sectors;
            op->value = 0;
            now = f->sectors;
        } else if (is_global(op->kind)) {
            op->count = 0;
        }
    }
}

/* ---------------------------------------------------------------- contents */

static bool may_hold(const struct op *op, uint32_t sector, uint32_t value)
{
    return op->count && sector >= op->first &&
           sector - op->first < op->count && op->value == value;
}

static bool surely_changed(const struct op *op, uint32_t sector)
{
    return op->done && op->kind != OP_DISCARD && op->count &&
           sector >= op->first && sector - op->first < op->count;
}

/* @flushed: only what has been flushed is sure. */
static bool is_allowed(const struct fault *f, uint32_t sector, uint32_t value,
                       bool flushed)
{
    bool sure = !flushed;

    for (uint64_t i = f->now; i-- > 0;) {
        const struct op *op = &f->ops[i];

        sure = sure || op->flushed;
        if (may_hold(op, sector, value))
            return true;
        if (sure && surely_changed(op, sector))
            return false;
    }
    return value == (f->backing && sector < f->first_sectors
                         ? 0x80000000u | sector : 0);
}

static void verify(struct fault *f, struct lam_image *image, bool flushed,
                   const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t length = lam_image_size(image);
    uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, length, 0, &err);
    FAULT_CHECK(rc == 0, f, "%s: read: %s", when, err.message);
    for (uint32_t s = 0; s < length / SECTOR; s++) {
        const uint8_t *p = bytes + (size_t)s * SECTOR;
        uint32_t value;

        memcpy(&value, p, sizeof value);
        FAULT_CHECK(!memcmp(p, p + sizeof value, SECTOR - sizeof value), f,
                    "%s: sector %u is a mixture", when, s);
        FAULT_CHECK(is_allowed(f, s, value, flushed), f,
                    "%s: sector %u holds %#x", when, s, value);
    }
    free(bytes);
}

/* ------------------------------------------------------------------- a run */

static void check_file(struct fault *f, const char *when)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(f->file, &r, &dirty, &err);
    FAULT_CHECK(rc == 0, f, "%s: check: %s", when, err.message);
    if (dirty) {
        FAULT_CHECK(f->kind->lazy && f->failed, f, "%s: dirty", when);
        return;
    }
    FAULT_CHECK(!r.corruptions && !r.check_errors, f,
                "%s: %llu corruptions, %llu errors", when,
                (unsigned long long)r.corruptions,
                (unsigned long long)r.check_errors);
    FAULT_CHECK(!r.leaks || trouble_has_come(&f->trouble), f,
                "%s: %llu leaks", when, (unsigned long long)r.leaks);
    f->leaks += r.leaks != 0;
}

static bool is_dirty(const struct fault *f)
{
    struct lam_check_result r;
    bool dirty = false;

    sim_check(f->file, &r, &dirty, NULL);
    return dirty;
}

/* On a disk that is well again. */
static void reopen_well(struct fault *f)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;
    struct lam_image *image = NULL;
    uint8_t buf[8 * SECTOR];

    assert_int_equal(lam_io_record_new(f->file, &io, NULL), 0);
    int rc = open_image(f, io, &image, &err);
    if (rc < 0 && is_dirty(f))
        return;                 /* to be repaired first */
    FAULT_CHECK(rc == 0, f, "open again: %s", err.message);
    verify(f, image, true, "opened again");
    fill_sectors(buf, 8, 0x77);
    for (uint32_t at = 3; at + 8 < f->first_sectors; at += 61) {
        rc = lam_image_write(image, buf, sizeof buf, (uint64_t)at * SECTOR, 0,
                             &err);
        FAULT_CHECK(rc == 0, f, "write again: %s", err.message);
    }
    rc = lam_image_close(image, &err);
    FAULT_CHECK(rc == 0, f, "close again: %s", err.message);
    check_file(f, "after writing again");
}

static void run_ops(struct fault *f)
{
    for (f->now = 0; f->now < f->nb_ops && f->image; f->now++) {
        struct op *op = &f->ops[f->now];
        struct lam_error err = LAM_ERROR_INIT;
        int rc = run_op(f, op, &err);

        judge(f, rc, &err, op_names[op->kind]);
        op->done = rc == 0;
        op->flushed = rc == 0 && is_global(op->kind);
    }
    if (!f->image)
        return;
    struct trouble saved = trouble_spare(&f->trouble);
    verify(f, f->image, false, "at the end");
    f->trouble = saved;
}

static void end_run(struct fault *f)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!f->image)
        return;
    int rc = lam_image_close(f->image, &err);
    f->image = NULL;
    judge(f, rc, &err, "close");
    if (rc == 0)
        f->ops[f->nb_ops - 1].flushed = true;
}

/* How many operations there were. */
static uint64_t run(struct fault *f, struct lam_io *fresh, uint64_t n)
{
    f->file = sim_copy(fresh);
    f->n = f->now = n;
    f->failed = false;
    for (uint64_t i = 0; i < f->nb_ops; i++)
        f->ops[i].done = f->ops[i].flushed = false;
    f->trouble = (struct trouble){ .mode = f->trouble.mode, .fail_at = n };
    assert_int_equal(open_spared(f, NULL), 0);
    run_ops(f);
    end_run(f);
    check_file(f, "closed");
    reopen_well(f);
    lam_io_close(f->file);
    return f->trouble.count;
}

static void run_seed(uint64_t seed, uint64_t ops, uint64_t step)
{
    struct fault f = { .seed = seed, .nb_ops = ops };
    uint64_t random = seed, runs = 0;

    f.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    f.backing = sim_below(&random, 2);
    f.sectors = f.kind->cluster_size < 4096 ? 256 : MAX_SECTORS;
    f.first_sectors = f.sectors - 100;
    plan(&f);
    struct lam_io *fresh = sim_create(f.kind,
                                      (uint64_t)f.first_sectors * SECTOR,
                                      f.backing);
    for (size_t m = 0; m < BAD_MODES; m++) {
        f.trouble.mode = &bad_modes[m];
        uint64_t n = sim_below(&random, step);
        while (run(&f, fresh, n) > n) {
            runs++;
            n += step;
        }
    }
    if (getenv("LAM_SEED"))
        print_message("%s: %llu runs, %llu with leaks\n", f.kind->name,
                      (unsigned long long)runs, (unsigned long long)f.leaks);
    lam_io_close(fresh);
}

/* LAM_STEP=1 tries each operation of each seed; the others every so-manieth,
 * beginning somewhere else for each mode and seed. */
static void test_fault(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 48);

    (void)state;
    if (ops > MAX_OPS)
        ops = MAX_OPS;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops, sim_setting("LAM_STEP", 9));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
