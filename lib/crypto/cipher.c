/* SPDX-License-Identifier: MIT */
/*
 * cipher.c - the modes ECB, CBC, XTS and CTR over a block cipher.
 *
 * Images are made of sectors of 512 bytes, each with its own IV.  Setting a
 * library's cipher up anew for each costs as much as the sector itself, so the
 * modes are made here out of long runs of single blocks, many sectors at a
 * time: the block cipher works on eight and more blocks at once.
 */
#include "crypto/cipher.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "crypto/block.h"
#include "crypto/hash.h"

/* At a time; what is worked with lies on the stack. */
enum { BATCH_BYTES = 8192 };
/* The mode is defined for no other. */
enum { XTS_BLOCK = 16 };

struct cipher {
    enum cipher_mode mode;
    size_t step;                    /* bytes of a block, and of an IV */
    struct block_cipher *block;
    struct block_cipher *tweak;     /* XTS: for the IVs */
};

struct run {
    struct cipher *cipher;
    enum cipher_direction direction;
    uint8_t *buf;
    size_t length, unit;
    size_t step;
    uint8_t *ivs;                   /* @step bytes each */
};

int cipher_new(enum cipher_algorithm algorithm, enum cipher_mode mode,
               const uint8_t *key, size_t key_bytes, struct cipher **out,
               struct lam_error *err)
{
    size_t one = cipher_key_bytes(algorithm, CIPHER_ECB);

    assert(key_bytes == cipher_key_bytes(algorithm, mode));
    (void)key_bytes;
    struct cipher *c = calloc(1, sizeof *c);
    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    c->mode = mode;
    c->step = cipher_block_bytes(algorithm);
    int rc = block_new(algorithm, key, &c->block, err);
    if (rc == 0 && mode == CIPHER_XTS && c->step != XTS_BLOCK)
        rc = lam_fail(err, EINVAL, "Unsupported cipher mode %s",
                      cipher_mode_name(mode));
    if (rc == 0 && mode == CIPHER_XTS)
        rc = block_new(algorithm, key + one, &c->tweak, err);
    if (rc < 0)
        cipher_free(c);
    else
        *out = c;
    return rc;
}

void cipher_free(struct cipher *c)
{
    if (!c)
        return;
    block_free(c->block);
    block_free(c->tweak);
    free(c);
}

/* One block: two moves at most, where memcpy() would be called. */
static void copy_block(uint8_t *to, const uint8_t *from, size_t step)
{
    memcpy(to, from, 8);
    if (step > 8)
        memcpy(to + 8, from + 8, 8);
}

static void xor_bytes(uint8_t *to, const uint8_t *with, size_t length)
{
    uint64_t a, b;

    for (size_t i = 0; i < length; i += sizeof a) {
        memcpy(&a, to + i, sizeof a);
        memcpy(&b, with + i, sizeof b);
        a ^= b;
        memcpy(to + i, &a, sizeof a);
    }
}

/* ---------------------------------------------------------------------- XTS */

/* @tweak times x in the field of 2^128 elements. */
static void double_tweak(uint8_t *tweak)
{
    uint64_t low, high;

    memcpy(&low, tweak, 8);
    memcpy(&high, tweak + 8, 8);
    low = le64toh(low);
    high = le64toh(high);
    uint64_t carry = -(high >> 63) & 0x87;
    high = htole64(high << 1 | low >> 63);
    low = htole64(low << 1 ^ carry);
    memcpy(tweak, &low, 8);
    memcpy(tweak + 8, &high, 8);
}

static int run_xts(struct run *r, struct lam_error *err)
{
    uint8_t tweaks[BATCH_BYTES];
    int rc = block_run(r->cipher->tweak, CIPHER_ENCRYPT, r->ivs,
                       r->length / r->unit * XTS_BLOCK, err);

    for (size_t at = 0; at < r->length && rc == 0; at += BATCH_BYTES) {
        size_t n = min_u64(BATCH_BYTES, r->length - at);

        for (size_t i = 0; i < n; i += XTS_BLOCK) {
            uint8_t *tweak = r->ivs + (at + i) / r->unit * XTS_BLOCK;
            memcpy(tweaks + i, tweak, XTS_BLOCK);
            double_tweak(tweak);
        }
        xor_bytes(r->buf + at, tweaks, n);
        rc = block_run(r->cipher->block, r->direction, r->buf + at, n, err);
        xor_bytes(r->buf + at, tweaks, n);
    }
    return rc;
}

