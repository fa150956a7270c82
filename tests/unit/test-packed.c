/* SPDX-License-Identifier: MIT */
/*
 * test-packed.c - random maps of a region, packed and asked at random places:
 * the answer is that part of the map.
 */
#include "image/packed.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "unit.h"

enum { REGION_BITS = 24, SECTORS = (1 << REGION_BITS) / 512 };

static const uint64_t REGION = UINT64_C(5) << REGION_BITS;
static uint64_t random_state = 88172645463325252;

static uint64_t below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

static struct lam_extent any_extent(uint64_t offset, uint64_t length)
{
    struct lam_extent e = {
        .offset = offset, .length = length,
        .depth = (uint16_t)below(1000), .state = (uint8_t)below(4),
    };

    if (e.state == LAM_EXTENT_COMPRESSED) {
        e.host_offset = below(UINT64_C(1) << 50);
        e.host_length = (uint32_t)(512 - e.host_offset % 512 +
                                   512 * below(4096));
    } else if (e.state == LAM_EXTENT_DATA) {
        e.host_offset = below(UINT64_C(1) << 40) * 512;
        e.flags = LAM_EXTENT_HAS_HOST;
    }
    return e;
}

/* Nothing continues what is before it: depths differ by chance only, so the
 * number of extents may come out a little smaller than @count. */
static void make_map(struct lam_extents *map, uint64_t count, bool crowded)
{
    uint64_t at = 0, room = crowded ? SECTORS / 16 : SECTORS;

    for (uint64_t i = 0; i + 1 < count && at + 1 < room; i++) {
        uint64_t n = 1 + below(2 * room / count);
        if (at + n >= SECTORS)
            break;
        struct lam_extent e = any_extent(REGION + at * 512, n * 512);
        assert_int_equal(extents_append(map, &e, NULL), 0);
        at += n;
    }
    struct lam_extent last = any_extent(REGION + at * 512,
                                        (SECTORS - at) * 512);
    assert_int_equal(extents_append(map, &last, NULL), 0);
}

static void clip(const struct lam_extents *map, struct range r, unsigned depth,
                 struct lam_extents *out)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct lam_extent *e = &map->items[i];
        struct range part = range_intersect(range_make(e->offset, e->length),
                                            r);
        if (!part.length)
            continue;
        struct lam_extent cut = extent_clip(e, part.offset, part.length);
        cut.depth = (uint16_t)(cut.depth + depth);
        assert_int_equal(extents_append(out, &cut, NULL), 0);
    }
}

static void ask(const struct lam_extents *map, const struct packed_map *packed,
                struct range r)
{
    struct lam_extents want lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct lam_extents have lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;

    clip(map, r, 7, &want);
    assert_int_equal(packed_copy(packed, r, 7, &have, NULL), 0);
    assert_int_equal(have.count, want.count);
    for (size_t i = 0; i < want.count; i++) {
        const struct lam_extent *a = &have.items[i], *b = &want.items[i];
        assert_int_equal(a->offset, b->offset);
        assert_int_equal(a->length, b->length);
        assert_int_equal(a->depth, b->depth);
        assert_int_equal(a->state, b->state);
        assert_int_equal(a->flags, b->flags);
        assert_int_equal(a->host_offset, b->host_offset);
        assert_int_equal(a->host_length, b->host_length);
    }
}

static void check_map(uint64_t count, bool crowded)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct packed_map packed = {
        .region = range_make(REGION, UINT64_C(1) << REGION_BITS),
    };

    make_map(&map, count, crowded);
    assert_int_equal(packed_build(&packed, map.items, map.count), 0);
    ask(&map, &packed, packed.region);
    for (int i = 0; i < 300; i++) {
        uint64_t at = below(UINT64_C(1) << REGION_BITS);
        uint64_t most = (UINT64_C(1) << REGION_BITS) - at;
        ask(&map, &packed,
            range_make(REGION + at, 1 + below(i % 3 ? min_u64(most, 9000)
                                                    : most)));
    }
    for (size_t i = 1; i < map.count; i++)
        ask(&map, &packed, range_make(map.items[i].offset - 1, 2));
    packed_deinit(&packed);
}

static void random_maps(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 1, 2, 4, 5, 8, 9, 17, 100, 700, 3000 };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(counts); i++) {
        check_map(counts[i], false);
        check_map(counts[i], true);
    }
}

static void what_cannot_be_packed(void **state)
{
    (void)state;
    static const struct lam_extent cases[] = {
        { .length = 1 << REGION_BITS, .flags = 64 },
        { .length = 1 << REGION_BITS, .state = LAM_EXTENT_COMPRESSED,
          .host_offset = 512, .host_length = 100 },
        { .length = 1 << REGION_BITS, .state = LAM_EXTENT_COMPRESSED,
          .host_offset = UINT64_C(1) << 57, .host_length = 512 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct packed_map map = {
            .region = range_make(0, UINT64_C(1) << REGION_BITS),
        };
        assert_int_equal(packed_build(&map, &cases[i], 1), -ERANGE);
        packed_deinit(&map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_maps),
        cmocka_unit_test(what_cannot_be_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
