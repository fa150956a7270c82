/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new VMDK: a descriptor, and extents of its kind.
 *
 * A sparse extent has the layout of the genuine tool's: the header, 20 sectors
 * for a descriptor, the redundant directory with its tables behind it, the
 * directory with its tables, and grains from the next multiple of a grain on.
 */
#include "format/vmdk/create.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/arith.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/values.h"
#include "format/vmdk/descriptor.h"
#include "format/vmdk/header.h"

enum {
    GRAIN_SECTORS = 128,
    DESCRIPTOR_SECTOR = 1,
    DESCRIPTOR_SECTORS = 20,
    TABLE_SECTORS = VMDK_TABLE_SIZE / VMDK_SECTOR,
};

static const uint64_t SPLIT = 2 * LAM_GIB;

const struct lam_option_info vmdk_options[VMDK_NB_OPTIONS] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "adapter_type", LAM_OPTION_TEXT, NULL,
      "Virtual adapter type, can be one of ide (default), lsilogic, buslogic "
      "or legacyESX" },
    { "backing_file", LAM_OPTION_TEXT, NULL, "File name of a base image" },
    { "backing_fmt", LAM_OPTION_TEXT, NULL, "Must be 'vmdk' if present" },
    { "compat6", LAM_OPTION_BOOL, "off", "VMDK version 6 image" },
    { "hwversion", LAM_OPTION_TEXT, "undefined", "VMDK hardware version" },
    { "toolsversion", LAM_OPTION_TEXT, NULL, "VMware guest tools version" },
    { "subformat", LAM_OPTION_TEXT, NULL,
      "VMDK flat extent format, can be one of {monolithicSparse (default) | "
      "monolithicFlat | twoGbMaxExtentSparse | twoGbMaxExtentFlat | "
      "streamOptimized} " },
    { "zeroed_grain", LAM_OPTION_BOOL, NULL,
      "Enable efficient zero writes using the zeroed-grain GTE feature" },
};

struct kind {
    const char *name;
    bool flat, split, compressed;
};

static const struct kind kinds[] = {
    { "monolithicSparse", false, false, false },
    { "monolithicFlat", true, false, false },
    { "twoGbMaxExtentSparse", false, true, false },
    { "twoGbMaxExtentFlat", true, true, false },
    { "streamOptimized", false, false, true },
};

/* What is to be made. */
struct plan {
    const struct kind *kind;
    const char *adapter, *hardware, *tools;
    const char *parent;
    uint64_t size;
    bool zeroed;
    bool filled;                /* by a conversion, which is about to begin */
    enum lam_preallocation preallocation;
    uint32_t cid, parent_cid;
};

/* ----------------------------------------------------------------- options */

static int invalid(const char *value, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "invalid parameter value: %s", value);
}

static int find_kind(const struct lam_create_options *o,
                     const struct kind **out, struct lam_error *err)
{
    const char *name = option_text(o, "subformat", "monolithicSparse");

    for (size_t i = 0; i < LAM_ARRAY_SIZE(kinds); i++)
        if (!strcmp(kinds[i].name, name)) {
            *out = &kinds[i];
            return 0;
        }
    return invalid(name, err);
}

/* It goes into a line of text, some of it between quotes. */
static int check_text(const char *what, const char *text,
                      struct lam_error *err)
{
    for (const char *c = text; c && *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || *c == '"')
            return lam_fail(err, EINVAL, "%s: a descriptor cannot hold the "
                            "character 0x%02x", what,
                            (unsigned)(unsigned char)*c);
    return 0;
}

static int check_adapter(const char *name, struct lam_error *err)
{
    static const char *const names[] = { "ide", "lsilogic", "buslogic",
                                         "legacyESX" };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        if (!strcmp(names[i], name))
            return 0;
    return invalid(name, err);
}

static int plan_versions(const struct lam_create_options *o, struct plan *p,
                         struct lam_error *err)
{
    bool compat6;
    int rc = option_bool(o, "compat6", false, &compat6, err);
    if (rc < 0)
        return rc;

