/* SPDX-License-Identifier: MIT */
/*
 * flush.c - what was written is on disk.
 */
#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

static int flush_files(struct vmdk *v, struct lam_error *err)
{
    int rc = lam_io_flush(v->io, err);

    for (size_t i = 0; i < v->nb_extents && rc == 0; i++)
        if (v->extents[i].owns_io)
            rc = lam_io_flush(v->extents[i].io, err);
    return rc;
}

int vmdk_flush(void *format, struct lam_error *err)
{
    struct vmdk *v = format;
    int rc = 0;

    LAM_LOCKED(&v->flush_lock);
    for (size_t i = 0; i < v->nb_extents && rc == 0; i++)
        if (v->extents[i].sparse)
            rc = vmdk_write_tables(v, &v->extents[i], err);
    return rc < 0 ? rc : flush_files(v, err);
}
