/* SPDX-License-Identifier: MIT */
/*
 * fuzz-vhd.c - VHD and VHDX files with changed fields and right checksums.
 *
 * The input is a list of changes of a sound file: two bytes say where, one how
 * many bytes follow, then these.  Sums are taken anew after that, or nothing
 * would get past them.  The first byte chooses the format, and whether there is
 * a log to replay.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/vhdx/log.h"
#include "format/vpc/footer.h"
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 64 << 10, WINDOW = 64 << 20,
       VPC_BLOCK = 16384, VPC_LENGTH = 2560 + 512 + VPC_BLOCK,
       VHDX_LENGTH = 6 * VHDX_UNIT };

/* Parts of a file that changes go to, one behind another. */
struct part {
    uint32_t offset, length;
};

static const struct part vpc_parts[] = {
    { 0, 512 }, { 512, 1024 }, { 1536, 512 }, { VPC_LENGTH - 512, 512 },
    { 2048, 64 },
};
static const struct part vhdx_parts[] = {
    { 0, 16 }, { 64 << 10, 96 }, { 128 << 10, 96 }, { 192 << 10, 128 },
    { 1 << 20, 16384 }, { 2 << 20, 64 }, { 3 << 20, 256 },
    { (3 << 20) + (64 << 10), 256 },
};

static void change(uint8_t *file, const struct part *parts, size_t nb_parts,
                   const uint8_t *data, size_t size)
{
    while (size >= 3) {
        uint32_t at = le16_get(data);
        size_t n = data[2], i = 0;
        data += 3;
        size -= 3;
        n = n < size ? n : size;
        while (i < nb_parts && at >= parts[i].length)
            at -= parts[i++].length;
        if (i == nb_parts)
            return;
        if (n > parts[i].length - at)
            n = parts[i].length - at;
        memcpy(file + parts[i].offset + at, data, n);
        data += n;
        size -= n;
    }
}

/* -------------------------------------------------------------------- VHD */

static void seal_vpc(uint8_t *bytes, uint32_t length, uint32_t at)
{
    be32_put(bytes + at, vpc_checksum(bytes, length, at));
}

/* One block of two. */
static size_t make_vpc(uint8_t *file, const uint8_t *data, size_t size)
{
    const struct vpc_header header = { .table_offset = 1536, .entries = 2,
                                       .block_size = VPC_BLOCK };
    const struct vpc_footer footer = {
        .data_offset = 512,
        .creator = { 't', 'e', 's', 't' },
        .current_size = 2 * VPC_BLOCK,
        .geometry = { 1, 4, 17 },
        .type = VPC_DYNAMIC,
    };

    memset(file, 0, VPC_LENGTH);
    vpc_footer_encode(&footer, file);
    vpc_footer_encode(&footer, file + VPC_LENGTH - 512);
    vpc_header_encode(&header, file + 512);
    memset(file + 1536, 0xff, 1024);
    be32_put(file + 1536, 4);
    change(file, vpc_parts, LAM_ARRAY_SIZE(vpc_parts), data, size);
    seal_vpc(file, 512, 64);
    seal_vpc(file + 512, 1024, 36);
    seal_vpc(file + VPC_LENGTH - 512, 512, 64);
    return VPC_LENGTH;
}

/* ------------------------------------------------------------------- VHDX */

static void seal_vhdx(uint8_t *bytes, size_t length)
{
    memset(bytes + 4, 0, 4);
    le32_put(bytes + 4, crc32c(0, bytes, length));
}

/* Two entries, of which the second says what the table is to be. */
static void make_log(uint8_t *log, const struct vhdx_guid *guid)
{
    static uint8_t sector[VHDX_LOG_SECTOR];
    const uint64_t offset = 2 * VHDX_UNIT;
    struct vhdx_log_entry e = { .length = vhdx_log_length(1), .count = 1,
                                .guid = *guid, .flushed = 5 * VHDX_UNIT,
                                .last = VHDX_LENGTH };

    for (e.sequence = 1; e.sequence <= 2; e.sequence++) {
        le64_put(sector, e.sequence == 2 ? 5 * VHDX_UNIT | 6 : 2);
        vhdx_log_encode(&e, &offset, sector, log);
        log += e.length;
    }
}

static void seal_log(uint8_t *log)
{
    for (uint32_t at = 0; at < 16384; at += VHDX_LOG_SECTOR) {
        uint32_t length = le32_get(log + at + 8);
        if (!memcmp(log + at, "loge", 4) && length >= 64 && length <= VHDX_UNIT)
            seal_vhdx(log + at, length);
    }
}

