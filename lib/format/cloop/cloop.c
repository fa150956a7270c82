/* SPDX-License-Identifier: MIT */
/*
 * cloop.c - compressed loopback images of version 2: a shell script as a
 * header, a table of offsets, and blocks compressed with zlib.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/chunks/chunks.h"

enum {                          /* every field big-endian */
    CH_BLOCK_SIZE = 128,        /* u32  bytes */
    CH_BLOCKS = 132,            /* u32 */
    CH_OFFSETS = 136,           /* u64 each: one a block, and the end */
};

static const char magic[] =
    "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 "
    "/dev/cloop $1\n";

static int cloop_probe(const uint8_t *head, size_t length)
{
    size_t bytes = sizeof magic - 1;
    return length >= bytes && !memcmp(head, magic, bytes) ? 2 : 0;
}

static int add_blocks(struct chunks *c, const uint8_t *table, uint64_t blocks,
                      uint64_t block, uint64_t length, struct lam_error *err)
{
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t start = be64_get(table + i * 8);
        uint64_t end = be64_get(table + (i + 1) * 8);
        const struct chunk chunk = {
            .guest = i * block, .length = block, .host = start,
            .host_length = end - start, .kind = CHUNK_ZLIB,
        };

        if (end < start)
            return lam_fail(err, EUCLEAN, "offsets not monotonically increasing"
                            " at index %" PRIu64 ", image file is corrupt",
                            i + 1);
        int rc = chunks_add(c, &chunk, length, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int load(struct chunks *c, const struct format_open *o,
                struct lam_error *err)
{
    uint8_t head[CH_OFFSETS];
    uint64_t length;
    int rc = lam_io_size(c->io, &length, err);

    (void)o;
    memset(head, 0, sizeof head);
    if (rc == 0)
        rc = lam_io_read(c->io, head, min_u64(length, sizeof head), 0, err);
    if (rc < 0)
        return rc;
    uint64_t block = be32_get(head + CH_BLOCK_SIZE);
    uint64_t blocks = be32_get(head + CH_BLOCKS);
    if (block == 0)
        return lam_fail(err, EINVAL, "block_size cannot be zero");
    if (block % 512 || block > CHUNK_MAX)
        return lam_fail(err, EINVAL, "block_size %" PRIu64 " must be a multiple"
                        " of 512 and %d MB or less", block, CHUNK_MAX >> 20);
    if (!range_fits(CH_OFFSETS, (blocks + 1) * 8, length))
        return lam_fail(err, EUCLEAN, "cloop: %" PRIu64 " offsets end beyond "
                        "the file's length of %" PRIu64, blocks + 1, length);
    lam_autofree uint8_t *table = malloc((blocks + 1) * 8);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " offsets",
                        blocks + 1);
    rc = lam_io_read(c->io, table, (blocks + 1) * 8, CH_OFFSETS, err);
    c->size = blocks * block;
    if (rc == 0)
        rc = add_blocks(c, table, blocks, block, length, err);
    return rc < 0 ? rc : chunks_settle(c, err);
}

static int cloop_open(const struct format_open *o, void **format,
                      struct lam_error *err)
{
    return chunks_open("cloop", load, o, format, err);
}

const struct format_ops format_cloop = {
    .name = "cloop",
    CHUNKS_OPS,
    .no_details = true,
    .probe = cloop_probe,
    .open = cloop_open,
};
