/* SPDX-License-Identifier: MIT */
/*
 * test-foreign.c - a power cut while images of other formats are written.
 *
 * Sectors here and there, in blocks that are there and in new ones, with
 * flushes between.  After each event the power fails: the image opens, each
 * sector holds what it had at some moment since the last flush that had ended,
 * what was never written is zero, and writing goes on.  And threads that write
 * into the same new blocks.
 */
#include "sim.h"

#include <pthread.h>

#include "format/vpc/footer.h"

enum { SECTOR = 512, BLOCKS = 5, PER_BLOCK = 4, PLACES = BLOCKS * PER_BLOCK,
       OPS = 20 };

struct kind {
    const char *format;
    uint64_t block_size;
    void (*create)(struct lam_io *io, const struct kind *kind);
};

/* A VHD with blocks smaller than those that anybody makes. */
static void create_vpc(struct lam_io *io, const struct kind *kind)
{
    const struct vpc_header header = {
        .table_offset = 1536,
        .entries = BLOCKS,
        .block_size = (uint32_t)kind->block_size,
    };
    const struct vpc_footer footer = {
        .data_offset = 512,
        .creator = { 't', 'e', 's', 't' },
        .current_size = BLOCKS * kind->block_size,
        .geometry = vpc_geometry_largest,
        .type = VPC_DYNAMIC,
    };
    uint8_t bytes[2560];

    vpc_footer_encode(&footer, bytes);
    vpc_header_encode(&header, bytes + 512);
    memset(bytes + 1536, 0xff, 512);
    vpc_footer_encode(&footer, bytes + 2048);
    assert_int_equal(lam_io_write(io, bytes, sizeof bytes, 0, NULL), 0);
}

static void create_vhdx(struct lam_io *io, const struct kind *kind)
{
    static const struct lam_named_option block = { "block_size", "1M" };
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

    o.format = kind->format;
    o.size = BLOCKS * kind->block_size;
    o.named = &block;
    o.nb_named = 1;
    assert_int_equal(format_find("vhdx")->create(io, NULL, &o, NULL), 0);
}

static void make_vmdk(struct lam_io *io, const struct kind *kind,
                      const char *zeroed)
{
    const struct lam_named_option option = { "zeroed_grain", zeroed };
    const struct format_new set = { .path = "x.vmdk", .io = io };
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

    o.format = kind->format;
    o.size = BLOCKS * kind->block_size;
    o.named = &option;
    o.nb_named = 1;
    assert_int_equal(format_find("vmdk")->create_set(&set, &o, NULL), 0);
}

static void create_vmdk(struct lam_io *io, const struct kind *kind)
{
    make_vmdk(io, kind, "on");
}

/* As others do: the tables come with the first grain. */
static void create_vmdk_late(struct lam_io *io, const struct kind *kind)
{
    static const uint8_t nothing[SECTOR];

    make_vmdk(io, kind, "off");
    assert_int_equal(lam_io_write(io, nothing, SECTOR, 21 * SECTOR, NULL), 0);
    assert_int_equal(lam_io_write(io, nothing, SECTOR, 26 * SECTOR, NULL), 0);
}

/* Those that keep tables by format/tables. */
static void create_tables(struct lam_io *io, const struct kind *kind)
{
    const struct lam_named_option cluster = {
        "cluster_size", kind->block_size == 65536 ? "64k" : "4k",
    };
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

    o.format = kind->format;
    o.size = BLOCKS * kind->block_size;
    o.named = &cluster;
    o.nb_named = 1;
    assert_int_equal(format_find(kind->format)->create(io, NULL, &o, NULL), 0);
}

static const struct kind kinds[] = {
    { "vdi", 1024 * 1024, create_tables },
    { "parallels", 65536, create_tables },
    { "qed", 4096, create_tables },
    { "qcow", 4096, create_tables },
    { "vmdk", 64 * 1024, create_vmdk },
    { "vmdk", 64 * 1024, create_vmdk_late },
    { "vpc", 16 * 1024, create_vpc },
    { "vhdx", 1024 * 1024, create_vhdx },
};

struct run {
    const struct kind *kind;
    uint64_t seed, random;
    struct lam_io *inner, *record;      /* in memory */
    struct lam_image *image;            /* on @record, and has it */
    uint8_t *base;
    uint64_t base_length;
    size_t start[OPS + 1], end[OPS + 1];        /* events around operations */
    bool flushed[OPS + 1];
    uint32_t value[OPS + 1][PLACES];    /* after each; [0]: before all */
};

