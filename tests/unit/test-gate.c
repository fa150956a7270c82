/* SPDX-License-Identifier: MIT */
/*
 * test-gate.c - who may be opened because a header says so.
 *
 * A tree of files in a directory of its own:
 *
 *     dir/top  dir/base  dir/sub/base  dir/out → ../outside  dir/in → base
 *     outside
 */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/gate.h"
#include "image/host.h"

static char root[] = "/var/tmp/lamella-gate-XXXXXX";

static void touch(const char *name)
{
    lam_autoclose int fd = open(name, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
}

static int make_tree(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(chdir(root), 0);
    mkdir("dir", 0700);
    mkdir("dir/sub", 0700);
    touch("dir/top");
    touch("dir/base");
    touch("dir/sub/base");
    touch("outside");
    assert_int_equal(mkfifo("dir/fifo", 0600), 0);
    assert_int_equal(symlink("../outside", "dir/out"), 0);
    return symlink("base", "dir/in");
}

static int remove_tree(void **state)
{
    static const char *const names[] = {
        "dir/top", "dir/base", "dir/sub/base", "dir/fifo", "dir/out", "dir/in",
        "outside",
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        unlink(names[i]);
    rmdir("dir/sub");
    rmdir("dir");
    return chdir("/") || rmdir(root);
}

/* The result of being let through and of opening. */
static int try_open(enum lam_policy policy, enum gate_edge edge,
                    const char *name)
{
    struct gate_pass pass lam_cleanup(gate_pass_deinit) = GATE_PASS_INIT;
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    struct lam_io *io = NULL;
    int rc = gate_admit(policy, edge, "dir/top", name, &pass, NULL);
    if (rc < 0)
        return rc;
    o.lock = false;
    o.regular_only = pass.regular_only;
    if (pass.dirfd >= 0) {
        o.beneath = true;
        o.dirfd = pass.dirfd;
    }
    struct node *file = NULL;
    const char *plain = pass.node->plain;
    if (!plain && node_take_child(pass.node, "file", &file, NULL) == 0 && file)
        plain = node_take_text(file, "filename");
    else if (!plain)
        plain = node_take_text(pass.node, "filename");
    if (!plain)
        return -EINVAL;
    const struct host_driver *driver = host_driver_of(plain);
    if (pass.node->plain && (!driver || driver->open_new))
        return -ENOTSUP;        /* no file */
    plain += strncmp(plain, "file:", 5) ? 0 : 5;
    rc = lam_io_open(o.beneath ? pass.path : plain, &o, &io, NULL);
    node_free(file);
    lam_io_close(io);
    return rc;
}

enum { SOME_ERROR = 1 };

static const struct {
    const char *name;           /* "@" stands for the root directory */
    int trust, siblings;        /* 0, -errno, or any error at all */
} backing_cases[] = {
    { "base", 0, 0 },
    { "./base", 0, 0 },
    { "sub/base", 0, 0 },
    { "sub/../base", 0, 0 },
    { "in", 0, 0 },
    { "missing", -ENOENT, -ENOENT },
    { "../outside", 0, SOME_ERROR },
    { "out", 0, SOME_ERROR },
    { "../dir/base", 0, SOME_ERROR },
    { "@/dir/base", 0, 0 },
    { "@/dir/in", 0, 0 },
    { "@/dir/out", 0, -EPERM },
    { "@/outside", 0, -EPERM },
    { "@/dirty", -ENOENT, -ENOENT },
    { "/dev/null", SOME_ERROR, -EPERM },
    { "fifo", SOME_ERROR, SOME_ERROR },
    { "sub", SOME_ERROR, SOME_ERROR },
    { "file:dir/base", 0, -EPERM },
    { "nbd://host/disk", -ENOTSUP, -EPERM },
    { "json:{\"driver\":\"file\",\"filename\":\"dir/base\"}", 0, -EPERM },
    { "ba\nse", -ENOENT, -EUCLEAN },
    { "\033[31mbase", -ENOENT, -EUCLEAN },
};

static void check(int rc, int expected)
{
    if (expected == SOME_ERROR)
        assert_true(rc < 0);
    else
        assert_int_equal(rc, expected);
}

/* The names of extents count from the image's directory, too. */
static void test_beside(enum gate_edge edge)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(backing_cases); i++) {
        char name[256];
        const char *given = backing_cases[i].name;
        snprintf(name, sizeof name, "%s%s", *given == '@' ? root : "",
                 *given == '@' ? given + 1 : given);
        check(try_open(LAM_POLICY_TRUST, edge, name), backing_cases[i].trust);
        check(try_open(LAM_POLICY_SIBLINGS, edge, name),
              backing_cases[i].siblings);
        assert_int_equal(try_open(LAM_POLICY_NONE, edge, name), -EPERM);
    }
}

static void test_backing(void **state)
{
    (void)state;
    needs_openat2();
    test_beside(GATE_BACKING);
}

static void test_extents(void **state)
{
    (void)state;
    needs_openat2();
    test_beside(GATE_EXTENT);
}

/* Data files are named from the working directory, which is the root here. */
static const struct {
    const char *name;
    int trust, siblings;
} data_cases[] = {
    { "dir/base", 0, 0 },
    { "base", -ENOENT, -ENOENT },
    { "outside", 0, -EPERM },
    { "dir/out", 0, -EPERM },
    { "dir/../outside", 0, -EPERM },
    { "nbd:x", -ENOTSUP, -EPERM },
};

static void test_data(void **state)
{
    (void)state;
    needs_openat2();
    for (size_t i = 0; i < LAM_ARRAY_SIZE(data_cases); i++) {
        check(try_open(LAM_POLICY_TRUST, GATE_DATA, data_cases[i].name),
              data_cases[i].trust);
        check(try_open(LAM_POLICY_SIBLINGS, GATE_DATA, data_cases[i].name),
              data_cases[i].siblings);
        assert_int_equal(try_open(LAM_POLICY_NONE, GATE_DATA,
                                  data_cases[i].name), -EPERM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backing),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_data),
    };
    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
