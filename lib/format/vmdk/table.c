/* SPDX-License-Identifier: MIT */
/*
 * table.c - grain tables: in memory as long as there is room, written by a
 * flush.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

/* Of one extent; 2 KiB each, and each stands for 32 MiB of the usual disk. */
enum { MAX_LOADED = 4096 };

int vmdk_check_entry(const struct vmdk_extent *e, uint64_t offset,
                     uint32_t entry, struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;
    uint64_t host = vmdk_grain_host(&s->h, entry);
    uint64_t length = s->compressed ? VMDK_SECTOR
                                    : vmdk_grain_length(e, offset);
    uint64_t end = align_up(atomic_load(&e->io->size), VMDK_SECTOR);

    if (host + length > end && e->io->eof_unit != UINT64_MAX)
        return lam_fail(err, EUCLEAN, "'%s': grain of offset %" PRIu64
                        " at sector %" PRIu64 " ends beyond the file's %"
                        PRIu64 " bytes", e->io->name, offset,
                        host / VMDK_SECTOR, end);
    if (vmdk_hits_metadata(s, host, length))
        return lam_fail(err, EUCLEAN, "'%s': grain of offset %" PRIu64
                        " at sector %" PRIu64 " lies on the extent's own "
                        "tables", e->io->name, offset, host / VMDK_SECTOR);
    return 0;
}

/* -------------------------------------------------------------- the cache */

/* Those that are dirty or have users stay, even beyond the budget: a flush
 * ends that. */
static void evict(struct vmdk_sparse *s)
{
    for (uint64_t seen = 0; s->nb_loaded >= MAX_LOADED &&
         seen < 2 * s->nb_tables; seen++) {
        struct vmdk_table *t = &s->tables[s->hand];
        s->hand = (s->hand + 1) % s->nb_tables;
        if (!t->entries || t->users || t->dirty)
            continue;
        if (t->recent) {
            t->recent = false;
            continue;
        }
        free(t->entries);
        t->entries = NULL;
        s->nb_loaded--;
    }
}

bool vmdk_table_cached(struct vmdk_sparse *s, uint64_t offset,
                       struct vmdk_table **out)
{
    uint64_t index = vmdk_table_index(s, offset);
    struct vmdk_table *t = &s->tables[index];

    *out = NULL;
    if (!s->gd[index] && !t->entries)
        return true;
    if (!t->entries)
        return false;
    if (!t->recent)
        t->recent = true;
    *out = t;
    return true;
}

static int read_se_entries(const struct vmdk_extent *e, uint32_t *entries,
                           uint64_t host, struct lam_error *err)
{
    const struct vmdk_header *h = &e->sparse->h;
    lam_autofree uint8_t *raw = malloc(vmdk_table_bytes(h));

    if (!raw)
        return lam_fail(err, ENOMEM, "no memory for a grain table");
    int rc = lam_io_read(e->io, raw, vmdk_table_bytes(h), host, err);
    for (size_t i = 0; i < h->gtes && rc == 0; i++)
        rc = vmdk_se_table_entry(h, le64_get(raw + 8 * i), &entries[i], err);
    return rc;
}

static int read_entries(const struct vmdk_extent *e, uint32_t *entries,
                        uint64_t host, struct lam_error *err)
{
    const struct vmdk_header *h = &e->sparse->h;

    if (h->se)
        return read_se_entries(e, entries, host, err);
    int rc = lam_io_read(e->io, entries, vmdk_table_bytes(h), host, err);
    for (size_t i = 0; i < h->gtes && rc == 0; i++)
        entries[i] = le32_get(&entries[i]);
    return rc;
}

static int read_table(struct vmdk_extent *e, uint64_t index, uint32_t *entries,
                      struct lam_error *err)
{
    uint64_t host = vmdk_table_host(&e->sparse->h, e->sparse->gd[index]);
    uint64_t size = atomic_load(&e->io->size);
    uint64_t bytes = vmdk_table_bytes(&e->sparse->h);
    int rc = 0;

    if (host + bytes > align_up(size, VMDK_SECTOR))
        rc = lam_fail(err, EUCLEAN, "its place, sector %" PRIu64 ", is beyond "
                      "the file's %" PRIu64 " bytes", host / VMDK_SECTOR, size);
    if (rc == 0)
        rc = read_entries(e, entries, host, err);
    return lam_error_prefix(err, rc, "'%s': grain table %" PRIu64, e->io->name,
                            index);
}

