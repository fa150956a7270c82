/* SPDX-License-Identifier: MIT */
/*
 * parallels.c - Parallels images: a header, a table of 4 bytes a cluster, and
 * the clusters.
 *
 * Two magics.  Under the old one an entry counts sectors, under the new one
 * clusters; 0 is absent in both.  While an image is being written to, the
 * header says so.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/tables/tables.h"
#include "format/values.h"

enum {                          /* every field little-endian */
    PH_MAGIC = 0,               /* 16 bytes */
    PH_VERSION = 16,            /* u32  2 */
    PH_HEADS = 20,              /* u32 */
    PH_CYLINDERS = 24,          /* u32 */
    PH_TRACKS = 28,             /* u32  sectors a cluster */
    PH_ENTRIES = 32,            /* u32  of the table */
    PH_SECTORS = 36,            /* u64  of the disk; u32 with the old magic */
    PH_IN_USE = 44,             /* u32  PARALLELS_IN_USE while written to */
    PH_DATA_OFFSET = 48,        /* u32  sectors; 0: behind the table */
    PH_FLAGS = 52,              /* u32 */
    PH_EXTENSION = 56,          /* u64  sectors; 0: none */
    PH_BYTES = 64,
};

enum { HEADS = 16, SECTORS_PER_TRACK = 32, SECTOR = 512 };
#define PARALLELS_IN_USE UINT32_C(0x746f6e59)
static const char magic_old[] = "WithoutFreeSpace";
static const char magic_new[] = "WithouFreSpacExt";
static const uint64_t CLUSTER_MAX = LAM_GIB;
static const uint64_t ENTRIES_MAX = UINT64_C(1) << 30;

struct parallels {
    struct tables t;            /* first: see tables.h */
    bool counts_sectors;        /* the old magic */
    uint64_t first_free;        /* new clusters are not in front of it */
    bool in_use;                /* the header said so when it was opened */
    bool wrong_start;           /* the data offset is impossible */
};

static bool has_magic(const uint8_t *head, const char *magic)
{
    return !memcmp(head, magic, 16);
}

static int parallels_probe(const uint8_t *head, size_t length)
{
    return length >= PH_BYTES && le32_get(head + PH_VERSION) == 2 &&
           (has_magic(head, magic_old) || has_magic(head, magic_new))
        ? 100 : 0;
}

/* ------------------------------------------------------------ entries */

static uint64_t unit_of(const struct tables *t)
{
    const struct parallels *p = (const struct parallels *)t;
    return p->counts_sectors ? SECTOR : t->cluster;
}

static struct entry decode(const struct tables *t, uint64_t raw)
{
    return (struct entry){ .kind = raw ? ENTRY_DATA : ENTRY_ABSENT,
                           .host = raw * unit_of(t) };
}

static uint64_t encode(const struct tables *t, uint64_t host)
{
    return host / unit_of(t);
}

static int mark(struct tables *t, uint32_t value, struct lam_error *err)
{
    uint8_t raw[4];

    le32_put(raw, value);
    int rc = lam_io_write(t->io, raw, sizeof raw, PH_IN_USE, err);
    return rc < 0 ? rc : lam_io_flush(t->io, err);
}

static int begin_changes(struct tables *t, struct lam_error *err)
{
    return mark(t, PARALLELS_IN_USE, err);
}

static const struct tables_layout layout = {
    .name = "parallels",
    .entry_bytes = 4,
    .leaks_at_end = true,
    .parts_clusters = true,
    .decode = decode,
    .encode = encode,
    .begin_changes = begin_changes,
};

/* ------------------------------------------------------------ opening */

/* Where data begin, as the header has it or, if that cannot be, as the table
 * allows: nothing but new clusters depends on it. */
static uint64_t choose_start(struct parallels *p, const uint8_t *head,
                             uint64_t length)
{
    uint64_t table = PH_BYTES + le32_get(head + PH_ENTRIES) * UINT64_C(4);
    uint64_t start = le32_get(head + PH_DATA_OFFSET) * (uint64_t)SECTOR;

    if (p->counts_sectors)
        return start;
    uint64_t least = div_up(table, p->t.cluster) * p->t.cluster;
    p->wrong_start = start < least || start > length;
    return p->wrong_start ? least : start;
}

