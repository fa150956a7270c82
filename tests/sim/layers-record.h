/* SPDX-License-Identifier: MIT */
/*
 * layers-record.h - the files of a chain on one recording, as they were before
 * a job, and as they may be after a power cut.
 */
#ifndef TEST_SIM_LAYERS_RECORD_H
#define TEST_SIM_LAYERS_RECORD_H

#include "layers-job.h"

struct layers_record {
    uint8_t *bases[MAX_OBJECTS];    /* the files before the job */
    uint64_t lengths[MAX_OBJECTS];
    struct lam_io *records[MAX_OBJECTS];
    struct lam_io *whole[MAX_OBJECTS];      /* while cut ones are in place */
};

static inline void layers_record_begin(const struct layers_job *j,
                                       struct layers_record *r)
{
    for (unsigned i = 0; i < j->objects; i++) {
        struct lam_io *io = j->c.disks[i].io;

        r->bases[i] = sim_bytes(io, &r->lengths[i]);
        int rc = i ? lam_io_record_join(io, r->records[0], &r->records[i], NULL)
                   : lam_io_record_new(io, &r->records[0], NULL);
        assert_int_equal(rc, 0);
    }
}

static inline size_t layers_record_events(const struct layers_record *r)
{
    size_t count;

    lam_io_record_events(r->records[0], &count);
    return count;
}

/* The disks of @j are those after event @n; @when says so. */
static inline void layers_record_cut(struct layers_job *j,
                                     struct layers_record *r, size_t n,
                                     struct record_pick pick, char when[96])
{
    snprintf(when, 96, "job %d, power cut after event %zu, pick %d %llu",
             (int)j->job, n, (int)pick.how, (unsigned long long)pick.value);
    for (unsigned i = 0; i < j->objects; i++) {
        r->whole[i] = j->c.disks[i].io;
        assert_int_equal(lam_io_record_rebuild(r->records[i], n, pick,
                                               r->bases[i], r->lengths[i],
                                               &j->c.disks[i].io, NULL), 0);
    }
}

static inline void layers_record_restore(struct layers_job *j,
                                         struct layers_record *r)
{
    for (unsigned i = 0; i < j->objects; i++) {
        lam_io_close(j->c.disks[i].io);
        j->c.disks[i].io = r->whole[i];
    }
}

/* The chain as well. */
static inline void layers_record_free(struct layers_job *j,
                                      struct layers_record *r)
{
    for (unsigned i = 0; i < j->objects; i++) {
        lam_io_close(r->records[j->objects - 1 - i]);
        free(r->bases[i]);
    }
    j->c.count = j->objects;
    layers_free(&j->c);
}

#endif
