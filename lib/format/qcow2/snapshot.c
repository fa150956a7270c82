/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - load the table of internal snapshots (format document 8.1).
 *
 * Entries have no fixed size, so the table's length is known only at its end.
 * It is read in pieces: what a hostile count makes us read is bounded by the
 * file, and what we keep by the limits of the format.
 */
#include "format/qcow2/snapshot.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/zeroes.h"

enum { WINDOW = 64 << 10 };

/* A window on the table, moved along as the entries are read. */
struct window {
    struct lam_io *io;
    uint64_t table;                 /* host offset of the table */
    uint64_t end;                   /* of the file, for the table's offsets */
    uint64_t at;                    /* the window's place in the table */
    size_t length;
    bool salvage;                   /* see snapshots_salvage() */
    bool passed_end;                /* something was behind it */
    uint8_t buf[WINDOW];
};

/*
 * Copy @length bytes at @at of the table to @out.  The table may end with its
 * last entry inside a cluster that is not all there, so no byte more than was
 * asked for must be needed.
 */
static int window_read(struct window *w, uint64_t at, void *out, size_t length,
                       struct lam_error *err)
{
    uint64_t there = w->end > w->table ? w->end - w->table : 0;

    w->passed_end = at > there || length > there - at;
    if (w->passed_end)
        return lam_fail(err, EUCLEAN, "Snapshot table at %#" PRIx64 " passes "
                        "the end of the file at %#" PRIx64 ": %zu bytes at %"
                        PRIu64 " of it", w->table, w->end, length, at);
    if (length > sizeof w->buf)
        return lam_io_read(w->io, out, length, w->table + at, err);
    if (at < w->at || at + length > w->at + w->length) {
        size_t n = (size_t)min_u64(sizeof w->buf, there - at);

        w->length = 0;
        int rc = lam_io_read(w->io, w->buf, n, w->table + at, err);
        if (rc < 0)
            return rc;
        w->at = at;
        w->length = n;
    }
    memcpy(out, w->buf + (at - w->at), length);
    return 0;
}

static int read_string(struct window *w, uint64_t at, size_t length, char **out,
                       struct lam_error *err)
{
    char *s = malloc(length + 1);

    if (!s)
        return lam_fail(err, ENOMEM, "no memory for a snapshot name of %zu "
                        "bytes", length);
    s[length] = '\0';
    *out = s;
    return window_read(w, at, s, length, err);
}

/* The extra data that we know, as far as the entry has it. */
static int read_extra(struct window *w, const struct qcow2_header *h,
                      uint64_t at, struct qcow2_snapshot *s,
                      struct lam_error *err)
{
    uint8_t extra[SN_ICOUNT + 8 - SN_HEAD] = { 0 };
    size_t length = min_u64(sizeof extra, s->extra_length);

    s->disk_size = h->size;
    s->icount = UINT64_MAX;
    if (!length)
        return 0;
    int rc = window_read(w, at + SN_HEAD, extra, length, err);
    if (rc < 0)
        return rc;
    if (length >= SN_VM_STATE_64 + 8 - SN_HEAD)
        s->vm_state_size = be64_get(extra + (SN_VM_STATE_64 - SN_HEAD));
    if (length >= SN_DISK_SIZE + 8 - SN_HEAD)
        s->disk_size = be64_get(extra + (SN_DISK_SIZE - SN_HEAD));
    if (length >= SN_ICOUNT + 8 - SN_HEAD)
        s->icount = be64_get(extra + (SN_ICOUNT - SN_HEAD));
    return 0;
}

static void decode_head(const uint8_t *p, struct qcow2_snapshot *s)
{
    s->l1_offset = be64_get(p + SN_L1_OFFSET);
    s->l1_size = be32_get(p + SN_L1_SIZE);
    s->date_sec = be32_get(p + SN_DATE_SEC);
    s->date_nsec = be32_get(p + SN_DATE_NSEC);
    s->vm_clock_nsec = be64_get(p + SN_VM_CLOCK);
    s->vm_state_size = be32_get(p + SN_VM_STATE_32);
    s->extra_length = be32_get(p + SN_EXTRA_LENGTH);
}

/* One entry at @at; *@end is the offset behind it, without padding. */
static int load_entry(struct window *w, const struct qcow2_header *h,
                      uint64_t at, size_t index, struct qcow2_snapshot *s,
                      uint64_t *end, struct lam_error *err)
{
    uint8_t head[SN_HEAD];
    int rc = window_read(w, at, head, sizeof head, err);

    if (rc < 0)
        return rc;
    if (w->salvage && memory_is_zero(head, sizeof head))
        return lam_fail(err, EUCLEAN, "snapshot table entry %zu is all zero",
                        index);
    decode_head(head, s);
    s->table_offset = at;
    if (s->extra_length > QCOW2_MAX_SNAPSHOT_EXTRA && !w->salvage)
        return lam_fail(err, EUCLEAN, "Too much extra metadata in snapshot "
                        "table entry %zu: %" PRIu32 " bytes (limit: %d)", index,
                        s->extra_length, QCOW2_MAX_SNAPSHOT_EXTRA);

    size_t id_length = be16_get(head + SN_ID_LENGTH);
    size_t name_length = be16_get(head + SN_NAME_LENGTH);
    uint64_t strings = at + SN_HEAD + s->extra_length;

    *end = strings + id_length + name_length;
    if (*end > QCOW2_MAX_SNAPSHOT_TABLE)
        return lam_fail(err, EUCLEAN, "Snapshot table is too large: %" PRIu64
                        " bytes with entry %zu (limit: %d)", *end, index,
                        QCOW2_MAX_SNAPSHOT_TABLE);
    s->stored_length = *end - at;
    rc = read_extra(w, h, at, s, err);
    if (rc == 0)
        rc = read_string(w, strings, id_length, &s->id, err);
    if (rc == 0)
        rc = read_string(w, strings + id_length, name_length, &s->name, err);
    return rc;
}