static int check_header(struct parallels *p, const uint8_t *head,
                        uint64_t length, struct lam_error *err)
{
    struct tables *t = &p->t;
    uint64_t entries = le32_get(head + PH_ENTRIES);
    uint64_t sectors = le64_get(head + PH_SECTORS);
    uint64_t behind = align_up(PH_BYTES + entries * 4, SECTOR);

    if (!parallels_probe(head, PH_BYTES))
        return lam_fail(err, EINVAL, "Image not in Parallels format");
    p->counts_sectors = has_magic(head, magic_old);
    if (p->counts_sectors)
        sectors = (uint32_t)sectors;
    t->cluster = le32_get(head + PH_TRACKS) * (uint64_t)SECTOR;
    if (t->cluster == 0 || t->cluster > CLUSTER_MAX)
        return lam_fail(err, EUCLEAN, "parallels: cluster of %" PRIu64 " bytes "
                        "(limits: 512 and %" PRIu64 ")", t->cluster,
                        CLUSTER_MAX);
    if (entries > ENTRIES_MAX)
        return lam_fail(err, EUCLEAN, "parallels: table of %" PRIu64 " entries "
                        "(limit: %" PRIu64 ")", entries, ENTRIES_MAX);
    if (sectors > entries * (t->cluster / SECTOR))
        return lam_fail(err, EUCLEAN, "parallels: disk of %" PRIu64 " sectors, "
                        "and %" PRIu64 " clusters of %" PRIu64 " bytes",
                        sectors, entries, t->cluster);
    uint64_t data = choose_start(p, head, length);
    if (data && data < PH_BYTES + entries * 4)
        return lam_fail(err, EUCLEAN, "parallels: data offset %" PRIu64 " is "
                        "inside the table, which ends at %" PRIu64, data,
                        PH_BYTES + entries * 4);
    t->size = sectors * SECTOR;
    t->table_offset = PH_BYTES;
    /* The genuine tool moves the data offset behind clusters that are there. */
    t->data_start = PH_BYTES + entries * 4;
    t->align_base = !p->counts_sectors ? 0 : data ? data : behind;
    p->first_free = data ? data : behind;
    t->host_limit = p->counts_sectors ? SECTOR * (uint64_t)UINT32_MAX
                                      : t->cluster * UINT32_MAX;
    p->in_use = le32_get(head + PH_IN_USE) == PARALLELS_IN_USE;
    return 0;
}

static int check_use(const uint8_t *head, const struct format_open *o,
                     struct lam_error *err)
{
    if (!o->writable || o->for_check)
        return 0;
    if (le64_get(head + PH_EXTENSION))
        return lam_fail(err, ENOTSUP, "parallels: the image has a format "
                        "extension, and can be read only");
    return 0;
}

static int read_header(struct parallels *p, const struct format_open *o,
                       struct lam_error *err)
{
    uint8_t head[PH_BYTES];
    uint64_t length;
    int rc = lam_io_size(o->io, &length, err);

    memset(head, 0, sizeof head);
    if (rc == 0)
        rc = lam_io_read(o->io, head, min_u64(length, PH_BYTES), 0, err);
    if (rc == 0)
        rc = check_header(p, head, length, err);
    return rc < 0 ? rc : check_use(head, o, err);
}

/* Who was interrupted may have left entries that point anywhere.  If none does,
 * the mark that is there becomes ours. */
static int take_over(struct parallels *p, struct lam_error *err)
{
    struct lam_check_result result = { 0 };
    int rc = tables_check(&p->t, NULL, NULL, &result, err);

    if (rc == 0 && result.corruptions)
        rc = lam_fail(err, EUCLEAN, "parallels: the image was not closed "
                      "correctly, and %" PRIu64 " entries are wrong",
                      result.corruptions);
    if (rc == 0) {
        p->in_use = false;
        p->t.changed = true;
    }
    return rc;
}

static int parallels_open(const struct format_open *o, void **format,
                          struct lam_error *err)
{
    lam_autofree struct parallels *p = calloc(1, sizeof *p);

