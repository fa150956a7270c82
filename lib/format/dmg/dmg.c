/* SPDX-License-Identifier: MIT */
/*
 * dmg.c - disk images of macOS (UDIF), to be read: a trailer at the end of the
 * file says where the tables of chunks are.
 */
#include "format/dmg/dmg.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum {                          /* every field big-endian */
    DK_MAGIC = 0,               /* "koly" */
    DK_DATA_OFFSET = 24,        /* u64  bytes */
    DK_RESOURCE_OFFSET = 40,    /* u64 */
    DK_RESOURCE_LENGTH = 48,    /* u64 */
    DK_SEGMENTS = 60,           /* u32  files that the image is cut into */
    DK_XML_OFFSET = 216,        /* u64 */
    DK_XML_LENGTH = 224,        /* u64 */
    DK_SECTORS = 492,           /* u64  of the disk */
    DK_BYTES = 512,
};

static const uint64_t TABLES_MAX = 64 * LAM_MIB;

/* The trailer lies in the last bytes, or a little before them. */
static int find_trailer(struct lam_io *io, uint64_t length, uint8_t *trailer,
                        struct lam_error *err)
{
    uint8_t tail[2 * DK_BYTES];
    uint64_t n = min_u64(length, sizeof tail);

    if (n < DK_BYTES)
        return lam_fail(err, EINVAL, "dmg file must be at least %d bytes long",
                        DK_BYTES);
    int rc = lam_io_read(io, tail, n, length - n, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = n - DK_BYTES + 1; i-- > 0;) {
        if (memcmp(tail + i, "koly", 4))
            continue;
        memcpy(trailer, tail + i, DK_BYTES);
        return 0;
    }
    return lam_fail(err, EINVAL, "Could not locate UDIF trailer in dmg file");
}

static int read_part(struct dmg_source *s, uint64_t offset, uint64_t bytes,
                     const char *what, uint8_t **out, struct lam_error *err)
{
    if (bytes > TABLES_MAX || !range_fits(offset, bytes, s->length))
        return lam_fail(err, EUCLEAN, "dmg: %s of %" PRIu64 " bytes at offset %"
                        PRIu64 " (limits: %" PRIu64 ", and the file's length "
                        "of %" PRIu64 ")", what, bytes, offset, TABLES_MAX,
                        s->length);
    *out = malloc(bytes + 1);
    if (!*out)
        return lam_fail(err, ENOMEM, "no memory for a %s", what);
    return bytes ? lam_io_read(s->chunks->io, *out, bytes, offset, err) : 0;
}

static int load_resources(struct dmg_source *s, uint64_t offset,
                          uint64_t length, struct lam_error *err)
{
    lam_autofree uint8_t *fork = NULL;
    int rc = read_part(s, offset, length, "resource fork", &fork, err);

    if (rc < 0)
        return rc;
    if (length < 16)
        return lam_fail(err, EUCLEAN, "dmg: resource fork of %" PRIu64
                        " bytes", length);
    uint64_t data = be32_get(fork), bytes = be32_get(fork + 8);
    if (!range_fits(data, bytes, length))
        return lam_fail(err, EUCLEAN, "dmg: resources of %" PRIu64 " bytes at "
                        "offset %" PRIu64 " of a fork of %" PRIu64, bytes, data,
                        length);
    return dmg_parse_resources(s, fork + data, bytes, err);
}

static int load_tables(struct dmg_source *s, const uint8_t *trailer,
                       struct lam_error *err)
{
    uint64_t length = be64_get(trailer + DK_RESOURCE_LENGTH);
    lam_autofree uint8_t *xml = NULL;

    if (length)
        return load_resources(s, be64_get(trailer + DK_RESOURCE_OFFSET), length,
                              err);
    length = be64_get(trailer + DK_XML_LENGTH);
    if (!length)
        return lam_fail(err, EUCLEAN, "dmg: neither a property list nor a "
                        "resource fork");
    int rc = read_part(s, be64_get(trailer + DK_XML_OFFSET), length,
                       "property list", &xml, err);
    return rc < 0 ? rc : dmg_parse_xml(s, (const char *)xml, length, err);
}

/* As large as the trailer or the last chunk says. */
static int set_size(struct chunks *c, const uint8_t *trailer,
                    struct lam_error *err)
{
    uint64_t sectors = be64_get(trailer + DK_SECTORS);

    if (sectors > (uint64_t)INT64_MAX / 512)
        return lam_fail(err, EUCLEAN, "dmg: disk of %" PRIu64 " sectors (limit:"
                        " 2^63 bytes)", sectors);
    c->size = sectors * 512;
    for (size_t i = 0; i < c->count; i++)
        c->size = max_u64(c->size, c->items[i].guest + c->items[i].length);
    return chunks_settle(c, err);
}

static int load(struct chunks *c, const struct format_open *o,
                struct lam_error *err)
{
    struct dmg_source s = { .chunks = c, .metadata_only = o->metadata_only };
    uint8_t trailer[DK_BYTES] = { 0 };
    int rc = lam_io_size(c->io, &s.length, err);

    if (rc == 0)
        rc = find_trailer(c->io, s.length, trailer, err);
    if (rc < 0)
        return rc;
    s.data_fork = be64_get(trailer + DK_DATA_OFFSET);
    rc = load_tables(&s, trailer, err);
    if (rc == 0)
        rc = set_size(c, trailer, err);
    /* What lies in the other files was found to lie behind the end of this. */
    if (rc < 0 && be32_get(trailer + DK_SEGMENTS) > 1)
        return lam_error_prefix(err, rc, "one of %" PRIu32 " files",
                                be32_get(trailer + DK_SEGMENTS));
    return rc;
}

static int dmg_open(const struct format_open *o, void **format,
                    struct lam_error *err)
{
    return chunks_open("dmg", load, o, format, err);
}

const struct format_ops format_dmg = {
    .name = "dmg",
    CHUNKS_OPS,
    .no_details = true,
    .suffix = ".dmg",
    .open = dmg_open,
};