/* ---------------------------------------------------------------------- CBC */

/* What block comes before the one at @at, in the original. */
static const uint8_t *before(const struct run *r, size_t at)
{
    return at % r->unit ? r->buf + at - r->step
                        : r->ivs + at / r->unit * r->step;
}

/* From the end, since each block needs the one before it as it was. */
static int decrypt_cbc(struct run *r, struct lam_error *err)
{
    uint8_t chain[BATCH_BYTES];
    size_t end = r->length;
    int rc = 0;

    while (end > 0 && rc == 0) {
        size_t start = (end - 1) / BATCH_BYTES * BATCH_BYTES;

        for (size_t at = start; at < end; at += r->step)
            copy_block(chain + (at - start), before(r, at), r->step);
        rc = block_run(r->cipher->block, CIPHER_DECRYPT, r->buf + start,
                       end - start, err);
        xor_bytes(r->buf + start, chain, end - start);
        end = start;
    }
    return rc;
}

/* The blocks of one unit wait for each other: one of each unit at a time. */
static int encrypt_cbc_units(struct run *r, size_t first, size_t count,
                             struct lam_error *err)
{
    const size_t step = r->step;
    uint8_t *chain = r->ivs + first * step;
    int rc = 0;

    for (size_t at = 0; at < r->unit && rc == 0; at += step) {
        uint8_t *column = r->buf + first * r->unit + at;

        for (size_t i = 0; i < count; i++)
            xor_bytes(chain + i * step, column + i * r->unit, step);
        rc = block_run(r->cipher->block, CIPHER_ENCRYPT, chain, count * step,
                       err);
        for (size_t i = 0; i < count; i++)
            copy_block(column + i * r->unit, chain + i * step, step);
    }
    return rc;
}

static int encrypt_cbc(struct run *r, struct lam_error *err)
{
    enum { UNITS = 64 };            /* what stays in the first cache */
    size_t count = r->length / r->unit;
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i += UNITS)
        rc = encrypt_cbc_units(r, i, min_u64(UNITS, count - i), err);
    return rc;
}

/* ---------------------------------------------------------------------- CTR */

static void count_up(uint8_t *counter, size_t step)
{
    for (size_t i = step; i-- > 0;) {
        if (++counter[i])
            return;
    }
}

static int run_ctr(struct run *r, struct lam_error *err)
{
    uint8_t stream[BATCH_BYTES];
    int rc = 0;

    for (size_t at = 0; at < r->length && rc == 0; at += BATCH_BYTES) {
        size_t n = min_u64(BATCH_BYTES, r->length - at);

        for (size_t i = 0; i < n; i += r->step) {
            uint8_t *counter = r->ivs + (at + i) / r->unit * r->step;
            copy_block(stream + i, counter, r->step);
            count_up(counter, r->step);
        }
        rc = block_run(r->cipher->block, CIPHER_ENCRYPT, stream, n, err);
        if (rc == 0)
            xor_bytes(r->buf + at, stream, n);
    }
    crypto_wipe(stream, sizeof stream);
    return rc;
}

/* IVs come 16 bytes each: shorter blocks take the first of them. */
static void shorten_ivs(uint8_t *ivs, size_t count, size_t step)
{
    for (size_t i = 1; i < count && step < CIPHER_IV_BYTES; i++)
        memmove(ivs + i * step, ivs + i * CIPHER_IV_BYTES, step);
}

int cipher_run(struct cipher *c, enum cipher_direction direction, uint8_t *buf,
               size_t length, size_t unit, uint8_t *ivs, struct lam_error *err)
{
    struct run r = { c, direction, buf, length, unit, c->step, ivs };

    assert(unit && unit % c->step == 0 && length % unit == 0);
    if (!length)
        return 0;
    shorten_ivs(ivs, length / unit, c->step);
    switch (c->mode) {
    case CIPHER_XTS:
        return run_xts(&r, err);
    case CIPHER_CBC:
        return direction == CIPHER_DECRYPT ? decrypt_cbc(&r, err)
                                           : encrypt_cbc(&r, err);
    case CIPHER_CTR:
        return run_ctr(&r, err);
    case CIPHER_ECB:
    case CIPHER_MODE_COUNT:
        break;
    }
    return block_run(c->block, direction, buf, length, err);
}
