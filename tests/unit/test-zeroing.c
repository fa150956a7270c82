/* SPDX-License-Identifier: MIT */
/*
 * test-zeroing.c - devices that do less than they said: whatever the plan was,
 * the target reads as the source afterwards.
 */
#include <stdlib.h>
#include <string.h>

#include "memory-image.h"

enum { SIZE = 3 << 20, LARGER = SIZE + (64 << 10), BLOCK = 4096 };

/* What a device does when it is told to punch, zero or discard. */
struct device {
    const char *name;
    bool direct;
    bool is_loop;
    bool says_punch;            /* its limits promise it */
    bool punches;               /* and it does */
    bool punch_is_stale;        /* it succeeds, and old data is still read */
    bool zeroes;
    bool says_discard;          /* without doing it */
    bool discards;              /* to zero here and to noise there */
    bool undefined;             /* the device says as much */
    enum lam_zero_method before, after;     /* the plan */
    bool written;               /* zeroes had to be written */
};

static const struct device devices[] = {
    { "as it should be", .direct = true, .says_punch = true, .punches = true,
      .zeroes = true, .before = LAM_ZERO_BY_CLEAR_ONCE,
      .after = LAM_ZERO_BY_CLEAR_ONCE },
    { "as it should be, cached", .says_punch = true, .punches = true,
      .zeroes = true, .before = LAM_ZERO_BY_CLEAR_ONCE,
      .after = LAM_ZERO_BY_CLEAR_ONCE },
    { "loop", .direct = true, .is_loop = true,
      .says_punch = true, .punches = true, .zeroes = true,
      .before = LAM_ZERO_BY_PUNCH, .after = LAM_ZERO_BY_PUNCH },
    { "loop, cached", .is_loop = true, .says_punch = true,
      .punches = true, .zeroes = true, .before = LAM_ZERO_BY_CLEAR_ONCE,
      .after = LAM_ZERO_BY_CLEAR_ONCE },
    { "loop, punch is refused", .direct = true,
      .is_loop = true, .says_punch = true, .discards = true,
      .before = LAM_ZERO_BY_PUNCH, .after = LAM_ZERO_BY_DISCARD_PROVE,
      .written = true },
    { "loop, punch is refused, range is zeroed",
      .direct = true, .is_loop = true, .says_punch = true, .zeroes = true,
      .before = LAM_ZERO_BY_PUNCH, .after = LAM_ZERO_BY_ZERO_RANGE },
    { "punch is refused, discard promises nothing", .direct = true,
      .says_punch = true, .discards = true,
      .before = LAM_ZERO_BY_CLEAR_ONCE, .after = LAM_ZERO_BY_DISCARD_PROVE,
      .written = true },
    { "punch is refused, range is zeroed", .direct = true, .says_punch = true,
      .zeroes = true, .before = LAM_ZERO_BY_CLEAR_ONCE,
      .after = LAM_ZERO_BY_ZERO_RANGE },
    { "punch is refused, nothing else either", .direct = true,
      .says_punch = true, .before = LAM_ZERO_BY_CLEAR_ONCE,
      .after = LAM_ZERO_BY_WRITE, .written = true },
    { "cached pages survive a punch", .says_punch = true,
      .punch_is_stale = true, .zeroes = true,
      .before = LAM_ZERO_BY_CLEAR_ONCE, .after = LAM_ZERO_BY_WRITE,
      .written = true },
    { "discard promises nothing", .direct = true, .discards = true,
      .before = LAM_ZERO_BY_DISCARD_PROVE,
      .after = LAM_ZERO_BY_DISCARD_PROVE, .written = true },
    { "discard promises nothing, the device zeroes the rest", .direct = true,
      .discards = true, .zeroes = true, .before = LAM_ZERO_BY_DISCARD_PROVE,
      .after = LAM_ZERO_BY_DISCARD_PROVE },
    { "what is discarded is not defined", .direct = true, .discards = true,
      .undefined = true, .zeroes = true, .before = LAM_ZERO_BY_ZERO_RANGE,
      .after = LAM_ZERO_BY_ZERO_RANGE },
    { "what is discarded is not defined, nothing zeroes", .direct = true,
      .discards = true, .undefined = true, .before = LAM_ZERO_BY_WRITE,
      .after = LAM_ZERO_BY_WRITE, .written = true },
    { "discard is a lie", .direct = true, .says_discard = true,
      .before = LAM_ZERO_BY_DISCARD_PROVE, .after = LAM_ZERO_BY_WRITE,
      .written = true },
    { "dumb", .direct = true, .before = LAM_ZERO_BY_WRITE,
      .after = LAM_ZERO_BY_WRITE, .written = true },
};

static const struct lam_io_ops *memory;     /* the table underneath */
static const struct device *device;

static int device_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    if (device->punch_is_stale)
        return 0;
    return device->punches ? memory->punch(io, offset, length) : -EOPNOTSUPP;
}

