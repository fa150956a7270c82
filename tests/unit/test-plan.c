/* SPDX-License-Identifier: MIT */
/*
 * test-plan.c - every row of the thin plan's table, and kernel versions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arith.h"
#include "job/plan.h"

#define FILE_LIMITS .can_grow = true
#define DEVICE      .is_block_device = true, .logical_sector = 512,         \
                    .physical_sector = 4096
#define PUNCHING    .can_punch = true, .can_zero_range = true,              \
                    .can_discard = true, .zero_max = 1 << 30
#define DISCARDING  .can_discard = true, .can_zero_range = true
#define NEW         LAM_CONVERT_NEW_TARGET
#define IS_ZERO     LAM_CONVERT_TARGET_IS_ZERO
#define STRICT      LAM_CONVERT_STRICT_CACHE

#define OLD_KERNEL  PLAN_KERNEL(4, 14)
#define KERNEL      PLAN_KERNEL(6, 1)

static const struct {
    const char *name;
    struct plan_input in;
    enum lam_zero_method method;
    bool thin, lost;
} cases[] = {
    { "new file",
      { .limits = { FILE_LIMITS }, .convert_flags = NEW, .sparse_size = 4096 },
      LAM_ZERO_BY_SKIP, true, false },
    { "new file, O_DIRECT",
      { .limits = { FILE_LIMITS, .direct = true }, .convert_flags = NEW,
        .sparse_size = 65536 },
      LAM_ZERO_BY_SKIP, true, false },
    { "new file, -S 0, host zeroes ranges",
      { .limits = { FILE_LIMITS, .can_zero_range = true },
        .convert_flags = NEW },
      LAM_ZERO_BY_ZERO_RANGE, false, false },
    { "new file, -S 0, host can nothing",
      { .limits = { FILE_LIMITS }, .convert_flags = NEW },
      LAM_ZERO_BY_WRITE, false, false },
    { "existing file",
      { .limits = { FILE_LIMITS, .can_punch = true, .can_zero_range = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_PUNCH, true, false },
    { "existing file, no holes",
      { .limits = { FILE_LIMITS, .can_zero_range = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_ZERO_RANGE, false, true },
    { "existing file, host can nothing",
      { .limits = { FILE_LIMITS }, .sparse_size = 4096 },
      LAM_ZERO_BY_WRITE, false, true },
    { "existing file, -S 0",
      { .limits = { FILE_LIMITS, .can_punch = true, .can_zero_range = true } },
      LAM_ZERO_BY_ZERO_RANGE, false, false },
    { "existing file, target is zero",
      { .limits = { FILE_LIMITS, .can_punch = true },
        .convert_flags = IS_ZERO, .sparse_size = 4096 },
      LAM_ZERO_BY_SKIP, true, false },
    { "target is zero, but -S 0 wants it allocated",
      { .limits = { FILE_LIMITS, .can_punch = true, .can_zero_range = true },
        .convert_flags = IS_ZERO },
      LAM_ZERO_BY_ZERO_RANGE, false, false },

    { "device, O_DIRECT",
      { .limits = { DEVICE, PUNCHING, .direct = true }, .sparse_size = 4096,
        .kernel = OLD_KERNEL },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "loop device, O_DIRECT",
      { .limits = { DEVICE, PUNCHING, .is_loop = true,
                    .discard_granularity = 4096, .direct = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_PUNCH, true, false },
    { "loop device, O_DIRECT, frees more than a block at a time",
      { .limits = { DEVICE, PUNCHING, .is_loop = true,
                    .discard_granularity = 8192, .direct = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "loop device, O_DIRECT, frees blocks that begin elsewhere",
      { .limits = { DEVICE, PUNCHING, .is_loop = true,
                    .discard_granularity = 4096, .discard_alignment = 512,
                    .direct = true }, .sparse_size = 4096 },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "loop device, cached",
      { .limits = { DEVICE, PUNCHING, .is_loop = true,
                    .discard_granularity = 4096 },
        .sparse_size = 4096, .kernel = KERNEL },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, O_DIRECT, made new: it is still an old device",
      { .limits = { DEVICE, PUNCHING, .direct = true }, .sparse_size = 4096,
        .convert_flags = NEW },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, O_DIRECT, discard promises zeroes",
      { .limits = { DEVICE, DISCARDING, .discard_reads_zero = true,
                    .direct = true }, .sparse_size = 4096 },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, O_DIRECT, discard promises nothing",
      { .limits = { DEVICE, DISCARDING, .direct = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_DISCARD_PROVE, true, false },
    { "device, O_DIRECT, what is discarded reads as anything",
      { .limits = { DEVICE, DISCARDING, .discard_undefined = true,
                    .zero_max = 1 << 20, .direct = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_ZERO_RANGE, false, true },
    { "device, O_DIRECT, discarded reads as anything, the kernel writes",
      { .limits = { DEVICE, DISCARDING, .discard_undefined = true,
                    .direct = true }, .sparse_size = 4096 },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, O_DIRECT, discarded data were read back",
      { .limits = { DEVICE, DISCARDING, .direct = true },
        .discards_stale = true, .sparse_size = 4096 },
      LAM_ZERO_BY_DISCARD_PROVE, false, true },
    { "device, O_DIRECT, no discard, zeroes ranges",
      { .limits = { DEVICE, .can_zero_range = true, .zero_max = 1 << 20,
                    .direct = true }, .sparse_size = 4096 },
      LAM_ZERO_BY_ZERO_RANGE, false, true },
    { "device, O_DIRECT, dumb: the kernel would write the zeroes",
      { .limits = { DEVICE, .can_zero_range = true, .direct = true },
        .sparse_size = 4096 },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, O_DIRECT, strict cache changes nothing",
      { .limits = { DEVICE, PUNCHING, .direct = true }, .sparse_size = 4096,
        .convert_flags = STRICT },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, O_DIRECT, -S 0",
      { .limits = { DEVICE, PUNCHING, .direct = true } },
      LAM_ZERO_BY_ZERO_RANGE, false, false },
    { "dumb device, -S 0",
      { .limits = { DEVICE, .can_zero_range = true, .direct = true } },
      LAM_ZERO_BY_WRITE, false, false },
    { "device, target is zero",
      { .limits = { DEVICE, PUNCHING, .direct = true }, .sparse_size = 4096,
        .convert_flags = IS_ZERO },
      LAM_ZERO_BY_SKIP, true, false },

    { "device, cached",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096,
        .kernel = KERNEL },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, cached, first kernel that drops pages",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096,
        .kernel = PLAN_KERNEL_DROPS_PAGES },
      LAM_ZERO_BY_CLEAR_ONCE, true, false },
    { "device, cached, old kernel",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096,
        .kernel = OLD_KERNEL },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, cached, kernel not known",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096 },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, cached, strict",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096,
        .kernel = KERNEL, .convert_flags = STRICT },
      LAM_ZERO_BY_WRITE, false, false },
    { "device, cached, strict, no discard",
      { .limits = { DEVICE, .can_zero_range = true, .zero_max = 1 << 20 },
        .sparse_size = 4096, .kernel = KERNEL, .convert_flags = STRICT },
      LAM_ZERO_BY_WRITE, false, false },
    { "device, cached, stale pages were seen",
      { .limits = { DEVICE, PUNCHING }, .sparse_size = 4096,
        .kernel = KERNEL, .pages_survive = true },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, cached, discard promises nothing",
      { .limits = { DEVICE, DISCARDING }, .sparse_size = 4096,
        .kernel = KERNEL },
      LAM_ZERO_BY_DISCARD_PROVE, true, false },
    { "device, cached, no discard, old kernel",
      { .limits = { DEVICE, .can_zero_range = true, .zero_max = 1 << 20 },
        .sparse_size = 4096, .kernel = OLD_KERNEL },
      LAM_ZERO_BY_WRITE, false, true },
    { "device, cached, -S 0",
      { .limits = { DEVICE, PUNCHING }, .kernel = KERNEL },
      LAM_ZERO_BY_ZERO_RANGE, false, false },
    { "device, cached, -S 0, old kernel",
      { .limits = { DEVICE, PUNCHING }, .kernel = OLD_KERNEL },
      LAM_ZERO_BY_WRITE, false, false },

    { "new qcow2",
      { .has_metadata = true, .cluster_size = 65536, .convert_flags = NEW,
        .sparse_size = 4096 },
      LAM_ZERO_BY_METADATA, true, false },
    { "existing qcow2 over a backing file",
      { .has_metadata = true, .cluster_size = 65536, .has_backing = true,
        .sparse_size = 4096 },
      LAM_ZERO_BY_METADATA, true, false },
    { "existing qcow2",
      { .has_metadata = true, .cluster_size = 65536, .sparse_size = 4096 },
      LAM_ZERO_BY_METADATA, true, false },
    { "qcow2, -S 0",
      { .has_metadata = true, .cluster_size = 65536, .convert_flags = NEW,
        .limits = { FILE_LIMITS, .can_zero_range = true } },
      LAM_ZERO_BY_WRITE, false, false },
    { "qcow2, target is zero",
      { .has_metadata = true, .cluster_size = 65536, .sparse_size = 4096,
        .convert_flags = IS_ZERO },
      LAM_ZERO_BY_SKIP, true, false },
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_thin_plan plan;

        memset(&plan, 0xff, sizeof plan);
        plan_decide(&cases[i].in, &plan);
        if (plan.method != cases[i].method || plan.thin != cases[i].thin ||
            plan.lost_thinness != cases[i].lost)
            fail_msg("%s: method %d, thin %d, lost %d: %s", cases[i].name,
                     (int)plan.method, plan.thin, plan.lost_thinness,
                     plan.reason);
    }
}

/* Both lines are one line, not cut, and never empty. */
static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct plan_input in = cases[i].in;
        struct lam_thin_plan plan;

        in.limits.discard_max = in.limits.zero_max = UINT64_MAX;
        in.limits.discard_granularity = UINT64_MAX;
        in.limits.discard_alignment = UINT64_MAX;
        plan_decide(&in, &plan);
        assert_in_range(strlen(plan.reason), 1, sizeof plan.reason - 2);
        assert_in_range(strlen(plan.limits), 1, sizeof plan.limits - 2);
        assert_null(strchr(plan.reason, '\n'));
        assert_null(strchr(plan.limits, '\n'));
    }
}

