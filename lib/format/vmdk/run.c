/* SPDX-License-Identifier: MIT */
/*
 * run.c - grains that are about to change together.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

enum vmdk_grain_state vmdk_grain_state(const struct vmdk_sparse *s,
                                       uint32_t entry)
{
    if (entry == 0)
        return VMDK_GRAIN_ABSENT;
    return entry == VMDK_GTE_ZERO && s->zeroed ? VMDK_GRAIN_ZERO
                                               : VMDK_GRAIN_STORED;
}

/* Where the run may reach: to the end of the table. */
static uint64_t table_end(const struct vmdk_sparse *s, uint64_t offset)
{
    return (vmdk_table_index(s, offset) + 1) * s->grain_size * s->h.gtes;
}

/* The entries that go on as the first one does. */
static int measure(const struct vmdk_extent *e, const uint32_t *entries,
                   uint64_t end, struct vmdk_run *run, struct lam_error *err)
{
    const struct vmdk_sparse *s = e->sparse;
    uint64_t at = run->offset;
    uint32_t first = entries[vmdk_entry_index(s, at)];
    uint32_t step = (uint32_t)s->h.grain_size;

    run->state = vmdk_grain_state(s, first);
    run->host = run->state == VMDK_GRAIN_STORED
        ? vmdk_grain_host(&s->h, first) : 0;
    for (uint32_t i = 0; at < end; i++, at += s->grain_size) {
        uint32_t entry = entries[vmdk_entry_index(s, at)];
        if (vmdk_grain_state(s, entry) != run->state)
            break;
        if (run->state != VMDK_GRAIN_STORED)
            continue;
        if (entry != first + i * step)
            break;
        int rc = vmdk_check_entry(e, at, entry, i == 0 ? err : NULL);
        if (rc < 0 && i == 0)
            return rc;
        if (rc < 0)
            break;
    }
    run->length = min_u64(at, e->guest.length) - run->offset;
    return 0;
}

/* 1: somebody else is at the first grain. */
static int try_begin(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                     uint64_t end, struct vmdk_run *run, struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;
    pthread_rwlock_t *held lam_cleanup(lam_cleanup_rw_unlock) = &v->lock;

    pthread_rwlock_wrlock(held);
    *run = (struct vmdk_run){
        .e = e, .offset = align_down(offset, s->grain_size),
    };
    int rc = vmdk_table_make(v, e, run->offset, &run->table, err);
    if (rc == 0)
        rc = measure(e, run->table->entries,
                     min_u64(end, table_end(s, run->offset)), run, err);
    if (rc < 0 || run->state == VMDK_GRAIN_STORED) {
        run->table = NULL;
        return rc;
    }
    run->claim.range = range_make(e->guest.offset + run->offset, run->length);
    if (!claim_try(&v->inflight, &run->claim))
        return 1;
    run->length = run->claim.range.length;
    run->table->users++;
    return 0;
}

int vmdk_run_begin(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                   uint64_t end, struct vmdk_run *run, struct lam_error *err)
{
    int rc;

    assert(offset < end && end <= e->guest.length);
    while ((rc = try_begin(v, e, offset, end, run, err)) > 0)
        claim_wait(&v->inflight, run->claim.range.offset);
    return rc;
}

void vmdk_run_set(struct vmdk *v, struct vmdk_run *run, uint32_t first,
                  uint32_t step)
{
    const struct vmdk_sparse *s = run->e->sparse;
    size_t index = vmdk_entry_index(s, run->offset);
    uint64_t count = div_up(run->length, s->grain_size);

    assert(run->table && index + count <= s->h.gtes);
    pthread_rwlock_wrlock(&v->lock);
    for (uint32_t i = 0; i < count; i++)
        run->table->entries[index + i] = first + i * step;
    run->table->dirty = true;
    pthread_rwlock_unlock(&v->lock);
}

void vmdk_run_drop(struct vmdk *v, struct vmdk_run *run)
{
    if (!run->table)
        return;
    pthread_rwlock_wrlock(&v->lock);
    assert(run->table->users > 0);
    run->table->users--;
    pthread_rwlock_unlock(&v->lock);
    claim_drop(&v->inflight, &run->claim);
    run->table = NULL;
}
