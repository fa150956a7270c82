/* SPDX-License-Identifier: MIT */
/*
 * test-fault-script.c - one host operation of a script fails, each in turn.
 *
 * What random workloads (test-fault.c) do not reach: bitmaps, resizing with
 * preallocation, amendments, snapshots, key slots and external data files, in
 * images of every shape.  A request that fails leaves what there was, or what
 * there was to be; a sector either of the two.  Whatever goes on after it goes
 * on from there.  Closed and opened again, all is as after the last request
 * that is durable, or after one of those since; check finds leaks at worst.
 */
#include "order.h"

#include "bad-disk.h"

static const struct order_script own[] = {
    { "resize", 30, {
        { ORDER_WRITE, 0, 4 }, { ORDER_WRITE, 20, 10 },
    }, {
        { ORDER_RESIZE, 36, LAM_PREALLOC_METADATA }, { ORDER_WRITE, 33, 2 },
        { ORDER_RESIZE, 10, 0 }, { ORDER_WRITE, 8, 2 },
        { ORDER_RESIZE, 22, LAM_PREALLOC_FALLOC }, { ORDER_FLUSH, 0, 0 },
        { ORDER_RESIZE, 32, LAM_PREALLOC_FULL }, { ORDER_WRITE, 16, 8 },
        { ORDER_RESIZE, 3, 0 }, { ORDER_WRITE, 0, 3 },
    } },
    { "snapshots", 32, {
        { ORDER_WRITE, 0, 10 }, { ORDER_CREATE, 0, 0 }, { ORDER_WRITE, 4, 1 },
    }, {
        { ORDER_WRITE, 8, 2 }, { ORDER_CREATE, 1, 0 }, { ORDER_WRITE, 0, 3 },
        { ORDER_COMPRESSED, 12, 8 }, { ORDER_APPLY, 0, 0 },
        { ORDER_WRITE, 2, 1 }, { ORDER_DELETE, 1, 0 }, { ORDER_WRITE, 8, 4 },
        { ORDER_DELETE, 0, 0 }, { ORDER_WRITE, 0, 2 },
    } },
    { "data", 40, {
        { ORDER_WRITE, 0, 9 }, { ORDER_COMPRESSED, 20, 4 },
    }, {
        { ORDER_WRITE, 2, 4 }, { ORDER_UNMAP, 4, 4 }, { ORDER_FLUSH, 0, 0 },
        { ORDER_COMPRESSED, 24, 8 }, { ORDER_DISCARD, 0, 4 },
        { ORDER_WRITE, 1, 1 }, { ORDER_ZERO, 22, 4 }, { ORDER_REOPEN, 0, 0 },
        { ORDER_WRITE, 26, 2 }, { ORDER_COMPRESSED, 4, 4 },
        { ORDER_FLUSH, 0, 0 }, { ORDER_DISCARD, 0, 40 },
    } },
    /* More L2 tables of 512 bytes than the least cache holds. */
    { "eviction", 1000, { { ORDER_WRITE, 0, 2 } }, {
        { ORDER_WRITE, 70, 1 }, { ORDER_WRITE, 130, 2 },
        { ORDER_WRITE, 200, 1 }, { ORDER_WRITE, 260, 1 },
        { ORDER_WRITE, 330, 1 }, { ORDER_WRITE, 390, 1 },
        { ORDER_WRITE, 460, 1 }, { ORDER_WRITE, 520, 1 },
        { ORDER_WRITE, 590, 1 }, { ORDER_WRITE, 650, 1 },
        { ORDER_UNMAP, 0, 400 }, { ORDER_WRITE, 720, 1 },
        { ORDER_FLUSH, 0, 0 }, { ORDER_WRITE, 780, 1 },
        { ORDER_WRITE, 64, 40 }, { ORDER_WRITE, 910, 2 },
    } },
};

enum { NB_SCRIPTS = LAM_ARRAY_SIZE(own) + ORDER_SHARED };

static const struct order_script *script_at(size_t k)
{
    return k < ORDER_SHARED ? &order_shared[k] : &own[k - ORDER_SHARED];
}

struct fault {
    struct order t;
    struct trouble trouble;
    struct sim_files fresh;     /* as the setup left them */
    struct order_state first;
    uint64_t n, runs;
    size_t durable;             /* the state that is on disk at least */
    char when[80];
};

/* There is one at a time. */
static struct fault *current;

static struct lam_io *suffer(struct order *t, struct lam_io *io)
{
    (void)t;
    struct lam_io *bad = bad_disk_over(io, &current->trouble);

    bad->limits.can_discard = true;
    return bad;
}

#define FAULT_CHECK(ok, f, fmt, ...)                                         \
    ORDER_CHECK(ok, &(f)->t, "%s: " fmt, (f)->when, __VA_ARGS__)

