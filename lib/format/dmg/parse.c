/* SPDX-License-Identifier: MIT */
/*
 * parse.c - tables of chunks: by base64 in a property list, or one after
 * another in a resource fork.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "crypto/base64.h"
#include "format/dmg/dmg.h"

enum {                          /* every field big-endian */
    DT_MAGIC = 0,               /* "mish" */
    DT_FIRST_SECTOR = 8,        /* u64  of the disk */
    DT_DATA_OFFSET = 24,        /* u64  in the data fork */
    DT_CHUNKS = 200,            /* u32 */
    DT_BYTES = 204,
    DC_TYPE = 0,                /* u32  of a chunk */
    DC_SECTOR = 8,              /* u64  from the table's first */
    DC_SECTORS = 16,            /* u64 */
    DC_OFFSET = 24,             /* u64  in the data fork */
    DC_LENGTH = 32,             /* u64  bytes there */
    DC_BYTES = 40,
};

static const uint64_t SECTORS_MAX = (uint64_t)INT64_MAX / 512;

/* What the numbers stand for; what is not listed is none. */
static const struct {
    uint32_t type;
    bool known;
    enum chunk_kind kind;
    const char *name;
} types[] = {
    { 0x00000000, true, CHUNK_ZERO, "zero" },
    { 0x00000001, true, CHUNK_RAW, "raw" },
    { 0x00000002, true, CHUNK_ZERO, "free" },
    { 0x80000004, true, CHUNK_ADC, "ADC" },
    { 0x80000005, true, CHUNK_ZLIB, "zlib" },
    { 0x80000006, true, CHUNK_BZIP2, "bzip2" },
    { 0x80000007, false, CHUNK_ZERO, "LZFSE" },
    { 0x80000008, false, CHUNK_ZERO, "LZMA" },
};

enum { TYPE_COMMENT = 0x7ffffffe };
#define TYPE_END UINT32_C(0xffffffff)

static int find_type(uint32_t type, size_t *index, struct lam_error *err)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(types); i++) {
        if (types[i].type != type)
            continue;
        *index = i;
        return 0;
    }
    return lam_fail(err, ENOTSUP, "dmg: chunk of type %#" PRIx32 ", which is "
                    "not known", type);
}

static int parse_chunk(const struct dmg_source *s, const uint8_t *table,
                       const uint8_t *raw, struct lam_error *err)
{
    uint64_t first = be64_get(table + DT_FIRST_SECTOR);
    uint64_t sector = be64_get(raw + DC_SECTOR);
    uint64_t sectors = be64_get(raw + DC_SECTORS);
    uint64_t base = be64_get(table + DT_DATA_OFFSET);
    uint32_t type = be32_get(raw + DC_TYPE);
    struct chunk chunk = { .host_length = be64_get(raw + DC_LENGTH) };
    size_t i = 0;

    if (type == TYPE_COMMENT || type == TYPE_END)
        return 0;
    int rc = find_type(type, &i, err);
    if (rc < 0)
        return rc;
    if (!types[i].known && !s->metadata_only)
        return lam_fail(err, ENOTSUP, "dmg: chunk compressed with %s, which is "
                        "not supported", types[i].name);
    if (sectors > SECTORS_MAX || add_overflows(first, sector, &sector) ||
        sector > SECTORS_MAX - sectors)
        return lam_fail(err, EUCLEAN, "dmg: chunk of %" PRIu64 " sectors at "
                        "sector %" PRIu64 " (limit: %" PRIu64 ")", sectors,
                        sector, SECTORS_MAX);
    chunk.kind = types[i].kind;
    chunk.guest = sector * 512;
    chunk.length = sectors * 512;
    if (add_overflows(be64_get(raw + DC_OFFSET), base, &chunk.host) ||
        add_overflows(chunk.host, s->data_fork, &chunk.host))
        return lam_fail(err, EUCLEAN, "dmg: chunk at data offset %" PRIu64
                        " (limit: 2^64)", be64_get(raw + DC_OFFSET));
    if (chunk.kind == CHUNK_RAW && chunk.host_length < chunk.length)
        return lam_fail(err, EUCLEAN, "dmg: raw chunk of %" PRIu64 " bytes for "
                        "%" PRIu64 " sectors", chunk.host_length, sectors);
    return chunks_add(s->chunks, &chunk, s->length, err);
}

int dmg_parse_table(const struct dmg_source *source, const uint8_t *table,
                    size_t bytes, struct lam_error *err)
{
    if (bytes < DT_BYTES || memcmp(table, "mish", 4))
        return 0;
    uint64_t chunks = be32_get(table + DT_CHUNKS);
    if (chunks > (bytes - DT_BYTES) / DC_BYTES)
        return lam_fail(err, EUCLEAN, "dmg: table of %" PRIu64 " chunks in %zu "
                        "bytes", chunks, bytes);
    int rc = 0;
    for (uint64_t i = 0; i < chunks && rc == 0; i++)
        rc = parse_chunk(source, table, table + DT_BYTES + i * DC_BYTES, err);
    return rc;
}

static const char *find(const char *text, const char *end, const char *word)
{
    return memmem(text, (size_t)(end - text), word, strlen(word));
}

static int parse_base64(const struct dmg_source *source, const char *text,
                        size_t length, struct lam_error *err)
{
    size_t bytes;
    lam_autofree uint8_t *table = malloc(length / 4 * 3 + 6);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a table of chunks");
    if (base64_decode(text, length, table, &bytes) < 0)
        return lam_fail(err, EUCLEAN, "dmg: a table of chunks is not base64");
    return dmg_parse_table(source, table, bytes, err);
}

int dmg_parse_xml(const struct dmg_source *source, const char *xml,
                  size_t bytes, struct lam_error *err)
{
    static const char open[] = "<data>", close[] = "</data>";
    const char *end = xml + bytes;
    const char *at = find(xml, end, "<key>blkx</key>");
    int rc = 0;

    if (!at)
        return lam_fail(err, EUCLEAN, "dmg: the property list has no 'blkx'");
    const char *array = find(at, end, "</array>");
    end = array ? array : end;
    while (rc == 0 && (at = find(at, end, open))) {
        at += sizeof open - 1;
        const char *stop = find(at, end, close);
        if (!stop)
            return lam_fail(err, EUCLEAN, "dmg: the property list ends inside "
                            "<data>");
        rc = parse_base64(source, at, (size_t)(stop - at), err);
        at = stop;
    }
    return rc;
}

/* Each with its length in front. */
int dmg_parse_resources(const struct dmg_source *source, const uint8_t *data,
                        size_t bytes, struct lam_error *err)
{
    int rc = 0;

    for (size_t at = 0; bytes - at >= 4 && rc == 0;) {
        size_t length = be32_get(data + at);
        at += 4;
        if (length == 0 || length > bytes - at)
            return lam_fail(err, EUCLEAN, "dmg: resource of %zu bytes in a fork"
                            " of %zu", length, bytes);
        rc = dmg_parse_table(source, data + at, length, err);
        at += length;
    }
    return rc;
}
