/* SPDX-License-Identifier: MIT */
/*
 * open.c - a descriptor, and the extents that it names.
 */
#include "format/vmdk/open.h"

#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"

/* -------------------------------------------------------------- descriptor */

static int parse_at(struct vmdk *v, uint64_t offset, uint64_t length,
                    bool embedded, struct lam_error *err)
{
    lam_autofree char *text = malloc(length ? length : 1);

    if (!text)
        return lam_fail(err, ENOMEM, "no memory for a descriptor of %" PRIu64
                        " bytes", length);
    int rc = lam_io_read(v->io, text, length, offset, err);
    if (rc < 0)
        return rc;
    v->descriptor_offset = offset;
    return vmdk_descriptor_parse(text, length, embedded, &v->d, err);
}

static int new_extents(struct vmdk *v, size_t count, struct lam_error *err)
{
    v->extents = calloc(count ? count : 1, sizeof *v->extents);
    return v->extents ? 0 : lam_fail(err, ENOMEM, "no memory for %zu extents",
                                     count);
}

/* The only extent is the file itself: of its descriptor's lines none counts. */
static int open_single(struct vmdk *v, struct lam_error *err)
{
    int rc = new_extents(v, 1, err);
    if (rc < 0)
        return rc;
    struct vmdk_extent *e = &v->extents[v->nb_extents++];
    e->type = VMDK_SPARSE;
    e->io = v->io;
    rc = vmdk_sparse_open(e, !v->metadata_only, err);
    if (rc < 0)
        return rc;

    const struct vmdk_header *h = &e->sparse->h;
    if (!h->descriptor_offset || !h->descriptor_size)
        return lam_fail(err, EINVAL, "it has no descriptor: it is one extent of"
                        " a disk, whose descriptor file is to be opened");
    e->guest = range_make(0, h->capacity * VMDK_SECTOR);
    v->size = e->guest.length;
    return parse_at(v, h->descriptor_offset * VMDK_SECTOR,
                    h->descriptor_size * VMDK_SECTOR, true, err);
}

/* ----------------------------------------------------------------- extents */

static bool is_sparse(enum vmdk_line_type type)
{
    return type == VMDK_SPARSE || type == VMDK_VMFS_SPARSE ||
           type == VMDK_SE_SPARSE;
}

/* A file that several extents lie in is opened once: its locks would be in
 * each other's way. */
static struct vmdk_extent *find_name(struct vmdk *v, const char *name)
{
    for (size_t i = 0; i < v->nb_extents; i++)
        if (v->extents[i].name && !strcmp(v->extents[i].name, name))
            return &v->extents[i];
    return NULL;
}

static int open_file(struct vmdk *v, const struct format_files *files,
                     struct vmdk_extent *e, struct lam_error *err)
{
    struct vmdk_extent *other = find_name(v, e->name);

    if (other && (is_sparse(e->type) || is_sparse(other->type)))
        return lam_fail(err, EUCLEAN, "the descriptor names the sparse extent "
                        "'%s' twice", e->name);
    if (other) {
        e->io = other->io;
        return 0;
    }
    if (!files)
        return lam_fail(err, ENOTSUP, "the descriptor names the file '%s', and "
                        "there is no way to open it", e->name);
    int rc = files->open(files, e->name, &e->io, err);
    e->owns_io = rc == 0;
    return rc;
}

static int open_sparse(struct vmdk *v, struct vmdk_extent *e,
                       struct lam_error *err)
{
    int rc = vmdk_sparse_open(e, !v->metadata_only, err);

    if (rc == 0 && e->sparse->h.capacity * VMDK_SECTOR < e->guest.length)
        rc = lam_fail(err, EUCLEAN, "capacity of %" PRIu64 " sectors; the "
                      "descriptor says %" PRIu64, e->sparse->h.capacity,
                      e->guest.length / VMDK_SECTOR);
    return lam_error_prefix(err, rc, "extent '%s'", e->name);
}

static int open_line(struct vmdk *v, const struct format_files *files,
                     const struct vmdk_line *l, struct lam_error *err)
{
    struct vmdk_extent e = {
        .type = l->type,
        .access = l->access,
        .name = l->name,
        .guest = range_make(v->size, l->sectors * VMDK_SECTOR),
        .file_offset = l->offset * VMDK_SECTOR,
        .odd = v->nb_extents & 1,
    };

    if (l->access == VMDK_NOACCESS)
        return lam_fail(err, ENOTSUP, "extent '%s': NOACCESS is not supported",
                        l->name ? l->name : "");
    if (e.guest.length > INT64_MAX - v->size)
        return lam_fail(err, EFBIG, "the extents are longer than the limit of "
                        "2^63 bytes together");
    int rc = l->name ? open_file(v, files, &e, err) : 0;
    if (rc < 0)
        return rc;
    v->extents[v->nb_extents++] = e;
    v->size += e.guest.length;
    return is_sparse(l->type) ? open_sparse(v, &v->extents[v->nb_extents - 1],
                                            err) : 0;
}

