/* SPDX-License-Identifier: MIT */
/*
 * test-keyslots.c - power fails while passphrases are added and erased.
 *
 * At every moment, with any of what was not synced on the disk, the image
 * opens by the passphrase that stays; one that is added or erased opens it or
 * does not; and by whatever it opens, the data are there.  One that takes the
 * place of the only one leaves no moment at which neither opens it.
 */
#include "sim.h"

#include "format/luks/volume.h"

enum { DISK = 64 * 1024, SEEDS = 2 };

struct fixture {
    const char *format;
    struct lam_keyring *ring;
    uint8_t *base;
    uint64_t base_length;
    struct lam_io *disk, *record;
    struct lam_image *image;
};

static const struct lam_secret secrets[] = {
    { "stays", "that one", NULL, false, NULL, NULL, 0 },
    { "other", "this one", NULL, false, NULL, NULL, 0 },
};

static int open_image(const struct fixture *f, struct lam_io *io,
                      const char *secret, unsigned flags,
                      struct lam_image **out, struct lam_error *err)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;

    o.flags = flags;
    o.keyring = f->ring;
    o.key_secret = secret;
    return image_open_io(io, f->format, &o, NULL, out, err);
}

static void pattern(uint8_t *buf)
{
    for (size_t i = 0; i < DISK; i++)
        buf[i] = (uint8_t)(i / 512 + i);
}

static void fixture_init(struct fixture *f, const char *format)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    static uint8_t data[DISK];
    struct lam_io *io;

    *f = (struct fixture){ .format = format };
    assert_int_equal(lam_keyring_new(&f->ring, NULL), 0);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(secrets); i++)
        assert_int_equal(lam_keyring_add(f->ring, &secrets[i], NULL), 0);
    o.size = DISK;
    o.encryption = (struct lam_encryption_options){
        .format = "luks", .keyring = f->ring, .key_secret = "stays",
        .iter_time = 1,
    };
    assert_int_equal(lam_io_memory_new(NULL, 0, &f->disk, NULL), 0);
    SIM_CHECK(format_find(format)->create(f->disk, NULL, &o, &err) == 0, 0,
              "create: %s", err.message);
    assert_int_equal(lam_io_record_new(f->disk, &io, NULL), 0);
    SIM_CHECK(open_image(f, io, "stays", LAM_OPEN_WRITE, &f->image, &err) == 0,
              0, "open: %s", err.message);
    pattern(data);
    assert_int_equal(lam_image_write(f->image, data, DISK, 0, 0, NULL), 0);
    assert_int_equal(lam_image_close(f->image, NULL), 0);

    assert_int_equal(lam_io_size(f->disk, &f->base_length, NULL), 0);
    f->base = malloc(f->base_length);
    assert_non_null(f->base);
    assert_int_equal(lam_io_read(f->disk, f->base, f->base_length, 0, NULL), 0);
    assert_int_equal(lam_io_record_new(f->disk, &f->record, NULL), 0);
    assert_int_equal(lam_io_record_new(f->record, &io, NULL), 0);
    SIM_CHECK(open_image(f, io, "stays", LAM_OPEN_WRITE, &f->image, &err) == 0,
              0, "open again: %s", err.message);
}

static void fixture_deinit(struct fixture *f)
{
    assert_int_equal(lam_image_close(f->image, NULL), 0);
    lam_io_close(f->record);
    lam_io_close(f->disk);
    lam_keyring_free(f->ring);
    free(f->base);
}

/* Does @secret open it, and are the data there then? */
static bool opens(const struct fixture *f, struct lam_io *io,
                  const char *secret, size_t at, uint64_t seed)
{
    static uint8_t expected[DISK], got[DISK];
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (open_image(f, io, secret, 0, &image, &err) < 0) {
        SIM_CHECK(!strcmp(err.message, "Invalid password, cannot unlock any "
                          "keyslot"), seed, "%s, event %zu: %s", f->format, at,
                  err.message);
        return false;
    }
    pattern(expected);
    int rc = lam_image_read(image, got, DISK, 0, &err);
    SIM_CHECK(rc == 0 && !memcmp(got, expected, DISK), seed,
              "%s, event %zu: data are lost", f->format, at);
    lam_image_close(image, NULL);
    return true;
}

static bool replay(const struct fixture *f, const char *secret, size_t at,
                   uint64_t seed)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_replay(f->record, at, seed, f->base,
                                          f->base_length, &io, NULL), 0);
    return opens(f, io, secret, at, seed);
}

/* Cut at every moment of events [from, to); @after: what "other" does when all
 * is over. */
static void cut(const struct fixture *f, size_t from, size_t to, bool before,
                bool after)
{
    for (size_t at = from; at <= to; at++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            bool other = replay(f, "other", at, seed);
            SIM_CHECK(replay(f, "stays", at, seed), seed, "%s, event %zu: the "
                      "passphrase that stays does not open it", f->format, at);
            if (at == from)
                SIM_CHECK(other == before, seed, "%s: before", f->format);
            if (at == to)
                SIM_CHECK(other == after, seed, "%s: after", f->format);
        }
    }
}

static size_t events(const struct fixture *f)
{
    size_t n;

    lam_io_record_events(f->record, &n);
    return n;
}

static void change(struct fixture *f, bool add, int slot)
{
    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.active = add;
    o.keyring = f->ring;
    o.slot = slot;
    o.iter_time = 1;
    o.force = slot == 0;
    if (add)
        o.new_secret = "other";
    else
        o.old_secret = "other";
    SIM_CHECK(lam_image_key_slot(f->image, &o, &err) == 0, 0, "%s: %s",
              f->format, err.message);
}

static void run(const char *format, int slot)
{
    struct fixture f;

    fixture_init(&f, format);
    size_t start = events(&f);
    change(&f, true, slot);
    size_t added = events(&f);
    change(&f, false, slot);
    size_t erased = events(&f);
    cut(&f, start, added, false, true);
    cut(&f, added, erased, true, false);
    fixture_deinit(&f);
}

/* The only slot is overwritten: one of the two passphrases opens it always. */
static void test_replaced(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, "luks");
    size_t start = events(&f);
    change(&f, true, 0);
    size_t done = events(&f);
    for (size_t at = start; at <= done; at++)
        for (uint64_t seed = 0; seed < SEEDS; seed++)
            SIM_CHECK(replay(&f, "other", at, seed) ||
                      replay(&f, "stays", at, seed), seed, "event %zu: no "
                      "passphrase opens it", at);
    SIM_CHECK(replay(&f, "other", done, 0) && !replay(&f, "stays", done, 0), 0,
              "%s", "the old passphrase still opens it");
    fixture_deinit(&f);
}

/* Slot 6's entry lies across a sector's end, and slot 7's behind it. */
static void test_luks(void **state)
{
    (void)state;
    run("luks", 1);
    run("luks", 6);
}

static void test_qcow2(void **state)
{
    (void)state;
    run("qcow2", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_luks),
        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
