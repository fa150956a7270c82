/* SPDX-License-Identifier: MIT */
/*
 * test-chain.c - one map of many layers.
 *
 * The layers are of a format made for this test: a string with a character a
 * block, '.' unallocated, 'D' data at the same offset, 'z' zero, 'C'
 * compressed, 'p' a place without data.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/chain.h"

enum { BLOCK = 512 };

struct picture {
    const char *text;
    unsigned asked;             /* blocks that map() was asked for */
};

static uint64_t picture_size(void *format)
{
    struct picture *p = format;
    return strlen(p->text) * BLOCK;
}

/* 0 keeps the chain from asking for more than it needs. */
static uint64_t picture_cluster;

static uint64_t picture_cluster_size(void *format)
{
    (void)format;
    return picture_cluster;
}

static int picture_map(void *format, uint64_t offset, uint64_t length,
                       struct lam_extents *out, struct lam_error *err)
{
    struct picture *p = format;

    assert_true(range_fits(offset, length, picture_size(p)));
    p->asked += (unsigned)(length / BLOCK);
    while (length > 0) {
        uint64_t end = align_down(offset, BLOCK) + BLOCK;
        struct lam_extent e = {
            .offset = offset, .length = min_u64(end - offset, length),
        };
        switch (p->text[offset / BLOCK]) {
        case 'D':
            e.state = LAM_EXTENT_DATA;
            e.flags = LAM_EXTENT_HAS_HOST;
            e.host_offset = offset;
            break;
        case 'z':
            e.state = LAM_EXTENT_ZERO;
            break;
        case 'C':
            e.state = LAM_EXTENT_COMPRESSED;
            e.host_offset = 7;
            e.host_length = 99;
            break;
        case 'p':
            e.flags = LAM_EXTENT_HAS_HOST;
            e.host_offset = offset;
            break;
        default:
            break;
        }
        int rc = extents_append(out, &e, err);
        if (rc < 0)
            return rc;
        offset += e.length;
        length -= e.length;
    }
    return 0;
}

static int picture_close(void *format, struct lam_error *err)
{
    (void)err;
    free(format);
    return 0;
}

static const struct format_ops picture_ops = {
    .name = "picture",
    .size = picture_size,
    .cluster_size = picture_cluster_size,
    .map = picture_map,
    .close = picture_close,
};

static struct lam_image *layer_make(const char *text)
{
    struct lam_image *image = calloc(1, sizeof *image);
    struct picture *p = calloc(1, sizeof *p);
    assert_true(image && p);
    p->text = text;
    image->ops = &picture_ops;
    image->format = p;
    image->name = strdup("picture");
    image->size = picture_size(p);
    pthread_rwlock_init(&image->whole_units, NULL);
    return image;
}

/* Layers from the top, separated by spaces; the strings live in @buf. */
static struct lam_image *chain_make(const char *layers, char *buf)
{
    struct lam_image *top = NULL, **next = &top;
    strcpy(buf, layers);
    for (char *save, *word = strtok_r(buf, " ", &save); word;
         word = strtok_r(NULL, " ", &save)) {
        *next = layer_make(word);
        next = &(*next)->backing;
    }
    assert_int_equal(image_link(top, NULL), 0);
    return top;
}

static char *show(const struct lam_extents *extents, char *out)
{
    static const char states[] = ".zDC";
    char *end = out;
    *out = '\0';
    for (size_t i = 0; i < extents->count; i++) {
        const struct lam_extent *e = &extents->items[i];
        end += sprintf(end, "%s%c%u:%g", i ? " " : "",
                       e->flags & LAM_EXTENT_BEYOND_BACKING
                           ? 'b' : states[e->state],
                       e->depth, (double)e->length / BLOCK);
        if (e->state < LAM_EXTENT_DATA && e->flags & LAM_EXTENT_HAS_HOST)
            *end++ = 'p', *end = '\0';
    }
    return out;
}

static const struct {
    const char *layers;
    uint64_t offset, length;    /* bytes; length 0: all */
    uint32_t depth;
    const char *answer;         /* state, depth ':' length in blocks */
} cases[] = {
    { "DDDD", 0, 0, LAM_DEPTH_ALL, "D0:4" },
    { "....", 0, 0, LAM_DEPTH_ALL, ".0:4" },
    { "..D. zzzz", 0, 0, LAM_DEPTH_ALL, "z1:2 D0:1 z1:1" },
    { "..D. zzzz", 0, 0, 1, ".0:2 D0:1 .0:1" },
    { "D... .D.. ..D. ...D", 0, 0, LAM_DEPTH_ALL, "D0:1 D1:1 D2:1 D3:1" },
    { "...D ..D. .D.. D...", 0, 0, LAM_DEPTH_ALL, "D3:1 D2:1 D1:1 D0:1" },
    { "...D ..D. .D.. D...", 0, 0, 2, ".0:2 D1:1 D0:1" },
    { "...D ..D. .D.. D...", 256, 1024, LAM_DEPTH_ALL, "D3:0.5 D2:1 D1:0.5" },
    { "...... DDD", 0, 0, LAM_DEPTH_ALL, "D1:3 b0:3" },
    { ".D.... DDD", 1024, 1024, LAM_DEPTH_ALL, "D1:1 b0:1" },
    { "...... DDD", 2048, 1024, LAM_DEPTH_ALL, "b0:2" },
    /* What a middle layer cannot see, the one on top cannot either. */
    { "...... .. DDDDDD", 0, 0, LAM_DEPTH_ALL, "D2:2 b0:4" },
    { "... DDDDDD", 0, 0, LAM_DEPTH_ALL, "D1:3" },
    { "CC.. ..CC", 0, 0, LAM_DEPTH_ALL, "C0:1 C0:1 C1:1 C1:1" },
    { "pp", 0, 0, LAM_DEPTH_ALL, ".0:2p" },
    { "pp.. .Dpp", 0, 0, LAM_DEPTH_ALL, ".0:1 D1:1 .1:2p" },
    { ".pp. .D", 0, 0, LAM_DEPTH_ALL, ".0:1 D1:1 b0:1p b0:1" },
    { "..... .ppp DD", 0, 0, LAM_DEPTH_ALL, "D2:2 b1:2p b0:1" },
    { "DDDD", 0, 1, LAM_DEPTH_ALL, "D0:0.00195312" },
};

