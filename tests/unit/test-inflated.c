/* SPDX-License-Identifier: MIT */
/*
 * test-inflated.c - compressed clusters kept inflated: read once, shared by
 * threads, and never the bytes of a cluster that was there before.
 */
#include "unit.h"

#include <pthread.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/qcow2/qcow2.h"
#include "image/image.h"

enum {
    CLUSTER = 64 << 10,
    CLUSTERS = 128,             /* twice what is kept */
    PART = 4096,
    THREADS = 8,
    VERSIONS = 12,
};

static atomic_int payload_reads;
static ssize_t (*plain_readv)(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset);

static ssize_t counting_readv(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset)
{
    atomic_fetch_add(&payload_reads, 1);
    return plain_readv(io, iov, iovcnt, offset);
}

static struct lam_io_ops ops;

/* Compresses to a half, whichever the version, and all of it differs from that
 * of the others. */
static uint8_t byte_at(unsigned number, unsigned version, unsigned i)
{
    uint32_t noise = (i + 1) * 2654435761u;

    noise ^= noise >> 15;
    return (uint8_t)((noise * 2246822519u >> 28) + number * 31 + version * 17);
}

static void fill(uint8_t *cluster, unsigned number, unsigned version)
{
    for (unsigned i = 0; i < CLUSTER; i++)
        cluster[i] = byte_at(number, version, i);
}

static void write_cluster(struct lam_image *image, unsigned number,
                          unsigned version)
{
    static uint8_t cluster[CLUSTER];
    struct lam_error err = LAM_ERROR_INIT;

    fill(cluster, number, version);
    assert_works(lam_image_write(image, cluster, CLUSTER,
                                 (uint64_t)number * CLUSTER,
                                 LAM_WRITE_COMPRESSED, &err), &err);
}

static bool part_is_right(struct lam_image *image, unsigned number,
                          unsigned version, unsigned at)
{
    uint8_t part[PART];
    int rc = lam_image_read(image, part, PART,
                            (uint64_t)number * CLUSTER + at, NULL);

    for (unsigned i = 0; i < PART && rc == 0; i++)
        if (part[i] != byte_at(number, version, at + i))
            return false;
    return rc == 0;
}

static struct lam_image *image_new(void)
{
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    c.format = "qcow2";
    c.size = (uint64_t)CLUSTERS * CLUSTER;
    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    assert_works(format_qcow2.create(io, NULL, &c, &err), &err);
    ops = *io->ops;
    plain_readv = ops.readv;
    ops.readv = counting_readv;
    io->ops = &ops;
    assert_works(image_open_io(io, "qcow2", &o, NULL, &image, &err), &err);
    return image;
}

static void image_end(struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(lam_image_close(image, &err), &err);
}

static void test_read_once(void **state)
{
    (void)state;
    struct lam_image *image = image_new();

    write_cluster(image, 3, 0);
    assert_true(part_is_right(image, 3, 0, 0));
    int before = atomic_load(&payload_reads);
    for (unsigned at = 0; at < CLUSTER; at += PART)
        assert_true(part_is_right(image, 3, 0, at));
    assert_int_equal(atomic_load(&payload_reads), before);

    /* Dropped when nobody has used it between two cleanings. */
    struct qcow2 *q = image->format;
    qcow2_clean(q);
    qcow2_clean(q);
    assert_true(part_is_right(image, 3, 0, PART));
    assert_true(atomic_load(&payload_reads) > before);
    image_end(image);
}

static int reads_for(struct lam_image *image, unsigned number, unsigned at)
{
    int before = atomic_load(&payload_reads);

    assert_true(part_is_right(image, number, 1, at));
    return atomic_load(&payload_reads) - before;
}

/* Here and there in more than can be kept: the beginning of a cluster first,
 * the rest when somebody wants it. */
static void test_beginning_only(void **state)
{
    (void)state;
    struct lam_image *image = image_new();

    for (unsigned i = 0; i < CLUSTERS; i++)
        write_cluster(image, i, 1);
    for (unsigned i = 0; i < CLUSTERS; i++)
        part_is_right(image, (i * 37 + 5) % CLUSTERS, 1, 3 * PART);
    /* The first two of those are gone. */
    assert_int_equal(reads_for(image, 5, 3 * PART), 1);
    assert_int_equal(reads_for(image, 42, PART), 1);
    assert_int_equal(reads_for(image, 5, 0), 0);
    assert_int_equal(reads_for(image, 42, 15 * PART), 1);
    assert_int_equal(reads_for(image, 5, 5 * PART), 1);
    for (unsigned at = 0; at < CLUSTER; at += PART) {
        assert_int_equal(reads_for(image, 5, at), 0);
        assert_int_equal(reads_for(image, 42, at), 0);
    }
    /* Who reads on pays once for each cluster, if at all. */
    int once = 0;
    for (unsigned at = 0; at < 10 * CLUSTER; at += PART)
        once += reads_for(image, 60 + at / CLUSTER, at % CLUSTER);
    assert_in_range(once, 1, 10 + 1);
    image_end(image);
}

static uint64_t place_of_first(struct lam_image *image)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(lam_image_map(image, 0, CLUSTER, 1, 0, &map, &err), &err);
    assert_int_equal(map.items[0].state, LAM_EXTENT_COMPRESSED);
    return map.items[0].host_offset << 16 | map.items[0].host_length;
}

/* Payloads of one size come and go: their places are used again, with other
 * bytes and the same name. */
static void test_places_used_again(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = image_new();

    uint64_t places[VERSIONS];
    unsigned again = 0;

    for (unsigned version = 0; version < VERSIONS; version++) {
        write_cluster(image, 0, version);
        places[version] = place_of_first(image);
        for (unsigned i = 0; i < version; i++)
            again += places[i] == places[version];
        assert_true(part_is_right(image, 0, version, 0x7000));
        assert_works(lam_image_discard(image, 0, CLUSTER, &err), &err);
        assert_works(lam_image_flush(image, &err), &err);
    }
    assert_true(again > 0);
    image_end(image);
}

/* ------------------------------------------------------------------ threads */

struct reader {
    pthread_t thread;
    struct lam_image *image;
    unsigned number;
    bool right;
};

static void *read_parts(void *opaque)
{
    struct reader *r = opaque;

    r->right = true;
    for (unsigned i = 0; i < 2000 && r->right; i++) {
        /* A few that all want, beginnings and ends, and more than there is
         * room for. */
        unsigned cluster = i % 3 ? i / 64 * 5 % CLUSTERS
                                 : (i * 37 + r->number) % CLUSTERS;

        r->right = part_is_right(r->image, cluster, 1,
                                 (i * 7 + r->number) % 16 * PART);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct lam_image *image = image_new();
    struct reader readers[THREADS];

    for (unsigned i = 0; i < CLUSTERS; i++)
        write_cluster(image, i, 1);
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){ .image = image, .number = i };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_parts,
                                        &readers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].right);
    }
    image_end(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_once),
        cmocka_unit_test(test_beginning_only),
        cmocka_unit_test(test_places_used_again),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