/* An error says what it is and comes from the disk. */
static void judge(struct fault *f, int rc, const struct lam_error *err)
{
    if (rc == 0)
        return;
    FAULT_CHECK(rc < 0 && err->code == -rc && err->message[0], f,
                "%d without a message (%s)", rc, err->message);
    FAULT_CHECK(trouble_has_come(&f->trouble), f, "fails, but no operation "
                "did: %s", err->message);
}

static bool same_sector(const struct order_disk *d, uint32_t k, uint32_t value)
{
    return k < d->sectors && d->value[k] == value;
}

/* What the image shows now is @before or @after; data may be some of both if
 * @mixed.  In @now. */
static void observe(struct fault *f, const struct order_state *before,
                    const struct order_state *after, bool mixed,
                    struct order_state *now)
{
    struct trouble saved = trouble_spare(&f->trouble);
    uint32_t value[ORDER_SECTORS], sectors;
    struct lam_image_info *info;

    assert_int_equal(lam_image_info(f->t.image, &info, NULL), 0);
    FAULT_CHECK(order_read_disk(f->t.image, value, &sectors), f, "sectors are "
                "mixtures, or cannot be read (%u)", sectors);
    bool is_before = order_same_structure(f->t.image, info, before, true);
    bool is_after = order_same_structure(f->t.image, info, after, true);
    FAULT_CHECK(is_before || is_after, f, "size %u sectors, %zu snapshots, "
                "%zu bitmaps: neither before nor after", sectors,
                info->nb_snapshots, info->nb_bitmaps);
    lam_image_info_free(info);
    if (is_before && !mixed && memcmp(value, before->disk.value,
                                      sectors * sizeof *value))
        is_before = false;
    *now = is_before ? *before : *after;
    for (uint32_t k = 0; k < sectors; k++) {
        FAULT_CHECK(same_sector(&now->disk, k, value[k]) ||
                    (mixed && same_sector(&after->disk, k, value[k])), f,
                    "sector %u holds %#x", k, value[k]);
        now->disk.value[k] = value[k];
    }
    f->trouble = saved;
}

/* States of a request that has failed: what may have reached the disk, and
 * what the image is now. */
static void add_failed(struct fault *f, const struct order_op *op)
{
    struct order *t = &f->t;
    struct order_state *before = &t->states[t->nb_states - 1];
    struct order_state *after = before + 1;
    bool data = op->kind <= ORDER_DISCARD;

    *after = *before;
    after->durable = after->flushes = false;
    order_model(t, op, false, after);
    after->written = true;
    t->nb_states++;
    if (!t->image)
        return;
    observe(f, before, after, data, after + 1);
    after[1].durable = after[1].flushes = false;
    after[1].written = true;
    for (unsigned i = 0; i < ORDER_BITMAPS && op->kind < ORDER_ADD; i++)
        for (unsigned k = 0; k < ORDER_CELLS; k++)  /* may be set already */
            after[1].bitmaps[i].maybe[k] |= after->bitmaps[i].maybe[k];
    t->nb_states++;
}

/* Opening is spared. */
static int reopen(struct fault *f, struct lam_error *err)
{
    int rc = lam_image_close(f->t.image, err);

    f->t.image = NULL;
    if (rc < 0)
        return rc;
    struct trouble saved = trouble_spare(&f->trouble);
    order_open_session(&f->t);
    f->trouble = saved;
    return 0;
}

static void run_op(struct fault *f, const struct order_op *op)
{
    struct order *t = &f->t;
    struct order_state *s = &t->states[t->nb_states];
    struct lam_error err = LAM_ERROR_INIT;

    if (!order_makes_sense(t, op))
        return;
    snprintf(f->when, sizeof f->when, "%s at operation %llu, request %zu (%d)",
             f->trouble.mode->name, (unsigned long long)f->n, t->nb_states,
             op->kind);
    int rc = op->kind == ORDER_REOPEN ? reopen(f, &err)
                                      : order_try(t, op, &err);
    judge(f, rc, &err);
    if (rc < 0) {
        add_failed(f, op);
        return;
    }
    *s = t->states[t->nb_states - 1];
    order_model(t, op, true, s);
    s->durable = op->kind >= ORDER_FLUSH;
    s->flushes = s->durable && op->kind < ORDER_KEY;
    if (s->durable)
        f->durable = t->nb_states;
    t->nb_states++;
}

