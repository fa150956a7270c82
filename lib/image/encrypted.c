/* SPDX-License-Identifier: MIT */
/*
 * encrypted.c - guest data on their way to and from an encrypted layer.
 *
 * Sectors of 512 bytes are encrypted as a whole (format document 10).  Reads
 * are widened to them and writes filled up.  Clusters are made of whole
 * sectors, so a widened range stays in the cluster that it came from.
 */
#include "image/encrypted.h"

#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"

static int read_sectors(struct lam_image *layer, struct lam_io *io,
                        uint8_t *buf, uint64_t length, uint64_t guest,
                        uint64_t host, struct lam_error *err)
{
    int rc = lam_io_read(io, buf, length, host, err);
    return rc < 0 ? rc : crypt_run(layer->crypt, CIPHER_DECRYPT, buf, length,
                                   guest, host, err);
}

int encrypted_read(struct lam_image *layer, struct lam_io *io,
                   const struct lam_extent *e, uint8_t *buf,
                   struct lam_error *err)
{
    struct range_split s = range_split(range_make(e->offset, e->length),
                                       CRYPT_SECTOR);
    const struct range parts[] = { s.head, s.body, s.tail };
    int rc = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(parts) && rc == 0; i++) {
        const struct range *p = &parts[i];
        struct range whole = range_widen(*p, CRYPT_SECTOR);
        uint8_t *to = buf + (p->offset - e->offset), sector[CRYPT_SECTOR];
        bool partial = p == &parts[0] || p == &parts[2];

        if (!p->length)
            continue;
        assert(!partial || whole.length == sizeof sector);
        rc = read_sectors(layer, io, partial ? sector : to, whole.length,
                          whole.offset,
                          e->host_offset - e->offset + whole.offset, err);
        if (rc == 0 && partial)
            memcpy(to, sector + (p->offset - whole.offset), p->length);
    }
    return rc;
}

/* @length bytes from byte @at on of what the buffers hold in a row. */
static void gather(const struct iovec *iov, int iovcnt, uint64_t at,
                   uint8_t *out, uint64_t length)
{
    for (int i = 0; i < iovcnt && length > 0; i++) {
        uint64_t have = iov[i].iov_len;
        if (at >= have) {
            at -= have;
            continue;
        }
        uint64_t n = min_u64(length, have - at);
        memcpy(out, (const uint8_t *)iov[i].iov_base + at, n);
        out += n;
        length -= n;
        at = 0;
    }
    assert(length == 0);
}

int encrypted_write(struct lam_image *image, struct lam_io *io,
                    const struct iovec *iov, int iovcnt, uint64_t guest,
                    uint64_t host, struct lam_error *err)
{
    const uint64_t most = 512 * LAM_KIB;
    uint64_t total = 0;
    int rc = 0;

    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    lam_autofree uint8_t *bounce = buffer_new(min_u64(total, most));
    if (!bounce)
        return lam_fail(err, ENOMEM, "no memory to encrypt");
    for (uint64_t at = 0; at < total && rc == 0; at += most) {
        uint64_t n = min_u64(most, total - at);
        gather(iov, iovcnt, at, bounce, n);
        rc = crypt_run(image->crypt, CIPHER_ENCRYPT, bounce, n, guest + at,
                       host + at, err);
        if (rc == 0)
            rc = lam_io_write(io, bounce, n, host + at, err);
    }
    return rc;
}

/* @part lies inside one sector. */
static int patch_sector(struct lam_image *image, encrypted_write_fn *write,
                        const uint8_t *buf, struct range part,
                        struct lam_error *err)
{
    struct range whole = range_widen(part, CRYPT_SECTOR);
    uint8_t sector[CRYPT_SECTOR];

    if (!part.length)
        return 0;
    assert(whole.length == sizeof sector);
    int rc = lam_image_read(image, sector, sizeof sector, whole.offset, err);
    if (rc < 0)
        return rc;
    memcpy(sector + (part.offset - whole.offset), buf, part.length);
    return write(image, sector, sizeof sector, whole.offset, err);
}

int encrypted_write_partial(struct lam_image *image, encrypted_write_fn *write,
                            const void *buf, uint64_t length, uint64_t offset,
                            struct lam_error *err)
{
    struct range_split s = range_split(range_make(offset, length),
                                       CRYPT_SECTOR);
    const uint8_t *p = buf;

    int rc = patch_sector(image, write, p, s.head, err);
    if (rc == 0 && s.body.length)
        rc = write(image, p + (s.body.offset - offset), s.body.length,
                   s.body.offset, err);
    return rc < 0 ? rc : patch_sector(image, write,
                                      p + (s.tail.offset - offset), s.tail,
                                      err);
}
