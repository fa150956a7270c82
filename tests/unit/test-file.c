/* SPDX-License-Identifier: MIT */
/*
 * test-file.c - regular files: every cache mode, holes, locks, what may not be
 * opened.  Works in a directory of its own below the current one.
 */
#include "unit.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "io/io.h"

static int in_own_directory(void **state)
{
    static char name[] = "test-file-XXXXXX";
    *state = name;
    return mkdtemp(name) && chdir(name) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    const char *const names[] = { "a", "b", "link", "fifo", "socket",
                                  "dir/inside" };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        unlink(names[i]);
    rmdir("dir");
    return chdir("..") || rmdir(*state);
}

static struct lam_io *open_with(const char *path,
                                struct lam_io_open_options options)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;
    assert_works(lam_io_open(path, &options, &io, &err), &err);
    return io;
}

static struct lam_io_open_options fresh(void)
{
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    options.writable = options.create = options.truncate = true;
    return options;
}

static void try_mode(enum lam_cache_mode mode)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io_open_options options = fresh();
    options.cache = mode;
    struct lam_io *io;
    int rc = lam_io_open("a", &options, &io, &err);
    if (rc < 0) {
        /* Not every file system knows O_DIRECT; then it is said so. */
        assert_string_equal(err.message,
                            "filesystem does not support O_DIRECT");
        return;
    }
    static uint8_t data[300000], back[300000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 251);
    static const struct { uint64_t offset, length; } parts[] = {
        { 1, 10 }, { 4096, 8192 }, { 4095, 2 }, { 511, 262144 }, { 299999, 1 },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(parts); i++)
        assert_works(lam_io_write(io, data + parts[i].offset, parts[i].length,
                                  parts[i].offset, &err), &err);
    assert_works(lam_io_flush(io, &err), &err);
    uint64_t size;
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, 300000);
    assert_works(lam_io_read(io, back, 262144, 511, &err), &err);
    assert_memory_equal(back, data + 511, 262144);
    assert_works(lam_io_read(io, back, 3, 299997, &err), &err);
    assert_int_equal(back[2], data[299999]);
    assert_int_equal(lam_io_read(io, back, 4, 299997, &err), -EIO);
    assert_non_null(strstr(err.message, "'a' at offset 299997, length 4"));
    lam_io_close(io);
}

static void all_modes(void **state)
{
    (void)state;
    for (int mode = LAM_CACHE_WRITEBACK; mode <= LAM_CACHE_UNSAFE; mode++)
        try_mode((enum lam_cache_mode)mode);
}

static void holes(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = open_with("a", fresh());
    static uint8_t data[LAM_MIB];
    memset(data, 1, sizeof data);
    for (uint64_t i = 0; i < 4; i++)
        assert_works(lam_io_write(io, data, sizeof data, i * LAM_MIB, &err),
                     &err);
    assert_works(lam_io_zero(io, LAM_MIB, LAM_MIB, LAM_ZERO_UNMAP, &err),
                 &err);
    /* The first byte of the hole reads zero wherever it is. */
    uint8_t byte = 9;
    assert_works(lam_io_read(io, &byte, 1, LAM_MIB, &err), &err);
    assert_int_equal(byte, 0);

    enum lam_io_state what;
    uint64_t run, at = 0;
    for (; at < 4 * LAM_MIB; at += run) {
        assert_works(lam_io_extent(io, at, 4 * LAM_MIB - at, &what, &run,
                                   &err), &err);
        assert_true(run > 0 && run <= 4 * LAM_MIB - at);
        /* A hint, but data must never be called a hole. */
        if (what == LAM_IO_HOLE)
            assert_true(at >= LAM_MIB && at + run <= 2 * LAM_MIB);
    }
    assert_works(lam_io_extent(io, 4 * LAM_MIB, 100, &what, &run, &err), &err);
    assert_int_equal(what, LAM_IO_HOLE);
    assert_int_equal(run, 100);

    uint64_t before, after;
    assert_works(lam_io_allocated_size(io, &before, &err), &err);
    assert_works(lam_io_zero(io, 0, 4 * LAM_MIB, 0, &err), &err);
    assert_works(lam_io_flush(io, &err), &err);
    assert_works(lam_io_allocated_size(io, &after, &err), &err);
    if (io->limits.can_zero_range && !io->no_zero_range)
        assert_true(after >= 4 * LAM_MIB);
    if (io->limits.can_punch) {
        assert_true(before <= 3 * LAM_MIB + 65536);
        assert_works(lam_io_zero(io, 0, 5 * LAM_MIB, LAM_ZERO_UNMAP, &err),
                     &err);
        assert_works(lam_io_allocated_size(io, &after, &err), &err);
        assert_true(after <= 65536);
    }
    uint64_t size;
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, io->limits.can_punch ? 5 * LAM_MIB : 4 * LAM_MIB);
    lam_io_close(io);
}