/* The ends and the inside of each block. */
static uint64_t offset_of(const struct kind *kind, unsigned place)
{
    const uint64_t inside[PER_BLOCK] = { 0, SECTOR, kind->block_size / 2,
                                         kind->block_size - SECTOR };

    return place / PER_BLOCK * kind->block_size + inside[place % PER_BLOCK];
}

static struct lam_image *open_on(const struct run *r, struct lam_io *io,
                                 const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    o.flags = LAM_OPEN_WRITE;
    io->writable = true;
    int rc = image_open_io(io, r->kind->format, &o, NULL, &image, &err);
    SIM_CHECK(rc == 0, r->seed, "%s: %s: %s", r->kind->format, when,
              err.message);
    return image;
}

static void put(const struct run *r, struct lam_image *image, unsigned place,
                uint32_t value)
{
    uint32_t sector[SECTOR / 4];
    struct lam_error err = LAM_ERROR_INIT;

    for (size_t i = 0; i < SECTOR / 4; i++)
        sector[i] = value;
    int rc = lam_image_write(image, sector, SECTOR, offset_of(r->kind, place),
                             0, &err);
    SIM_CHECK(rc == 0, r->seed, "%s: %s", r->kind->format, err.message);
}

static uint32_t get(const struct run *r, struct lam_image *image,
                    unsigned place, const char *when)
{
    uint32_t sector[SECTOR / 4];
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_read(image, sector, SECTOR, offset_of(r->kind, place),
                            &err);

    SIM_CHECK(rc == 0, r->seed, "%s: %s: %s", r->kind->format, when,
              err.message);
    for (size_t i = 1; i < SECTOR / 4; i++)
        SIM_CHECK(sector[i] == sector[0], r->seed, "%s: %s: place %u is mixed",
                  r->kind->format, when, place);
    return sector[0];
}

/* ---------------------------------------------------------------- the run */

static void operate(struct run *r, struct lam_image *image, unsigned op)
{
    uint32_t *value = r->value[op];
    unsigned place = (unsigned)sim_below(&r->random, PLACES);
    unsigned what = (unsigned)sim_below(&r->random, 10);

    memcpy(value, r->value[op - 1], sizeof r->value[op]);
    if (what < 6) {
        put(r, image, place, value[place] = op);
        /* The one next to it, in the same block or a new one. */
        if (what < 2 && ++place < PLACES)
            put(r, image, place, value[place] = op);
    } else if (what < 7) {
        value[place] = 0;
        assert_int_equal(lam_image_zero(image, offset_of(r->kind, place),
                                        SECTOR, what & 1 ? LAM_ZERO_UNMAP : 0,
                                        NULL), 0);
    } else {
        assert_int_equal(lam_image_flush(image, NULL), 0);
        r->flushed[op] = true;
    }
}

static void run_all(struct run *r)
{
    struct lam_error err = LAM_ERROR_INIT;

    assert_int_equal(lam_io_memory_new(NULL, 0, &r->inner, NULL), 0);
    r->kind->create(r->inner, r->kind);
    r->base = sim_bytes(r->inner, &r->base_length);
    assert_int_equal(lam_io_record_new(r->inner, &r->record, NULL), 0);
    r->image = open_on(r, r->record, "new");
    for (unsigned op = 1; op <= OPS; op++) {
        lam_io_record_events(r->record, &r->start[op]);
        operate(r, r->image, op);
        lam_io_record_events(r->record, &r->end[op]);
    }
    if (lam_image_flush(r->image, &err) < 0)
        fail_msg("flush: %s", err.message);
    for (unsigned place = 0; place < PLACES; place++)
        assert_int_equal(get(r, r->image, place, "end"), r->value[OPS][place]);
}

/* ------------------------------------------------------------- power cuts */

/* Is it what the place had after one of the operations @first to @last? */
static bool was_there(const struct run *r, unsigned place, uint32_t value,
                      unsigned first, unsigned last)
{
    for (unsigned op = first; op <= last; op++)
        if (r->value[op][place] == value)
            return true;
    return false;
}

static void go_on(const struct run *r, struct lam_image *image,
                  const char *when)
{
    uint32_t before[PLACES];

    for (unsigned place = 0; place < PLACES; place++)
        before[place] = get(r, image, place, when);
    for (unsigned place = 1; place < PLACES; place += PER_BLOCK)
        put(r, image, place, before[place] = 1000 + place);
    for (unsigned place = 0; place < PLACES; place++)
        SIM_CHECK(get(r, image, place, when) == before[place], r->seed,
                  "%s: %s: place %u has changed", r->kind->format, when, place);
}

