/* SPDX-License-Identifier: MIT */
/*
 * test-device.c - a device's old content never shows through, and what can be
 * freed is: conversions of random sources onto modelled devices.
 *
 * The model is a disk that frees whole granules only, whatever it is told, and
 * says which are mapped; the kernel in front of it cuts requests.  Its rows are
 * those of the thin plan's table, in every mixture with sizes of granules and
 * requests, alignments, -S and what was on the device before.
 */
#include <stdlib.h>
#include <string.h>

#include "memory-image.h"

#include "base/zeroes.h"
#include "job/clear.h"

enum { SECTOR = 512, BLOCK = 4096, ROUNDS = 500, MAX_SECTORS = 1 << 11 };

/* What freed granules read as. */
enum freed { TO_ZERO, TO_OLD, TO_PATTERN };

struct row {
    const char *name;
    bool punches, zeroes, discards;
    enum freed freed;
    bool honest;                /* says so when freed is not TO_ZERO */
    bool partial_stays;         /* a punch leaves parts of granules alone */
    bool refuses;               /* takes requests to free, then fails them */
};

static const struct row rows[] = {
    { "unmaps to zeroes", .punches = true, .zeroes = true, .discards = true },
    { "unmaps to zeroes, parts stay", .punches = true, .zeroes = true,
      .discards = true, .partial_stays = true },
    { "unmaps only by discard", .zeroes = true, .discards = true },
    { "unmaps only by discard, dumb otherwise", .discards = true },
    { "keeps old data", .zeroes = true, .discards = true, .freed = TO_OLD },
    { "keeps old data, says so", .zeroes = true, .discards = true,
      .freed = TO_OLD, .honest = true },
    { "a pattern", .discards = true, .freed = TO_PATTERN },
    { "a pattern, says so", .discards = true, .freed = TO_PATTERN,
      .honest = true },
    { "zeroes only", .zeroes = true },
    { "nothing", .zeroes = false },
    { "refuses", .punches = true, .zeroes = true, .discards = true,
      .refuses = true },
    { "refuses, dumb", .punches = true, .discards = true, .refuses = true },
};

static struct {
    const struct lam_io_ops *memory;
    const struct row *row;
    uint64_t granule, first;    /* where the first whole one begins */
    uint64_t most;              /* bytes of a request */
    bool mapped[MAX_SECTORS];
    uint64_t random;
} model;

static uint64_t any(uint64_t below)
{
    model.random = model.random * 6364136223846793005u + 1442695040888963407u;
    return (model.random >> 33) % below;
}

static uint64_t granule_floor(uint64_t offset)
{
    if (offset < model.first)
        return 0;
    return offset - (offset - model.first) % model.granule;
}

static uint64_t granule_ceil(uint64_t offset)
{
    if (offset <= model.first)
        return model.first;
    uint64_t into = (offset - model.first) % model.granule;
    return into ? offset + (model.granule - into) : offset;
}

static void map_range(uint64_t offset, uint64_t length, bool mapped)
{
    uint64_t from = offset / SECTOR, to = (offset + length) / SECTOR;

    for (uint64_t i = from; i < to; i++)
        model.mapped[i] = mapped;
}

/* A write maps the granules that it touches, whole. */
static void touch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    uint64_t size = atomic_load(&io->size);
    uint64_t from = granule_floor(offset);
    uint64_t to = granule_ceil(offset + length);

    map_range(from, min_u64(to, size) - from, true);
}

static ssize_t model_writev(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    ssize_t done = model.memory->writev(io, iov, iovcnt, offset);

    if (done > 0)
        touch(io, offset, (uint64_t)done);
    return done;
}

static void fill(struct lam_io *io, uint64_t offset, uint64_t length, int byte)
{
    uint8_t *bytes = malloc(length + 1);
    const struct iovec iov = { bytes, length };

    assert_non_null(bytes);
    memset(bytes, byte, length);
    assert_int_equal(model.memory->writev(io, &iov, 1, offset), length);
    free(bytes);
}

/* What the device frees of a request: whole granules. */
static struct range freeable(uint64_t offset, uint64_t length)
{
    uint64_t from = granule_ceil(offset);
    uint64_t to = granule_floor(offset + length);

    return from < to ? range_make(from, to - from) : range_make(0, 0);
}

static void aligned(uint64_t offset, uint64_t length)
{
    assert_true(length > 0 && (offset | length) % SECTOR == 0);
}

typedef void command(struct lam_io *io, uint64_t offset, uint64_t length);

