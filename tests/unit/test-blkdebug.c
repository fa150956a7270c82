/* SPDX-License-Identifier: MIT */
/*
 * test-blkdebug.c - rules as files have them, what fails and when, who waits.
 */
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "io/blkdebug.h"

enum { BASE = 64 << 10 };

static struct lam_io *object_with(struct blkdebug_options *options)
{
    static uint8_t base[BASE];
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *inner, *io;

    memset(base, 0xbb, BASE);
    assert_works(lam_io_memory_new(base, BASE, &inner, &err), &err);
    assert_works(lam_io_blkdebug_new(inner, options, &io, &err), &err);
    return io;
}

static struct lam_io *object(const char *rules)
{
    struct blkdebug_options options = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(blkdebug_parse(&options, rules, &err), &err);
    return object_with(&options);
}

/* -------------------------------------------------------------------- rules */

static void takes_rules(void **state)
{
    (void)state;
    struct blkdebug_options o = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(blkdebug_parse(&o, "# one\n\n[inject-error \"x\"]\r\n"
                                "  event = \"write_aio\"  # what for\n"
                                "errno = \"0x1c\"\nsector =\t\"7\"\n"
                                "[set-state]\nevent = \"none\"\n"
                                "state = \"2\"\nnew_state = \"3\"\n", &err),
                 &err);
    assert_int_equal(o.nb_rules, 2);
    assert_int_equal(o.rules[0].event, IO_EVENT_WRITE_AIO);
    assert_int_equal(o.rules[0].errnum, ENOSPC);
    assert_int_equal(o.rules[0].kinds, BLKDEBUG_ALL);
    assert_int_equal(o.rules[1].action, BLKDEBUG_SET_STATE);
    assert_int_equal(o.rules[1].state, 2);
    assert_int_equal(o.rules[1].new_state, 3);
    blkdebug_options_deinit(&o);
}

static const struct { const char *name, *text, *message; } wrong[] = {
    { "group", "[foo]\n", "There is no option group 'foo'" },
    { "no group", "event = \"none\"\n", "no group defined" },
    { "key", "[inject-error]\nfoo = \"1\"\n", "Invalid parameter 'foo'" },
    { "key of the other", "[set-state]\nonce = \"on\"\n",
      "Invalid parameter 'once'" },
    { "event", "[set-state]\nevent = \"foo\"\n",
      "invalid parameter value: foo" },
    { "no quotes", "[set-state]\nevent = none\n", "invalid parameter value: " },
    { "no event", "[set-state]\nnew_state = \"2\"\n",
      "Missing event name for rule" },
    { "no event, not last", "[set-state]\n[inject-error]\nevent = \"none\"\n",
      "Missing event name for rule" },
    { "number", "[inject-error]\nevent = \"none\"\nerrno = \"EIO\"\n",
      "Parameter 'errno' expects a number" },
    { "bool", "[inject-error]\nevent = \"none\"\nonce = \"1\"\n",
      "Parameter 'once' expects 'on' or 'off'" },
    { "kind", "[inject-error]\nevent = \"none\"\niotype = \"foo\"\n",
      "invalid parameter value: foo" },
};

static void refuses_wrong_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(wrong); i++) {
        struct blkdebug_options o = { 0 };
        struct lam_error err = LAM_ERROR_INIT;

        print_message("  %s\n", wrong[i].name);
        assert_int_equal(blkdebug_parse(&o, wrong[i].text, &err), -EINVAL);
        assert_string_equal(err.message, wrong[i].message);
        blkdebug_options_deinit(&o);
    }
}

/* ----------------------------------------------------------------- failures */

static int read_at(struct lam_io *io, uint64_t offset)
{
    uint8_t buf[512];

    lam_io_event(io, IO_EVENT_READ_AIO);
    return lam_io_read(io, buf, sizeof buf, offset, NULL);
}