static void grows_and_shrinks(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = open_with("a", fresh());
    uint64_t size;
    assert_works(lam_io_truncate(io, 12345, &err), &err);
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, 12345);
    int rc = lam_io_allocate(io, 0, 65536, &err);
    if (rc != -ENOTSUP)
        assert_works(rc, &err);
    assert_works(lam_io_truncate(io, 5, &err), &err);
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, 5);
    lam_io_close(io);
}

/* Two opens in one process are two owners, for these locks. */
static void locks(void **state)
{
    (void)state;
    lam_io_close(open_with("a", fresh()));
    enum { R, W };
    static const struct {
        int first, second;
        bool first_shared, second_shared, ok;
        const char *message;
    } cases[] = {
        { R, R, false, false, true, NULL },
        { W, R, false, false, false, "Failed to get shared \"write\" lock. "
          "Is another process using the image [a]?" },
        { R, W, false, false, false, "Failed to get \"write\" lock. "
          "Is another process using the image [a]?" },
        { W, W, false, false, false, "Failed to get \"write\" lock. "
          "Is another process using the image [a]?" },
        { W, W, true, true, true, NULL },
        { W, R, true, true, true, NULL },
        { R, W, true, false, true, NULL },
        { W, R, false, true, true, NULL },
        { R, W, false, true, false, "Failed to get \"write\" lock. "
          "Is another process using the image [a]?" },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io_open_options options = LAM_IO_OPEN_INIT;
        options.lock = false;
        options.writable = cases[i].first == W;
        struct lam_io *first = open_with("a", options);
        options.writable = cases[i].second == W;
        struct lam_io *second = open_with("a", options);
        assert_works(lam_io_lock(first, cases[i].first_shared, &err), &err);
        int rc = lam_io_lock(second, cases[i].second_shared, &err);
        if (rc != (cases[i].ok ? 0 : -EAGAIN))
            fail_msg("case %zu: %d %s", i, rc, err.message);
        if (rc < 0)
            assert_string_equal(err.message, cases[i].message);
        lam_io_close(first);
        lam_io_close(second);
    }
}

static void locks_at_open(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = open_with("a", fresh()), *other;
    assert_works(lam_io_write(io, "precious", 8, 0, &err), &err);
    struct lam_io_open_options options = fresh();
    assert_int_equal(lam_io_open("a", &options, &other, &err), -EAGAIN);
    /* and nothing was truncated before it was noticed */
    uint64_t size;
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, 8);
    lam_io_close(io);
    io = open_with("a", options);
    assert_int_equal(atomic_load(&io->size), 0);
    lam_io_close(io);
}

static void refuses(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_io *io;
    mkdir("dir", 0777);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    struct sockaddr_un address = { AF_UNIX, "socket" };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    static const struct {
        const char *path;
        int rc;
        const char *message, *writing;
    } cases[] = {
        { "missing", -ENOENT,
          "Could not open 'missing': No such file or directory", NULL },
        { "missing/deeper", -ENOENT,
          "Could not open 'missing/deeper': No such file or directory", NULL },
        { "a/b", -ENOTDIR, "Could not open 'a/b': Not a directory", NULL },
        { "dir", -EISDIR, "'file' driver requires 'dir' to be a regular file",
          "Could not open 'dir': Is a directory" },
        { "fifo", -EINVAL,
          "'file' driver requires 'fifo' to be a regular file", NULL },
        { "socket", -ENXIO,
          "Could not open 'socket': No such device or address", NULL },
        { "/dev/zero", -EINVAL,
          "'/dev/zero' is not a regular file or block device", NULL },
    };
    for (size_t i = 0; i < 2 * LAM_ARRAY_SIZE(cases); i++) {
        options.writable = i % 2;
        int rc = lam_io_open(cases[i / 2].path, &options, &io, &err);
        assert_int_equal(rc, cases[i / 2].rc);
        assert_string_equal(err.message, i % 2 && cases[i / 2].writing
                                         ? cases[i / 2].writing
                                         : cases[i / 2].message);
    }
}

