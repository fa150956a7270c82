/* SPDX-License-Identifier: MIT */
/*
 * fuzz-change.c - any bytes as a qcow2 file, which is repaired and changed.
 *
 * Whatever the bytes say: what the disk and each snapshot showed before, they
 * show afterwards, but for what the change is about, also if it fails.  An
 * image in which check finds nothing wrong has nothing wrong afterwards, but
 * for COPIED bits that are missing where two entries shared a cluster.  A
 * second repair finds nothing to do.
 *
 * Encrypted images have the passphrase "fuzz".  Those that want a data file are
 * given one, with something in it.
 *
 * Of an image whose counters are too low, or which has the COPIED bit where two
 * need a cluster, nobody can know what a write would hit, so such an image is
 * changed after a repair only.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "image/image.h"
#include "io/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNIT = 4096, UNITS = 250, VIEWS = 3, MAX_FILE = 4 << 20,
       DATA_BYTES = 400 << 10, FEATURES = 79, DATA_FILE = 4,
       MAX_ITERATIONS = 5000 };

/* The image file, and the data file beside it. */
struct disk {
    struct lam_io *file, *data;
};

/* What the disk (view 0), or a snapshot, shows of the first UNITS units. */
struct view {
    bool opened;
    uint64_t size;
    bool readable[UNITS];
    uint8_t bytes[UNITS][UNIT];
};

struct verdict {
    bool opened;
    int rc;
    bool gave_up;               /* said that something is lost */
    bool unsafe;                /* a write may hit what is in use */
    bool verbose;
    uint64_t harmless;          /* COPIED bits that could be set */
    struct lam_check_result result;
};

static struct view before[VIEWS], after[VIEWS];
static const char *step = "";

static void complain(const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "%s: %s (%llu, %llu)\n", step, what, (unsigned long long)a,
            (unsigned long long)b);
    abort();
}

static const struct lam_keyring *keyring(void)
{
    static const struct lam_secret secret = { .id = "s", .data = "fuzz" };
    static struct lam_keyring *ring;

    if (!ring && (lam_keyring_new(&ring, NULL) < 0 ||
                  lam_keyring_add(ring, &secret, NULL) < 0))
        abort();
    return ring;
}

/* Whether the header asks for one. */
static bool wants_data(const struct disk *disk)
{
    uint8_t bits = 0;
    uint64_t length;

    return lam_io_size(disk->file, &length, NULL) == 0 && length > FEATURES &&
           lam_io_read(disk->file, &bits, 1, FEATURES, NULL) == 0 &&
           bits & DATA_FILE;
}

static struct lam_io *record_of(struct lam_io *inner)
{
    struct lam_io *io;

    if (lam_io_record_new(inner, &io, NULL) < 0)
        abort();
    return io;
}

static struct lam_image *try_open(const struct disk *disk, unsigned flags,
                                  const char *snapshot)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *data = NULL;

    o.flags = flags | LAM_OPEN_NO_BACKING | LAM_OPEN_UNMAP;
    o.policy = LAM_POLICY_NONE;
    o.snapshot = snapshot;
    o.keyring = keyring();
    o.key_secret = "s";
    if (wants_data(disk))
        data = record_of(disk->data);
    if (image_open_ios(record_of(disk->file), data, "qcow2", &o, NULL, &image,
                       &err) == 0)
        return image;
    if (!err.message[0])
        complain("no reason to refuse it", 0, 0);
    return NULL;
}

static struct lam_io *memory_of(const void *bytes, uint64_t length)
{
    struct lam_io *io;

    if (lam_io_memory_new(bytes, length, &io, NULL) < 0)
        abort();
    return io;
}

static uint8_t *bytes_of(struct lam_io *io, uint64_t *length)
{
    if (lam_io_size(io, length, NULL) < 0)
        abort();
    uint8_t *bytes = malloc(*length ? *length : 1);
    if (!bytes || lam_io_read(io, bytes, *length, 0, NULL) < 0)
        abort();
    return bytes;
}

static struct disk disk_of(const void *bytes, uint64_t length)
{
    static uint8_t data[DATA_BYTES];

    for (size_t i = 0; !data[0] && i < sizeof data; i++)
        data[i] = (uint8_t)(1 + i / 512);
    return (struct disk){ memory_of(bytes, length),
                          memory_of(data, sizeof data) };
}

static struct disk copy_of(const struct disk *disk)
{
    uint64_t length, data_length;
    lam_autofree uint8_t *bytes = bytes_of(disk->file, &length);
    lam_autofree uint8_t *data = bytes_of(disk->data, &data_length);

    return (struct disk){ memory_of(bytes, length),
                          memory_of(data, data_length) };
}