int vmdk_table_load(struct vmdk_extent *e, uint64_t offset,
                    struct vmdk_table **out, struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;

    if (vmdk_table_cached(s, offset, out))
        return 0;
    evict(s);
    lam_autofree uint32_t *entries = malloc(s->h.gtes * sizeof *entries);
    if (!entries)
        return lam_fail(err, ENOMEM, "no memory for a grain table");
    uint64_t index = vmdk_table_index(s, offset);
    int rc = read_table(e, index, entries, err);
    if (rc < 0)
        return rc;
    struct vmdk_table *t = &s->tables[index];
    t->entries = lam_take(&entries);
    t->recent = true;
    s->nb_loaded++;
    *out = t;
    return 0;
}

/* ------------------------------------------------------------- new places */

/* The file is as long as what was given out of it, so that what nobody writes
 * of a new grain reads as zero. */
int vmdk_reserve(struct vmdk *v, struct vmdk_extent *e, uint64_t length,
                 uint64_t *host, struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;

    LAM_LOCKED(&v->alloc_lock);
    if (s->end + length > (uint64_t)UINT32_MAX * VMDK_SECTOR)
        return lam_fail(err, EFBIG, "'%s': the extent would grow beyond the "
                        "limit of 2 TiB", e->io->name);
    int rc = lam_io_truncate(e->io, s->end + length, err);
    if (rc < 0)
        return rc;
    *host = s->end;
    s->end += length;
    return 0;
}

/* A range that begins where the last one ends or later. */
static int append_metadata(struct vmdk_sparse *s, uint64_t host,
                           uint64_t length, struct lam_error *err)
{
    struct range *more = realloc(s->metadata,
                                 (s->nb_metadata + 1) * sizeof *more);
    if (!more)
        return lam_fail(err, ENOMEM, "no memory for %zu ranges",
                        s->nb_metadata + 1);
    s->metadata = more;
    more[s->nb_metadata++] = range_make(host, length);
    return 0;
}

int vmdk_table_make(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                    struct vmdk_table **out, struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;
    uint64_t index = vmdk_table_index(s, offset), host = 0;
    int rc = vmdk_table_load(e, offset, out, err);

    if (rc < 0 || *out)
        return rc;
    evict(s);
    lam_autofree uint32_t *entries = calloc(VMDK_GTES, sizeof *entries);
    if (!entries)
        return lam_fail(err, ENOMEM, "no memory for a grain table");
    uint64_t length = align_up((s->rgd ? 2 : 1) * VMDK_TABLE_SIZE,
                               s->compressed ? VMDK_SECTOR : s->grain_size);
    rc = vmdk_reserve(v, e, length, &host, err);
    if (rc == 0)
        rc = append_metadata(s, host, length, err);
    if (rc < 0)
        return rc;
    s->gd[index] = (uint32_t)(host / VMDK_SECTOR);
    if (s->rgd)
        s->rgd[index] = (uint32_t)((host + VMDK_TABLE_SIZE) / VMDK_SECTOR);
    s->gd_dirty = true;
    s->tables[index] = (struct vmdk_table){
        .entries = lam_take(&entries), .dirty = true, .recent = true,
    };
    s->nb_loaded++;
    *out = &s->tables[index];
    return 0;
}

/* -------------------------------------------------------------- write-back */

static int write_table(const struct vmdk_extent *e, uint64_t index,
                       const uint8_t *bytes, struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;
    int rc = 0;

    if (s->rgd && s->rgd[index])
        rc = lam_io_write(e->io, bytes, VMDK_TABLE_SIZE,
                          (uint64_t)s->rgd[index] * VMDK_SECTOR, err);
    if (rc == 0)
        rc = lam_io_write(e->io, bytes, VMDK_TABLE_SIZE,
                          (uint64_t)s->gd[index] * VMDK_SECTOR, err);
    return lam_error_prefix(err, rc, "'%s': grain table %" PRIu64, e->io->name,
                            index);
}

