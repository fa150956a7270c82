/* SPDX-License-Identifier: MIT */
/*
 * test-cache.c - the table cache by scripts: what is found, what is evicted,
 * what must stay.
 *
 * A script is a line of words:
 *   tN  take slice N, load and unpin it     pN  the same, and keep the pin
 *   uN  drop that pin                       dN  mark N dirty
 *   wN  N is on its way to the disk         cN  ... and has arrived
 *   fN  forget N                            FN  take N by force
 *   +N  N must be there                     -N  N must not be there
 *   bN  taking N must answer "busy"
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "format/qcow2/cache.h"

enum { SLICE = 512, MAX_NUMBER = 64 };

static const struct { const char *name, *script; } cases[] = {
    { "a slice is found after loading", "-1 t1 +1 -2" },
    { "the ninth evicts one",
      "t0 t1 t2 t3 t4 t5 t6 t7 t8 +8" },
    { "pinned slices stay",
      "p0 p1 p2 p3 p4 p5 p6 t7 t8 +0 +1 +2 +3 +4 +5 +6 -7 +8" },
    { "more may be pinned than there is room for",
      "p0 p1 p2 p3 p4 p5 p6 p7 p8 +0 +7 +8 u0 u1 t9 +9 +8" },
    { "dirty slices stay, and make the cache busy",
      "t0 t1 t2 t3 t4 t5 t6 t7 d0 d1 d2 d3 d4 d5 d6 d7 b8 +0 +7" },
    { "by force there is room all the same",
      "t0 t1 t2 t3 t4 t5 t6 t7 d0 d1 d2 d3 d4 d5 d6 d7 F8 +8 +0 +7" },
    { "a copy on its way keeps its slice",
      "p0 p1 p2 p3 p4 p5 p6 t7 d7 w7 t8 +7 +8 c7 t9 -7" },
    { "dirty again while a copy is on its way",
      "t0 d0 w0 d0 c0 p1 p2 p3 p4 p5 p6 p7 b8 +0" },
    { "what is forgotten is gone, dirty or not", "t0 t1 d1 f0 f1 -0 -1" },
    { "a pinned slice that is forgotten lives until its pin",
      "p0 f0 -0 u0 t0 +0" },
};

struct state {
    struct cache cache;
    struct slice *pins[MAX_NUMBER];
};

static uint64_t host_of(unsigned n)
{
    return (uint64_t)n * SLICE;
}

static struct slice *take(struct cache *c, unsigned n, bool force)
{
    struct slice *s = NULL;
    int rc = cache_take(c, host_of(n), force, &s);

    assert_true(rc >= 0);
    if (rc == 1) {
        memset(s->data, (int)n, SLICE);
        cache_loaded(c, s, true);
    }
    assert_true(slice_wait(c, s));
    return s;
}

static void run_word(struct state *t, char what, unsigned n)
{
    struct cache *c = &t->cache;
    struct slice *s = cache_find(c, host_of(n) + 8);

    switch (what) {
    case 't':
    case 'F':
        slice_unpin(take(c, n, what == 'F'));
        break;
    case 'p':
        t->pins[n] = take(c, n, false);
        break;
    case 'u':
        assert_int_equal(t->pins[n]->data[SLICE - 1], n);
        slice_unpin(t->pins[n]);
        t->pins[n] = NULL;
        break;
    case 'd':
        cache_mark_dirty(c, s, 8, 16);
        break;
    case 'w':
        cache_mark_writing(c, s);
        break;
    case 'c':
        s->writing = false;
        break;
    case 'f':
        cache_forget(c, host_of(n), SLICE);
        break;
    case '+':
        assert_non_null(s);
        assert_int_equal(s->data[0], n);
        break;
    case '-':
        assert_null(s);
        break;
    case 'b':
        assert_int_equal(cache_take(c, host_of(n), false, &s), -EBUSY);
        break;
    default:
        fail_msg("no such word: %c", what);
    }
}

static void run_script(const char *script)
{
    struct state t = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(cache_init(&t.cache, SLICE, 1, &err), &err);
    while (*script) {
        char what = *script++;
        char *end;
        unsigned long n = strtoul(script, &end, 10);

        run_word(&t, what, (unsigned)n);
        script = *end ? end + 1 : end;
    }
    for (size_t i = 0; i < MAX_NUMBER; i++)
        if (t.pins[i])
            slice_unpin(t.pins[i]);
    cache_deinit(&t.cache);
}

static void test_scripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        print_message("%s\n", cases[i].name);
        run_script(cases[i].script);
    }
}

static void test_failed_load(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct slice *s, *other;
    struct cache c;

    (void)state;
    assert_works(cache_init(&c, SLICE, 1, &err), &err);
    assert_int_equal(cache_take(&c, 0, false, &s), 1);
    assert_int_equal(cache_take(&c, 100, false, &other), 0);
    assert_ptr_equal(s, other);
    assert_null(cache_find(&c, 0));             /* not before it is loaded */
    cache_loaded(&c, s, false);
    assert_false(slice_wait(&c, other));
    slice_unpin(s);
    slice_unpin(other);
    assert_int_equal(cache_take(&c, 0, false, &s), 1);
    cache_loaded(&c, s, true);
    slice_unpin(s);
    cache_deinit(&c);
}

/* What goes to the disk is whole pages, in one range. */
static void test_dirty_range(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct slice *s;
    struct cache c;

    (void)state;
    assert_works(cache_init(&c, 65536, 1, &err), &err);
    s = take(&c, 0, false);
    cache_mark_dirty(&c, s, 5000, 5008);
    assert_int_equal(s->dirty_from, 4096);
    assert_int_equal(s->dirty_to, 8192);
    cache_mark_dirty(&c, s, 65528, 65536);
    assert_int_equal(s->dirty_from, 4096);
    assert_int_equal(s->dirty_to, 65536);
    assert_ptr_equal(c.dirty, s);
    cache_mark_writing(&c, s);
    assert_null(c.dirty);
    slice_unpin(s);
    cache_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_failed_load),
        cmocka_unit_test(test_dirty_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