/* A raw image's last sector may be partly present. */
static void allow_partial_sectors(struct vmdk *v)
{
    for (size_t i = 0; i < v->nb_extents; i++) {
        struct lam_io *io = v->extents[i].io;
        if (io && io->eof_unit < VMDK_SECTOR)
            io->eof_unit = VMDK_SECTOR;
    }
}

static int open_many(struct vmdk *v, uint64_t length,
                     const struct format_files *files, struct lam_error *err)
{
    /* What follows the text's end does not matter. */
    int rc = parse_at(v, 0, min_u64(length, VMDK_MAX_DESCRIPTOR), false, err);
    if (rc == 0 && length > VMDK_MAX_DESCRIPTOR &&
        v->d.length == VMDK_MAX_DESCRIPTOR)
        return lam_fail(err, EINVAL, "a descriptor of %" PRIu64 " bytes is "
                        "beyond the limit of %d", length, VMDK_MAX_DESCRIPTOR);
    if (rc == 0)
        rc = new_extents(v, v->d.nb_lines, err);
    for (size_t i = 0; i < v->d.nb_lines && rc == 0; i++)
        rc = open_line(v, files, &v->d.lines[i], err);
    if (rc == 0)
        allow_partial_sectors(v);
    return rc;
}

/* -------------------------------------------------------------- all of it */

/* Compressed grains all have one size, which the image layer asks for. */
static int judge_grains(struct vmdk *v, struct lam_error *err)
{
    size_t compressed = 0;

    for (size_t i = 0; i < v->nb_extents; i++) {
        const struct vmdk_sparse *s = v->extents[i].sparse;
        if (!s)
            continue;
        compressed += s->compressed;
        if (v->grain_size && v->grain_size != s->grain_size)
            return lam_fail(err, ENOTSUP, "extents with grains of %" PRIu64
                            " and %" PRIu64 " bytes side by side are not "
                            "supported", v->grain_size, s->grain_size);
        v->grain_size = s->grain_size;
    }
    v->compressed = compressed && compressed == v->nb_extents;
    return 0;
}

static int judge_parent(const struct vmdk *v, struct lam_error *err)
{
    if (v->d.parent_cid == VMDK_NO_CID || v->d.parent || v->metadata_only)
        return 0;
    return lam_fail(err, EUCLEAN, "parentCID is %08" PRIx32 ", and there is no "
                    "parentFileNameHint", v->d.parent_cid);
}

int vmdk_judge_writable(const struct vmdk *v, struct lam_error *err)
{
    for (size_t i = 0; i < v->nb_extents; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        const struct vmdk_sparse *s = e->sparse;
        if (s && s->h.cowd)
            return lam_fail(err, EROFS, "'%s': an extent of an ESX server "
                            "(COWD) can only be read", e->io->name);
        if (s && s->h.se)
            return lam_fail(err, EROFS, "No write support for seSparse images "
                            "available");
        if (s && s->footer)
            return lam_fail(err, ENOTSUP, "'%s': an extent with a footer can "
                            "only be read", e->io->name);
        if (s && s->overlap)
            return lam_fail(err, EUCLEAN, "'%s': tables lie on each other or on"
                            " the header at offset %" PRIu64 ": it can only be "
                            "read", e->io->name, s->overlap);
    }
    return 0;
}

int vmdk_open_extents(struct vmdk *v, const struct format_files *files,
                      struct lam_error *err)
{
    uint8_t head[VMDK_HEADER_SIZE];
    uint64_t length;
    int rc = lam_io_size(v->io, &length, err);
    if (rc < 0)
        return rc;

    uint64_t n = min_u64(length, sizeof head);
    rc = n ? lam_io_read(v->io, head, n, 0, err) : 0;
    if (rc == 0 && vmdk_is_cowd(head, n))
        rc = lam_fail(err, EINVAL, "this is an extent of an ESX server (COWD), "
                      "which is opened by the descriptor that names it");
    if (rc == 0)
        rc = vmdk_is_header(head, n) ? open_single(v, err)
                                     : open_many(v, length, files, err);
    if (rc == 0)
        rc = judge_grains(v, err);
    if (rc == 0)
        rc = judge_parent(v, err);
    if (rc == 0 && v->writable && !v->metadata_only)
        rc = vmdk_judge_writable(v, err);
    return rc;
}

void vmdk_close_extents(struct vmdk *v)
{
    for (size_t i = 0; i < v->nb_extents; i++) {
        vmdk_sparse_free(v->extents[i].sparse);
        if (v->extents[i].owns_io)
            lam_io_close(v->extents[i].io);
    }
    free(v->extents);
    vmdk_descriptor_deinit(&v->d);
}
