/* SPDX-License-Identifier: MIT */
/*
 * order-run.c - a script on a recording, with a model beside it.
 */
#include "order.h"

void order_fill(uint8_t *sector, uint32_t value)
{
    for (size_t i = 0; i < ORDER_SECTOR; i += sizeof value)
        memcpy(sector + i, &value, sizeof value);
}

/* ------------------------------------------------- flushes by somebody else */

static struct lam_io_ops nosy_ops;
static ssize_t (*plain_writev)(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset);
static struct order *nosy;              /* whose image is being written to */
static uint32_t nosy_value;             /* 0: nothing of the guest's */

static bool is_guest_data(const struct iovec *iov, int iovcnt)
{
    uint32_t words[2];

    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len < sizeof words)
            continue;
        memcpy(words, iov[i].iov_base, sizeof words);
        if (words[0] == nosy_value && words[1] == nosy_value)
            return true;
    }
    return false;
}

/* Data move under no lock: a flush may come right before the data do. */
static ssize_t nosy_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    if (nosy_value && is_guest_data(iov, iovcnt)) {
        uint32_t value = nosy_value;

        nosy_value = 0;
        assert_int_equal(lam_image_flush(nosy->image, NULL), 0);
        nosy->flushes++;
        nosy_value = value;
    }
    return plain_writev(io, iov, iovcnt, offset);
}

static struct lam_io *make_nosy(struct lam_io *io)
{
    if (!io)
        return NULL;
    plain_writev = io->ops->writev;
    nosy_ops = *io->ops;
    nosy_ops.writev = nosy_writev;
    io->ops = &nosy_ops;
    return io;
}

/* ----------------------------------------------------------------- opening */

struct lam_image *order_open(const struct order *t, struct lam_io *io,
                             struct lam_io *data, bool writable,
                             const char *snapshot, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    if (writable)
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    o.snapshot = snapshot;
    int rc = sim_open(io, data, &o, NULL, &image, &err);
    ORDER_CHECK(rc == 0, t, "%s: open: %s", when, err.message);
    return image;
}

static void open_session(struct order *t)
{
    struct lam_io *io, *data = NULL;

    assert_int_equal(lam_io_record_new(t->record, &io, NULL), 0);
    if (t->record_data)
        assert_int_equal(lam_io_record_new(t->record_data, &data, NULL), 0);
    if (t->interrupted) {
        io = make_nosy(io);
        data = make_nosy(data);
    }
    nosy = t;
    t->image = order_open(t, io, data, true, NULL, "workload");
}

/* --------------------------------------------------------------- operations */

static int write_data(struct order *t, struct range r, bool compressed,
                      struct lam_error *err)
{
    uint8_t *buf = malloc(r.length + 1);

    assert_non_null(buf);
    for (uint64_t at = 0; at < r.length; at += ORDER_SECTOR)
        order_fill(buf + at, t->next_value);
    nosy_value = t->interrupted && !compressed ? t->next_value : 0;
    int rc = lam_image_write(t->image, buf, r.length, r.offset,
                             compressed ? LAM_WRITE_COMPRESSED : 0, err);
    nosy_value = 0;
    free(buf);
    return rc;
}

static int reopen(struct order *t, struct lam_error *err)
{
    int rc = lam_image_close(t->image, err);

    if (rc == 0)
        open_session(t);
    return rc;
}

static int amend(struct order *t, const struct order_op *op,
                 struct lam_error *err)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;

    if (op->kind == ORDER_VERSION)
        o.version = op->first;
    else if (op->kind == ORDER_BITS)
        o.refcount_bits = op->first;
    else
        o.lazy_refcounts = op->first ? LAM_SETTING_ON : LAM_SETTING_OFF;
    return lam_image_amend(t->image, &o, err);
}

static int change_key(struct order *t, bool add, struct lam_error *err)
{
    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;

    o.active = add;
    o.keyring = sim_keyring();
    o.iter_time = 1;
    *(add ? &o.new_secret : &o.old_secret) = "other";
    return lam_image_key_slot(t->image, &o, err);
}