static int write_directory(const struct vmdk_extent *e, const uint8_t *bytes,
                           uint64_t sector, struct lam_error *err)
{
    uint64_t length = align_up(e->sparse->nb_tables * 4, VMDK_SECTOR);
    int rc = lam_io_write(e->io, bytes, length, sector * VMDK_SECTOR, err);

    return lam_error_prefix(err, rc, "'%s': grain directory", e->io->name);
}

/* What a flush has taken of the tables, while requests change them on. */
struct taken {
    uint64_t *indices;
    uint8_t *bytes;
    size_t count;
    uint8_t *gd, *rgd;          /* NULL: not changed */
};

static void taken_deinit(struct taken *t)
{
    free(t->indices);
    free(t->bytes);
    free(t->gd);
    free(t->rgd);
}

static int take_directory(const uint32_t *gd, uint64_t count, uint8_t **out,
                          struct lam_error *err)
{
    *out = calloc(1, align_up(count * 4, VMDK_SECTOR));
    if (!*out)
        return lam_fail(err, ENOMEM, "no memory for a grain directory");
    for (uint64_t i = 0; i < count; i++)
        le32_put(*out + 4 * i, gd[i]);
    return 0;
}

static int take_dirty(struct vmdk *v, struct vmdk_sparse *s, struct taken *t,
                      struct lam_error *err)
{
    size_t count = 0;

    pthread_rwlock_t *held lam_cleanup(lam_cleanup_rw_unlock) = &v->lock;
    pthread_rwlock_wrlock(held);
    for (uint64_t i = 0; i < s->nb_tables; i++)
        count += s->tables[i].dirty;
    t->indices = calloc(count + 1, sizeof *t->indices);
    t->bytes = calloc(count + 1, VMDK_TABLE_SIZE);
    if (!t->indices || !t->bytes)
        return lam_fail(err, ENOMEM, "no memory for %zu grain tables", count);
    int rc = 0;
    if (s->gd_dirty)
        rc = take_directory(s->gd, s->nb_tables, &t->gd, err);
    if (rc == 0 && s->gd_dirty && s->rgd)
        rc = take_directory(s->rgd, s->nb_tables, &t->rgd, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < s->nb_tables; i++) {
        struct vmdk_table *table = &s->tables[i];
        if (!table->dirty)
            continue;
        for (size_t k = 0; k < VMDK_GTES; k++)
            le32_put(t->bytes + t->count * VMDK_TABLE_SIZE + 4 * k,
                     table->entries[k]);
        t->indices[t->count++] = i;
        table->dirty = false;
        table->users++;         /* else it could be read again too early */
    }
    s->gd_dirty = false;
    return 0;
}

static void give_back(struct vmdk *v, struct vmdk_sparse *s,
                      const struct taken *t, bool failed)
{
    pthread_rwlock_wrlock(&v->lock);
    for (size_t i = 0; i < t->count; i++) {
        struct vmdk_table *table = &s->tables[t->indices[i]];
        assert(table->users > 0);
        table->users--;
        table->dirty |= failed;
    }
    s->gd_dirty |= failed && t->gd;
    pthread_rwlock_unlock(&v->lock);
}

static int write_taken(struct vmdk_extent *e, const struct taken *t,
                       struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;
    int rc = lam_io_flush(e->io, err);              /* invariant 1 */

    for (size_t i = 0; i < t->count && rc == 0; i++)
        rc = write_table(e, t->indices[i], t->bytes + i * VMDK_TABLE_SIZE,
                         err);
    if (rc < 0 || !t->gd)
        return rc;
    rc = lam_io_flush(e->io, err);                  /* invariant 2 */
    if (rc == 0 && t->rgd)
        rc = write_directory(e, t->rgd, s->h.rgd_offset, err);
    return rc < 0 ? rc : write_directory(e, t->gd, s->h.gd_offset, err);
}

int vmdk_write_tables(struct vmdk *v, struct vmdk_extent *e,
                      struct lam_error *err)
{
    struct taken t lam_cleanup(taken_deinit) = { 0 };
    int rc = take_dirty(v, e->sparse, &t, err);

    if (rc < 0 || (!t.count && !t.gd))
        return rc;
    rc = write_taken(e, &t, err);
    give_back(v, e->sparse, &t, rc < 0);
    return rc;
}