/* What five reads of sectors 0, 1, 2, 0 and 1 answer. */
static const struct { const char *rules; int answers[5]; } reads[] = {
    { "", { 0, 0, 0, 0, 0 } },
    { "[inject-error]\nevent = \"read_aio\"\n",
      { -EIO, -EIO, -EIO, -EIO, -EIO } },
    { "[inject-error]\nevent = \"read_aio\"\nonce = \"on\"\n",
      { -EIO, 0, 0, 0, 0 } },
    { "[inject-error]\nevent = \"read_aio\"\nsector = \"1\"\nerrno = \"28\"\n",
      { 0, -ENOSPC, 0, 0, -ENOSPC } },
    { "[inject-error]\nevent = \"read_aio\"\niotype = \"write\"\n",
      { 0, 0, 0, 0, 0 } },
    { "[inject-error]\nevent = \"read_aio\"\nerrno = \"0\"\n",
      { 0, 0, 0, 0, 0 } },
    { "[inject-error]\nevent = \"none\"\nsector = \"2\"\n",
      { 0, 0, -EIO, 0, 0 } },
    { "[set-state]\nevent = \"read_aio\"\nstate = \"1\"\nnew_state = \"2\"\n"
      "[set-state]\nevent = \"read_aio\"\nstate = \"2\"\nnew_state = \"3\"\n"
      "[inject-error]\nevent = \"read_aio\"\nstate = \"3\"\nonce = \"on\"\n",
      { 0, 0, -EIO, 0, 0 } },
    /* What is active stays so until others are. */
    { "[set-state]\nevent = \"read_aio\"\nnew_state = \"2\"\n"
      "[inject-error]\nevent = \"read_aio\"\nstate = \"1\"\n",
      { -EIO, -EIO, -EIO, -EIO, -EIO } },
    { "[inject-error]\nevent = \"none\"\nsector = \"2\"\n"
      "[inject-error]\nevent = \"read_aio\"\nsector = \"1\"\n",
      { 0, -EIO, 0, 0, -EIO } },
    { "[inject-error]\nevent = \"read_aio\"\nonce = \"on\"\nerrno = \"28\"\n"
      "[inject-error]\nevent = \"read_aio\"\nonce = \"on\"\n",
      { -ENOSPC, -EIO, 0, 0, 0 } },
};

static void fails_as_the_rules_say(void **state)
{
    static const uint64_t offsets[] = { 0, 512, 1024, 0, 512 };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(reads); i++) {
        struct lam_io *io = object(reads[i].rules);

        for (size_t k = 0; k < LAM_ARRAY_SIZE(offsets); k++)
            assert_int_equal(read_at(io, offsets[k]), reads[i].answers[k]);
        lam_io_close(io);
    }
}

static int write_call(struct lam_io *io)
{
    return lam_io_write(io, "x", 1, 0, NULL);
}

static int zero_call(struct lam_io *io)
{
    return lam_io_zero(io, 0, 4096, LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK,
                       NULL);
}

static int free_call(struct lam_io *io)
{
    return lam_io_free(io, 0, 4096, NULL);
}

static int flush_call(struct lam_io *io)
{
    return lam_io_flush(io, NULL);
}

static int extent_call(struct lam_io *io)
{
    enum lam_io_state state;
    uint64_t run;

    return lam_io_extent(io, 0, 4096, &state, &run, NULL);
}

/* Each kind of request fails by its own rule and by no other's; without a kind
 * all but the last do. */
static void fails_by_kind(void **state)
{
    static const struct { const char *kind; int (*call)(struct lam_io *); }
    calls[] = {
        { "write", write_call }, { "write-zeroes", zero_call },
        { "discard", free_call }, { "flush", flush_call },
        { "block-status", extent_call },
    };
    char rules[128];

    (void)state;
    for (size_t i = 0; i <= LAM_ARRAY_SIZE(calls); i++)
        for (size_t k = 0; k < LAM_ARRAY_SIZE(calls); k++) {
            bool all = i == LAM_ARRAY_SIZE(calls);
            snprintf(rules, sizeof rules,
                     "[inject-error]\nevent = \"none\"\n%s%s%s",
                     all ? "" : "iotype = \"", all ? "" : calls[i].kind,
                     all ? "" : "\"\n");
            struct lam_io *io = object(rules);
            bool hit = all ? calls[k].call != extent_call : i == k;

            assert_int_equal(calls[k].call(io), hit ? -EIO : 0);
            lam_io_close(io);
        }
}

/* ------------------------------------------------------------------- shapes */

static const struct {
    const char *name;
    struct blkdebug_options options;
} shapes[] = {
    { "transfers", { .max_transfer = 512 } },
    { "alignment", { .align = 4096, .max_transfer = 8192 } },
    { "zeroes", { .align = 512, .opt_write_zero = 4096,
                  .max_write_zero = 8192 } },
    { "odd zeroes", { .opt_write_zero = 3000, .max_write_zero = 6000 } },
};

static void awkward_shapes_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(shapes); i++) {
        struct blkdebug_options options = shapes[i].options;
        struct lam_io *io = object_with(&options);
        struct lam_error err = LAM_ERROR_INIT;
        uint8_t expected[BASE], got[BASE];

        print_message("  %s\n", shapes[i].name);
        memset(expected, 0xbb, BASE);
        memset(expected + 1000, 7, 20000);
        memset(expected + 5001, 0, 9999);
        assert_works(lam_io_write(io, expected + 1000, 20000, 1000, &err),
                     &err);
        assert_works(lam_io_zero(io, 5001, 9999, LAM_ZERO_UNMAP, &err), &err);
        assert_works(lam_io_read(io, got, BASE, 0, &err), &err);
        assert_memory_equal(got, expected, BASE);
        lam_io_close(io);
    }
}