/* The kernel cuts requests at the limit, wherever granules lie. */
static int cut(struct lam_io *io, uint64_t offset, uint64_t length,
               command *device)
{
    aligned(offset, length);
    for (uint64_t done = 0; done < length; done += model.most)
        device(io, offset + done, min_u64(model.most, length - done));
    return 0;
}

static void device_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct range whole = freeable(offset, length);

    if (!model.row->partial_stays)
        fill(io, offset, length, 0);
    else if (whole.length)
        fill(io, whole.offset, whole.length, 0);
    map_range(whole.offset, whole.length, false);
}

static int model_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    if (model.row->refuses)
        return -EIO;
    return model.row->punches ? cut(io, offset, length, device_punch)
                              : -EOPNOTSUPP;
}

static int model_zero(struct lam_io *io, uint64_t offset, uint64_t length)
{
    aligned(offset, length);
    fill(io, offset, length, 0);
    touch(io, offset, length);
    return 0;
}

static void device_discard(struct lam_io *io, uint64_t offset,
                           uint64_t length)
{
    struct range whole = freeable(offset, length);

    if (model.row->freed != TO_OLD && whole.length)
        fill(io, whole.offset, whole.length,
             model.row->freed == TO_ZERO ? 0 : 0xff);
    map_range(whole.offset, whole.length, false);
}

static int model_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    if (model.row->refuses)
        return -EREMOTEIO;
    return model.row->discards ? cut(io, offset, length, device_discard)
                               : -EOPNOTSUPP;
}

/* --------------------------------------------------------- one conversion */

struct round {
    uint8_t *source, *old, *now;
    uint64_t size, device_size; /* bytes */
    uint64_t sparse_size;
    bool direct;
};

static void become(struct lam_io *io, const struct row *row, bool direct)
{
    static struct lam_io_ops ops;
    uint64_t granule = SECTOR * (1 + any(any(2) ? 8 : 200));
    bool frees = row->discards || row->refuses;

    model.granule = granule;
    model.first = any(2) ? SECTOR * any(granule / SECTOR) : 0;
    model.most = any(2) ? LAM_MIB : granule * (4 + any(8)) + SECTOR * any(8);
    model.memory = io->ops;
    model.row = row;
    ops = *model.memory;
    ops.writev = model_writev;
    ops.punch = model_punch;
    ops.zero_range = model_zero;
    ops.discard = model_discard;
    io->ops = &ops;
    io->limits = (struct lam_io_limits){
        .request_alignment = direct ? SECTOR : 1,
        .memory_alignment = 1,
        .is_block_device = true,
        .direct = direct,
        .logical_sector = SECTOR,
        .physical_sector = BLOCK,
        .can_punch = row->punches,
        .can_zero_range = true,
        .zero_max = row->zeroes || row->punches ? model.most : 0,
        .can_discard = frees,
        .discard_max = frees ? model.most : 0,
        .discard_undefined = row->honest,
        .discard_granularity = granule,
        .discard_alignment = model.first,
    };
    memset(model.mapped, true, sizeof model.mapped);
}

static uint8_t *random_bytes(uint64_t length, bool zeroes)
{
    uint8_t *bytes = calloc(1, length + 1);

    assert_non_null(bytes);
    for (uint64_t at = 0; at < length; ) {
        uint64_t run = any(3) ? any(32) * BLOCK : any(40 * BLOCK) + 1;
        run = min_u64(run, length - at);
        if (!zeroes || any(2))
            memset(bytes + at, (int)(1 + any(255)), run);
        at += run;
    }
    return bytes;
}

static void round_init(struct round *r)
{
    static const uint64_t sparse[] = { 0, 512, 4096, 4096, 8192, 65536 };

    r->direct = any(2);
    r->device_size = SECTOR * (1 + any(MAX_SECTORS - 1));
    r->size = any(3) ? r->device_size
                     : SECTOR * (1 + any(r->device_size / SECTOR));
    r->sparse_size = sparse[any(LAM_ARRAY_SIZE(sparse))];
    r->source = random_bytes(r->size, any(8));
    r->old = random_bytes(r->device_size, any(2));
    r->now = malloc(r->device_size);
    assert_non_null(r->now);
}

static void round_deinit(struct round *r)
{
    free(r->source);
    free(r->old);
    free(r->now);
}

