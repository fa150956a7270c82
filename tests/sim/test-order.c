/* SPDX-License-Identifier: MIT */
/*
 * test-order.c - the order of writes of short scripts, exhaustively.
 *
 * After every event of a script the power fails.  Of what was not synced, all
 * has made it to the disk, or all but one write, or one alone: whatever has to
 * be on disk before something else shows.  Picks of any size and torn writes
 * come on top.  Then check finds leaks at worst; size, snapshots and bitmaps
 * are those of some moment since the last thing that was durable; each sector
 * holds what it had at such a moment; and writing goes on.
 *
 * "Interrupted": another request flushes right before the data of each write
 * reach the disk, when its place is reserved but not yet shown.
 */
#include "order.h"

/* Cells of the table are units; a cluster has 4, or 1 if it is 512 bytes. */
static const struct order_script own[] = {
    { "write", 40, {
        { ORDER_WRITE, 0, 9 }, { ORDER_WRITE, 20, 4 },
    }, {
        { ORDER_WRITE, 2, 1 }, { ORDER_WRITE, 13, 2 }, { ORDER_FLUSH, 0, 0 },
        { ORDER_WRITE, 5, 12 }, { ORDER_WRITE, 29, 1 },
        { ORDER_COMPRESSED, 32, 8 }, { ORDER_FLUSH, 0, 0 },
        { ORDER_WRITE, 34, 1 }, { ORDER_COMPRESSED, 0, 4 },
    } },
    { "zero and discard", 40, {
        { ORDER_WRITE, 0, 24 }, { ORDER_COMPRESSED, 24, 8 },
    }, {
        { ORDER_ZERO, 0, 4 }, { ORDER_WRITE, 1, 1 }, { ORDER_UNMAP, 4, 8 },
        { ORDER_FLUSH, 0, 0 }, { ORDER_WRITE, 5, 2 }, { ORDER_DISCARD, 12, 8 },
        { ORDER_WRITE, 12, 6 }, { ORDER_FLUSH, 0, 0 }, { ORDER_UNMAP, 24, 4 },
        { ORDER_WRITE, 36, 4 }, { ORDER_DISCARD, 0, 40 },
        { ORDER_FLUSH, 0, 0 }, { ORDER_WRITE, 8, 4 },
    } },
    { "snapshots", 32, {
        { ORDER_WRITE, 0, 10 }, { ORDER_CREATE, 0, 0 }, { ORDER_WRITE, 4, 1 },
    }, {
        { ORDER_WRITE, 8, 2 }, { ORDER_CREATE, 1, 0 }, { ORDER_WRITE, 0, 3 },
        { ORDER_FLUSH, 0, 0 }, { ORDER_WRITE, 9, 5 }, { ORDER_APPLY, 0, 0 },
        { ORDER_WRITE, 2, 1 }, { ORDER_DELETE, 1, 0 }, { ORDER_WRITE, 8, 4 },
    } },
    { "resize", 30, {
        { ORDER_WRITE, 0, 4 }, { ORDER_WRITE, 20, 10 },
    }, {
        { ORDER_RESIZE, 22, 0 }, { ORDER_WRITE, 21, 1 },
        { ORDER_RESIZE, 34, 0 }, { ORDER_WRITE, 30, 4 },
        { ORDER_RESIZE, 8, 0 }, { ORDER_RESIZE, 20, LAM_PREALLOC_METADATA },
        { ORDER_WRITE, 16, 1 },
    } },
    { "bitmaps", 24, {
        { ORDER_WRITE, 0, 4 }, { ORDER_ADD, 0, 0 },
    }, {
        { ORDER_WRITE, 4, 4 }, { ORDER_ADD, 1, 0 }, { ORDER_REOPEN, 0, 0 },
        { ORDER_WRITE, 12, 4 }, { ORDER_REMOVE, 0, 0 },
    } },
    /* More L2 tables of 512 bytes than the least cache holds. */
    { "eviction", 1000, { { ORDER_END, 0, 0 } }, {
        { ORDER_WRITE, 0, 2 }, { ORDER_WRITE, 70, 1 }, { ORDER_WRITE, 130, 2 },
        { ORDER_WRITE, 200, 1 }, { ORDER_WRITE, 260, 1 },
        { ORDER_WRITE, 330, 1 }, { ORDER_WRITE, 390, 1 },
        { ORDER_WRITE, 460, 1 }, { ORDER_WRITE, 520, 1 },
        { ORDER_WRITE, 590, 1 }, { ORDER_WRITE, 650, 1 },
        { ORDER_UNMAP, 0, 400 }, { ORDER_WRITE, 720, 1 },
        { ORDER_WRITE, 780, 1 }, { ORDER_WRITE, 850, 1 },
        { ORDER_WRITE, 64, 40 }, { ORDER_WRITE, 910, 2 },
        { ORDER_WRITE, 980, 1 },
    } },
};

enum { NB_SCRIPTS = LAM_ARRAY_SIZE(own) + ORDER_SHARED };

static const struct order_script *script_at(size_t k)
{
    return k < LAM_ARRAY_SIZE(own) ? &own[k]
                                   : &order_shared[k - LAM_ARRAY_SIZE(own)];
}

/* ------------------------------------------------------------- power cuts */