static void disk_close(struct disk *disk)
{
    lam_io_close(disk->file);
    lam_io_close(disk->data);
}

/* PBKDF2 takes what time it is told to: here it is only in the way. */
static bool takes_long(const struct disk *disk)
{
    struct lam_image *image = try_open(disk, LAM_OPEN_METADATA, NULL);
    struct lam_image_info *info = NULL;
    bool slow = false;

    if (image && lam_image_info(image, &info, NULL) == 0 && info->encryption) {
        slow = info->encryption->master_key_iterations > MAX_ITERATIONS;
        for (size_t i = 0; i < LAM_KEY_SLOTS; i++)
            slow |= info->encryption->slots[i].iterations > MAX_ITERATIONS;
    }
    lam_image_info_free(info);
    lam_image_close(image, NULL);
    return slow;
}

/* ---------------------------------------------------------------- looking */

static void look(const struct disk *disk, const char *snapshot, struct view *v)
{
    struct lam_image *image = try_open(disk, 0, snapshot);

    v->opened = image;
    v->size = image ? lam_image_size(image) : 0;
    for (uint64_t i = 0; i < UNITS; i++)
        v->readable[i] = (i + 1) * UNIT <= v->size &&
                         lam_image_read(image, v->bytes[i], UNIT, i * UNIT,
                                        NULL) == 0;
    lam_image_close(image, NULL);
}

static void look_at_all(const struct disk *disk, struct view *views)
{
    static const char *const names[VIEWS] = { NULL, "one", "two" };

    for (unsigned i = 0; i < VIEWS; i++)
        look(disk, names[i], &views[i]);
}

/* All but the bytes [from, end) are as they were. */
static void expect_same(const struct view *was, const struct view *is,
                        uint64_t from, uint64_t end)
{
    for (uint64_t i = 0; i < UNITS; i++) {
        if (!was->readable[i] || (i * UNIT < end && (i + 1) * UNIT > from))
            continue;
        if (!is->readable[i])
            complain("cannot be read any more: unit, of view", i,
                     (uint64_t)(was - before));
        if (memcmp(was->bytes[i], is->bytes[i], UNIT) != 0)
            complain("reads something else: unit, of view", i,
                     (uint64_t)(was - before));
    }
}

/* --------------------------------------------------------------- checking */

static void on_finding(void *opaque, enum lam_finding_kind kind,
                       const char *text)
{
    struct verdict *v = opaque;
    unsigned long long cluster, count, references;

    if (v->verbose)
        fprintf(stderr, "    %s\n", text);
    if (!strncmp(text, "Discarding", 10))
        v->gave_up = true;
    if (sscanf(text, "ERROR cluster %llu refcount=%llu reference=%llu",
               &cluster, &count, &references) == 3 && count < references)
        v->unsafe = true;
    if (strstr(text, "COPIED") || strstr(text, "refcount block") ||
        strstr(text, "refcount table"))
        v->unsafe = true;
    if (!strncmp(text, "ERROR OFLAG_COPIED", 18) &&
        strstr(text, "refcount=1"))
        v->harmless++;
    /* What could not be looked at, or is not counted, may need what counts as
     * free. */
    if (kind == LAM_FINDING_ERROR || strstr(text, "compressed cluster"))
        v->unsafe = true;
}

static bool verbose(void)
{
    return getenv("FUZZ_VERBOSE") != NULL;
}

static struct verdict check(const struct disk *disk)
{
    struct lam_image *image = try_open(disk, LAM_OPEN_CHECK, NULL);
    struct verdict v = { .opened = image, .verbose = verbose() };

    if (image)
        v.rc = lam_image_check(image, on_finding, &v, &v.result, NULL);
    lam_image_close(image, NULL);
    return v;
}

static struct verdict repair(const struct disk *disk, unsigned what)
{
    struct lam_image *image = try_open(disk, LAM_OPEN_CHECK | LAM_OPEN_WRITE,
                                       NULL);
    struct verdict v = { .opened = image, .verbose = verbose() };

    if (image)
        v.rc = lam_image_repair(image, what, on_finding, &v, &v.result, NULL);
    lam_image_close(image, NULL);
    return v;
}

static bool is_clean(const struct verdict *v)
{
    return v->opened && v->rc == 0 && v->result.corruptions <= v->harmless &&
           !v->result.check_errors;
}

