/* SPDX-License-Identifier: MIT */
/*
 * test-damage.c - bytes of the metadata have changed, and the image is
 * repaired.
 *
 * Whatever the bytes say: what the guest, or a snapshot, could read before it
 * reads afterwards, unless the repair has said that it gives snapshots up.  A
 * second repair finds nothing to do, and says of what is left what the first
 * one said.  An image that is refused is not touched.
 */
#include "sim.h"

#include "base/bytes.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/geometry.h"

enum { DISK = 1 << 19, UNIT = 4096, UNITS = DISK / UNIT, MAX_REGIONS = 256,
       VIEWS = 2 };

struct region {
    uint64_t offset, length;
};

struct subject {
    uint64_t seed, random;
    const struct sim_kind *kind;
    struct region regions[MAX_REGIONS];
    size_t nb_regions;
    char flips[400];            /* what was done, for the message */
};

/* What one view of the image, active or a snapshot, shows of each unit. */
struct view {
    bool readable[UNITS];
    uint8_t bytes[UNITS][UNIT];
};

static struct lam_image *try_open(struct lam_io *disk, unsigned flags,
                                  const char *snapshot)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    o.flags = flags;
    o.snapshot = snapshot;
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    return image_open_io(io, "qcow2", &o, NULL, &image, NULL) < 0 ? NULL
                                                                   : image;
}

/* --------------------------------------------------------------- the image */

static void write_some(struct subject *s, struct lam_image *image,
                       unsigned count)
{
    uint64_t cluster = s->kind->cluster_size;
    uint8_t *buf = malloc(cluster);

    assert_non_null(buf);
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = sim_below(&s->random, DISK / cluster) * cluster;
        unsigned how = (unsigned)sim_below(&s->random, 5);

        memset(buf, (int)sim_random(&s->random), cluster);
        if (how == 0)
            assert_int_equal(lam_image_zero(image, at, cluster, 0, NULL), 0);
        else
            assert_int_equal(lam_image_write(image, buf, cluster, at,
                                             how < 3 ? LAM_WRITE_COMPRESSED
                                                     : 0, NULL), 0);
    }
    free(buf);
}

static struct lam_io *make_image(struct subject *s)
{
    struct lam_io *disk = sim_create(s->kind, DISK, false);
    struct lam_image *image = try_open(disk, LAM_OPEN_WRITE, NULL);
    bool room = s->kind->refcount_bits > 2;

    assert_non_null(image);
    write_some(s, image, 12);
    if (room && sim_below(&s->random, 2))
        assert_int_equal(lam_image_snapshot_create(image, "one", NULL), 0);
    write_some(s, image, 6);
    if (room && sim_below(&s->random, 3) == 0)
        assert_int_equal(lam_image_snapshot_create(image, "two", NULL), 0);
    if (s->kind->version >= 3 && sim_below(&s->random, 3) == 0)
        assert_int_equal(lam_image_bitmap_add(image, "b", 0, 0, NULL), 0);
    write_some(s, image, 4);
    assert_int_equal(lam_image_close(image, NULL), 0);
    return disk;
}

/* -------------------------------------------------------------- its tables */

static void add_region(struct subject *s, uint64_t offset, uint64_t length)
{
    if (length && s->nb_regions < MAX_REGIONS)
        s->regions[s->nb_regions++] = (struct region){ offset, length };
}

static void add_l1(struct subject *s, const uint8_t *bytes,
                   const struct qcow2_geometry *g, uint64_t offset,
                   uint64_t entries)
{
    add_region(s, offset, entries * 8);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t table = entry_offset(be64_get(bytes + offset + i * 8));

        /* More often than the rest: this is what there is most of. */
        for (unsigned k = 0; table && k < 2; k++)
            add_region(s, table, min_u64(g->cluster_size, 512));
    }
}

