/* SPDX-License-Identifier: MIT */
/*
 * create.c - new VHDX images.
 *
 *     identifier, headers, region tables | log | table of blocks | metadata |
 *     4 MiB left free | blocks
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "crypto/hash.h"
#include "format/values.h"
#include "format/vhdx/vhdx.h"

const struct lam_option_info vhdx_options[VHDX_NB_OPTIONS] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size; max of 64TB." },
    { "log_size", LAM_OPTION_SIZE, "1048576", "Log size; min 1MB." },
    { "block_size", LAM_OPTION_SIZE, "0",
      "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image "
      "size." },
    { "subformat", LAM_OPTION_TEXT, NULL,
      "VHDX format type, can be either 'dynamic' or 'fixed'. Default is "
      "'dynamic'." },
    { "block_state_zero", LAM_OPTION_BOOL, NULL,
      "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  "
      "Do not set to 'off' when using 'qemu-img convert' with "
      "subformat=dynamic." },
};

struct plan {
    bool fixed;
    bool zero_state;            /* a block that is not there says "zero" */
    struct vhdx_metadata m;
    struct vhdx_header header;
    struct vhdx_regions regions;
    uint64_t blocks;            /* where they begin */
};

/* So that the table stays small. */
static uint64_t standard_block_size(uint64_t size)
{
    if (size > 32 * LAM_TIB)
        return 64 * LAM_MIB;
    if (size > 100 * LAM_GIB)
        return 32 * LAM_MIB;
    return size > LAM_GIB ? 16 * LAM_MIB : 8 * LAM_MIB;
}

static int plan_sizes(struct plan *p, const struct lam_create_options *o,
                      struct lam_error *err)
{
    uint64_t size = o->size, log, block;
    int rc = option_size(o, "log_size", LAM_MIB, &log, err);

    if (rc == 0)
        rc = option_size(o, "block_size", 0, &block, err);
    if (rc < 0)
        return rc;
    if (size > VHDX_MAX_SIZE)
        return lam_fail(err, EINVAL, "Image size too large; max of 64TB");
    if (!log)
        return lam_fail(err, EINVAL, "Log size must be a multiple of 1 MB");
    if (log >= 4 * LAM_GIB || align_up(log, LAM_MIB) >= 4 * LAM_GIB)
        return lam_fail(err, EINVAL, "Log size must be smaller than 4 GB");
    block = block ? align_up(min_u64(block, VHDX_MAX_BLOCK), LAM_MIB)
                  : standard_block_size(align_up(size, 512));
    if (!is_power_of_two(block))
        return lam_fail(err, EINVAL, "Block size must be a power of two");
    p->m.size = align_up(size, 512);
    p->m.block_size = (uint32_t)block;
    p->m.logical_sector = p->m.physical_sector = 512;
    p->header.log_length = (uint32_t)align_up(log, LAM_MIB);
    return 0;
}

static int plan_kind(struct plan *p, const struct lam_create_options *o,
                     struct lam_error *err)
{
    const char *kind = option_text(o, "subformat", "dynamic");

    p->fixed = p->m.leave_allocated = !strcmp(kind, "fixed");
    if (!p->fixed && strcmp(kind, "dynamic"))
        return lam_fail(err, EINVAL, "Parameter 'subformat' does not accept "
                        "value '%s'", kind);
    return option_bool(o, "block_state_zero", true, &p->zero_state, err);
}

static int plan_identity(struct plan *p, struct lam_error *err)
{
    uint8_t sequence[4];
    int rc = vhdx_guid_make(&p->m.page83, err);

    if (rc == 0)
        rc = vhdx_guid_make(&p->header.file_write, err);
    if (rc == 0)
        rc = vhdx_guid_make(&p->header.data_write, err);
    if (rc == 0)
        rc = crypto_random(sequence, sizeof sequence, err);
    p->header.sequence = rc < 0 ? 0 : le32_get(sequence);
    return rc;
}

/* Of a disk without a block, others count the bitmaps of the 2^32 blocks in
 * front of the first one, and do not open a file that has no room for that. */
static uint64_t nb_entries_told(const struct vhdx_metadata *m)
{
    return m->size ? vhdx_nb_entries(m) : UINT32_MAX / vhdx_chunk_ratio(m);
}

