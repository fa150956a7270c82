/* SPDX-License-Identifier: MIT */
/*
 * test-quorum.c - several host objects as one: who wins, who is put right, and
 * when there is no answer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arith.h"
#include "io/quorum.h"

enum { LENGTH = 4096 };

static struct lam_io *filled(char byte)
{
    char bytes[LENGTH];
    struct lam_io *io = NULL;

    memset(bytes, byte, sizeof bytes);
    assert_int_equal(lam_io_memory_new(bytes, sizeof bytes, &io, NULL), 0);
    io->writable = true;
    return io;
}

/* One object a letter of @letters, full of it. */
static struct lam_io *quorum(const char *letters, struct io_quorum_options o,
                             struct lam_io **children)
{
    unsigned count = (unsigned)strlen(letters);
    struct lam_io *io = NULL;

    for (unsigned i = 0; i < count; i++)
        children[i] = filled(letters[i]);
    o.name = "quorum";
    o.same_length = true;
    assert_int_equal(lam_io_quorum_new(children, count, &o, &io, NULL), 0);
    return io;
}

static char first_byte(struct lam_io *io)
{
    char byte = 0;

    assert_int_equal(lam_io_read(io, &byte, 1, 100, NULL), 0);
    return byte;
}

static void test_votes(void **state)
{
    static const struct {
        const char *letters;
        unsigned threshold;
        char winner;            /* 0: none */
    } cases[] = {
        { "a", 1, 'a' },
        { "aa", 2, 'a' },
        { "ab", 2, 0 },
        { "ab", 1, 'b' },
        { "aab", 2, 'a' },
        { "baa", 2, 'a' },
        { "abc", 2, 0 },
        { "abab", 2, 'b' },
        { "aabbb", 3, 'b' },
        { "aabbb", 4, 0 },
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_io *children[IO_QUORUM_MAX];
        struct io_quorum_options o = { .threshold = cases[i].threshold };
        struct lam_io *io = quorum(cases[i].letters, o, children);
        char bytes[2] = { 0 };
        int rc = lam_io_read(io, bytes, 1, 7, NULL);
        assert_int_equal(rc, cases[i].winner ? 0 : -EIO);
        assert_int_equal(bytes[0], cases[i].winner);
        lam_io_close(io);
    }
}

static void test_fifo(void **state)
{
    struct lam_io *children[IO_QUORUM_MAX];
    struct io_quorum_options o = {
        .threshold = 2, .pattern = IO_QUORUM_FIFO,
    };
    (void)state;
    struct lam_io *io = quorum("ab", o, children);
    assert_int_equal(first_byte(io), 'a');
    lam_io_close(io);
}

/* Only what was read is put right, and only where it was wrong. */
static void test_rewrite(void **state)
{
    struct lam_io *children[IO_QUORUM_MAX];
    struct io_quorum_options o = { .threshold = 2, .rewrite = true };
    char byte;

    (void)state;
    struct lam_io *io = quorum("aba", o, children);
    assert_int_equal(first_byte(io), 'a');
    assert_int_equal(first_byte(children[1]), 'a');
    assert_int_equal(lam_io_read(children[1], &byte, 1, 99, NULL), 0);
    assert_int_equal(byte, 'b');
    lam_io_close(io);
}

static void test_write(void **state)
{
    struct lam_io *children[IO_QUORUM_MAX];
    struct io_quorum_options o = { .threshold = 3 };
    char bytes[16];

    (void)state;
    struct lam_io *io = quorum("abc", o, children);
    assert_int_equal(lam_io_write(io, "0123456789abcdef", 16, 96, NULL), 0);
    assert_int_equal(first_byte(io), '4');
    assert_int_equal(lam_io_zero(io, 96, 8, LAM_ZERO_UNMAP, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lam_io_read(children[i], bytes, 16, 96, NULL), 0);
        assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0" "89abcdef", 16);
    }
    assert_int_equal(lam_io_write(io, bytes, 16, LENGTH - 8, NULL) < 0, 1);
    assert_int_equal(lam_io_flush(io, NULL), 0);
    lam_io_close(io);
}

/* A write that too few took is one that failed. */
static void test_failing_child(void **state)
{
    (void)state;
    for (unsigned threshold = 1; threshold <= 2; threshold++) {
        struct lam_io *children[IO_QUORUM_MAX];
        struct io_quorum_options o = { .threshold = threshold };
        struct lam_io *io = quorum("aa", o, children);
        children[0]->writable = false;
        int rc = lam_io_write(io, "x", 1, 100, NULL);
        assert_int_equal(rc == 0, threshold == 1);
        assert_int_equal(first_byte(children[0]), 'a');
        assert_int_equal(first_byte(children[1]), 'x');
        lam_io_close(io);
    }
}

static void test_lengths(void **state)
{
    struct lam_io *children[2] = { filled('a'), filled('a') }, *io = NULL;
    struct io_quorum_options o = {
        .name = "quorum", .threshold = 1, .same_length = true,
    };
    (void)state;
    assert_int_equal(lam_io_truncate(children[1], 512, NULL), 0);
    assert_int_equal(lam_io_quorum_new(children, 2, &o, &io, NULL), -EIO);
    assert_null(io);

    /* The second says how long both are. */
    struct lam_io *others[2] = { filled('a'), filled('a') };
    assert_int_equal(lam_io_truncate(others[0], 512, NULL), 0);
    o.same_length = false;
    o.leader = 1;
    assert_int_equal(lam_io_quorum_new(others, 2, &o, &io, NULL), 0);
    assert_int_equal(atomic_load(&io->size), LENGTH);
    lam_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_votes),
        cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_failing_child),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