static void expect_nothing_to_do(const struct disk *disk, unsigned what,
                                 const struct verdict *first)
{
    uint64_t length, again;
    uint8_t *bytes = bytes_of(disk->file, &length);
    struct verdict v = repair(disk, what);
    uint8_t *now = bytes_of(disk->file, &again);

    if (!v.opened)
        complain("refused after the repair", 0, 0);
    if (v.rc != first->rc)
        complain("another result", (uint64_t)-first->rc, (uint64_t)-v.rc);
    if (v.result.corruptions_fixed || v.result.leaks_fixed)
        complain("repaired again", v.result.corruptions_fixed,
                 v.result.leaks_fixed);
    if (length != again || memcmp(bytes, now, length) != 0)
        complain("changed by the second repair", length, again);
    free(bytes);
    free(now);
}

static void run_repair(const uint8_t *data, size_t size, unsigned what,
                       const char *name)
{
    struct disk disk = disk_of(data, size);

    step = name;
    struct verdict first = repair(&disk, what);
    if (first.opened) {
        look_at_all(&disk, after);
        for (unsigned i = 0; i < (first.gave_up ? 1 : VIEWS); i++)
            expect_same(&before[i], &after[i], 0, 0);
        expect_nothing_to_do(&disk, what, &first);
    }
    disk_close(&disk);
}

/* --------------------------------------------------------------- changing */

/* What a change is about: the bytes [from, end) of view @view (all of view 0,
 * if that is VIEWS); and a snapshot that goes. */
struct effect {
    uint64_t from, end;
    unsigned gone;              /* view; 0: none */
    unsigned shown;             /* view 0 shows what this one did; 0: itself */
};

typedef int change_fn(struct lam_image *image, uint64_t number,
                      struct effect *effect, struct lam_error *err);

static uint64_t place(const struct lam_image *image, uint64_t number,
                      uint64_t length)
{
    uint64_t size = min_u64(lam_image_size(image), (uint64_t)UNITS * UNIT);

    return size > length ? number % (size - length) : 0;
}

static int change_write(struct lam_image *image, uint64_t number,
                        struct effect *effect, struct lam_error *err)
{
    uint8_t bytes[6000], back[sizeof bytes];
    uint64_t at = place(image, number, sizeof bytes);

    memset(bytes, 0xa5, sizeof bytes);
    *effect = (struct effect){ .from = at, .end = at + sizeof bytes };
    int rc = lam_image_write(image, bytes, sizeof bytes, at, 0, err);
    if (rc == 0 && (lam_image_read(image, back, sizeof back, at, NULL) < 0 ||
                    memcmp(bytes, back, sizeof back) != 0))
        complain("what was written is not there", at, 0);
    return rc;
}

static int change_compressed(struct lam_image *image, uint64_t number,
                             struct effect *effect, struct lam_error *err)
{
    uint64_t cluster = lam_image_cluster_size(image);
    uint64_t at = place(image, number, cluster) / cluster * cluster;
    uint8_t *bytes = calloc(1, cluster);

    *effect = (struct effect){ .from = at, .end = at + cluster };
    if (!bytes)
        return -ENOMEM;
    bytes[cluster - 1] = 1;
    int rc = lam_image_write(image, bytes, cluster, at, LAM_WRITE_COMPRESSED,
                             err);
    free(bytes);
    return rc;
}

static int change_zero(struct lam_image *image, uint64_t number,
                       struct effect *effect, struct lam_error *err)
{
    uint64_t at = place(image, number, 70000);
    uint64_t length = min_u64(70000, lam_image_size(image) - at);

    *effect = (struct effect){ .from = at, .end = at + length };
    return lam_image_zero(image, at, length, number & 1 ? LAM_ZERO_UNMAP : 0,
                          err);
}

static int change_discard(struct lam_image *image, uint64_t number,
                          struct effect *effect, struct lam_error *err)
{
    uint64_t at = place(image, number, 150000);
    uint64_t length = min_u64(150000, lam_image_size(image) - at);

    *effect = (struct effect){ .from = at, .end = at + length };
    return lam_image_discard(image, at, length, err);
}

static int change_create_snapshot(struct lam_image *image, uint64_t number,
                                  struct effect *effect, struct lam_error *err)
{
    (void)number;
    (void)effect;
    return lam_image_snapshot_create(image, "new", err);
}

static int change_apply(struct lam_image *image, uint64_t number,
                        struct effect *effect, struct lam_error *err)
{
    bool first = number & 1;
    int rc = lam_image_snapshot_apply(image, first ? "1" : "2", err);

    if (rc == 0)
        effect->shown = first ? 1 : 2;
    return rc;
}

static int change_delete(struct lam_image *image, uint64_t number,
                         struct effect *effect, struct lam_error *err)
{
    bool first = number & 1;
    int rc = lam_image_snapshot_delete(image, first ? "one" : "two", err);

