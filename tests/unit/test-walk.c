/* SPDX-License-Identifier: MIT */
/*
 * test-walk.c - chunks cover the sources in order, are cut at the unit, and
 * say zero only where it is zero.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arith.h"
#include "image/image.h"
#include "job/walk.h"

enum { BLOCK = 4096, MAX_BLOCKS = 4096 };

/* Blocks of a source, 'd' data and '.' hole, repeated @times. */
struct pattern { const char *blocks; unsigned times; unsigned tail; };

static struct lam_image *open_pattern(const struct pattern *p)
{
    char path[] = "/tmp/test-walk-XXXXXX";
    char data[BLOCK];
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;
    size_t count = strlen(p->blocks), at = 0;

    memset(data, 'd', sizeof data);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (unsigned t = 0; t < p->times; t++)
        for (size_t i = 0; i < count; i++, at++)
            if (p->blocks[i] == 'd')
                assert_int_equal(pwrite(fd, data, BLOCK, (off_t)at * BLOCK),
                                 BLOCK);
    assert_int_equal(ftruncate(fd, (off_t)(at * BLOCK + p->tail)), 0);
    close(fd);
    options.format = "raw";
    assert_int_equal(lam_image_open(path, &options, &image, NULL), 0);
    unlink(path);
    return image;
}

/* What the two sources hold, a character a block of the target. */
static size_t expected_blocks(const struct pattern *p, size_t n, char *out)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        for (unsigned t = 0; t < p[i].times; t++)
            for (const char *b = p[i].blocks; *b; b++)
                out[at++] = *b;
        if (p[i].tail)
            out[at++] = '.';
    }
    return at;
}

static const struct {
    const char *name;
    struct pattern sources[2];
    size_t nb_sources;
    struct walk_options options;
} cases[] = {
    { "one hole", { { ".", 1000, 0 } }, 1,
      { 4096, 65536, 1 << 20, 4096, false } },
    { "all data", { { "d", 100, 0 } }, 1,
      { 4096, 65536, 1 << 20, 4096, false } },
    { "mixed, cut at each hole", { { "dd..d.d...", 50, 0 } }, 1,
      { 4096, 65536, 1 << 20, 4096, false } },
    { "mixed, short holes stay inside", { { "dd..d.d...", 50, 0 } }, 1,
      { 4096, 65536, 1 << 20, 65536, false } },
    { "clusters", { { "d...............................", 20, 0 } }, 1,
      { 65536, 65536, 1 << 20, 65536, false } },
    { "cluster not a multiple of the holes",
      { { "d.................", 40, 0 } },
      1, { 65536, 131072, 1 << 20, 65536, false } },
    { "short end", { { "dd....", 3, 512 } }, 1,
      { 65536, 131072, 1 << 20, 65536, false } },
    { "two sources meet inside a cluster",
      { { "..d....", 3, 0 }, { ".......d", 30, 0 } }, 2,
      { 65536, 131072, 1 << 20, 65536, false } },
    { "hole over the border of two sources",
      { { "d........", 9, 0 }, { "................", 30, 1536 } }, 2,
      { 65536, 131072, 1 << 20, 65536, false } },
};

static bool is_zero_range(const char *blocks, uint64_t offset, uint64_t length)
{
    for (uint64_t b = offset / BLOCK; b * BLOCK < offset + length; b++)
        if (blocks[b] != '.')
            return false;
    return true;
}

/* The segments of a data chunk cover it, and their extents cover them. */
static void check_segments(const struct walk_chunk *chunk)
{
    uint64_t at = chunk->offset;
    size_t next = 0;

    for (size_t i = 0; i < chunk->nb_segments; i++) {
        const struct walk_segment *s = &chunk->segments[i];
        uint64_t inside = s->offset;
        assert_int_equal(s->target_offset, at);
        assert_int_equal(s->first, next);
        for (size_t e = 0; e < s->count; e++, next++) {
            assert_int_equal(chunk->extents.items[next].offset, inside);
            inside += chunk->extents.items[next].length;
        }
        assert_int_equal(inside, s->offset + s->length);
        at += s->length;
    }
    assert_int_equal(at, chunk->offset + chunk->length);
    assert_int_equal(next, chunk->extents.count);
}

static void check_chunk(const struct walk *walk, const struct walk_chunk *chunk,
                        const char *blocks)
{
    const struct walk_options *o = &walk->options;
    uint64_t end = chunk->offset + chunk->length;

    assert_true(chunk->length > 0);
    assert_true(is_aligned(chunk->offset, o->unit));
    assert_true(is_aligned(end, o->unit) || end == walk->total);
    if (chunk->kind == WALK_DATA) {
        assert_true(chunk->length <= o->data_max);
        check_segments(chunk);
        return;
    }
    assert_int_equal(chunk->kind, WALK_ZERO);
    assert_true(chunk->length <= o->bare_max);
    assert_true(is_zero_range(blocks, chunk->offset, chunk->length));
}

/* Units that are zero as a whole and lie in a run worth it are not read. */
static void check_zeroes(const struct walk_options *o, const char *blocks,
                         uint64_t total, uint64_t zero_bytes)
{
    uint64_t expected = 0;
    for (uint64_t at = 0; at < total; at += o->unit)
        if (is_zero_range(blocks, at, min_u64(o->unit, total - at)))
            expected += min_u64(o->unit, total - at);
    assert_true(zero_bytes <= expected);
    if (o->split_min <= o->unit)
        assert_int_equal(zero_bytes, expected);
}

static void run_case(size_t n)
{
    static char blocks[MAX_BLOCKS];
    struct walk_source sources[2] = { { 0 } };
    struct walk_chunk chunk = { 0 };
    struct walk walk;
    uint64_t start = 0, at = 0, sequence = 0, zero_bytes = 0;

    expected_blocks(cases[n].sources, cases[n].nb_sources, blocks);
    for (size_t i = 0; i < cases[n].nb_sources; i++) {
        sources[i].image = open_pattern(&cases[n].sources[i]);
        sources[i].start = start;
        sources[i].size = lam_image_size(sources[i].image);
        sources[i].depth = LAM_DEPTH_ALL;
        start += sources[i].size;
    }
    assert_int_equal(walk_init(&walk, &cases[n].options, sources,
                               cases[n].nb_sources, NULL), 0);
    while (walk_next(&walk, &chunk, NULL) > 0) {
        assert_int_equal(chunk.offset, at);
        assert_int_equal(chunk.sequence, sequence++);
        check_chunk(&walk, &chunk, blocks);
        at += chunk.length;
        zero_bytes += chunk.kind == WALK_ZERO ? chunk.length : 0;
    }
    assert_int_equal(at, start);
    check_zeroes(&cases[n].options, blocks, start, zero_bytes);
    walk_chunk_deinit(&chunk);
    walk_deinit(&walk);
    for (size_t i = 0; i < cases[n].nb_sources; i++)
        lam_image_close(sources[i].image, NULL);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        print_message("    %s\n", cases[i].name);
        run_case(i);
    }
}

static void test_nothing(void **state)
{
    static const struct walk_options options = { 4096, 65536, 65536, 4096,
                                                 false };
    struct walk_chunk chunk = { 0 };
    struct walk walk;

    (void)state;
    assert_int_equal(walk_init(&walk, &options, NULL, 0, NULL), 0);
    assert_int_equal(walk_next(&walk, &chunk, NULL), 0);
    walk_deinit(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