static int grow(struct qcow2_snapshots *list, size_t *capacity,
                struct lam_error *err)
{
    if (list->count < *capacity)
        return 0;

    size_t wanted = *capacity ? *capacity * 2 : 16;
    struct qcow2_snapshot *grown =
        realloc(list->items, wanted * sizeof *grown);
    if (!grown)
        return lam_fail(err, ENOMEM, "no memory for %zu snapshots", wanted);
    list->items = grown;
    *capacity = wanted;
    return 0;
}

static void drop_last(struct qcow2_snapshots *list)
{
    struct qcow2_snapshot *s = &list->items[--list->count];

    free(s->id);
    free(s->name);
}

static int load_entries(struct window *w, const struct qcow2_header *h,
                        struct qcow2_snapshots *out, struct lam_error *err)
{
    uint64_t count = min_u64(h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
    size_t capacity = 0;
    uint64_t end = 0;
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = grow(out, &capacity, err);
        if (rc < 0)
            return rc;
        struct qcow2_snapshot *s = &out->items[out->count++];
        memset(s, 0, sizeof *s);
        rc = load_entry(w, h, align_up(end, 8), i, s, &end, err);
        if (rc == 0)
            out->table_length = end;
    }
    if (rc != -EUCLEAN || !w->salvage)
        return rc;
    drop_last(out);
    return 0;
}

static int load(struct lam_io *io, const struct qcow2_header *h, bool salvage,
                struct qcow2_snapshots *out, struct lam_error *err)
{
    memset(out, 0, sizeof *out);
    if (!h->nb_snapshots)
        return 0;
    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS && !salvage)
        return lam_fail(err, EUCLEAN, "Snapshot table too large: %" PRIu32
                        " snapshots (limit: %d)", h->nb_snapshots,
                        QCOW2_MAX_SNAPSHOTS);
    lam_autofree struct window *w = calloc(1, sizeof *w);
    if (!w)
        return lam_fail(err, ENOMEM, "no memory for the snapshot table");
    w->io = io;
    w->table = h->snapshots_offset;
    w->salvage = salvage;
    if (salvage && h->snapshots_offset >> h->cluster_bits == 0)
        return lam_fail(err, EUCLEAN, "Snapshot table at %#" PRIx64 " is on "
                        "the header", h->snapshots_offset), 0;
    int rc = lam_io_size(io, &w->end, err);
    if (rc == 0)
        rc = load_entries(w, h, out, err);
    out->passes_end = w->passed_end;
    return rc;
}

int snapshots_load(struct lam_io *io, const struct qcow2_header *h,
                   struct qcow2_snapshots *out, struct lam_error *err)
{
    return load(io, h, false, out, err);
}

int snapshots_salvage(struct lam_io *io, const struct qcow2_header *h,
                      struct qcow2_snapshots *out, struct lam_error *err)
{
    return load(io, h, true, out, err);
}

void snapshots_deinit(struct qcow2_snapshots *snapshots)
{
    for (size_t i = 0; i < snapshots->count; i++) {
        free(snapshots->items[i].id);
        free(snapshots->items[i].name);
    }
    free(snapshots->items);
    memset(snapshots, 0, sizeof *snapshots);
}

const struct qcow2_snapshot *snapshots_find(const struct qcow2_snapshots *s,
                                            const char *id_or_name)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!strcmp(s->items[i].id, id_or_name))
            return &s->items[i];
    }
    for (size_t i = 0; i < s->count; i++) {
        if (!strcmp(s->items[i].name, id_or_name))
            return &s->items[i];
    }
    return NULL;
}

int snapshots_info(const struct qcow2_snapshots *s,
                   struct lam_image_info *info, struct lam_error *err)
{
    if (!s->count)
        return 0;
    info->snapshots = calloc(s->count, sizeof *info->snapshots);
    if (!info->snapshots)
        return lam_fail(err, ENOMEM, "no memory for %zu snapshots", s->count);
    for (size_t i = 0; i < s->count; i++) {
        const struct qcow2_snapshot *from = &s->items[i];
        struct lam_snapshot_info *to = &info->snapshots[i];

        info->nb_snapshots++;
        *to = (struct lam_snapshot_info){
            .id = strdup(from->id),
            .name = strdup(from->name),
            .vm_state_size = from->vm_state_size,
            .date_sec = from->date_sec,
            .date_nsec = from->date_nsec,
            .vm_clock_nsec = from->vm_clock_nsec,
            .icount = from->icount,
            .disk_size = from->disk_size,
        };
        if (!to->id || !to->name)
            return lam_fail(err, ENOMEM, "no memory for snapshot names");
    }
    return 0;
}