/* Only for who asks for it: a disk of the length that the device has. */
static void opens_characters(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_io *io;
    char byte = 1;

    options.characters = options.writable = true;
    assert_int_equal(lam_io_open("/dev/zero", &options, &io, &err), 0);
    assert_string_equal(io->ops->name, "host_device");
    assert_int_equal(atomic_load(&io->size), 0);
    assert_int_equal(lam_io_flush(io, &err), 0);
    assert_int_equal(lam_io_read(io, &byte, 1, 0, &err), -EIO);
    assert_int_not_equal(lam_io_write(io, &byte, 1, 0, &err), 0);
    assert_int_not_equal(lam_io_truncate(io, 512, &err), 0);
    assert_string_equal(err.message, "Cannot grow device files");
    lam_io_close(io);
    assert_int_equal(lam_io_open("/dev/ptmx", &options, &io, &err), -ESPIPE);
}

static void stays_beneath(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_io *io;
    lam_io_close(open_with("a", fresh()));
    lam_io_close(open_with("dir/inside", fresh()));
    unlink("link");
    assert_int_equal(symlink("/etc/passwd", "link"), 0);
    options.beneath = true;
    options.dirfd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(options.dirfd >= 0);
    lam_io_close(open_with("dir/inside", options));
    lam_io_close(open_with("dir/../a", options));
    static const char *const outside[] = { "link", "../a", "/etc/passwd" };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(outside); i++)
        assert_int_equal(lam_io_open(outside[i], &options, &io, &err), -EXDEV);
    close(options.dirfd);
}

static void knows_itself(void **state)
{
    (void)state;
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    lam_io_close(open_with("b", fresh()));
    unlink("link");
    assert_int_equal(symlink("a", "link"), 0);
    struct lam_io *a = open_with("a", options), *b = open_with("b", options),
                  *link = open_with("link", options);
    struct lam_io_identity ia, ib, il;
    lam_io_identity(a, &ia);
    lam_io_identity(b, &ib);
    lam_io_identity(link, &il);
    assert_true(ia.known && ib.known && il.known);
    assert_int_equal(ia.ino, il.ino);
    assert_int_equal(ia.dev, il.dev);
    assert_int_not_equal(ia.ino, ib.ino);
    assert_true(lam_io_fd(a) >= 0);
    lam_io_close(a);
    lam_io_close(b);
    lam_io_close(link);
}

/* What others cut off is not a hole: there is nothing to be read. */
static void cut_by_others(void **state)
{
    struct lam_io_open_options options = fresh();
    struct lam_error err = LAM_ERROR_INIT;
    enum lam_io_state kind;
    uint8_t byte = 1;
    uint64_t run;

    (void)state;
    struct lam_io *io = open_with("a", options);
    assert_works(lam_io_write(io, &byte, 1, 0, &err), &err);
    assert_works(lam_io_truncate(io, 1 << 20, &err), &err);
    assert_works(lam_io_extent(io, 65536, 65536, &kind, &run, &err), &err);
    assert_int_equal(kind, LAM_IO_HOLE);
    assert_int_equal(truncate("a", 65536), 0);
    assert_works(lam_io_extent(io, 65536, 65536, &kind, &run, &err), &err);
    assert_int_equal(kind, LAM_IO_DATA);
    assert_true(lam_io_read(io, &byte, 1, 65536, &err) < 0);
    lam_io_close(io);
}

