/* SPDX-License-Identifier: MIT */
/*
 * vpc.c - VHD images: opening, closing, and the table of ops.
 */
#include "format/vpc/vpc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* Of a table in memory; 2040 GiB in blocks of 32 KiB. */
static const uint64_t TABLE_MAX = UINT64_C(0xff000000) * VPC_SECTOR / 32768 * 4;

/* Only the copy at the start is looked for: a fixed disk looks like what is on
 * it. */
static int vpc_probe(const uint8_t *head, size_t length)
{
    return length >= 8 && vpc_is_footer(head) ? 100 : 0;
}

/* ----------------------------------------------------------------- opening */

/* At the start, or of a fixed disk at the end, where old programs left the last
 * byte out. */
static int load_footer(struct vpc *v, uint64_t length, const char *size_calc,
                       struct lam_error *err)
{
    uint64_t at = 0;
    uint64_t n = min_u64(length, VPC_FOOTER_BYTES);

    if (!n)
        return lam_fail(err, EINVAL, "File too small for a VHD header");
    int rc = lam_io_read(v->io, v->footer_bytes, n, 0, err);
    if (rc == 0 && n < VPC_FOOTER_BYTES - 1)
        return vpc_footer_decode(v->footer_bytes, &v->footer, err);
    if (rc == 0 && !vpc_is_footer(v->footer_bytes)) {
        at = align_up(length, VPC_SECTOR) - VPC_FOOTER_BYTES;
        n = length - at;
        memset(v->footer_bytes, 0, sizeof v->footer_bytes);
        rc = lam_io_read(v->io, v->footer_bytes, n, at, err);
    }
    if (rc == 0)
        rc = vpc_footer_decode(v->footer_bytes, &v->footer, err);
    if (rc < 0)
        return rc;
    if (at > 0 && v->footer.type != VPC_FIXED)
        return lam_fail(err, EINVAL, "invalid VPC image");
    /* One without any data is its footer. */
    v->fixed = at > 0 || (v->footer.type == VPC_FIXED &&
                          length == VPC_FOOTER_BYTES);
    v->size = size_calc
        ? vpc_footer_size_by(&v->footer, !strcmp(size_calc, "chs"))
        : vpc_footer_size(&v->footer);
    if (v->size / VPC_SECTOR > VPC_MAX_SECTORS)
        return lam_fail(err, EFBIG, "File too large: %" PRIu64 " bytes, the "
                        "limit is %" PRIu64, v->size,
                        VPC_MAX_SECTORS * VPC_SECTOR);
    if (v->fixed && v->size > at)
        return lam_fail(err, EUCLEAN, "the footer says %" PRIu64 " bytes, the "
                        "file has %" PRIu64 " in front of it", v->size, at);
    return 0;
}

static int check_header(struct vpc *v, const struct vpc_header *h,
                        uint64_t length, struct lam_error *err)
{
    v->table_offset = h->table_offset;
    v->entries = h->entries;
    v->block_size = h->block_size;
    v->bitmap_bytes = align_up(h->block_size / VPC_SECTOR / 8, VPC_SECTOR);

    if ((uint64_t)h->entries * 4 > TABLE_MAX)
        return lam_fail(err, EINVAL, "Max Table Entries too large (%" PRIu32
                        ")", h->entries);
    if ((uint64_t)h->entries * h->block_size < v->size)
        return lam_fail(err, EINVAL, "Page table too small");
    if (h->table_offset > length || (uint64_t)h->entries * 4 > length -
                                                               h->table_offset)
        return lam_fail(err, EUCLEAN, "Error reading pagetable: %" PRIu32
                        " entries at offset %" PRIu64 ", the file has %" PRIu64
                        " bytes", h->entries, h->table_offset, length);
    if (h->table_offset < VPC_FOOTER_BYTES)
        return lam_fail(err, EUCLEAN, "table offset %" PRIu64 " is inside the "
                        "footer's copy", h->table_offset);
    return 0;
}

/* Decodes the table, and finds the end of the last block. */
static int take_table(struct vpc *v, const uint8_t *bytes, uint64_t length,
                      struct lam_error *err)
{
    v->end = v->table_offset + align_up((uint64_t)v->entries * 4, VPC_SECTOR);
    for (uint32_t i = 0; i < v->entries; i++) {
        uint32_t entry = v->table[i] = be32_get(bytes + (size_t)i * 4);
        if (entry != VPC_UNUSED)
            v->end = max_u64(v->end, (uint64_t)entry * VPC_SECTOR +
                                     vpc_block_bytes(v));
    }
    if (v->end > align_up(length, VPC_SECTOR))
        return lam_fail(err, EUCLEAN, "block-vpc: free_data_block_offset points"
                        " after the end of file. The image has been "
                        "truncated.");
    return 0;
}

static int load_table(struct vpc *v, uint64_t length, struct lam_error *err)
{
    size_t bytes = (size_t)v->entries * 4;
    lam_autofree uint8_t *raw = malloc(bytes + 1);

    v->table = malloc(bytes + 1);
    v->whole = calloc(1, v->entries / 8 + 1);
    if (!raw || !v->table || !v->whole)
        return lam_fail(err, ENOMEM, "no memory for a table of %" PRIu32
                        " entries", v->entries);
    int rc = lam_io_read(v->io, raw, bytes, v->table_offset, err);
    return rc < 0 ? lam_error_prefix(err, rc, "Error reading pagetable")
                  : take_table(v, raw, length, err);
}

