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

static struct lam_io *make_nosy(struct order *t, struct lam_io *io)
{
    nosy = t;
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

static struct lam_io *session_io(struct order *t, struct lam_io *recorder,
                                 struct lam_io *file)
{
    struct lam_io *io;

    if (!file)
        return NULL;
    assert_int_equal(lam_io_record_new(recorder ? recorder : file, &io, NULL),
                     0);
    return t->wrap ? t->wrap(t, io) : io;
}

void order_open_session(struct order *t)
{
    struct lam_io *io = session_io(t, t->record, t->files.image);
    struct lam_io *data = session_io(t, t->record_data, t->files.data);

    t->image = order_open(t, io, data, true, NULL, "workload");
}

/* --------------------------------------------------------------- operations */

static struct range guest_range(const struct order *t,
                                const struct order_op *op)
{
    uint64_t unit = (uint64_t)t->unit * ORDER_SECTOR;

    return range_make(op->first * unit, op->count * unit);
}

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

    t->image = NULL;
    if (rc == 0)
        order_open_session(t);
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
    else if (op->kind == ORDER_LENGTH)
        o.size = guest_range(t, op).offset;
    else if (op->kind == ORDER_RAW)
        o.data_file_raw = LAM_SETTING_OFF;
    else if (op->kind == ORDER_NAME)
        o.data_file = op->first ? "another name" : "data";
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

static int change_bitmap(struct order *t, const struct order_op *op,
                         const char *name, struct lam_error *err)
{
    char source[16];

    snprintf(source, sizeof source, "b%u", op->count);
    switch (op->kind) {
    case ORDER_ADD:
        return lam_image_bitmap_add(t->image, name, ORDER_CELL,
                                    op->count ? LAM_BITMAP_DISABLED : 0, err);
    case ORDER_REMOVE:
        return lam_image_bitmap_remove(t->image, name, err);
    case ORDER_CLEAR:
        return lam_image_bitmap_clear(t->image, name, err);
    case ORDER_ENABLE:
        return lam_image_bitmap_enable(t->image, name, err);
    case ORDER_DISABLE:
        return lam_image_bitmap_disable(t->image, name, err);
    default:
        return lam_image_bitmap_merge(t->image, name, t->image, source, err);
    }
}

static bool is_bitmap_op(const struct order_op *op)
{
    return op->kind >= ORDER_ADD && op->kind <= ORDER_MERGE;
}

int order_try(struct order *t, const struct order_op *op,
              struct lam_error *err)
{
    struct range r = guest_range(t, op);
    char name[16];

    t->next_value++;
    snprintf(name, sizeof name, "%c%u", is_bitmap_op(op) ? 'b' : 's',
             op->first);
    if (is_bitmap_op(op))
        return change_bitmap(t, op, name, err);
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

/* Cells of the bitmaps that record. */
static void mark(struct order_state *s, uint32_t first, uint32_t count,
                 bool sure)
{
    uint32_t unit = ORDER_CELL / ORDER_SECTOR;

    for (unsigned i = 0; i < ORDER_BITMAPS; i++) {
        struct order_bitmap *b = &s->bitmaps[i];

        if (!b->exists || !b->recording)
            continue;
        for (uint32_t k = first / unit; k * unit < first + count; k++) {
            b->maybe[k] = true;
            b->sure[k] |= sure;
        }
    }
}

/* What is behind the end is dirty no more. */
static void cut_bitmaps(struct order_state *s)
{
    uint32_t unit = ORDER_CELL / ORDER_SECTOR;

    for (unsigned i = 0; i < ORDER_BITMAPS; i++)
        for (uint64_t k = div_up(s->disk.sectors, unit); k < ORDER_CELLS; k++)
            s->bitmaps[i].maybe[k] = s->bitmaps[i].sure[k] = false;
}

static void model_bitmap(const struct order_op *op, struct order_state *s)
{
    struct order_bitmap *b = &s->bitmaps[op->first];

    if (op->kind == ORDER_ADD) {
        *b = (struct order_bitmap){ .exists = true, .recording = !op->count };
    } else if (op->kind == ORDER_REMOVE) {
        b->exists = false;
    } else if (op->kind == ORDER_CLEAR) {
        memset(b->sure, 0, sizeof b->sure);
        memset(b->maybe, 0, sizeof b->maybe);
    } else if (op->kind == ORDER_MERGE) {
        for (unsigned k = 0; k < ORDER_CELLS; k++) {
            b->sure[k] |= s->bitmaps[op->count].sure[k];
            b->maybe[k] |= s->bitmaps[op->count].maybe[k];
        }
    } else {
        b->recording = op->kind == ORDER_ENABLE;
    }
}

/* Growing writes the last sector and the rest of its cluster once more. */
static void model_size(const struct order *t, struct order_state *s,
                       uint32_t sectors)
{
    uint32_t old = s->disk.sectors;
    uint32_t unit = (uint32_t)(t->shape->kind.cluster_size / ORDER_SECTOR);

    if (sectors > old && old % unit)
        mark(s, old - 1, unit + 1 - old % unit, false);
    s->disk.sectors = sectors;
    set_values(&s->disk, (uint32_t)min_u64(sectors, old),
               (uint32_t)max_u64(sectors, old) -
                   (uint32_t)min_u64(sectors, old), 0);
    cut_bitmaps(s);
    s->written = true;
}

static void model_data(struct order *t, const struct order_op *op, bool sure,
                       struct order_state *s)
{
    uint32_t first = op->first * t->unit, count = op->count * t->unit;
    bool zero = op->kind != ORDER_WRITE && op->kind != ORDER_COMPRESSED;