static size_t make_vhdx(uint8_t *file, bool with_log, const uint8_t *data,
                        size_t size)
{
    const struct vhdx_metadata m = { .block_size = VHDX_UNIT,
                                     .size = 3 * VHDX_UNIT,
                                     .logical_sector = 512,
                                     .physical_sector = 512 };
    const struct vhdx_regions regions = { { 2 * VHDX_UNIT, VHDX_UNIT },
                                          { 3 * VHDX_UNIT, VHDX_UNIT } };
    struct vhdx_header h = { .sequence = 1, .version = 1,
                             .log_length = VHDX_UNIT,
                             .log_offset = VHDX_UNIT };

    memset(file, 0, VHDX_LENGTH);
    h.log.bytes[0] = with_log;
    vhdx_identifier_encode("x", file);
    vhdx_header_encode(&h, file + VHDX_PART);
    h.sequence++;
    vhdx_header_encode(&h, file + 2 * VHDX_PART);
    vhdx_regions_encode(&regions, file + 3 * VHDX_PART);
    vhdx_metadata_encode(&m, file + 3 * VHDX_UNIT);
    le64_put(file + 2 * VHDX_UNIT, 5 * VHDX_UNIT | VHDX_FULLY_PRESENT);
    if (with_log)
        make_log(file + VHDX_UNIT, &h.log);
    change(file, vhdx_parts, LAM_ARRAY_SIZE(vhdx_parts), data, size);
    seal_vhdx(file + VHDX_PART, VHDX_HEADER_BYTES);
    seal_vhdx(file + 2 * VHDX_PART, VHDX_HEADER_BYTES);
    seal_vhdx(file + 3 * VHDX_PART, VHDX_TABLE_BYTES);
    memcpy(file + 4 * VHDX_PART, file + 3 * VHDX_PART, VHDX_TABLE_BYTES);
    seal_log(file + VHDX_UNIT);
    return VHDX_LENGTH;
}

/* --------------------------------------------------------------- the image */

static struct lam_image *open_image(const char *format, const uint8_t *file,
                                    size_t length, unsigned flags)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    options.flags = flags | LAM_OPEN_NO_BACKING;
    options.policy = LAM_POLICY_NONE;
    if (lam_io_memory_new(file, length, &io, NULL) < 0)
        return NULL;
    io->writable = flags & LAM_OPEN_WRITE;
    if (image_open_io(io, format, &options, NULL, &image, &err) < 0) {
        if (!err.message[0])
            abort();
        return NULL;
    }
    return image;
}

static void look_around(struct lam_image *image)
{
    uint64_t size = lam_image_size(image);
    uint64_t places[] = { 0, size / 2, size > MOST ? size - MOST : 0 };
    char *buf = malloc(MOST);

    for (size_t i = 0; buf && i < LAM_ARRAY_SIZE(places); i++) {
        uint64_t length = min_u64(size - places[i], WINDOW);
        struct lam_extents list = LAM_EXTENTS_INIT;
        lam_image_map(image, places[i], length, LAM_DEPTH_ALL, 0, &list, NULL);
        lam_extents_deinit(&list);
        lam_image_read(image, buf, min_u64(length, MOST), places[i], NULL);
    }
    free(buf);
}

static void write_and_read(struct lam_image *image)
{
    uint8_t pattern[3000], found[3000];
    uint64_t size = lam_image_size(image);

    if (size < 8192)
        return;
    memset(pattern, 0xa5, sizeof pattern);
    uint64_t places[] = { 700, size / 2, size - sizeof pattern };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(places); i++)
        if (lam_image_write(image, pattern, sizeof pattern, places[i], 0,
                            NULL) == 0 &&
            lam_image_read(image, found, sizeof found, places[i], NULL) == 0 &&
            memcmp(pattern, found, sizeof found) != 0)
            abort();
    lam_image_zero(image, 0, min_u64(size, MOST), LAM_ZERO_UNMAP, NULL);
    lam_image_flush(image, NULL);
}

static void try_all(const char *format, const uint8_t *file, size_t length)
{
    const unsigned ways[] = { 0, LAM_OPEN_CHECK,
                              LAM_OPEN_WRITE | LAM_OPEN_UNMAP };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(ways); i++) {
        struct lam_image *image = open_image(format, file, length, ways[i]);
        struct lam_check_result result;
        if (!image)
            continue;
        if (ways[i] == LAM_OPEN_CHECK)
            lam_image_check(image, NULL, NULL, &result, NULL);
        else if (ways[i])
            write_and_read(image);
        else
            look_around(image);
        lam_image_close(image, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = size ? malloc(VHDX_LENGTH) : NULL;

    if (!file)
        return 0;
    if (data[0] & 1)
        try_all("vpc", file, make_vpc(file, data + 1, size - 1));
    else
        try_all("vhdx", file, make_vhdx(file, data[0] & 2, data + 1,
                                        size - 1));
    free(file);
    return 0;
}