static int load_header(struct vpc *v, uint64_t length, struct lam_error *err)
{
    uint8_t bytes[VPC_HEADER_BYTES] = { 0 };
    struct vpc_header h;
    uint64_t at = v->footer.data_offset;

    if (at > INT64_MAX - VPC_HEADER_BYTES)
        return lam_fail(err, EUCLEAN, "Error reading dynamic VHD header: "
                        "offset %" PRIu64 " is beyond 2^63", at);
    if (at < length) {
        int rc = lam_io_read(v->io, bytes, min_u64(sizeof bytes, length - at),
                             at, err);
        if (rc < 0)
            return rc;
    }
    int rc = vpc_header_decode(bytes, &h, err);
    if (rc == 0)
        rc = check_header(v, &h, length, err);
    if (rc == 0)
        rc = load_table(v, length, err);
    v->differencing = v->footer.type == VPC_DIFFERENCING;
    if (rc < 0 || !v->differencing)
        return rc;
    return vpc_parent_load(v->io, length, &h, &v->parent, err);
}

static int refuse_writing(const struct vpc *v, struct lam_error *err)
{
    return v->differencing
        ? lam_fail(err, ENOTSUP, "a differencing VHD can only be read") : 0;
}

static int open_into(struct vpc *v, const struct format_open *o,
                     struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(v->io, &length, err);

    if (rc < 0)
        return rc;
    if (length > INT64_MAX - VPC_SECTOR)
        return lam_fail(err, EFBIG, "file length %" PRIu64 " is beyond the "
                        "limit of 2^63", length);
    /* Others cut the file inside a sector. */
    if (v->io->eof_unit < VPC_SECTOR)
        v->io->eof_unit = VPC_SECTOR;
    rc = load_footer(v, length, o->size_calc, err);
    if (rc == 0 && !v->fixed)
        rc = load_header(v, length, err);
    return rc == 0 && o->writable ? refuse_writing(v, err) : rc;
}

static void vpc_free(struct vpc *v)
{
    pthread_rwlock_destroy(&v->lock);
    pthread_mutex_destroy(&v->tail_lock);
    pthread_mutex_destroy(&v->flush_lock);
    inflight_deinit(&v->inflight);
    free(v->parent);
    free(v->table);
    free(v->whole);
    free(v);
}

static int vpc_open(const struct format_open *options, void **format,
                    struct lam_error *err)
{
    struct vpc *v = calloc(1, sizeof *v);

    if (!v)
        return lam_fail(err, ENOMEM, "no memory for a VHD image");
    pthread_rwlock_init(&v->lock, NULL);
    pthread_mutex_init(&v->tail_lock, NULL);
    pthread_mutex_init(&v->flush_lock, NULL);
    inflight_init(&v->inflight);
    v->io = options->io;
    int rc = open_into(v, options, err);
    if (rc < 0)
        vpc_free(v);
    else
        *format = v;
    return rc;
}

static bool is_dirty(const struct vpc *v)
{
    return v->dirty_from < v->dirty_to;
}

static int vpc_close(void *format, struct lam_error *err)
{
    struct vpc *v = format;
    int rc = is_dirty(v) ? vpc_flush(v, err) : 0;

    vpc_free(v);
    return rc;
}

static int vpc_set_writable(void *format, bool writable, struct lam_error *err)
{
    struct vpc *v = format;

    if (writable)
        return refuse_writing(v, err);
    return is_dirty(v) ? vpc_flush(v, err) : 0;
}

/* ------------------------------------------------------------------ the ops */

static void vpc_links(void *format, struct format_links *links)
{
    struct vpc *v = format;

    *links = (struct format_links){
        .backing_file = v->parent,
        .backing_format = v->parent ? "vpc" : NULL,
    };
}

static uint64_t vpc_size(void *format)
{
    struct vpc *v = format;
    return v->size;
}

static uint64_t vpc_cluster_size(void *format)
{
    struct vpc *v = format;
    return v->fixed ? 0 : v->block_size;
}

static uint64_t vpc_zero_unit(void *format)
{
    (void)format;
    return 1;
}

const struct format_ops format_vpc = {
    .name = "vpc",
    .options = vpc_options,
    .nb_options = VPC_NB_OPTIONS,
    .probe = vpc_probe,
    .open = vpc_open,
    .close = vpc_close,
    .set_writable = vpc_set_writable,
    .links = vpc_links,
    .size = vpc_size,
    .cluster_size = vpc_cluster_size,
    .zero_unit = vpc_zero_unit,
    .map = vpc_map,
    .write_begin = vpc_write_begin,
    .write_finish = vpc_write_finish,
    .write_cancel = vpc_write_cancel,
    .zero = vpc_zero,
    .discard = vpc_discard,
    .flush = vpc_flush,
    .create = vpc_create,
};
