/* SPDX-License-Identifier: MIT */
/*
 * test-distrust.c - writing through entries that are not what they claim.
 *
 * One cluster is written and closed; then its entry, its L1 entry or a refcount
 * is changed in the file.  The next write is refused, or goes to another host
 * cluster, but never on top of something that somebody else needs.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/qcow2/qcow2.h"
#include "format/qcow2/refblock.h"

enum { CLUSTER = 65536, L1 = 3 * CLUSTER };

enum outcome { IN_PLACE, ELSEWHERE, REFUSED };

static const struct {
    const char *name;
    uint64_t l1_set, l1_clear;      /* bits of the L1 entry */
    uint64_t l2_set, l2_clear;      /* bits of the L2 entry */
    int data_refcount, table_refcount;
    enum outcome outcome;
} cases[] = {
    { "as it was", 0, 0, 0, 0, 1, 1, IN_PLACE },
    { "cluster without COPIED", 0, 0, 0, QCOW2_COPIED, 1, 1, ELSEWHERE },
    { "table without COPIED", 0, QCOW2_COPIED, 0, 0, 1, 1, IN_PLACE },
    { "table without COPIED, shared", 0, QCOW2_COPIED, 0, 0, 1, 2, ELSEWHERE },
    { "table shared, cluster not", 0, 0, 0, 0, 1, 2, ELSEWHERE },
    { "cluster shared", 0, 0, 0, 0, 2, 1, ELSEWHERE },
    { "table shared, cluster too", 0, 0, 0, 0, 2, 2, ELSEWHERE },
    { "cluster free", 0, 0, 0, 0, 0, 1, REFUSED },
    { "table free", 0, 0, 0, 0, 1, 0, REFUSED },
    { "zero cluster with a host cluster", 0, 0, 1, 0, 1, 1, IN_PLACE },
    { "reserved bit in the L2 entry", 0, 0, 2, 0, 1, 1, REFUSED },
    { "reserved bit in the L1 entry", 1, 0, 0, 0, 1, 1, REFUSED },
    { "cluster not aligned", 0, 0, 512, 0, 1, 1, REFUSED },
    { "table not aligned", 512, 0, 0, 0, 1, 1, REFUSED },
    { "cluster is the header's", 0, 0, QCOW2_COPIED, QCOW2_OFFSET_MASK, 1, 1,
      ELSEWHERE },                  /* offset 0 means unallocated */
};

static struct qcow2 *open_image(struct lam_io *io)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct format_open o = { .io = io, .writable = true };
    void *q = NULL;

    assert_works(format_qcow2.open(&o, &q, &err), &err);
    return q;
}

/* Where a write of the first cluster goes; 0 if it is refused. */
static uint64_t write_first(struct qcow2 *q, struct lam_error *err)
{
    struct format_allocation a;
    lam_autofree void *data = calloc(1, CLUSTER);
    int rc = qcow2_write_begin(q, 0, CLUSTER, &a, err);

    if (rc < 0) {
        assert_int_equal(rc, -EUCLEAN);
        return 0;
    }
    assert_int_equal(a.length, CLUSTER);
    assert_works(lam_io_write(a.io, data, CLUSTER, a.host_offset, err), err);
    assert_works(qcow2_write_finish(q, &a, err), err);
    return a.host_offset;
}

static struct lam_io *make_image(uint64_t *host)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    o.format = "qcow2";
    o.size = 1 << 20;
    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    assert_works(format_qcow2.create(io, NULL, &o, &err), &err);
    struct qcow2 *q = open_image(io);
    *host = write_first(q, &err);
    assert_works(format_qcow2.close(q, &err), &err);
    return io;
}

static uint64_t change_entry(struct lam_io *io, uint64_t at, uint64_t set,
                             uint64_t clear)
{
    uint8_t buf[8];

    assert_int_equal(lam_io_read(io, buf, 8, at, NULL), 0);
    uint64_t old = be64_get(buf);
    be64_put(buf, (old & ~clear) | set);
    assert_int_equal(lam_io_write(io, buf, 8, at, NULL), 0);
    return old;
}

static void set_refcount(struct lam_io *io, uint64_t host, int value)
{
    uint8_t buf[2];

    be16_put(buf, (uint16_t)value);
    assert_int_equal(lam_io_write(io, buf, 2, 2 * CLUSTER + host / CLUSTER * 2,
                                  NULL), 0);
}

static void run_case(size_t i)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t host;
    struct lam_io *io = make_image(&host);
    uint64_t table = entry_offset(change_entry(io, L1, cases[i].l1_set,
                                               cases[i].l1_clear));

    change_entry(io, table, cases[i].l2_set, cases[i].l2_clear);
    set_refcount(io, host, cases[i].data_refcount);
    set_refcount(io, table, cases[i].table_refcount);
    struct qcow2 *q = open_image(io);
    uint64_t new = write_first(q, &err);
    if (cases[i].outcome == REFUSED) {
        assert_int_equal(new, 0);
        assert_int_equal(err.code, EUCLEAN);
    } else if (cases[i].outcome == IN_PLACE) {
        assert_int_equal(new, host);
    } else {
        assert_int_not_equal(new, host);
        assert_true(new > L1);
    }
    assert_works(format_qcow2.close(q, &err), &err);
    lam_io_close(io);
}

static void test_distrust(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        print_message("%s\n", cases[i].name);
        run_case(i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_distrust) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