static const struct {
    struct blkdebug_options options;
    const char *message;
} bad_shapes[] = {
    { { .align = 3 }, "Cannot meet constraints with align 3" },
    { { .align = UINT64_C(1) << 31 },
      "Cannot meet constraints with align 2147483648" },
    { { .align = 4096, .max_transfer = 3072 },
      "Cannot meet constraints with max-transfer 3072" },
    { { .align = 512, .opt_write_zero = 1000 },
      "Cannot meet constraints with opt-write-zero 1000" },
    { { .opt_write_zero = 3072, .max_write_zero = 8192 },
      "Cannot meet constraints with max-write-zero 8192" },
    { { .opt_discard = 3072, .max_discard = 8192 },
      "Cannot meet constraints with max-discard 8192" },
};

static void refuses_bad_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(bad_shapes); i++) {
        struct blkdebug_options options = bad_shapes[i].options;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *inner, *io;

        assert_works(lam_io_memory_new(NULL, 0, &inner, &err), &err);
        assert_int_equal(lam_io_blkdebug_new(inner, &options, &io, &err),
                         -EINVAL);
        assert_string_equal(err.message, bad_shapes[i].message);
    }
}

/* -------------------------------------------------------------- breakpoints */

struct stops {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;             /* of breakpoints at which somebody waits */
    bool passed;
    struct lam_io *io;
};

static void stopped(void *opaque, const char *const *tags, unsigned count)
{
    struct stops *s = opaque;

    assert_non_null(tags[0]);
    pthread_mutex_lock(&s->lock);
    s->count += count;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void *pass(void *opaque)
{
    struct stops *s = opaque;

    lam_io_event(s->io, IO_EVENT_WRITE_AIO);
    pthread_mutex_lock(&s->lock);
    s->passed = true;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static bool has_passed(struct stops *s)
{
    pthread_mutex_lock(&s->lock);
    bool passed = s->passed;
    pthread_mutex_unlock(&s->lock);
    return passed;
}

static void set(struct stops *s, enum io_event event, const char *tag)
{
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(blkdebug_break(s->io, event, tag, stopped, s, &err), &err);
}

static void waits_for_all_breakpoints(void **state)
{
    struct stops s = { .lock = PTHREAD_MUTEX_INITIALIZER,
                       .changed = PTHREAD_COND_INITIALIZER };
    pthread_t thread;

    (void)state;
    s.io = object("");
    assert_ptr_equal(lam_io_blkdebug_find(s.io), s.io);
    set(&s, IO_EVENT_WRITE_AIO, "a");
    set(&s, IO_EVENT_READ_AIO, "other");
    set(&s, IO_EVENT_WRITE_AIO, "b");
    assert_false(blkdebug_resume(s.io, "a"));       /* nobody is there yet */
    assert_int_equal(pthread_create(&thread, NULL, pass, &s), 0);
    pthread_mutex_lock(&s.lock);
    while (s.count < 2)
        pthread_cond_wait(&s.changed, &s.lock);
    pthread_mutex_unlock(&s.lock);

    assert_int_equal(blkdebug_remove_break(s.io, "a"), 0);  /* used up */
    assert_true(blkdebug_resume(s.io, "a"));
    assert_false(blkdebug_resume(s.io, "a"));
    assert_false(has_passed(&s));
    assert_true(blkdebug_resume(s.io, "b"));
    pthread_join(thread, NULL);
    assert_true(has_passed(&s));
    assert_int_equal(s.count, 2);
    pass(&s);                                       /* nothing is left */
    assert_int_equal(blkdebug_remove_break(s.io, "other"), 1);
    lam_io_close(s.io);
}

static void breakpoints_are_limited(void **state)
{
    struct stops s = { .io = object("") };
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (unsigned i = 0; i < IO_BREAKS_MAX; i++)
        set(&s, IO_EVENT_WRITE_AIO, "a");
    assert_int_equal(blkdebug_break(s.io, IO_EVENT_WRITE_AIO, "a", stopped, &s,
                                    &err), -E2BIG);
    assert_int_equal(blkdebug_remove_break(s.io, "a"), IO_BREAKS_MAX);
    lam_io_close(s.io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_rules),
        cmocka_unit_test(refuses_wrong_rules),
        cmocka_unit_test(fails_as_the_rules_say),
        cmocka_unit_test(fails_by_kind),
        cmocka_unit_test(awkward_shapes_change_nothing),
        cmocka_unit_test(refuses_bad_shapes),
        cmocka_unit_test(waits_for_all_breakpoints),
        cmocka_unit_test(breakpoints_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
