/* SPDX-License-Identifier: MIT */
/*
 * test-access.c - a file that is open for reading becomes one that may be
 * written to, and back, with its locks.
 */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/io.h"
#include "io/window.h"

static char directory[] = "test-access-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink("a");
    unlink("b");
    return chdir("..") || rmdir(directory);
}

static void make(const char *path)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    close(fd);
}

static struct lam_io *open_for(bool writable, bool lock)
{
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    options.writable = writable;
    options.lock = lock;
    assert_works(lam_io_open("a", &options, &io, &err), &err);
    return io;
}

/* What somebody else is told who wants the file. */
static int try_open(bool writable)
{
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_io *io;

    options.writable = writable;
    int rc = lam_io_open("a", &options, &io, NULL);
    if (rc == 0)
        lam_io_close(io);
    return rc;
}

static void there_and_back(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    char text[4] = "";

    (void)state;
    make("a");
    struct lam_io *io = open_for(false, true);
    assert_true(lam_io_write(io, "x", 1, 0, &err) < 0);
    assert_works(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err), &err);
    assert_works(lam_io_write(io, "xyz", 3, 0, &err), &err);
    assert_true(io->limits.can_grow && io->limits.can_zero_range);
    assert_int_equal(try_open(false), -EAGAIN);
    assert_works(lam_io_set_writable(io, false, LAM_IO_LOCKED, &err), &err);
    assert_true(lam_io_write(io, "x", 1, 0, &err) < 0);
    assert_works(lam_io_read(io, text, 3, 0, &err), &err);
    assert_string_equal(text, "xyz");
    assert_int_equal(try_open(false), 0);
    assert_int_equal(try_open(true), -EAGAIN);
    lam_io_close(io);
    assert_int_equal(try_open(true), 0);
}

/* A reader elsewhere stays undisturbed, and our own locks are as before. */
static void somebody_reads(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    make("a");
    struct lam_io *io = open_for(false, true), *other = open_for(false, true);
    assert_int_equal(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err),
                     -EAGAIN);
    assert_non_null(strstr(err.message, "Is another process using the image"));
    assert_false(io->writable);
    lam_io_close(other);
    assert_int_equal(try_open(false), 0);
    assert_int_equal(try_open(true), -EAGAIN);
    assert_works(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err), &err);
    lam_io_close(io);
}

/*
 * A request under way keeps the opening that it found, and its locks with it:
 * here a duplicate of the descriptor does.  That one must not go on saying "I
 * write" once writing has ended.
 */
static void writer_outlives_end(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    make("a");
    struct lam_io *io = open_for(false, true);
    assert_works(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err), &err);
    int writing = dup(lam_io_fd(io));
    assert_true(writing >= 0);
    assert_int_equal(try_open(false), -EAGAIN);
    assert_works(lam_io_set_writable(io, false, LAM_IO_LOCKED, &err), &err);
    assert_int_equal(try_open(false), 0);
    assert_int_equal(try_open(true), -EAGAIN);
    close(writing);
    lam_io_close(io);
}

/* The opening from before writing, as long as its last request lasts. */
static void reader_outlives_writer(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    make("a");
    struct lam_io *io = open_for(false, true);
    int reading = dup(lam_io_fd(io));
    assert_true(reading >= 0);
    assert_works(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err), &err);
    assert_works(lam_io_set_writable(io, false, LAM_IO_LOCKED, &err), &err);
    assert_int_equal(try_open(false), 0);
    lam_io_close(io);
    assert_int_equal(try_open(false), 0);
    close(reading);
    assert_int_equal(try_open(true), 0);
}

/* The file that was opened, not the one that has its name by now. */
static void renamed(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    char text[11] = "";

    (void)state;
    make("a");
    struct lam_io *io = open_for(false, true);
    assert_int_equal(rename("a", "b"), 0);
    make("a");
    assert_works(lam_io_set_writable(io, true, LAM_IO_LOCKED, &err), &err);
    assert_works(lam_io_write(io, "new", 3, 0, &err), &err);
    lam_io_close(io);
    io = open_for(false, false);
    assert_works(lam_io_read(io, text, 10, 0, &err), &err);
    assert_string_equal(text, "0123456789");
    lam_io_close(io);
}

static void through_a_window(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *window;
    char text[11] = "";

    (void)state;
    make("a");
    assert_works(lam_io_window_new(open_for(false, false), 2, 4, &window, &err),
                 &err);
    assert_works(lam_io_set_writable(window, true, LAM_IO_UNLOCKED, &err),
                 &err);
    assert_works(lam_io_write(window, "xy", 2, 0, &err), &err);
    assert_false(window->limits.can_grow);
    lam_io_close(window);
    struct lam_io *io = open_for(false, false);
    assert_works(lam_io_read(io, text, 10, 0, &err), &err);
    assert_string_equal(text, "01xy456789");
    lam_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(somebody_reads),
        cmocka_unit_test(writer_outlives_end),
        cmocka_unit_test(reader_outlives_writer),
        cmocka_unit_test(renamed),
        cmocka_unit_test(through_a_window),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