    if (!p)
        return lam_fail(err, ENOMEM, "no memory for a Parallels image");
    p->t.io = o->io;
    p->t.layout = &layout;
    p->t.writable = o->writable;
    p->t.ahead = o->ahead;
    p->t.ahead_sparse = o->ahead_sparse;
    p->t.ahead_bytes = o->ahead_bytes;
    int rc = read_header(p, o, err);
    if (rc < 0)
        return rc;
    rc = tables_init(&p->t, err);
    p->t.next_free = max_u64(p->t.next_free, p->first_free);
    if (rc == 0 && p->in_use && o->writable && !o->for_check)
        rc = take_over(p, err);
    if (rc < 0)
        tables_deinit(&p->t);
    else
        *format = lam_take(&p);
    return rc;
}

/* The mark goes when all else is on disk. */
static int settle(struct parallels *p, struct lam_error *err)
{
    if (!p->t.changed)
        return 0;
    int rc = tables_flush(&p->t, err);
    if (rc == 0)
        rc = tables_cut(&p->t, err);
    if (rc == 0)
        rc = mark(&p->t, 0, err);
    if (rc == 0)
        p->t.changed = false;
    return rc;
}

static int parallels_close(void *format, struct lam_error *err)
{
    struct parallels *p = format;
    int rc = p->t.writable ? settle(p, err) : 0;

    tables_deinit(&p->t);
    free(p);
    return rc;
}

static int parallels_set_writable(void *format, bool writable,
                                  struct lam_error *err)
{
    struct parallels *p = format;
    int rc = !writable ? settle(p, err) : p->in_use ? take_over(p, err) : 0;

    if (rc == 0)
        p->t.writable = writable;
    return rc;
}

/* ------------------------------------------------------------ the rest */

static bool parallels_is_flat(void *format)
{
    (void)format;
    return false;
}

static int look(struct parallels *p, bool repair, lam_finding_fn *finding,
                void *opaque, struct lam_check_result *out,
                struct lam_error *err)
{
    if (p->in_use) {
        out->corruptions++;
        if (finding)
            finding(opaque, LAM_FINDING_CORRUPTION,
                    "ERROR image was not closed correctly");
    }
    if (p->wrong_start) {
        out->corruptions++;
        if (finding)
            finding(opaque, LAM_FINDING_CORRUPTION,
                    "ERROR data_off field has incorrect value");
    }
    out->image_end_offset = p->first_free;
    return repair ? tables_repair(&p->t, finding, opaque, out, err)
                  : tables_check(&p->t, finding, opaque, out, err);
}

static int parallels_check(void *format, lam_finding_fn *finding, void *opaque,
                           struct lam_check_result *out, struct lam_error *err)
{
    return look(format, false, finding, opaque, out, err);
}

static int mend_start(struct parallels *p, struct lam_check_result *out,
                      struct lam_error *err)
{
    uint8_t raw[4];

    if (!p->wrong_start)
        return 0;
    le32_put(raw, (uint32_t)(p->first_free / SECTOR));
    int rc = lam_io_write(p->t.io, raw, sizeof raw, PH_DATA_OFFSET, err);
    if (rc == 0)
        rc = lam_io_flush(p->t.io, err);
    if (rc < 0)
        return rc;
    p->wrong_start = false;
    out->corruptions--;
    out->corruptions_fixed++;
    return 0;
}

/* Entries, the mark where nothing else is wrong, and clusters at the end that
 * nobody uses.  While the table changes the image is marked. */
static int parallels_repair(void *format, unsigned what,
                            lam_finding_fn *finding, void *opaque,
                            struct lam_check_result *out,
                            struct lam_error *err)
{
    struct parallels *p = format;
    int rc = look(p, what & LAM_REPAIR_ERRORS, finding, opaque, out, err);