/* Version 2 cannot, if it is encrypted. */
static enum lam_preallocation preallocation(const struct order *t,
                                            const struct order_op *op)
{
    bool never = t->shape->kind.version < 3 && t->shape->store == SIM_LUKS;

    return never ? LAM_PREALLOC_OFF : (enum lam_preallocation)op->count;
}

static int run(struct order *t, const struct order_op *op, struct range r,
               const char *name, struct lam_error *err)
{
    switch (op->kind) {
    case ORDER_WRITE:
    case ORDER_COMPRESSED:
        return write_data(t, r, op->kind == ORDER_COMPRESSED &&
                                t->shape->store == SIM_INSIDE, err);
    case ORDER_ZERO:
        return lam_image_zero(t->image, r.offset, r.length, 0, err);
    case ORDER_UNMAP:
        return lam_image_zero(t->image, r.offset, r.length, LAM_ZERO_UNMAP,
                              err);
    case ORDER_DISCARD:
        return lam_image_discard(t->image, r.offset, r.length, err);
    case ORDER_FLUSH:
        return lam_image_flush(t->image, err);
    case ORDER_REOPEN:
        return reopen(t, err);
    case ORDER_RESIZE:
        return lam_image_resize(t->image, r.offset, preallocation(t, op),
                                LAM_TRUNCATE_SHRINK, err);
    case ORDER_CREATE:
        return lam_image_snapshot_create(t->image, name, err);
    case ORDER_APPLY:
        return lam_image_snapshot_apply(t->image, name, err);
    case ORDER_DELETE:
        return lam_image_snapshot_delete(t->image, name, err);
    case ORDER_KEY:
        return change_key(t, op->first, err);
    case ORDER_ADD:
        return lam_image_bitmap_add(t->image, name, 0, 0, err);
    case ORDER_REMOVE:
        return lam_image_bitmap_remove(t->image, name, err);
    default:
        return amend(t, op, err);
    }
}

/* ---------------------------------------------------------------- the model */

static void set_values(struct order_disk *d, uint32_t first, uint32_t count,
                       uint32_t value)
{
    assert_true(first + count <= ORDER_SECTORS);
    for (uint32_t i = first; i < first + count; i++)
        d->value[i] = value;
}

static void model(struct order *t, const struct order_op *op,
                  struct order_state *s)
{
    uint32_t first = op->first * t->unit, count = op->count * t->unit;
    uint32_t old = s->disk.sectors;

    switch (op->kind) {
    case ORDER_WRITE:
    case ORDER_COMPRESSED:
        set_values(&s->disk, first, count, t->next_value);
        break;
    case ORDER_ZERO:
    case ORDER_UNMAP:
    case ORDER_DISCARD:
        set_values(&s->disk, first, count, 0);
        break;
    case ORDER_RESIZE:
        s->disk.sectors = first;
        if (first > old)
            set_values(&s->disk, old, first - old, 0);
        else
            set_values(&s->disk, first, old - first, 0);
        break;
    case ORDER_CREATE:
        s->snapshots[op->first] = s->disk;
        /* fall through */
    case ORDER_DELETE:
        s->has_snapshot[op->first] = op->kind == ORDER_CREATE;
        break;
    case ORDER_APPLY:
        s->disk = s->snapshots[op->first];
        break;
    case ORDER_ADD:
    case ORDER_REMOVE:
        s->has_bitmap[op->first] = op->kind == ORDER_ADD;
        break;
    default:
        break;
    }
}

static size_t events(const struct order *t)
{
    size_t n;

    lam_io_record_events(t->record, &n);
    return n;
}