static int device_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    return device->zeroes ? memory->zero_range(io, offset, length)
                          : -EOPNOTSUPP;
}

/* Every other block reads as something else than zero. */
static int device_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    uint8_t noise[BLOCK];
    const struct iovec iov = { noise, BLOCK };

    if (!device->discards)
        return -EOPNOTSUPP;
    memset(noise, 0xaa, sizeof noise);
    memory->punch(io, offset, length);
    for (uint64_t at = offset; at + BLOCK <= offset + length; at += 2 * BLOCK)
        memory->writev(io, &iov, 1, at);
    return 0;
}

static void become(struct lam_io *io, const struct device *d)
{
    static struct lam_io_ops ops;

    memory = io->ops;
    ops = *memory;
    ops.punch = device_punch;
    ops.zero_range = device_zero_range;
    ops.discard = device_discard;
    io->ops = &ops;
    device = d;
    io->limits = (struct lam_io_limits){
        .request_alignment = 1,
        .memory_alignment = 1,
        .is_block_device = true,
        .direct = d->direct,
        .logical_sector = 512,
        .physical_sector = 512,
        .can_punch = d->says_punch,
        .can_zero_range = true,
        .zero_max = d->zeroes ? LAM_GIB : 0,
        .can_discard = d->discards || d->says_discard,
        .discard_undefined = d->undefined,
        .discard_max = d->discards || d->says_punch ? LAM_GIB : 0,
        .is_loop = d->is_loop,
        .discard_granularity = BLOCK,
    };
}

/* Data and zeroes in runs of all lengths, ending inside a block. */
static uint8_t *make_source(void)
{
    uint8_t *bytes = calloc(1, SIZE);
    uint64_t state = 42;

    assert_non_null(bytes);
    for (size_t at = 0; at < SIZE; ) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t run = min_u64((state >> 40) % (64 * BLOCK) + 1, SIZE - at);
        if (state >> 63)
            memset(bytes + at, (int)(state >> 56) | 1, run);
        at += run;
    }
    return bytes;
}

static enum lam_zero_method planned(struct lam_image *target,
                                    const struct lam_convert_options *options)
{
    struct lam_thin_plan plan;

    assert_int_equal(lam_convert_plan(target, options, &plan, NULL), 0);
    return plan.method;
}

static void run_device(const struct device *d, const uint8_t *source)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_convert_result result;
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t *old = malloc(LARGER), *now = malloc(LARGER);

    assert_true(old && now);
    memset(old, 0x55, LARGER);
    struct lam_image *from = open_memory(source, SIZE - 512, 0);
    struct lam_image *to = open_memory(old, LARGER,
                                       LAM_OPEN_WRITE | LAM_OPEN_UNMAP);
    become(to->io, d);
    assert_int_equal(planned(to, &options), d->before);
    if (lam_convert(&from, 1, to, &options, &result, &err) != 0)
        fail_msg("%s", err.message);
    assert_int_equal(planned(to, &options), d->after);

    assert_int_equal(lam_image_read(to, now, LARGER, 0, NULL), 0);
    assert_memory_equal(now, source, SIZE - 512);
    assert_memory_equal(now + SIZE - 512, old, LARGER - (SIZE - 512));
    assert_int_equal(result.bytes_written + result.bytes_zeroed +
                     result.bytes_skipped, SIZE - 512);
    uint64_t data = 0;
    for (size_t at = 0; at < SIZE - 512; at += BLOCK) {
        size_t n = min_u64(BLOCK, SIZE - 512 - at);
        bool zero = source[at] == 0 && !memcmp(source + at, source + at + 1,
                                               n - 1);
        data += zero ? 0 : n;
    }
    assert_true(d->written ? result.bytes_written > data
                           : result.bytes_written == data);
    lam_image_close(from, NULL);
    lam_image_close(to, NULL);
    free(old);
    free(now);
}

static void test_devices(void **state)
{
    uint8_t *source = make_source();

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(devices); i++) {
        print_message("    %s\n", devices[i].name);
        run_device(&devices[i], source);
    }
    free(source);
}

/* A cancel is seen before anything is done, and says so. */
static void test_cancel(void **state)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    const volatile int cancel = 1;
    uint8_t *source = make_source();
    uint8_t byte;

    (void)state;
    struct lam_image *from = open_memory(source, SIZE, 0);
    struct lam_image *to = open_memory(NULL, SIZE, LAM_OPEN_WRITE);
    options.cancel = &cancel;
    assert_int_equal(lam_convert(&from, 1, to, &options, NULL, &err),
                     -ECANCELED);
    assert_int_equal(err.code, ECANCELED);
    for (size_t at = 0; at < SIZE; at += BLOCK) {
        assert_int_equal(lam_image_read(to, &byte, 1, at, NULL), 0);
        assert_int_equal(byte, 0);
    }
    lam_image_close(from, NULL);
    lam_image_close(to, NULL);
    free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