    if (rc == 0)
        effect->gone = first ? 1 : 2;
    return rc;
}

static int change_resize(struct lam_image *image, uint64_t number,
                         struct effect *effect, struct lam_error *err)
{
    uint64_t size = lam_image_size(image);
    uint64_t to = number & 1 ? size + (1 << 20) : size / 2 / 512 * 512;

    if (to < size)
        *effect = (struct effect){ .from = to, .end = UINT64_MAX };
    return lam_image_truncate(image, to, LAM_TRUNCATE_SHRINK, err);
}

static int change_amend(struct lam_image *image, uint64_t number,
                        struct effect *effect, struct lam_error *err)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;

    (void)effect;
    if (number % 3 == 0)
        o.version = number & 8 ? 2 : 3;
    else if (number % 3 == 1)
        o.refcount_bits = 1u << (number >> 4) % 7;
    else
        o.lazy_refcounts = number & 8 ? LAM_SETTING_ON : LAM_SETTING_OFF;
    return lam_image_amend(image, &o, err);
}

static int change_bitmaps(struct lam_image *image, uint64_t number,
                          struct effect *effect, struct lam_error *err)
{
    (void)effect;
    switch (number % 6) {
    case 0:
        return lam_image_bitmap_add(image, "new", 0, 0, err);
    case 1:
        return lam_image_bitmap_remove(image, "one", err);
    case 2:
        return lam_image_bitmap_clear(image, "one", err);
    case 3:
        return lam_image_bitmap_enable(image, "two", err);
    case 4:
        return lam_image_bitmap_disable(image, "one", err);
    default:
        return lam_image_bitmap_merge(image, "one", image, "two", err);
    }
}

static const struct {
    const char *name;
    change_fn *run;
} changes[] = {
    { "write", change_write },
    { "compressed write", change_compressed },
    { "zero", change_zero },
    { "discard", change_discard },
    { "snapshot create", change_create_snapshot },
    { "snapshot apply", change_apply },
    { "snapshot delete", change_delete },
    { "resize", change_resize },
    { "amend", change_amend },
    { "bitmap", change_bitmaps },
};

static void compare_views(const struct effect *e)
{
    const struct view *first = &before[e->shown];

    expect_same(first, &after[0], e->from, e->end);
    for (unsigned i = 1; i < VIEWS; i++)
        if (i != e->gone)
            expect_same(&before[i], &after[i], 0, 0);
}

/* @base: what check says of the image as it is. */
static void run_change(const struct disk *base, const struct verdict *was,
                       unsigned which, uint64_t number)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct effect effect = { 0 };
    struct disk disk = copy_of(base);

    step = changes[which].name;
    struct lam_image *image = try_open(&disk, LAM_OPEN_WRITE, NULL);
    if (image && lam_image_size(image)) {
        int rc = changes[which].run(image, number, &effect, &err);
        if (verbose())
            fprintf(stderr, "%s %llu: %d %s\n", step,
                    (unsigned long long)number, rc, err.message);
        if (rc < 0 && !err.message[0])
            complain("fails without a reason", (uint64_t)-rc, 0);
    }
    lam_image_close(image, NULL);
    look_at_all(&disk, after);
    if (image)
        compare_views(&effect);
    struct verdict then = check(&disk);
    if (is_clean(was) && !is_clean(&then))
        complain("the image is not sound any more", then.result.corruptions,
                 then.result.check_errors);
    disk_close(&disk);
}

static uint64_t hash(const uint8_t *data, size_t size)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
    return sum ^ sum >> 29;
}

static void run_changes(const struct disk *disk, uint64_t number)
{
    struct verdict was = check(disk);

    if (!was.opened || was.rc < 0 || was.unsafe)
        return;
    look_at_all(disk, before);
    for (unsigned i = 0; i < LAM_ARRAY_SIZE(changes); i++)
        run_change(disk, &was, i, number = number * 6364136223846793005u + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_FILE)
        return 0;
    struct disk disk = disk_of(data, size);
    uint64_t number = hash(data, size) >> 8;

    step = "look";
    if (takes_long(&disk)) {
        disk_close(&disk);
        return 0;
    }
    look_at_all(&disk, before);
    run_repair(data, size, LAM_REPAIR_LEAKS, "repair leaks");
    run_repair(data, size, LAM_REPAIR_ALL, "repair all");
    run_changes(&disk, number);
    step = "repair before a change";
    struct verdict first = repair(&disk, LAM_REPAIR_ALL);
    if (first.opened && (first.result.corruptions_fixed ||
                         first.result.leaks_fixed))
        run_changes(&disk, number + 1);
    disk_close(&disk);
    return 0;
}