    if (rc == 0 && out->corruptions_fixed)
        rc = tables_begin_changes(&p->t, err);
    if (rc == 0)
        rc = settle(p, err);
    if (rc == 0 && what & LAM_REPAIR_ERRORS)
        rc = mend_start(p, out, err);
    if (rc == 0 && what & LAM_REPAIR_LEAKS && out->leaks &&
        !(out->corruptions - p->in_use) &&
        out->image_end_offset + out->leaks * p->t.cluster == p->t.io->size) {
        rc = lam_io_truncate(p->t.io, out->image_end_offset, err);
        if (rc == 0)
            p->t.next_free = p->t.touched_end = out->image_end_offset;
        out->leaks_fixed = rc == 0 ? out->leaks : 0;
        out->leaks -= out->leaks_fixed;
    }
    if (rc < 0 || !(what & LAM_REPAIR_ERRORS) || !p->in_use ||
        out->corruptions > 1)
        return rc;
    rc = mark(&p->t, 0, err);
    if (rc == 0) {
        p->in_use = false;
        out->corruptions--;
        out->corruptions_fixed++;
    }
    return rc;
}

/* ------------------------------------------------------------ creating */

static int plan_new(const struct lam_create_options *options, uint64_t *size,
                    uint64_t *cluster, struct lam_error *err)
{
    int rc = option_size(options, "cluster_size", LAM_MIB, cluster, err);

    if (rc < 0)
        return rc;
    *size = align_up(options->size, SECTOR);
    if (*cluster > CLUSTER_MAX)
        return lam_fail(err, EINVAL, "Cluster size is too large");
    if (*cluster == 0 || *size / *cluster > INT32_MAX - (PH_BYTES / 4))
        return lam_fail(err, EINVAL, "Image size is too large for this cluster "
                        "size");
    *cluster = div_up(*cluster, SECTOR) * SECTOR;
    return 0;
}

static int parallels_create(struct lam_io *io, struct lam_io *data,
                            const struct lam_create_options *options,
                            struct lam_error *err)
{
    uint8_t head[PH_BYTES] = { 0 };
    uint64_t size, cluster;
    int rc = plan_new(options, &size, &cluster, err);

    (void)data;
    if (rc < 0)
        return rc;
    uint64_t entries = div_up(size, cluster);
    uint64_t start = div_up(PH_BYTES + entries * 4, cluster) * cluster;
    memcpy(head, magic_new, 16);
    le32_put(head + PH_VERSION, 2);
    le32_put(head + PH_HEADS, HEADS);
    le32_put(head + PH_CYLINDERS, (uint32_t)min_u64(
             UINT32_MAX, size / SECTOR / (HEADS * SECTORS_PER_TRACK)));
    le32_put(head + PH_TRACKS, (uint32_t)(cluster / SECTOR));
    le32_put(head + PH_ENTRIES, (uint32_t)entries);
    le64_put(head + PH_SECTORS, size / SECTOR);
    le32_put(head + PH_DATA_OFFSET, (uint32_t)(start / SECTOR));
    rc = lam_io_truncate(io, start, err);
    if (rc == 0 && io->limits.is_block_device)
        rc = lam_io_zero(io, 0, start, 0, err);
    return rc < 0 ? rc : lam_io_write(io, head, sizeof head, 0, err);
}

/* Whole clusters; they keep their places, which the host need not fill. */
static int parallels_discard(void *format, uint64_t offset, uint64_t length,
                             struct lam_error *err)
{
    struct tables *t = format;
    uint64_t from = align_up(offset, t->cluster), end = offset + length;

    if (end < atomic_load(&t->size))
        end = align_down(end, t->cluster);
    if (!t->io->unmap || from >= end)
        return 0;
    int rc = tables_zero(t, from, end - from,
                         LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK, err);
    return rc == -ENOTSUP ? 0 : rc;
}

static const struct lam_option_info create_options[] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "cluster_size", LAM_OPTION_SIZE, "1048576",
      "Parallels image cluster size" },
};

const struct format_ops format_parallels = {
    .name = "parallels",
    TABLES_OPS,
    .discard = parallels_discard,
    .no_details = true,
    .options = create_options,
    .nb_options = LAM_ARRAY_SIZE(create_options),
    .probe = parallels_probe,
    .open = parallels_open,
    .close = parallels_close,
    .set_writable = parallels_set_writable,
    .is_flat = parallels_is_flat,
    .check = parallels_check,
    .repair = parallels_repair,
    .create = parallels_create,
};
