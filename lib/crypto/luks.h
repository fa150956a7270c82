/* SPDX-License-Identifier: MIT */
/*
 * luks.h - the header of LUKS version 1 (format document 10.2): decode,
 * validate, encode.  Pure: bytes in, a struct out, and back.
 */
#ifndef LAM_CRYPTO_LUKS_H
#define LAM_CRYPTO_LUKS_H

#include "crypto/crypt.h"

enum {
    LUKS_HEADER_BYTES = 592,
    LUKS_SECTOR = 512,
    LUKS_SLOTS = 8,
    LUKS_STRIPES = 4000,
    LUKS_FIRST_SECTOR = 8,          /* of the first slot's material */
    LUKS_DIGEST_BYTES = 20,
    LUKS_SALT_BYTES = 32,
    LUKS_NAME_BYTES = 32,
    LUKS_UUID_BYTES = 40,
    LUKS_MAX_KEY = CIPHER_MAX_KEY,
    /* Half a minute and more of any machine: a header that asks for more
     * wants to keep us busy. */
    LUKS_MAX_ITERATIONS = 1 << 28,
    LUKS_MIN_ITERATIONS = 1000,
    /* Of all slots together: a few minutes.  Who made a slot with ten seconds
     * of iterations, eight times, is far below it. */
    LUKS_MAX_UNLOCK = 1 << 29,
};

/* Offsets of the fields; every one big-endian. */
enum {
    LH_MAGIC = 0,
    LH_VERSION = 6,                 /* u16 */
    LH_CIPHER = 8,
    LH_MODE = 40,
    LH_HASH = 72,
    LH_PAYLOAD = 104,               /* u32, sectors */
    LH_KEY_BYTES = 108,             /* u32 */
    LH_DIGEST = 112,
    LH_SALT = 132,
    LH_ITERATIONS = 164,            /* u32 */
    LH_UUID = 168,
    LH_SLOTS = 208,
    /* In a slot: */
    LS_STATE = 0,                   /* u32 */
    LS_ITERATIONS = 4,              /* u32 */
    LS_SALT = 8,
    LS_SECTOR = 40,                 /* u32 */
    LS_STRIPES = 44,                /* u32 */
    LS_BYTES = 48,
};

#define LUKS_SLOT_ACTIVE UINT32_C(0x00ac71f3)
#define LUKS_SLOT_FREE   UINT32_C(0x0000dead)

struct luks_slot {
    uint32_t state, iterations;
    uint8_t salt[LUKS_SALT_BYTES];
    uint32_t sector;                /* of its material, in the LUKS area */
    uint32_t stripes;
};

struct luks_header {
    char cipher[LUKS_NAME_BYTES];   /* terminated */
    char mode[LUKS_NAME_BYTES];
    char hash[LUKS_NAME_BYTES];
    uint32_t payload_sector;
    uint32_t key_bytes;
    uint8_t digest[LUKS_DIGEST_BYTES];
    uint8_t salt[LUKS_SALT_BYTES];
    uint32_t iterations;
    char uuid[LUKS_UUID_BYTES + 1];
    struct luks_slot slots[LUKS_SLOTS];
};

/* What the names in a header mean. */
struct luks_params {
    struct crypt_spec spec;
    enum hash_algorithm hash;       /* of PBKDF2 and the splitter */
};

/* True if @buf, @length bytes, begins as a LUKS header of any version. */
bool luks_has_magic(const uint8_t *buf, size_t length);

/* From LUKS_HEADER_BYTES.  -EINVAL if it is none; -ENOTSUP for a version that
 * we have not; -EUCLEAN. */
int luks_decode(const uint8_t *buf, struct luks_header *out,
                struct lam_error *err);
void luks_encode(const struct luks_header *header, uint8_t *buf);
void luks_encode_slot(const struct luks_slot *slot, uint8_t *buf);

/* Judge the values: where slots lie, counts, and that all ends inside
 * @area_bytes.  Fills in @params.  @detached: the payload is not in the area,
 * and may begin anywhere in a file of its own. */
int luks_validate(const struct luks_header *header, uint64_t area_bytes,
                  bool detached, struct luks_params *params,
                  struct lam_error *err);

/* Names and layout for @params, with all slots free. */
int luks_layout(const struct luks_params *params, struct luks_header *out,
                struct lam_error *err);

/* Iterations of PBKDF2 that it takes to try slot @i, 64-bit safe: each block of
 * output costs them anew. */
uint64_t luks_slot_cost(const struct luks_header *header,
                        enum hash_algorithm hash, size_t i);

/* Bytes of a slot's material in whole sectors. */
uint64_t luks_material_bytes(const struct luks_header *header);

#endif
