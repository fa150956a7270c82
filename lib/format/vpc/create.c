/* SPDX-License-Identifier: MIT */
/*
 * create.c - new VHD images.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "crypto/hash.h"
#include "format/values.h"
#include "format/vpc/vpc.h"

enum { BLOCK_SIZE = 2 * 1024 * 1024 };

/* Seconds from 1970 to 2000, where VHD's time begins. */
static const time_t EPOCH = 946684800;

const struct lam_option_info vpc_options[VPC_NB_OPTIONS] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "subformat", LAM_OPTION_TEXT, NULL,
      "Type of virtual hard disk format. Supported formats are {dynamic "
      "(default) | fixed} " },
    { "force_size", LAM_OPTION_BOOL, NULL,
      "Force disk size calculation to use the actual size specified, rather "
      "than using the nearest CHS-based calculation" },
};

struct plan {
    uint64_t size;              /* bytes of the disk */
    bool fixed;
    struct vpc_footer footer;
};

/* Who made it also tells how its size is to be understood. */
static int plan_size(struct plan *p, uint64_t asked, bool force,
                     struct lam_error *err)
{
    uint64_t sectors = div_up(asked, VPC_SECTOR);
    struct vpc_geometry g = force ? vpc_geometry_largest
                                  : vpc_geometry_for(sectors);

    if (sectors > VPC_MAX_SECTORS)
        return lam_fail(err, EFBIG, "The image size is too large for file "
                        "format 'vpc'");
    if (!vpc_geometry_is_largest(g))
        sectors = vpc_geometry_sectors(g);
    p->size = sectors * VPC_SECTOR;
    p->footer.geometry = g;
    memcpy(p->footer.creator, force ? "qem2" : "qemu", 4);
    return 0;
}

static int make_plan(struct plan *p, const struct lam_create_options *options,
                     struct lam_error *err)
{
    const char *kind = option_text(options, "subformat", "dynamic");
    bool force;

    *p = (struct plan){ 0 };
    p->fixed = !strcmp(kind, "fixed");
    if (!p->fixed && strcmp(kind, "dynamic"))
        return lam_fail(err, EINVAL, "Parameter 'subformat' does not accept "
                        "value '%s'", kind);
    int rc = option_bool(options, "force_size", false, &force, err);
    if (rc == 0)
        rc = plan_size(p, options->size, force, err);
    if (rc < 0)
        return rc;

    struct vpc_footer *f = &p->footer;
    f->data_offset = p->fixed ? UINT64_MAX : VPC_FOOTER_BYTES;
    f->timestamp = (uint32_t)(time(NULL) - EPOCH);
    f->creator_version = 0x00050003;
    memcpy(f->creator_os, "Wi2k", 4);
    f->original_size = f->current_size = p->size;
    f->type = p->fixed ? VPC_FIXED : VPC_DYNAMIC;
    rc = crypto_random(f->uuid, sizeof f->uuid, err);
    f->uuid[6] = (uint8_t)((f->uuid[6] & 0x0f) | 0x40);     /* version 4 */
    f->uuid[8] = (uint8_t)((f->uuid[8] & 0x3f) | 0x80);
    return rc;
}

static int write_fixed(struct lam_io *io, const struct plan *p,
                       const uint8_t *footer,
                       const struct lam_create_options *options,
                       struct lam_error *err)
{
    enum lam_preallocation preallocation = options->preallocation;
    int rc = io->limits.is_block_device ? 0
        : lam_io_truncate(io, p->size + VPC_FOOTER_BYTES, err);

    if (rc == 0 && preallocation != LAM_PREALLOC_OFF && p->size)
        rc = lam_io_preallocate(io, 0, p->size, preallocation, err);
    else if (rc == 0 && !options->no_sync && !io->limits.is_block_device)
        rc = lam_io_first_block(io, p->size, err);
    return rc < 0 ? rc : lam_io_write(io, footer, VPC_FOOTER_BYTES, p->size,
                                      err);
}

/* Footer, header, a table without blocks, footer. */
static int write_dynamic(struct lam_io *io, const struct plan *p,
                         const uint8_t *footer, struct lam_error *err)
{
    struct vpc_header h = {
        .table_offset = VPC_FOOTER_BYTES + VPC_HEADER_BYTES,
        .entries = (uint32_t)div_up(p->size, BLOCK_SIZE),
        .block_size = BLOCK_SIZE,
    };
    size_t table = align_up((uint64_t)h.entries * 4, VPC_SECTOR);
    size_t total = h.table_offset + table + VPC_FOOTER_BYTES;
    lam_autofree uint8_t *bytes = malloc(total);

    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a table of %" PRIu32
                        " entries", h.entries);
    memcpy(bytes, footer, VPC_FOOTER_BYTES);
    vpc_header_encode(&h, bytes + VPC_FOOTER_BYTES);
    memset(bytes + h.table_offset, 0xff, table);
    memcpy(bytes + h.table_offset + table, footer, VPC_FOOTER_BYTES);
    return lam_io_write(io, bytes, total, 0, err);
}

int vpc_create(struct lam_io *io, struct lam_io *data,
               const struct lam_create_options *options, struct lam_error *err)
{
    uint8_t footer[VPC_FOOTER_BYTES];
    struct plan p;

    assert(!data);
    (void)data;
    int rc = make_plan(&p, options, err);
    if (rc < 0)
        return rc;
    vpc_footer_encode(&p.footer, footer);
    return p.fixed ? write_fixed(io, &p, footer, options, err)
                   : write_dynamic(io, &p, footer, err);
}