static void find_regions(struct subject *s, const uint8_t *bytes,
                         uint64_t length)
{
    struct qcow2_header h = { 0 };
    struct qcow2_geometry g;

    s->nb_regions = 0;
    assert_int_equal(header_decode(bytes, length, &h, NULL), 0);
    g = qcow2_geometry_make(h.cluster_bits, h.refcount_order,
                            h.incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    add_region(s, 8, 64);
    add_region(s, 72, h.version >= 3 ? 100 : 40);
    add_l1(s, bytes, &g, h.l1_offset, h.l1_size);
    add_region(s, h.reft_offset, 32);
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t block = be64_get(bytes + h.reft_offset + i * 8);

        if (block)
            add_region(s, block, min_u64(g.cluster_size, 200));
    }
    if (h.nb_snapshots) {
        add_region(s, h.snapshots_offset, 80);
        add_region(s, h.snapshots_offset, 64 * h.nb_snapshots);
        add_l1(s, bytes, &g, be64_get(bytes + h.snapshots_offset),
               be32_get(bytes + h.snapshots_offset + 8));
    }
    if (header_has_bitmaps(&h))
        add_region(s, h.bitmap_directory_offset, h.bitmap_directory_size);
    header_deinit(&h);
}

static void damage(struct subject *s, uint8_t *bytes, uint64_t length)
{
    unsigned count = 1 + (unsigned)sim_below(&s->random, 4);
    size_t used = 0;

    find_regions(s, bytes, length);
    for (unsigned i = 0; i < count; i++) {
        const struct region *r =
            &s->regions[sim_below(&s->random, s->nb_regions)];
        uint64_t at = r->offset + sim_below(&s->random, r->length);

        if (at >= length)
            continue;
        uint8_t old = bytes[at];
        if (sim_below(&s->random, 2))
            bytes[at] ^= (uint8_t)(1u << sim_below(&s->random, 8));
        else
            bytes[at] = (uint8_t)sim_random(&s->random);
        used += (size_t)snprintf(s->flips + used, sizeof s->flips - used,
                                 " %#llx: %02x -> %02x;",
                                 (unsigned long long)at, old, bytes[at]);
    }
}

/* ---------------------------------------------------------------- the views */

static void look(struct lam_io *disk, const char *snapshot, struct view *v)
{
    struct lam_image *image = try_open(disk, 0, snapshot);

    memset(v, 0, sizeof *v);
    if (!image)
        return;
    for (uint64_t i = 0; i < UNITS; i++)
        v->readable[i] = (i + 1) * UNIT <= lam_image_size(image) &&
                         lam_image_read(image, v->bytes[i], UNIT, i * UNIT,
                                        NULL) == 0;
    lam_image_close(image, NULL);
}

static void look_at_all(struct lam_io *disk, struct view views[VIEWS])
{
    look(disk, NULL, &views[0]);
    look(disk, "1", &views[1]);
}

static void compare(const struct subject *s, const struct view *before,
                    const struct view *after, unsigned views)
{
    for (unsigned k = 0; k < views; k++) {
        for (unsigned i = 0; i < UNITS; i++) {
            if (!before[k].readable[i])
                continue;
            SIM_CHECK(after[k].readable[i], s->seed, "kind %s,%s view %u: unit "
                      "%u cannot be read any more", s->kind->name, s->flips, k,
                      i);
            SIM_CHECK(!memcmp(before[k].bytes[i], after[k].bytes[i], UNIT),
                      s->seed, "kind %s,%s view %u: unit %u has changed",
                      s->kind->name, s->flips, k, i);
        }
    }
}

/* --------------------------------------------------------------- the repair */

struct verdict {
    bool opened;
    int rc;
    bool gave_up;               /* said that a snapshot is lost */
    struct lam_check_result result;
    struct lam_error err;
};

static void on_finding(void *opaque, enum lam_finding_kind kind,
                       const char *text)
{
    struct verdict *v = opaque;

    (void)kind;
    if (getenv("LAM_SEED"))
        print_message("    %s\n", text);
    if (!strncmp(text, "Discarding", 10) && strstr(text, "snapshots"))
        v->gave_up = true;
}

static struct verdict repair(struct lam_io *disk, unsigned what)
{
    struct lam_image *image = try_open(disk, LAM_OPEN_WRITE | LAM_OPEN_CHECK,
                                       NULL);
    struct verdict v = { .opened = image, .err = LAM_ERROR_INIT };

    if (!image)
        return v;
    v.rc = lam_image_repair(image, what, on_finding, &v, &v.result, &v.err);
    lam_image_close(image, NULL);
    return v;
}