static void cut_at(struct order *t, size_t n, struct record_pick pick)
{
    static const char *const how[] = { "all", "seed", "all but", "only" };
    size_t first = 0, last = 0;
    struct sim_files disk = { NULL, NULL };
    char when[96];

    for (size_t i = 1; i < t->nb_states; i++) {
        if (t->states[i].start < n)
            last = i;
        if (t->states[i].end <= n && t->states[i].durable)
            first = i;
    }
    snprintf(when, sizeof when, "operations %zu to %zu, event %zu, %s %llu",
             first, last = last < first ? first : last, n, how[pick.how],
             (unsigned long long)pick.value);
    assert_int_equal(lam_io_record_rebuild(t->record, n, pick, t->base,
                                           t->base_length, &disk.image, NULL),
                     0);
    if (t->record_data)
        assert_int_equal(lam_io_record_rebuild(t->record_data, n, pick,
                                               t->base_data,
                                               t->base_data_length,
                                               &disk.data, NULL), 0);
    order_check_file(t, &disk, when);
    order_verify(t, &disk, first, last, when);
    if (t->replays++ % 8 == 0)
        order_go_on(t, &disk, when);
    sim_files_close(&disk);
}

/* Begin of the events that object @object had not synced before @n. */
static size_t unsynced(const struct record_event *events, size_t n,
                       unsigned object)
{
    while (n > 0 && (events[n - 1].kind != RECORD_FLUSH ||
                     events[n - 1].object != object))
        n--;
    return n;
}

static void cut_power_at(struct order *t, const struct record_event *events,
                         size_t n, uint64_t seed)
{
    size_t from = n;

    for (unsigned object = 0; object <= (t->record_data != NULL); object++)
        from = min_u64(from, unsynced(events, n, object));
    cut_at(t, n, (struct record_pick){ RECORD_ALL, 0 });
    cut_at(t, n, (struct record_pick){ RECORD_SEEDED, seed });
    for (size_t k = from; k < n; k++)
        if (events[k].kind != RECORD_FLUSH && k + 1 < n &&
            k >= unsynced(events, n, events[k].object))
            cut_at(t, n, (struct record_pick){ RECORD_ALL_BUT, k });
    if (n > 0 && events[n - 1].kind != RECORD_FLUSH)
        cut_at(t, n, (struct record_pick){ RECORD_ONLY, n - 1 });
}

/* Each moment of short recordings; of long ones so many, and every one before
 * a barrier, when most is not synced. */
static void cut_power(struct order *t, uint64_t most)
{
    size_t count;
    const struct record_event *events = lam_io_record_events(t->record,
                                                             &count);
    size_t step = count / most + 1;

    for (size_t n = 0; n <= count; n++)
        if (n % step == 0 || n == count || events[n].kind == RECORD_FLUSH)
            cut_power_at(t, events, n, n + 1);
}

static void run_script(const struct order_script *script,
                       const struct sim_shape *shape, bool interrupted)
{
    struct order t = { .script = script, .shape = shape,
                       .interrupted = interrupted };
    uint64_t unit = max_u64(shape->kind.cluster_size / 4, ORDER_SECTOR);
    size_t count;

    if ((script->units + 8) * unit > (uint64_t)ORDER_SECTORS * ORDER_SECTOR)
        return;
    if (!order_run(&t))
        return;                         /* no encryption in this library */
    lam_io_record_events(t.record, &count);
    cut_power(&t, sim_setting("LAM_MOMENTS",
                              shape->store == SIM_LUKS ? 3 :
                              script->units > 100 ? 3 : 6));
    if (interrupted && shape->store != SIM_LUKS)
        assert_true(t.flushes > 0);
    if (getenv("LAM_SHAPE"))
        print_message("%s, %s: %zu events, %llu replays, %llu leaks\n",
                      script->name, shape->kind.name, count,
                      (unsigned long long)t.replays,
                      (unsigned long long)t.leaks);
    order_deinit(&t);
}

/* LAM_SHAPE=text: only those shapes whose name has it. */
static bool is_wanted(const struct sim_shape *shape)
{
    const char *only = getenv("LAM_SHAPE");

    if (only)
        return strstr(shape->kind.name, only);
    return shape->kind.cluster_size <= 16384;
}

/* Each script with lazy refcounts, and with every fourth shape, unless somebody
 * has the time. */
static bool is_turn(size_t shape, size_t script)
{
    return getenv("LAM_MOMENTS") || getenv("LAM_SHAPE") ||
           !strcmp(sim_shapes[shape].kind.name, "4k, lazy") ||
           (shape + script) % 4 == 0;
}

static void test_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sim_shapes); i++) {
        const struct sim_shape *shape = &sim_shapes[i];

        if (!is_wanted(shape))
            continue;
        for (size_t k = 0; k < NB_SCRIPTS; k++)
            if (is_turn(i, k) && (script_at(k)->units < 100 ||
                                  shape->kind.cluster_size == 512))
                run_script(script_at(k), shape, false);
    }
}

/* Somebody else flushes in the middle of each write. */
static void test_interrupted(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sim_shapes); i++)
        for (size_t k = 0; k < 3; k++)
            if (is_turn(i, k) && is_wanted(&sim_shapes[i]) &&
                sim_shapes[i].store != SIM_LUKS)
                run_script(&own[k], &sim_shapes[i], true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_interrupted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