    const char *hardware = option_text(o, "hwversion", "undefined");
    bool given = strcmp(hardware, "undefined");
    if (compat6 && given)
        return lam_fail(err, EINVAL, "compat6 cannot be enabled with hwversion "
                        "set");
    p->hardware = given ? hardware : compat6 ? "6" : "4";
    p->tools = option_text(o, "toolsversion", "2147483647");
    rc = check_text("hwversion", p->hardware, err);
    return rc < 0 ? rc : check_text("toolsversion", p->tools, err);
}

static int check_flat(const struct plan *p, struct lam_error *err)
{
    if (p->parent && p->kind->flat)
        return lam_fail(err, ENOTSUP, "Flat image can't have backing file");
    if (p->zeroed && p->kind->flat)
        return lam_fail(err, ENOTSUP, "Flat image can't enable zeroed grain");
    return 0;
}

static int plan_options(const struct lam_create_options *o, struct plan *p,
                        struct lam_error *err)
{
    if (o->size > INT64_MAX - VMDK_SECTOR)
        return lam_fail(err, EFBIG, "size %" PRIu64 " is beyond the limit of "
                        "2^63", o->size);
    p->size = align_up(o->size, VMDK_SECTOR);
    p->parent = o->backing_file;
    p->preallocation = o->preallocation;
    p->filled = o->no_sync;
    if (p->preallocation == LAM_PREALLOC_METADATA)
        return lam_fail(err, EINVAL, "Unsupported preallocation mode: "
                        "metadata");
    p->adapter = option_text(o, "adapter_type", "ide");
    int rc = find_kind(o, &p->kind, err);
    if (rc == 0)
        rc = check_adapter(p->adapter, err);
    if (rc == 0)
        rc = plan_versions(o, p, err);
    if (rc == 0)
        rc = option_bool(o, "zeroed_grain", false, &p->zeroed, err);
    if (rc == 0)
        rc = check_text("backing_file", p->parent, err);
    return rc < 0 ? rc : check_flat(p, err);
}

/* ----------------------------------------------------------------- extents */

static uint64_t nb_extents(const struct plan *p)
{
    return p->kind->split ? div_up(p->size, SPLIT) : p->size > 0;
}

static uint64_t extent_size(const struct plan *p, uint64_t index)
{
    return p->kind->split ? min_u64(SPLIT, p->size - index * SPLIT) : p->size;
}

