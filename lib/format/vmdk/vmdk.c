/* SPDX-License-Identifier: MIT */
/*
 * vmdk.c - the VMDK format as the rest of lamella sees it.
 */
#include "format/vmdk/vmdk.h"

#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/values.h"
#include "format/vmdk/create.h"
#include "format/vmdk/open.h"

extern const struct format_ops format_vmdk;

static int vmdk_probe(const uint8_t *head, size_t length)
{
    return vmdk_is_header(head, length) || vmdk_is_cowd(head, length) ||
           vmdk_is_descriptor((const char *)head, length) ? 100 : 0;
}

/* ---------------------------------------------------------- open and close */

static int init_locks(struct vmdk *v, struct lam_error *err)
{
    if (pthread_rwlock_init(&v->lock, NULL))
        return lam_fail(err, ENOMEM, "no memory for a lock");
    pthread_mutex_init(&v->flush_lock, NULL);
    pthread_mutex_init(&v->alloc_lock, NULL);
    pthread_mutex_init(&v->cid_lock, NULL);
    inflight_init(&v->inflight);
    return 0;
}

static void vmdk_free(struct vmdk *v)
{
    vmdk_close_extents(v);
    inflight_deinit(&v->inflight);
    pthread_rwlock_destroy(&v->lock);
    pthread_mutex_destroy(&v->flush_lock);
    pthread_mutex_destroy(&v->alloc_lock);
    pthread_mutex_destroy(&v->cid_lock);
    free(v);
}

static int vmdk_open(const struct format_open *options, void **format,
                     struct lam_error *err)
{
    struct vmdk *v = calloc(1, sizeof *v);
    if (!v)
        return lam_fail(err, ENOMEM, "no memory for a VMDK");
    int rc = init_locks(v, err);
    if (rc < 0) {
        free(v);
        return rc;
    }
    v->io = options->io;
    v->writable = options->writable;
    v->metadata_only = options->metadata_only;
    rc = vmdk_open_extents(v, options->files, err);
    if (rc < 0)
        vmdk_free(v);
    else
        *format = v;
    return rc;
}

static int vmdk_close(void *format, struct lam_error *err)
{
    struct vmdk *v = format;
    int rc = v->writable && !v->metadata_only ? vmdk_flush(v, err) : 0;

    vmdk_free(v);
    return rc;
}

static int vmdk_set_writable(void *format, bool writable,
                             struct lam_error *err)
{
    struct vmdk *v = format;
    int rc = writable ? vmdk_judge_writable(v, err) : vmdk_flush(v, err);

    v->writable = writable && rc == 0;
    return rc;
}

/* --------------------------------------------------------------- questions */

static void vmdk_links(void *format, struct format_links *links)
{
    const struct vmdk *v = format;
    bool parent = v->d.parent && v->d.parent_cid != VMDK_NO_CID;

    *links = (struct format_links){
        .backing_file = parent ? v->d.parent : NULL,
        .backing_format = parent ? "vmdk" : NULL,
    };
}

static uint64_t vmdk_size(void *format)
{
    const struct vmdk *v = format;

    return v->size;
}

static uint64_t vmdk_cluster_size(void *format)
{
    const struct vmdk *v = format;

    return v->grain_size;
}

static bool vmdk_compresses_all(void *format)
{
    const struct vmdk *v = format;

    return v->compressed;
}

static struct lam_io *vmdk_extent_io(void *format,
                                     const struct lam_extent *extent)
{
    return vmdk_extent_at(format, extent->offset)->io;
}

/* -------------------------------------------------------------------- info */

static int describe_extent(const struct vmdk *v, const struct vmdk_extent *e,
                           struct lam_image_info *info, struct lam_error *err)
{
    int rc = values_begin(info, NULL, LAM_VALUE_OBJECT, err);

    if (rc == 0 && e->sparse && e->sparse->compressed)
        rc = values_bool(info, "compressed", true, err);
    if (rc == 0)
        rc = values_number(info, "virtual-size", e->guest.length, err);
    if (rc == 0 && e->io)
        rc = values_text(info, "filename", e->io->name, err);
    if (rc == 0 && e->sparse)
        rc = values_number(info, "cluster-size", e->sparse->grain_size, err);
    if (rc == 0)
        rc = values_text(info, "format", e->io == v->io
                         ? "" : vmdk_line_type_name(e->type), err);
    return rc < 0 ? rc : values_end(info, err);
}

int vmdk_info(void *format, struct lam_image_info *info,
              struct lam_error *err)
{
    const struct vmdk *v = format;
    int rc = values_number(info, "cid", v->d.cid, err);

    if (rc == 0)
        rc = values_number(info, "parent-cid", v->d.parent_cid, err);
    if (rc == 0)
        rc = values_text(info, "create-type", v->d.create_type, err);
    if (rc == 0)
        rc = values_begin(info, "extents", LAM_VALUE_LIST, err);
    for (size_t i = 0; i < v->nb_extents && rc == 0; i++)
        rc = describe_extent(v, &v->extents[i], info, err);
    return rc < 0 ? rc : values_end(info, err);
}

/* ------------------------------------------------------------- the parent */

static uint32_t vmdk_content_id(void *format)
{
    const struct vmdk *v = format;

    return v->d.cid;
}

bool vmdk_is_parent(const struct vmdk *v, const struct format_ops *ops)
{
    return v->d.parent_cid != VMDK_NO_CID && ops == &format_vmdk;
}

static int vmdk_accept_backing(void *format, const struct format_ops *ops,
                               void *below, struct lam_error *err)
{
    const struct vmdk *v = format;

    if (ops != &format_vmdk)
        return lam_fail(err, EINVAL, "the parent of a VMDK has to be one, and "
                        "'%s' is '%s'", v->d.parent, ops->name);
    const struct vmdk *parent = below;
    if (parent->d.cid != v->d.parent_cid)
        return lam_fail(err, EINVAL, "'%s' has changed: its CID is %08" PRIx32
                        ", and parentCID %08" PRIx32, v->d.parent,
                        parent->d.cid, v->d.parent_cid);
    return 0;
}

static struct lam_io *vmdk_file(void *format, size_t index)
{
    const struct vmdk *v = format;

    for (size_t i = 0; i < v->nb_extents; i++)
        if (v->extents[i].owns_io && index-- == 0)
            return v->extents[i].io;
    return NULL;
}

/* --------------------------------------------------------------- the table */

const struct format_ops format_vmdk = {
    .name = "vmdk",
    .can_compress = true,
    .can_have_backing = true,
    .options = vmdk_options,
    .nb_options = VMDK_NB_OPTIONS,
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .set_writable = vmdk_set_writable,
    .flush = vmdk_flush,
    .links = vmdk_links,
    .size = vmdk_size,
    .cluster_size = vmdk_cluster_size,
    .map = vmdk_map,
    .read_compressed = vmdk_read_compressed,
    .read_compressed_part = vmdk_read_compressed_part,
    .extent_io = vmdk_extent_io,
    .file = vmdk_file,
    .write_begin = vmdk_write_begin,
    .write_finish = vmdk_write_finish,
    .write_cancel = vmdk_write_cancel,
    .write_compressed = vmdk_write_compressed,
    .compresses_all = vmdk_compresses_all,
    .zero_unit = vmdk_zero_unit,
    .zero = vmdk_zero,
    .info = vmdk_info,
    .check = vmdk_check,
    .other_file = vmdk_other_file,
    .create_set = vmdk_create_set,
    .content_id = vmdk_content_id,
    .accept_backing = vmdk_accept_backing,
    .adopt_backing = vmdk_adopt_backing,
};
