/* SPDX-License-Identifier: MIT */
/*
 * test-overlap.c - writes that would land on the image's own tables.
 *
 * Two guest clusters are written, below one L1 entry each, and a snapshot is
 * taken.  Then the file is changed so that the next write hits a table.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/qcow2/qcow2.h"

enum {
    CLUSTER = 65536, REFT = CLUSTER, BLOCK = 2 * CLUSTER, L1 = 3 * CLUSTER,
    L2_COVER = CLUSTER / 8 * CLUSTER, DISK = 2 * L2_COVER,
};

/* What the entry of guest cluster 0 is made to name, or whose refcount is made
 * 0 so that the allocator hands it out. */
enum target { ON_L1, ON_REFT, ON_BLOCK, ON_OWN_TABLE, ON_OTHER_TABLE, ON_DATA,
              FREE_OTHER_TABLE, FREE_INACTIVE_TABLE };

static const struct {
    const char *name;
    enum target target;
    enum lam_overlap_check level;
    unsigned version;
    bool refused;
} cases[] = {
    { "L1 table", ON_L1, LAM_OVERLAP_CACHED, 3, true },
    { "L1 table, constant", ON_L1, LAM_OVERLAP_CONSTANT, 3, true },
    { "L1 table, version 2", ON_L1, LAM_OVERLAP_CACHED, 2, true },
    { "refcount table", ON_REFT, LAM_OVERLAP_CACHED, 3, true },
    { "refcount block", ON_BLOCK, LAM_OVERLAP_CACHED, 3, true },
    { "refcount block, constant", ON_BLOCK, LAM_OVERLAP_CONSTANT, 3, false },
    { "refcount block, none", ON_BLOCK, LAM_OVERLAP_NONE, 3, false },
    { "its own L2 table", ON_OWN_TABLE, LAM_OVERLAP_CACHED, 3, true },
    { "another L2 table", ON_OTHER_TABLE, LAM_OVERLAP_CACHED, 3, true },
    { "another L2 table, all", ON_OTHER_TABLE, LAM_OVERLAP_ALL, 3, true },
    { "data are not protected", ON_DATA, LAM_OVERLAP_ALL, 3, false },
    { "allocated L2 table", FREE_OTHER_TABLE, LAM_OVERLAP_CACHED, 3, true },
    { "allocated L2 table, constant", FREE_OTHER_TABLE, LAM_OVERLAP_CONSTANT,
      3, false },
    { "a snapshot's L2 table", FREE_INACTIVE_TABLE, LAM_OVERLAP_CACHED, 3,
      false },
    { "a snapshot's L2 table, all", FREE_INACTIVE_TABLE, LAM_OVERLAP_ALL, 3,
      true },
};

static struct qcow2 *open_image(struct lam_io *io, enum lam_overlap_check level)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct format_open o = { .io = io, .writable = true,
                             .overlap_check = level };
    void *q = NULL;

    assert_works(format_qcow2.open(&o, &q, &err), &err);
    return q;
}

static int write_cluster(struct qcow2 *q, uint64_t offset, uint64_t *host,
                         struct lam_error *err)
{
    struct format_allocation a;
    lam_autofree void *data = calloc(1, CLUSTER);
    int rc = qcow2_write_begin(q, offset, CLUSTER, &a, err);

    if (rc < 0)
        return rc;
    *host = a.host_offset;
    rc = lam_io_write(a.io, data, CLUSTER, a.host_offset, err);
    return rc < 0 ? rc : qcow2_write_finish(q, &a, err);
}

struct places {
    uint64_t data, own_table, other_table, inactive_table;
};

static uint64_t read64(struct lam_io *io, uint64_t at)
{
    uint8_t buf[8];

    assert_int_equal(lam_io_read(io, buf, 8, at, NULL), 0);
    return be64_get(buf);
}

static void write64(struct lam_io *io, uint64_t at, uint64_t value)
{
    uint8_t buf[8];

    be64_put(buf, value);
    assert_int_equal(lam_io_write(io, buf, 8, at, NULL), 0);
}

/* The snapshot has the L1 and L2 tables as they were first; what is active
 * are copies. */
static struct lam_io *make_image(unsigned version, struct places *p)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;
    uint64_t host;

    o.format = "qcow2";
    o.size = DISK;
    o.version = version;
    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    assert_works(format_qcow2.create(io, NULL, &o, &err), &err);
    struct qcow2 *q = open_image(io, LAM_OVERLAP_ALL);
    assert_works(write_cluster(q, 0, &host, &err), &err);
    assert_works(write_cluster(q, L2_COVER, &host, &err), &err);
    assert_works(qcow2_flush(q, &err), &err);
    p->inactive_table = entry_offset(q->l1[1]);
    assert_works(format_qcow2.snapshots->create(q, "s", &err), &err);
    assert_works(write_cluster(q, 0, &p->data, &err), &err);
    assert_works(write_cluster(q, L2_COVER, &host, &err), &err);
    p->own_table = entry_offset(q->l1[0]);
    p->other_table = entry_offset(q->l1[1]);
    assert_works(format_qcow2.close(q, &err), &err);
    assert_int_not_equal(p->inactive_table, p->other_table);
    return io;
}

static void set_free(struct lam_io *io, uint64_t host)
{
    static const uint8_t zero[2];

    uint64_t block = read64(io, read64(io, 48));
    assert_int_equal(lam_io_write(io, zero, 2, block + host / CLUSTER * 2,
                                  NULL), 0);
}

static void apply(struct lam_io *io, enum target target, const struct places *p)
{
    const uint64_t l1 = read64(io, 40), reft = read64(io, 48);
    const uint64_t named[] = {
        [ON_L1] = l1,
        [ON_REFT] = reft,
        [ON_BLOCK] = read64(io, reft),
        [ON_OWN_TABLE] = p->own_table,
        [ON_OTHER_TABLE] = p->other_table,
        [ON_DATA] = p->data,
    };

    if (target == FREE_OTHER_TABLE)
        set_free(io, p->other_table);
    else if (target == FREE_INACTIVE_TABLE)
        set_free(io, p->inactive_table);
    else
        write64(io, p->own_table, named[target] | QCOW2_COPIED);
}

static void run_case(size_t i)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct places p = { 0 };
    struct lam_io *io = make_image(cases[i].version, &p);
    bool allocates = cases[i].target >= FREE_OTHER_TABLE;
    uint64_t host = 0;

    apply(io, cases[i].target, &p);
    struct qcow2 *q = open_image(io, cases[i].level);
    int rc = write_cluster(q, allocates ? 5 * CLUSTER : 0, &host, &err);
    if (!cases[i].refused) {
        if (rc < 0)
            fail_msg("%s: %s", cases[i].name, err.message);
        format_qcow2.close(q, NULL);
    } else {
        if (rc != -EIO)
            fail_msg("%s: %d, %s", cases[i].name, rc, err.message);
        assert_true(write_cluster(q, 7 * CLUSTER, &host, NULL) < 0);
        assert_true(format_qcow2.close(q, NULL) < 0);
        if (cases[i].version >= 3)
            assert_int_equal(read64(io, 72), QCOW2_INCOMPAT_CORRUPT);
    }
    lam_io_close(io);
}

static void test_overlap(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        run_case(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_overlap) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