/* What --explain says of a device, word for word. */
static void test_device_words(void **state)
{
    static const struct {
        struct lam_io_limits limits;
        const char *text;
    } devices[] = {
        { { DEVICE, .direct = true },
          "block device, O_DIRECT; sectors of 512 bytes (physical 4096); unmap "
          "to zeroes: no; zero a range: no; discard: no" },
        { { DEVICE, .can_punch = true, .zero_max = 65536, .can_discard = true,
            .discard_max = 1 << 20, .discard_granularity = 4096 },
          "block device, cached; sectors of 512 bytes (physical 4096); unmap "
          "to zeroes: yes; zero a range: at most 65536 bytes a request; "
          "discard: at most 1048576 bytes a request, granules of 4096; what "
          "was discarded reads as zero or not" },
        { { DEVICE, .direct = true, .can_discard = true, .discard_max = 512,
            .discard_granularity = 8192, .discard_alignment = 3584,
            .discard_undefined = true },
          "block device, O_DIRECT; sectors of 512 bytes (physical 4096); unmap "
          "to zeroes: no; zero a range: no; discard: at most 512 bytes a "
          "request, granules of 8192 from 3584; what was discarded reads as "
          "anything" },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(devices); i++) {
        struct plan_input in = {
            .limits = devices[i].limits, .sparse_size = 4096,
        };
        struct lam_thin_plan plan;
        plan_decide(&in, &plan);
        assert_string_equal(plan.limits, devices[i].text);
    }
}

static void test_kernel(void **state)
{
    static const struct {
        const char *release;
        unsigned expected;
    } releases[] = {
        { "6.1.0-13-amd64", PLAN_KERNEL(6, 1) },
        { "4.15.18", PLAN_KERNEL(4, 15) },
        { "3.10.0-1160.el7.x86_64", PLAN_KERNEL(3, 10) },
        { "5.4", PLAN_KERNEL(5, 4) },
        { "6", 0 },
        { "", 0 },
        { "linux-6.1", 0 },
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(releases); i++)
        assert_int_equal(plan_kernel_parse(releases[i].release),
                         releases[i].expected);
    assert_true(PLAN_KERNEL(4, 15) < PLAN_KERNEL(5, 0));
    assert_true(PLAN_KERNEL(4, 9) < PLAN_KERNEL(4, 15));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_device_words),
        cmocka_unit_test(test_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