static int make_plan(struct plan *p, const struct lam_create_options *o,
                     struct lam_error *err)
{
    *p = (struct plan){ 0 };
    int rc = plan_sizes(p, o, err);
    if (rc == 0)
        rc = plan_kind(p, o, err);
    if (rc == 0)
        rc = plan_identity(p, err);
    if (rc < 0)
        return rc;

    uint64_t table = align_up(nb_entries_told(&p->m) * 8, LAM_MIB);
    p->header.version = 1;
    p->header.log_offset = VHDX_UNIT;
    p->regions.table.offset = p->header.log_offset + p->header.log_length;
    p->regions.table.length = (uint32_t)table;
    p->regions.metadata.offset = p->regions.table.offset + table;
    p->regions.metadata.length = VHDX_UNIT;
    p->blocks = p->regions.metadata.offset + 5 * VHDX_UNIT;
    return 0;
}

/* ----------------------------------------------------------------- writing */

/* The first MiB. */
static void encode_head(const struct plan *p, uint8_t *bytes)
{
    struct vhdx_header second = p->header;

    second.sequence++;
    memset(bytes, 0, VHDX_UNIT);
    vhdx_identifier_encode("lamella", bytes);
    vhdx_header_encode(&p->header, bytes + VHDX_PART);
    vhdx_header_encode(&second, bytes + 2 * VHDX_PART);
    vhdx_regions_encode(&p->regions, bytes + 3 * VHDX_PART);
    vhdx_regions_encode(&p->regions, bytes + 4 * VHDX_PART);
}

/* Bitmaps of sectors are never there. */
static uint64_t first_entry(const struct plan *p, uint64_t index)
{
    uint64_t ratio = vhdx_chunk_ratio(&p->m);
    uint64_t block = index / (ratio + 1) * ratio + index % (ratio + 1);

    if (index % (ratio + 1) == ratio)
        return 0;
    return p->fixed
        ? (p->blocks + block * p->m.block_size) | VHDX_FULLY_PRESENT
        : VHDX_ZERO;
}

static int write_table(struct lam_io *io, const struct plan *p, uint8_t *bytes,
                       struct lam_error *err)
{
    uint64_t nb = vhdx_nb_entries(&p->m), at = p->regions.table.offset;
    const uint64_t chunk = VHDX_UNIT / 8;
    int rc = 0;

    if (!p->fixed && !p->zero_state)
        return 0;
    for (uint64_t from = 0; from < nb && rc == 0; from += chunk) {
        uint64_t n = min_u64(chunk, nb - from);
        for (uint64_t i = 0; i < n; i++)
            le64_put(bytes + i * 8, first_entry(p, from + i));
        rc = lam_io_write(io, bytes, n * 8, at + from * 8, err);
    }
    return rc;
}

static int reserve_blocks(struct lam_io *io, const struct plan *p,
                          enum lam_preallocation preallocation,
                          struct lam_error *err)
{
    uint64_t length = p->fixed ? vhdx_nb_blocks(&p->m) * p->m.block_size : 0;
    int rc = io->limits.is_block_device ? 0
        : lam_io_truncate(io, p->blocks + length, err);

    if (rc == 0 && length && preallocation != LAM_PREALLOC_OFF)
        rc = lam_io_preallocate(io, p->blocks, length, preallocation, err);
    return rc;
}

int vhdx_create(struct lam_io *io, struct lam_io *data,
                const struct lam_create_options *options,
                struct lam_error *err)
{
    struct plan p;

    assert(!data);
    (void)data;
    int rc = make_plan(&p, options, err);
    if (rc < 0)
        return rc;
    lam_autofree uint8_t *bytes = malloc(VHDX_UNIT);
    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a header");
    rc = reserve_blocks(io, &p, options->preallocation, err);
    if (rc == 0)
        rc = write_table(io, &p, bytes, err);
    vhdx_metadata_encode(&p.m, bytes);
    if (rc == 0)
        rc = lam_io_write(io, bytes, VHDX_UNIT, p.regions.metadata.offset,
                          err);
    encode_head(&p, bytes);
    if (rc == 0)
        rc = lam_io_flush(io, err);
    /* What makes it an image comes last. */
    return rc < 0 ? rc : lam_io_write(io, bytes, VHDX_UNIT, 0, err);
}