static void run_cases(void)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        char layers[256], text[512];
        struct lam_extents out = LAM_EXTENTS_INIT;
        struct lam_image *top = chain_make(cases[i].layers, layers);
        uint64_t length = cases[i].length ? cases[i].length
                                          : lam_image_size(top);
        assert_int_equal(lam_image_map(top, cases[i].offset, length,
                                       cases[i].depth, 0, &out, NULL), 0);
        assert_string_equal(show(&out, text), cases[i].answer);
        lam_extents_deinit(&out);
        image_free(top);
    }
}

static void test_cases(void **state)
{
    (void)state;
    run_cases();
    /* The same if what lies between open ranges is asked for with them. */
    picture_cluster = BLOCK;
    run_cases();
    picture_cluster = 0;
}

/* A layer is asked for what is open, and not at all once nothing is. */
static void test_asks_little(void **state)
{
    (void)state;
    char layers[64];
    struct lam_extents out = LAM_EXTENTS_INIT;
    struct lam_image *top = chain_make("DD..DD.. ..D...DD DDDDDDDD DDDDDDDD",
                                       layers);
    static const unsigned asked[] = { 8, 4, 1, 0 };
    assert_int_equal(lam_image_map(top, 0, 8 * BLOCK, LAM_DEPTH_ALL, 0, &out,
                                   NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct picture *p = image_layer(top, i)->format;
        assert_int_equal(p->asked, asked[i]);
    }
    lam_extents_deinit(&out);
    image_free(top);
}

static void test_range(void **state)
{
    (void)state;
    char layers[64];
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_extents out = LAM_EXTENTS_INIT;
    struct lam_image *top = chain_make("DDDD", layers);
    assert_int_equal(lam_image_map(top, 0, 5 * BLOCK, 1, 0, &out, &err),
                     -EINVAL);
    assert_int_equal(lam_image_map(top, UINT64_MAX, 2, 1, 0, &out, &err),
                     -EINVAL);
    assert_int_equal(lam_image_map(top, 4 * BLOCK, 0, 1, 0, &out, &err), 0);
    assert_int_equal(out.count, 0);
    /* Windows one after the other make one list. */
    assert_int_equal(lam_image_map(top, 0, BLOCK, 1, 0, &out, &err), 0);
    assert_int_equal(lam_image_map(top, BLOCK, BLOCK, 1, 0, &out, &err), 0);
    assert_int_equal(out.count, 1);
    assert_int_equal(out.items[0].length, 2 * BLOCK);
    lam_extents_deinit(&out);
    image_free(top);
}

/* Chains as long as may be open and close without eating the stack, and a
 * fragmented map of one is not slow. */
static void test_deep(void **state)
{
    (void)state;
    enum { LAYERS = 1024, BLOCKS = 4096 };
    struct lam_image *top = NULL;
    static char text[LAYERS][BLOCKS + 1];
    for (unsigned i = 0; i < LAYERS; i++) {
        memset(text[i], '.', BLOCKS);
        for (unsigned b = 0; b < BLOCKS / LAYERS; b++)
            text[i][b * LAYERS + (i * 37) % LAYERS] = 'D';
        struct lam_image *image = layer_make(text[i]);
        image->backing = top;
        top = image;
    }
    picture_cluster = BLOCK;
    assert_int_equal(image_link(top, NULL), 0);
    assert_int_equal(image_depth(top), LAYERS);
    struct lam_extents out = LAM_EXTENTS_INIT;
    assert_int_equal(lam_image_map(top, 0, BLOCKS * BLOCK, LAM_DEPTH_ALL, 0,
                                   &out, NULL), 0);
    assert_int_equal(out.count, BLOCKS);
    for (size_t i = 0; i < out.count; i++)
        assert_int_equal(out.items[i].state, LAM_EXTENT_DATA);
    lam_extents_deinit(&out);
    image_free(top);
    picture_cluster = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_asks_little),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