/* Leaks at worst, where there is a check. */
static void look_over(const struct run *r, struct lam_image *image,
                      const char *when)
{
    struct lam_check_result result = { 0 };
    int rc = lam_image_check(image, NULL, NULL, &result, NULL);

    SIM_CHECK((rc == 0 || rc == -ENOTSUP) && !result.corruptions &&
              !result.check_errors, r->seed, "%s: %s: check finds %llu",
              r->kind->format, when, (unsigned long long)result.corruptions);
}

static void cut(const struct run *r, size_t n, struct record_pick pick)
{
    struct lam_io *disk;
    unsigned first = 0, last = 0;
    char when[80];

    for (unsigned op = 1; op <= OPS; op++) {
        if (r->start[op] < n)
            last = op;
        if (r->flushed[op] && r->end[op] <= n)
            first = op;
    }
    last = (unsigned)max_u64(last, first);
    snprintf(when, sizeof when, "event %zu, pick %d %llu", n, (int)pick.how,
             (unsigned long long)pick.value);
    assert_int_equal(lam_io_record_rebuild(r->record, n, pick, r->base,
                                           r->base_length, &disk, NULL), 0);
    struct lam_image *image = open_on(r, disk, when);
    for (unsigned place = 0; place < PLACES; place++) {
        uint32_t value = get(r, image, place, when);
        SIM_CHECK(was_there(r, place, value, first, last), r->seed,
                  "%s: %s: place %u has %u, which it had not after operations "
                  "%u to %u", r->kind->format, when, place, value, first, last);
    }
    look_over(r, image, when);
    go_on(r, image, when);
    look_over(r, image, when);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void cut_everywhere(struct run *r)
{
    size_t events;

    lam_io_record_events(r->record, &events);
    for (size_t n = 0; n <= events; n++) {
        cut(r, n, (struct record_pick){ RECORD_ALL, 0 });
        if (n > 0)
            cut(r, n, (struct record_pick){ RECORD_ONLY, n - 1 });
        /* Files of megabytes take their time. */
        if (r->base_length > LAM_MIB && n % 3)
            continue;
        cut(r, n, (struct record_pick){ RECORD_SEEDED,
                                        1 + sim_random(&r->random) % 1000 });
        if (n > 1)
            cut(r, n, (struct record_pick){ RECORD_ALL_BUT, n - 2 });
    }
}

static void test_power_cuts(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(1, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        for (size_t k = 0; k < LAM_ARRAY_SIZE(kinds); k++) {
            struct run *r = calloc(1, sizeof *r);
            assert_non_null(r);
            r->kind = &kinds[k];
            r->seed = r->random = seed;
            if (format_find(r->kind->format)) {
                run_all(r);
                cut_everywhere(r);
            }
            if (r->image)
                assert_int_equal(lam_image_close(r->image, NULL), 0);
            lam_io_close(r->inner);
            free(r->base);
            free(r);
        }
}

/* ---------------------------------------------------------------- threads */

enum { THREADS = 4 };

struct writer {
    const struct run *run;
    struct lam_image *image;
    unsigned first;             /* every fourth place from here on is its own */
};

static void *write_own(void *opaque)
{
    const struct writer *w = opaque;

    for (unsigned place = w->first; place < PLACES; place += THREADS) {
        put(w->run, w->image, place, 100 + place);
        if (place % 7 == 0)
            assert_int_equal(lam_image_flush(w->image, NULL), 0);
    }
    return NULL;
}

static void write_at_once(struct run *r)
{
    struct writer writers[THREADS];
    pthread_t threads[THREADS];

    assert_int_equal(lam_io_memory_new(NULL, 0, &r->inner, NULL), 0);
    r->kind->create(r->inner, r->kind);
    struct lam_io *copy = sim_copy(r->inner);
    struct lam_image *image = open_on(r, copy, "new");
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){ r, image, i };
        assert_int_equal(pthread_create(&threads[i], NULL, write_own,
                                        &writers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned place = 0; place < PLACES; place++)
        assert_int_equal(get(r, image, place, "threads"), 100 + place);
    assert_int_equal(lam_image_close(image, NULL), 0);
    lam_io_close(r->inner);
}

/* The four places of a block are each another thread's. */
static void test_threads(void **state)
{
    (void)state;
    for (size_t k = 0; k < LAM_ARRAY_SIZE(kinds); k++)
        for (unsigned turn = 0; turn < 20; turn++) {
            struct run r = { .kind = &kinds[k], .seed = turn };
            if (format_find(r.kind->format))
                write_at_once(&r);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_power_cuts),
    };
    sim_threads_only("test_threads");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