/* How many of the pages of "a" from @offset on are in the page cache. */
static int cached_pages(size_t offset, size_t pages)
{
    unsigned char there[1024];
    int fd = open("a", O_RDONLY), count = 0;

    assert_true(fd >= 0 && pages <= sizeof there);
    void *map = mmap(NULL, pages * 4096, PROT_READ, MAP_SHARED, fd,
                     (off_t)offset);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, pages * 4096, there), 0);
    for (size_t i = 0; i < pages; i++)
        count += there[i] & 1;
    munmap(map, pages * 4096);
    close(fd);
    return count;
}

/* O_DIRECT of these means that the page cache has no part in it. */
static bool on_disk_file_system(void)
{
    struct statfs fs;

    return statfs(".", &fs) == 0 && (fs.f_type == EXT4_SUPER_MAGIC ||
                                     fs.f_type == XFS_SUPER_MAGIC);
}

/* Old data in the cache below, around and behind what goes past it. */
static void write_past_cache(enum lam_cache_mode mode, uint8_t *data,
                             uint8_t *back)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io_open_options options = fresh();
    uint64_t size;

    options.cache = mode;
    struct lam_io *io = open_with("a", options);
    memset(data, 1, 4 * LAM_MIB);
    assert_works(lam_io_write(io, data, 4 * LAM_MIB, 0, &err), &err);
    memset(data, 2, 2 * LAM_MIB);
    data[7] = 3;
    assert_works(lam_io_write_past_cache(io, data, 2 * LAM_MIB, LAM_MIB, &err),
                 &err);
    if (mode == LAM_CACHE_WRITEBACK && on_disk_file_system())
        assert_int_equal(cached_pages(LAM_MIB, 512), 0);
    assert_works(lam_io_read(io, back, 4 * LAM_MIB, 0, &err), &err);
    assert_int_equal(back[LAM_MIB - 1], 1);
    assert_memory_equal(back + LAM_MIB, data, 2 * LAM_MIB);
    assert_int_equal(back[3 * LAM_MIB], 1);

    /* The end moves; and neither offset nor memory need be aligned. */
    assert_works(lam_io_write_past_cache(io, data, 2 * LAM_MIB, 3 * LAM_MIB,
                                         &err), &err);
    assert_works(lam_io_write_past_cache(io, data + 1, LAM_MIB, 5 * LAM_MIB - 5,
                                         &err), &err);
    assert_works(lam_io_size(io, &size, &err), &err);
    assert_int_equal(size, 6 * LAM_MIB - 5);
    assert_works(lam_io_read(io, back, 3 * LAM_MIB - 5, 3 * LAM_MIB, &err),
                 &err);
    assert_memory_equal(back, data, 2 * LAM_MIB - 5);
    assert_memory_equal(back + 2 * LAM_MIB - 5, data + 1, LAM_MIB);
    lam_io_close(io);
}

static void past_cache(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    lam_autofree uint8_t *data = buffer_new(4 * LAM_MIB);
    lam_autofree uint8_t *back = buffer_new(4 * LAM_MIB);

    for (int mode = LAM_CACHE_WRITEBACK; mode <= LAM_CACHE_UNSAFE; mode++)
        if (mode != LAM_CACHE_NONE && mode != LAM_CACHE_DIRECTSYNC)
            write_past_cache((enum lam_cache_mode)mode, data, back);
    struct lam_io_open_options options = LAM_IO_OPEN_INIT;
    struct lam_io *io = open_with("a", options);
    assert_int_equal(lam_io_write_past_cache(io, data, LAM_MIB, 0, &err),
                     -EROFS);
    lam_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_modes),
        cmocka_unit_test(holes),
        cmocka_unit_test(grows_and_shrinks),
        cmocka_unit_test(cut_by_others),
        cmocka_unit_test(past_cache),
        cmocka_unit_test(locks),
        cmocka_unit_test(locks_at_open),
        cmocka_unit_test(refuses),
        cmocka_unit_test(opens_characters),
        cmocka_unit_test(stays_beneath),
        cmocka_unit_test(knows_itself),
    };
    return cmocka_run_group_tests(tests, in_own_directory, leave);
}