static void expect_same_bytes(const struct subject *s, struct lam_io *disk,
                              const uint8_t *bytes, uint64_t length,
                              const char *when)
{
    uint64_t now;
    uint8_t *after = sim_bytes(disk, &now);

    SIM_CHECK(now == length && !memcmp(after, bytes, length), s->seed,
              "kind %s,%s the image has changed: %s", s->kind->name, s->flips,
              when);
    free(after);
}

static void expect_nothing_left(const struct subject *s, struct lam_io *disk,
                                unsigned what, const struct verdict *first)
{
    uint64_t length;
    uint8_t *bytes = sim_bytes(disk, &length);
    struct verdict again = repair(disk, what);
    const struct lam_check_result *r = &again.result;

    SIM_CHECK(again.opened, s->seed, "kind %s,%s refused after the repair",
              s->kind->name, s->flips);
    SIM_CHECK(!r->corruptions_fixed && !r->leaks_fixed && !again.gave_up,
              s->seed, "kind %s,%s the second repair has mended %llu "
              "corruptions and %llu leaks", s->kind->name, s->flips,
              (unsigned long long)r->corruptions_fixed,
              (unsigned long long)r->leaks_fixed);
    SIM_CHECK(again.rc == first->rc, s->seed, "kind %s,%s first %d (%s), then "
              "%d (%s)", s->kind->name, s->flips, first->rc, first->err.message,
              again.rc, again.err.message);
    SIM_CHECK(first->rc < 0 || (r->corruptions <= first->result.corruptions &&
                                r->leaks <= first->result.leaks &&
                                r->check_errors <=
                                first->result.check_errors), s->seed,
              "kind %s,%s more is wrong than the repair said", s->kind->name,
              s->flips);
    expect_same_bytes(s, disk, bytes, length, "by the second repair");
    free(bytes);
}

/* What became of the images, so that a test that refuses all is seen. */
static struct { unsigned refused, clean, left, failed, gave_up; } tally;

static void count(const struct verdict *v)
{
    const struct lam_check_result *r = &v->result;

    if (!v->opened)
        tally.refused++;
    else if (v->rc < 0)
        tally.failed++;
    else if (r->corruptions || r->leaks || r->check_errors)
        tally.left++;
    else
        tally.clean++;
    tally.gave_up += v->gave_up;
}

static void run(uint64_t seed)
{
    static struct view before[VIEWS], after[VIEWS];
    struct subject s = { .seed = seed, .random = seed };
    uint64_t length;

    s.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    struct lam_io *sound = make_image(&s);
    uint8_t *bytes = sim_bytes(sound, &length);
    struct lam_io *disk;

    lam_io_close(sound);
    damage(&s, bytes, length);
    assert_int_equal(lam_io_memory_new(bytes, length, &disk, NULL), 0);
    look_at_all(disk, before);
    unsigned what = seed % 4 ? LAM_REPAIR_ALL : LAM_REPAIR_LEAKS;
    struct verdict first = repair(disk, what);
    count(&first);
    if (!first.opened) {
        expect_same_bytes(&s, disk, bytes, length, "though it was refused");
    } else {
        look_at_all(disk, after);
        compare(&s, before, after, first.gave_up ? 1 : VIEWS);
        expect_nothing_left(&s, disk, what, &first);
    }
    lam_io_close(disk);
    free(bytes);
}

/* Where a second repair once found something to do: an entry named what the
 * file grew to have, a table that may not be trusted was written to, entries
 * came to be repaired too early, an entry named the end of the file and more,
 * the table that a rebuild replaces counted as wrong. */
static const uint64_t odd_seeds[] = {
    0x14a2, 0x5ffd, 0x7b72, 0x83af, 0x28ede, 0x426fd,
};

static void test_damage(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(600, &first, &end);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(odd_seeds) && end - first > 1; i++)
        run(odd_seeds[i]);
    for (uint64_t seed = first; seed < end; seed++)
        run(seed);
    print_message("%u refused, %u clean afterwards, %u with something left, %u "
                  "failed; %u gave something up\n", tally.refused, tally.clean,
                  tally.left, tally.failed, tally.gave_up);
    if (end - first >= 600)
        assert_true(tally.clean > 50 && tally.left > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_damage) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