    set_values(&s->disk, first, count, zero ? 0 : t->next_value);
    mark(s, first, count, sure);
    s->written = true;
}

void order_model(struct order *t, const struct order_op *op, bool sure,
                 struct order_state *s)
{
    if (is_bitmap_op(op)) {
        model_bitmap(op, s);
        return;
    }
    switch (op->kind) {
    case ORDER_WRITE:
    case ORDER_COMPRESSED:
    case ORDER_ZERO:
    case ORDER_UNMAP:
    case ORDER_DISCARD:
        model_data(t, op, sure, s);
        break;
    case ORDER_RESIZE:
    case ORDER_LENGTH:
        model_size(t, s, op->first * t->unit);
        break;
    case ORDER_CREATE:
        s->snapshots[op->first] = s->disk;
        /* fall through */
    case ORDER_DELETE:
        s->has_snapshot[op->first] = op->kind == ORDER_CREATE;
        break;
    case ORDER_APPLY:
        if (s->has_snapshot[op->first])
            s->disk = s->snapshots[op->first];
        break;
    case ORDER_REOPEN:
        s->written = false;
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

static bool has_bitmaps(const struct order_state *s)
{
    bool some = false;

    for (unsigned i = 0; i < ORDER_BITMAPS; i++)
        some |= s->bitmaps[i].exists;
    return some;
}

bool order_makes_sense(const struct order *t, const struct order_op *op)
{
    const struct sim_kind *kind = &t->shape->kind;
    bool snapshot = op->kind >= ORDER_CREATE && op->kind <= ORDER_DELETE;

    if (snapshot && (sim_has_data_file(t->shape) || kind->refcount_bits < 8))
        return false;
    /* Refused while there are bitmaps. */
    if ((op->kind == ORDER_APPLY ||
         (op->kind == ORDER_VERSION && op->first == 2)) &&
        has_bitmaps(&t->states[t->nb_states - 1]))
        return false;
    if (op->kind == ORDER_VERSION && op->first == 2 &&
        (sim_has_data_file(t->shape) || kind->extended_l2 ||
         kind->refcount_bits != 16))
        return false;
    if (op->kind == ORDER_NAME)
        return sim_has_data_file(t->shape);
    if (op->kind == ORDER_RAW)
        return t->shape->store == SIM_DATA_RAW;
    if (op->kind == ORDER_LAZY || op->kind == ORDER_BITS || is_bitmap_op(op))
        return kind->version == 3;
    return op->kind != ORDER_KEY || t->shape->store == SIM_LUKS;
}

static void run_op(struct order *t, const struct order_op *op)
{
    struct order_state *s = &t->states[t->nb_states];
    struct lam_error err = LAM_ERROR_INIT;

    if (!order_makes_sense(t, op))
        return;
    *s = t->states[t->nb_states - 1];
    s->start = events(t);
    int rc = order_try(t, op, &err);
    ORDER_CHECK(rc == 0, t, "operation %zu (%d): %s", t->nb_states, op->kind,
                err.message);
    order_model(t, op, true, s);
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
    t->base = t->base_data = NULL;
}

/* What there is now is what there has always been. */
static void begin(struct order *t)
{
    t->states[0] = t->states[t->nb_states - 1];
    t->states[0].start = t->states[0].end = 0;
    t->states[0].durable = t->states[0].flushes = true;
    t->states[0].written = false;
    t->nb_states = 1;
}

bool order_set_up(struct order *t)
{
    uint64_t cs = t->shape->kind.cluster_size;

    t->unit = (uint32_t)max_u64(cs / 4, ORDER_SECTOR) / ORDER_SECTOR;
    uint64_t sectors = (uint64_t)t->script->units * t->unit;
    assert_true(sectors <= ORDER_SECTORS);
    if (!sim_files_create(t->shape, sectors * ORDER_SECTOR, NULL, "data",
                          &t->files))
        return false;
    t->states = calloc(2 * ORDER_OPS + 2, sizeof *t->states);
    assert_non_null(t->states);
    t->states[0].disk.sectors = (uint32_t)sectors;
    t->nb_states = 1;
    record(t);
    order_open_session(t);
    run_ops(t, t->script->setup);
    assert_int_equal(lam_image_close(t->image, NULL), 0);
    t->image = NULL;
    forget_recording(t);
    begin(t);
    return true;
}

bool order_run(struct order *t)
{
    t->wrap = t->interrupted ? make_nosy : NULL;
    if (!order_set_up(t))
        return false;
    record(t);
    order_open_session(t);
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
