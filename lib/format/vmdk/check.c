/* SPDX-License-Identifier: MIT */
/*
 * check.c - do the tables of the sparse extents make sense?
 *
 * Every grain lies in the file, on no table, and on no other grain; the
 * redundant tables say what the others do.  Like the genuine tool it counts
 * nothing but what is wrong.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

/* Of the bitmap that tells grains that lie on each other. */
static const uint64_t MAX_SEEN = 256 * LAM_MIB;

struct checking {
    struct vmdk_extent *e;
    lam_finding_fn *finding;
    void *opaque;
    struct lam_check_result *out;
    uint64_t unit;              /* host bytes that a bit of @seen stands for */
    uint64_t phase;             /* of the first grain; the others have it too */
    uint8_t *seen;              /* NULL: too much to remember */
    uint64_t nb_seen;           /* bits */
};

static void __attribute__((format(printf, 3, 4)))
report(struct checking *c, enum lam_finding_kind kind, const char *format, ...)
{
    char text[512];
    va_list args;

    *(kind == LAM_FINDING_ERROR ? &c->out->check_errors
      : kind == LAM_FINDING_LEAK ? &c->out->leaks
                                 : &c->out->corruptions) += 1;
    if (!c->finding)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->finding(c->opaque, kind, text);
}

static void report_error(struct checking *c, const struct lam_error *why)
{
    report(c, why->code == EUCLEAN ? LAM_FINDING_CORRUPTION
                                   : LAM_FINDING_ERROR, "%s", why->message);
}

/* False: another grain was there before.  Grains that do not lie as the first
 * one does, in step, are not compared. */
static bool mark(struct checking *c, uint64_t host)
{
    if (c->phase == UINT64_MAX)
        c->phase = host % c->unit;
    if (!c->seen || host % c->unit != c->phase || host / c->unit >= c->nb_seen)
        return true;
    uint64_t bit = host / c->unit;
    bool was = c->seen[bit / 8] >> bit % 8 & 1;

    c->seen[bit / 8] |= (uint8_t)(1 << bit % 8);
    return !was;
}

static void check_grain(struct checking *c, uint64_t offset, uint32_t entry)
{
    struct lam_error why = LAM_ERROR_INIT;

    if (vmdk_grain_state(c->e->sparse, entry) != VMDK_GRAIN_STORED)
        return;
    uint64_t host = vmdk_grain_host(&c->e->sparse->h, entry);
    if (vmdk_check_entry(c->e, offset, entry, &why) < 0)
        report_error(c, &why);
    else if (!mark(c, host))
        report(c, LAM_FINDING_CORRUPTION, "'%s': grain of offset %" PRIu64
               " at sector %" PRIu64 " lies on another one", c->e->io->name,
               offset, host / VMDK_SECTOR);
}

/* A power cut may leave the two apart, and no reader looks at the redundant one
 * as long as the other can be read: that does no harm. */
static void check_redundant(struct checking *c, uint64_t index,
                            const uint32_t *entries)
{
    const struct vmdk_sparse *s = c->e->sparse;
    uint8_t copy[VMDK_TABLE_SIZE];
    struct lam_error why = LAM_ERROR_INIT;

    if (!s->rgd || (!s->rgd[index] && !s->gd[index]))
        return;
    if (lam_io_read(c->e->io, copy, sizeof copy,
                    (uint64_t)s->rgd[index] * VMDK_SECTOR, &why) < 0) {
        report(c, LAM_FINDING_LEAK, "redundant grain table %" PRIu64 ": %s",
               index, why.message);
        return;
    }
    for (size_t i = 0; i < VMDK_GTES; i++) {
        if (le32_get(copy + 4 * i) == entries[i])
            continue;
        report(c, LAM_FINDING_LEAK, "'%s': entry %zu of grain table %" PRIu64
               " is %" PRIu32 ", and %" PRIu32 " in the redundant one",
               c->e->io->name, i, index, entries[i], le32_get(copy + 4 * i));
        return;
    }
}

static int check_table(struct vmdk *v, struct checking *c, uint64_t index,
                       struct lam_error *err)
{
    const struct vmdk_sparse *s = c->e->sparse;
    uint64_t start = index * s->grain_size * s->h.gtes;
    uint32_t entries[VMDK_COWD_GTES] = { 0 };
    struct lam_error why = LAM_ERROR_INIT;
    struct vmdk_table *t;

    if (start >= c->e->guest.length)
        return 0;
    pthread_rwlock_wrlock(&v->lock);
    int rc = vmdk_table_load(c->e, start, &t, &why);
    if (rc == 0 && t)
        memcpy(entries, t->entries, s->h.gtes * sizeof *entries);
    pthread_rwlock_unlock(&v->lock);
    if (rc == -ENOMEM)
        return lam_fail(err, ENOMEM, "%s", why.message);
    if (rc < 0) {
        report_error(c, &why);
        return 0;
    }
    for (size_t i = 0; i < s->h.gtes; i++) {
        uint64_t offset = start + i * s->grain_size;
        if (offset < c->e->guest.length)
            check_grain(c, offset, entries[i]);
    }
    check_redundant(c, index, entries);
    return 0;
}

static int check_sparse(struct vmdk *v, struct checking *c,
                        struct lam_error *err)
{
    const struct vmdk_sparse *s = c->e->sparse;
    uint64_t size = atomic_load(&c->e->io->size);

    c->phase = UINT64_MAX;
    c->unit = s->compressed ? VMDK_SECTOR : s->grain_size;
    c->nb_seen = size / c->unit + 1;
    if (c->nb_seen / 8 < MAX_SEEN)
        c->seen = calloc(1, c->nb_seen / 8 + 1);
    if (s->overlap)
        report(c, LAM_FINDING_CORRUPTION, "'%s': tables lie on each other or "
               "on the header at offset %" PRIu64, c->e->io->name, s->overlap);
    int rc = 0;
    for (uint64_t i = 0; i < s->nb_tables && rc == 0; i++)
        rc = check_table(v, c, i, err);
    free(c->seen);
    return rc;
}

int vmdk_check(void *format, lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err)
{
    struct vmdk *v = format;
    int rc = 0;

    for (size_t i = 0; i < v->nb_extents && rc == 0; i++) {
        struct checking c = {
            .e = &v->extents[i], .finding = finding, .opaque = opaque,
            .out = out,
        };
        if (c.e->sparse)
            rc = check_sparse(v, &c, err);
    }
    return rc;
}
