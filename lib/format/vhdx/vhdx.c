/* SPDX-License-Identifier: MIT */
/*
 * vhdx.c - VHDX images: opening, closing, and the table of ops.
 */
#include "format/vhdx/vhdx.h"

#include <stdlib.h>

#include "base/cleanup.h"

static int vhdx_probe(const uint8_t *head, size_t length)
{
    return length >= 8 && vhdx_is_identifier(head) ? 100 : 0;
}

static void vhdx_free(struct vhdx *v)
{
    pthread_mutex_destroy(&v->header_lock);
    pthread_rwlock_destroy(&v->lock);
    pthread_mutex_destroy(&v->tail_lock);
    pthread_mutex_destroy(&v->flush_lock);
    inflight_deinit(&v->inflight);
    free(v->parent);
    free(v->table);
    free(v->dirty);
    free(v);
}

static int vhdx_open(const struct format_open *options, void **format,
                     struct lam_error *err)
{
    struct vhdx *v = calloc(1, sizeof *v);

    if (!v)
        return lam_fail(err, ENOMEM, "no memory for a VHDX image");
    pthread_mutex_init(&v->header_lock, NULL);
    pthread_rwlock_init(&v->lock, NULL);
    pthread_mutex_init(&v->tail_lock, NULL);
    pthread_mutex_init(&v->flush_lock, NULL);
    inflight_init(&v->inflight);
    v->io = options->io;
    v->writable = options->writable;
    v->for_check = options->for_check;
    int rc = vhdx_load(v, err);
    if (rc < 0)
        vhdx_free(v);
    else
        *format = v;
    return rc;
}

static int vhdx_close(void *format, struct lam_error *err)
{
    struct vhdx *v = format;
    int rc = v->writable ? vhdx_settle(v, err) : 0;

    vhdx_free(v);
    return rc;
}

static int vhdx_set_writable(void *format, bool writable,
                             struct lam_error *err)
{
    struct vhdx *v = format;
    int rc = 0;

    if (writable && v->m.has_parent)
        return lam_fail(err, ENOTSUP, "a differencing VHDX can only be read");
    if (writable && !v->header.log_length)
        return lam_fail(err, EUCLEAN, "there is no room for a log");
    if (!writable && v->writable)
        rc = vhdx_settle(v, err);
    v->writable = writable;
    return rc;
}

/* ------------------------------------------------------------------ the ops */

static void vhdx_links(void *format, struct format_links *links)
{
    struct vhdx *v = format;

    *links = (struct format_links){
        .backing_file = v->parent,
        .backing_format = v->parent ? "vhdx" : NULL,
    };
}

static uint64_t vhdx_size(void *format)
{
    struct vhdx *v = format;
    return v->m.size;
}

static uint64_t vhdx_cluster_size(void *format)
{
    struct vhdx *v = format;
    return v->m.block_size;
}

static uint64_t vhdx_zero_unit(void *format)
{
    (void)format;
    return 1;
}

const struct format_ops format_vhdx = {
    .name = "vhdx",
    .options = vhdx_options,
    .nb_options = VHDX_NB_OPTIONS,
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .set_writable = vhdx_set_writable,
    .links = vhdx_links,
    .size = vhdx_size,
    .cluster_size = vhdx_cluster_size,
    .zero_unit = vhdx_zero_unit,
    .map = vhdx_map,
    .write_begin = vhdx_write_begin,
    .write_finish = vhdx_write_finish,
    .write_cancel = vhdx_write_cancel,
    .zero = vhdx_zero,
    .discard = vhdx_discard,
    .flush = vhdx_flush,
    .check = vhdx_check,
    .repair = vhdx_repair,
    .create = vhdx_create,
};