/* Some operations are not for every shape: those are left out. */
static bool makes_sense(const struct order *t, const struct order_op *op)
{
    const struct sim_kind *kind = &t->shape->kind;
    bool snapshot = op->kind >= ORDER_CREATE && op->kind <= ORDER_DELETE;

    if (snapshot && (sim_has_data_file(t->shape) || kind->refcount_bits < 8))
        return false;
    if (op->kind == ORDER_VERSION && op->first == 2 &&
        (sim_has_data_file(t->shape) || kind->extended_l2 ||
         kind->refcount_bits != 16))
        return false;
    if (op->kind == ORDER_LAZY || op->kind == ORDER_BITS ||
        op->kind == ORDER_ADD || op->kind == ORDER_REMOVE)
        return kind->version == 3;
    return op->kind != ORDER_KEY || t->shape->store == SIM_LUKS;
}

static void run_op(struct order *t, const struct order_op *op)
{
    struct order_state *before = &t->states[t->nb_states - 1];
    struct order_state *s = &t->states[t->nb_states];
    uint64_t unit = (uint64_t)t->unit * ORDER_SECTOR;
    struct lam_error err = LAM_ERROR_INIT;
    char name[16];

    if (!makes_sense(t, op))
        return;
    *s = *before;
    t->next_value++;
    bool bitmap = op->kind == ORDER_ADD || op->kind == ORDER_REMOVE;
    snprintf(name, sizeof name, "%c%u", bitmap ? 'b' : 's', op->first);
    s->start = events(t);
    int rc = run(t, op, range_make(op->first * unit, op->count * unit), name,
                 &err);
    ORDER_CHECK(rc == 0, t, "operation %zu (%d): %s", t->nb_states, op->kind,
                err.message);
    model(t, op, s);
    s->end = events(t);
    s->durable = op->kind >= ORDER_FLUSH;
    s->flushes = s->durable && op->kind < ORDER_KEY;
    t->nb_states++;
}

static void run_ops(struct order *t, const struct order_op *ops)
{
    for (unsigned i = 0; i < ORDER_OPS && ops[i].kind != ORDER_END; i++)
        run_op(t, &ops[i]);
}

/* The recording begins behind the setup. */
static void record(struct order *t)
{
    t->base = sim_bytes(t->files.image, &t->base_length);
    assert_int_equal(lam_io_record_new(t->files.image, &t->record, NULL), 0);
    if (!t->files.data)
        return;
    t->base_data = sim_bytes(t->files.data, &t->base_data_length);
    assert_int_equal(lam_io_record_join(t->files.data, t->record,
                                        &t->record_data, NULL), 0);
}

static void forget_recording(struct order *t)
{
    lam_io_close(t->record_data);
    lam_io_close(t->record);
    free(t->base);
    free(t->base_data);
    t->record = t->record_data = NULL;
}

bool order_run(struct order *t)
{
    uint64_t cs = t->shape->kind.cluster_size;

    t->unit = (uint32_t)max_u64(cs / 4, ORDER_SECTOR) / ORDER_SECTOR;
    uint64_t sectors = (uint64_t)t->script->units * t->unit;
    assert_true(sectors <= ORDER_SECTORS);
    if (!sim_files_create(t->shape, sectors * ORDER_SECTOR, NULL, "data",
                          &t->files))
        return false;
    t->states = calloc(ORDER_OPS + 1, sizeof *t->states);
    assert_non_null(t->states);
    t->states[0].disk.sectors = (uint32_t)sectors;
    t->nb_states = 1;
    record(t);
    open_session(t);
    run_ops(t, t->script->setup);
    assert_int_equal(lam_image_close(t->image, NULL), 0);
    forget_recording(t);

    t->states[0] = t->states[t->nb_states - 1];
    t->states[0].start = t->states[0].end = 0;
    t->states[0].durable = t->states[0].flushes = true;
    t->nb_states = 1;
    record(t);
    open_session(t);
    run_ops(t, t->script->ops);
    run_op(t, &(struct order_op){ ORDER_REOPEN, 0, 0 });
    assert_int_equal(lam_image_close(t->image, NULL), 0);
    return true;
}

void order_deinit(struct order *t)
{
    forget_recording(t);
    sim_files_close(&t->files);
    free(t->states);
}