static bool is_single(const struct plan *p)
{
    return !p->kind->flat && !p->kind->split;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* "disk.vmdk" → "disk-s001.vmdk" */
static char *extent_name(const struct plan *p, const char *path,
                         uint64_t index)
{
    const char *dot = strrchr(last_part(path), '.');
    int stem = (int)(dot ? (size_t)(dot - path) : strlen(path));
    const char *suffix = dot ? dot : "";
    char *name;
    int n = p->kind->split
        ? asprintf(&name, "%.*s-%c%03" PRIu64 "%s", stem, path,
                   p->kind->flat ? 'f' : 's', index + 1, suffix)
        : asprintf(&name, "%.*s-flat%s", stem, path, suffix);

    return n < 0 ? NULL : name;
}

int vmdk_other_file(const struct lam_create_options *options, const char *path,
                    size_t index, char **name, struct lam_error *err)
{
    struct plan p = { 0 };
    int rc = plan_options(options, &p, err);

    if (rc < 0)
        return rc;
    if (is_single(&p) || index >= nb_extents(&p))
        return 0;
    if (nb_extents(&p) > VMDK_MAX_EXTENTS)
        return lam_fail(err, EFBIG, "a disk of %" PRIu64 " bytes needs more "
                        "than the limit of %d extents of 2 GiB", p.size,
                        VMDK_MAX_EXTENTS);
    *name = extent_name(&p, path, index);
    return *name ? 1 : lam_fail(err, ENOMEM, "no memory for a file name");
}

/* -------------------------------------------------------------- descriptor */

/* Text that grows; @failed sticks. */
struct text {
    char *bytes;
    size_t length;
    bool failed;
};

static void text_deinit(struct text *t)
{
    free(t->bytes);
}

static void __attribute__((format(printf, 2, 3)))
add(struct text *t, const char *format, ...)
{
    lam_autofree char *more = NULL;
    va_list args;

    va_start(args, format);
    int n = vasprintf(&more, format, args);
    va_end(args);
    if (n < 0)
        more = NULL;
    char *bytes = n < 0 ? NULL : realloc(t->bytes, t->length + (size_t)n + 1);
    if (!bytes) {
        t->failed = true;
        return;
    }
    memcpy(bytes + t->length, more, (size_t)n + 1);
    t->bytes = bytes;
    t->length += (size_t)n;
}

static void add_extents(struct text *t, const struct plan *p, const char *path)
{
    if (is_single(p)) {
        add(t, "RW %" PRIu64 " SPARSE \"%s\"\n", p->size / VMDK_SECTOR,
            last_part(path));
        return;
    }
    for (uint64_t i = 0; i < nb_extents(p); i++) {
        lam_autofree char *name = extent_name(p, path, i);
        if (!name) {
            t->failed = true;
            return;
        }
        add(t, "RW %" PRIu64 " %s \"%s\"%s\n",
            extent_size(p, i) / VMDK_SECTOR,
            p->kind->flat ? "FLAT" : "SPARSE", last_part(name),
            p->kind->flat ? " 0" : "");
    }
}

static void add_geometry(struct text *t, const struct plan *p)
{
    uint64_t heads = strcmp(p->adapter, "ide") ? 255 : 16;

    add(t, "ddb.virtualHWVersion = \"%s\"\n"
        "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
        "ddb.geometry.heads = \"%" PRIu64 "\"\n"
        "ddb.geometry.sectors = \"63\"\n"
        "ddb.adapterType = \"%s\"\n"
        "ddb.toolsVersion = \"%s\"\n", p->hardware,
        p->size / VMDK_SECTOR / (heads * 63), heads, p->adapter, p->tools);
}

static int make_text(const struct plan *p, const char *path, struct text *t,
                     struct lam_error *err)
{
    add(t, "# Disk DescriptorFile\n"
        "version=1\n"
        "CID=%08" PRIx32 "\n"
        "parentCID=%08" PRIx32 "\n"
        "createType=\"%s\"\n", p->cid, p->parent_cid, p->kind->name);
    if (p->parent)
        add(t, "parentFileNameHint=\"%s\"", p->parent);
    add(t, "\n# Extent description\n");
    add_extents(t, p, path);
    add(t, "\n# The Disk Data Base\n#DDB\n\n");
    add_geometry(t, p);
    if (t->failed)
        return lam_fail(err, ENOMEM, "no memory for a descriptor");
    if (is_single(p) && t->length > DESCRIPTOR_SECTORS * VMDK_SECTOR)
        return lam_fail(err, EINVAL, "the descriptor of %zu bytes is beyond the"
                        " limit of %d: a name or a version is too long",
                        t->length, DESCRIPTOR_SECTORS * VMDK_SECTOR);
    return 0;
}

/* ---------------------------------------------------------- sparse extents */

static struct vmdk_header header_for(const struct plan *p, uint64_t size)
{
    struct vmdk_header h = {
        .version = p->kind->compressed ? 3 : p->zeroed ? 2 : 1,
        .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT |
                 (p->zeroed ? VMDK_FLAG_ZEROED : 0) |
                 (p->kind->compressed ? VMDK_FLAG_COMPRESSED |
                                        VMDK_FLAG_MARKERS : 0),
        .capacity = size / VMDK_SECTOR,
        .grain_size = GRAIN_SECTORS,
        .descriptor_offset = DESCRIPTOR_SECTOR,
        .descriptor_size = DESCRIPTOR_SECTORS,
        .gtes = VMDK_GTES,
        .compression = p->kind->compressed,
    };
    uint64_t tables = vmdk_nb_tables(&h);
    uint64_t directory = div_up(tables * 4, VMDK_SECTOR);

    h.rgd_offset = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
    h.gd_offset = h.rgd_offset + directory + tables * TABLE_SECTORS;
    h.overhead = align_up(h.gd_offset + directory + tables * TABLE_SECTORS,
                          GRAIN_SECTORS);
    return h;
}

static int write_directory(struct lam_io *io, uint64_t sector, uint64_t tables,
                           struct lam_error *err)
{
    uint64_t bytes = align_up(tables * 4, VMDK_SECTOR);
    lam_autofree uint8_t *buf = calloc(1, bytes ? bytes : 1);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a grain directory");
    for (uint64_t i = 0; i < tables; i++)
        le32_put(buf + 4 * i, (uint32_t)(sector + bytes / VMDK_SECTOR +
                                         i * TABLE_SECTORS));
    return bytes ? lam_io_write(io, buf, bytes, sector * VMDK_SECTOR, err) : 0;
}

/* The header last: before it the file is nothing. */
static int write_sparse(const struct plan *p, struct lam_io *io, uint64_t size,
                        const struct text *text, struct lam_error *err)
{
    const struct vmdk_header h = header_for(p, size);
    uint8_t head[VMDK_HEADER_SIZE];
    int rc = lam_io_truncate(io, h.overhead * VMDK_SECTOR, err);

    if (rc == 0 && text)
        rc = lam_io_write(io, text->bytes, text->length,
                          DESCRIPTOR_SECTOR * VMDK_SECTOR, err);
    if (rc == 0)
        rc = write_directory(io, h.rgd_offset, vmdk_nb_tables(&h), err);
    if (rc == 0)
        rc = write_directory(io, h.gd_offset, vmdk_nb_tables(&h), err);
    vmdk_header_encode(&h, head);
    return rc < 0 ? rc : lam_io_write(io, head, sizeof head, 0, err);
}

static int check_capacity(const struct plan *p, struct lam_error *err)
{
    struct vmdk_header h = header_for(p, p->kind->split ? SPLIT : p->size);

    return p->kind->flat ? 0 : vmdk_header_validate(&h, INT64_MAX, err);
}

static int write_flat(const struct plan *p, struct lam_io *io, uint64_t size,
                      struct lam_error *err)
{
    int rc = lam_io_truncate(io, size, err);

    if (rc < 0 || !size)
        return rc;
    if (p->preallocation == LAM_PREALLOC_OFF)
        return p->filled ? 0 : lam_io_first_block(io, size, err);
    rc = lam_io_preallocate(io, 0, size, p->preallocation, err);
    return lam_error_prefix(err, rc, "Could not preallocate data for the new "
                            "file");
}

/* --------------------------------------------------------------- all of it */

static int make_cid(struct plan *p, struct lam_error *err)
{
    do {
        if (getrandom(&p->cid, sizeof p->cid, 0) != sizeof p->cid)
            return lam_fail_errno(err, errno, "no random number for the "
                                  "content ID");
    } while (p->cid == VMDK_NO_CID);
    return 0;
}

static int write_extents(const struct plan *p, const struct format_new *files,
                         struct lam_error *err)
{
    int rc = 0;

    assert(files->nb_files == nb_extents(p));
    for (size_t i = 0; i < files->nb_files && rc == 0; i++)
        rc = p->kind->flat
            ? write_flat(p, files->files[i], extent_size(p, i), err)
            : write_sparse(p, files->files[i], extent_size(p, i), NULL, err);
    return rc;
}

int vmdk_create_set(const struct format_new *files,
                    const struct lam_create_options *options,
                    struct lam_error *err)
{
    struct plan p = { 0 };
    struct text text lam_cleanup(text_deinit) = { 0 };
    int rc = plan_options(options, &p, err);

    if (rc == 0)
        rc = check_text("the file's name", last_part(files->path), err);
    if (rc == 0)
        rc = check_capacity(&p, err);
    if (rc == 0)
        rc = make_cid(&p, err);
    if (rc < 0)
        return rc;
    p.parent_cid = p.parent ? files->below_id : VMDK_NO_CID;
    rc = make_text(&p, files->path, &text, err);
    if (rc < 0)
        return rc;
    if (is_single(&p))
        return write_sparse(&p, files->io, p.size, &text, err);
    rc = write_extents(&p, files, err);
    if (rc == 0)
        rc = lam_io_truncate(files->io, 0, err);
    return rc < 0 ? rc : lam_io_write(files->io, text.bytes, text.length, 0,
                                      err);
}