/* Has the source data there, by the blocks that conversion looks at? */
static bool has_data(const struct round *r, uint64_t from, uint64_t to)
{
    uint64_t block = r->sparse_size < BLOCK ? SECTOR : BLOCK;

    from = align_down(from, block);
    to = min_u64(align_up(to, block), r->size);
    return from < to && !memory_is_zero(r->source + from, to - from);
}

/* A granule is freed where all of it was cleared and nothing written. */
static void assert_thin(const struct round *r)
{
    struct range whole = freeable(0, clear_end(r->size));
    uint64_t end = whole.offset + whole.length;

    for (uint64_t at = whole.offset; at < end; at += model.granule)
        assert_int_equal(model.mapped[at / SECTOR],
                         has_data(r, at, at + model.granule));
}

/* The longest run of zeroes in the source, where old data may show. */
static uint64_t zeroes_in(const struct round *r)
{
    uint64_t longest = 0;

    for (uint64_t at = 0; at < r->size; ) {
        bool zero;
        size_t run = zero_run(r->source + at, r->size - at, BLOCK, &zero);
        longest = zero ? max_u64(longest, run) : longest;
        at += run;
    }
    return longest;
}

static void run_round(const struct row *row)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_convert_result result;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_thin_plan plan;
    struct round r;

    round_init(&r);
    options.sparse_size = r.sparse_size;
    options.workers = 1 + (unsigned)any(3);
    struct lam_image *from = open_memory(r.source, r.size, 0);
    struct lam_image *to = open_memory(r.old, r.device_size,
                                       LAM_OPEN_WRITE | LAM_OPEN_UNMAP);
    become(to->io, row, r.direct);
    if (lam_convert(&from, 1, to, &options, &result, &err) != 0)
        fail_msg("%s: %s", row->name, err.message);
    assert_int_equal(lam_convert_plan(to, &options, &plan, NULL), 0);

    assert_int_equal(lam_image_read(to, r.now, r.device_size, 0, NULL), 0);
    assert_memory_equal(r.now, r.source, r.size);
    assert_memory_equal(r.now + r.size, r.old + r.size,
                        r.device_size - r.size);
    if (plan.thin && row->freed == TO_ZERO && r.sparse_size <= BLOCK)
        assert_thin(&r);
    if (row->freed != TO_ZERO && r.sparse_size && zeroes_in(&r) >= LAM_MIB / 4)
        assert_true(plan.lost_thinness);
    if (r.sparse_size == 0)
        for (uint64_t i = 0; i < r.size / SECTOR; i++)
            assert_true(model.mapped[i]);
    lam_image_close(from, NULL);
    lam_image_close(to, NULL);
    round_deinit(&r);
}

static void test_rows(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct row *row = &rows[i % LAM_ARRAY_SIZE(rows)];
        model.random = i;
        for (unsigned k = 0; k < 4; k++)
            any(2);
        if (i < LAM_ARRAY_SIZE(rows))
            print_message("    %s\n", row->name);
        run_round(row);
    }
}

/* ------------------------------------------------------------- cancelling */

struct watch {
    volatile int cancel;
    unsigned calls;
};

static void stop_at_third(void *opaque, uint64_t done, uint64_t total)
{
    struct watch *w = opaque;

    assert_int_equal(done, 0);
    assert_int_equal(total, LAM_MIB);
    w->cancel = ++w->calls == 3;
}

/* A cancel is seen between two requests of the clear. */
static void test_cancel(void **state)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct watch watch = { 0, 0 };
    uint8_t *old = malloc(LAM_MIB);

    (void)state;
    assert_non_null(old);
    memset(old, 7, LAM_MIB);
    struct lam_image *from = open_memory(old, LAM_MIB, 0);
    struct lam_image *to = open_memory(old, LAM_MIB, LAM_OPEN_WRITE);
    become(to->io, &rows[0], true);
    model.granule = to->io->limits.discard_granularity = 4096;
    model.most = to->io->limits.zero_max = 10 * 4096 + SECTOR;
    options.cancel = &watch.cancel;
    options.progress = stop_at_third;
    options.progress_opaque = &watch;
    assert_int_equal(lam_convert(&from, 1, to, &options, NULL, &err),
                     -ECANCELED);
    assert_string_equal(err.message, "conversion was cancelled");
    assert_int_equal(watch.calls, 3);
    /* The third request ran; the device's end was not reached. */
    assert_false(model.mapped[100 * 1024 / SECTOR]);
    assert_true(model.mapped[200 * 1024 / SECTOR]);
    lam_image_close(from, NULL);
    lam_image_close(to, NULL);
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