/* How many operations there were. */
static uint64_t run(struct fault *f, uint64_t n)
{
    struct order *t = &f->t;
    const struct order_op *ops = t->script->ops;

    t->files = sim_files_copy(&f->fresh);
    t->states[0] = f->first;
    t->nb_states = 1;
    f->durable = 0;
    f->n = n;
    f->trouble = (struct trouble){ .mode = f->trouble.mode,
                                   .fail_at = UINT64_MAX };
    order_open_session(t);
    f->trouble.count = 0;
    f->trouble.fail_at = n;
    for (unsigned i = 0; i < ORDER_OPS && ops[i].kind && t->image; i++)
        run_op(f, &ops[i]);
    if (t->image)
        run_op(f, &(struct order_op){ ORDER_REOPEN, 0, 0 });
    uint64_t count = f->trouble.count;
    f->trouble.fail_at = UINT64_MAX;
    f->trouble.half_done = false;
    if (t->image)
        assert_int_equal(lam_image_close(t->image, NULL), 0);
    t->image = NULL;

    snprintf(f->when, sizeof f->when, "%s at operation %llu",
             f->trouble.mode->name, (unsigned long long)n);
    order_check_file(t, &t->files, f->when);
    order_verify(t, &t->files, f->durable, t->nb_states - 1, f->when);
    order_go_on(t, &t->files, f->when);
    sim_files_close(&t->files);
    f->runs++;
    return count;
}

/* Opening an encrypted image takes long: only what differs with it. */
static bool is_wanted(const struct sim_shape *shape,
                      const struct order_script *script)
{
    const char *only = getenv("LAM_SHAPE");

    if (only)
        return strstr(shape->kind.name, only);
    return shape->store != SIM_LUKS ||
           (!strcmp(shape->kind.name, "luks, 4k") &&
            (!strcmp(script->name, "amend") || !strcmp(script->name, "data")));
}

static void run_script(size_t number, const struct sim_shape *shape,
                       uint64_t step)
{
    static struct fault f;
    const struct order_script *script = script_at(number);
    uint64_t random = (uint64_t)(shape - sim_shapes) * 16 + number;

    f = (struct fault){ .t = { .script = script, .shape = shape } };
    if ((script->units + 20) * max_u64(shape->kind.cluster_size / 4, 512) >
            (uint64_t)ORDER_SECTORS * ORDER_SECTOR ||
        !order_set_up(&f.t))
        return;
    current = &f;
    f.fresh = f.t.files;
    f.first = f.t.states[0];
    f.t.wrap = suffer;
    for (size_t m = 0; m < BAD_MODES; m++) {
        f.trouble.mode = &bad_modes[m];
        uint64_t n = sim_below(&random, step);

        while (run(&f, n) > n)
            n += step;
    }
    if (getenv("LAM_SHAPE"))
        print_message("%s, %s: %llu runs, %llu with leaks\n", script->name,
                      shape->kind.name, (unsigned long long)f.runs,
                      (unsigned long long)f.t.leaks);
    f.t.files = f.fresh;
    order_deinit(&f.t);
}

/* LAM_STEP=1 tries each operation, LAM_SHAPE=text only shapes whose name has
 * it. */
static void test_script(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sim_shapes); i++) {
        const struct sim_shape *shape = &sim_shapes[i];
        uint64_t step = shape->store == SIM_LUKS ? 97 : 23;

        for (size_t k = 0; k < NB_SCRIPTS; k++)
            if (is_wanted(shape, script_at(k)))
                run_script(k, shape, sim_setting("LAM_STEP", step));
    }
}

/* -------------------------------------------------------------- given back */

/* How many operations there were.  What was taken for a larger disk goes back
 * when that fails before the size is written: the file is hardly longer than it
 * was. */
static uint64_t grow_in_vain(uint64_t n)
{
    static const struct sim_kind kind = { "4k", 4096, 3, 16, false, false,
                                          false };
    struct trouble trouble = { .mode = &bad_modes[2], .fail_at = UINT64_MAX };
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_io *file = sim_create(&kind, 40 * 4096, false);
    struct lam_image *image = NULL;
    uint64_t before, after;

    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(image_open_io(bad_disk_new(file, &trouble), "qcow2", &o,
                                   NULL, &image, NULL), 0);
    assert_int_equal(lam_image_write(image, "x", 1, 5000, 0, NULL), 0);
    assert_int_equal(lam_image_flush(image, NULL), 0);
    assert_int_equal(lam_io_size(file, &before, NULL), 0);
    trouble.count = 0;
    trouble.fail_at = n;
    int rc = lam_image_resize(image, 900 * 4096, LAM_PREALLOC_FULL, 0, NULL);
    uint64_t count = trouble.count;
    trouble.fail_at = UINT64_MAX;
    /* A sync that failed is the end: nothing can be changed any more. */
    bool over = lam_image_write(image, "y", 1, 5000, 0, NULL) < 0;
    lam_image_close(image, NULL);
    assert_int_equal(lam_io_size(file, &after, NULL), 0);
    if (rc < 0 && !over && after > before + 4 * 4096)
        fail_msg("operation %llu: %llu bytes, and %llu before",
                 (unsigned long long)n, (unsigned long long)after,
                 (unsigned long long)before);
    lam_io_close(file);
    return count;
}

static void test_given_back(void **state)
{
    uint64_t count = grow_in_vain(UINT64_MAX);

    (void)state;
    for (uint64_t n = 0; n + 5 < count; n++)
        grow_in_vain(n);
    assert_true(count > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_script),
        cmocka_unit_test(test_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
