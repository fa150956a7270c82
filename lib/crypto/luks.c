/* SPDX-License-Identifier: MIT */
/*
 * luks.c - the header of LUKS version 1 (format document 10.2).
 */
#include "crypto/luks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"

enum { MAGIC_BYTES = 6, VERSION = 1, SLOT_ALIGNMENT = 8 };

static const uint8_t magic[MAGIC_BYTES] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

bool luks_has_magic(const uint8_t *buf, size_t length)
{
    return length >= LH_CIPHER && !memcmp(buf, magic, MAGIC_BYTES);
}

/* ------------------------------------------------------- decode and encode */

static int decode_name(const uint8_t *p, const char *what,
                       char out[LUKS_NAME_BYTES], struct lam_error *err)
{
    if (!memchr(p, 0, LUKS_NAME_BYTES))
        return lam_fail(err, EUCLEAN, "LUKS header %s is not NUL terminated "
                        "within %d bytes", what, LUKS_NAME_BYTES);
    memcpy(out, p, LUKS_NAME_BYTES);
    return 0;
}

static void decode_slot(const uint8_t *p, struct luks_slot *slot)
{
    slot->state = be32_get(p + LS_STATE);
    slot->iterations = be32_get(p + LS_ITERATIONS);
    memcpy(slot->salt, p + LS_SALT, LUKS_SALT_BYTES);
    slot->sector = be32_get(p + LS_SECTOR);
    slot->stripes = be32_get(p + LS_STRIPES);
}

/* Text that came out of a file: a control character must not get further. */
static void decode_uuid(const uint8_t *p, char out[LUKS_UUID_BYTES + 1])
{
    size_t i = 0;

    for (; i < LUKS_UUID_BYTES && p[i]; i++)
        out[i] = p[i] < 0x20 || p[i] > 0x7e ? '?' : (char)p[i];
    memset(out + i, 0, LUKS_UUID_BYTES + 1 - i);
}

int luks_decode(const uint8_t *buf, struct luks_header *out,
                struct lam_error *err)
{
    if (memcmp(buf, magic, MAGIC_BYTES))
        return lam_fail(err, EINVAL, "Volume is not in LUKS format");
    uint16_t version = be16_get(buf + LH_VERSION);
    if (version != VERSION)
        return lam_fail(err, ENOTSUP, "LUKS version %u is not supported (only "
                        "%d is)", version, VERSION);

    int rc = decode_name(buf + LH_CIPHER, "cipher name", out->cipher, err);
    if (rc == 0)
        rc = decode_name(buf + LH_MODE, "cipher mode", out->mode, err);
    if (rc == 0)
        rc = decode_name(buf + LH_HASH, "hash spec", out->hash, err);
    if (rc < 0)
        return rc;
    out->payload_sector = be32_get(buf + LH_PAYLOAD);
    out->key_bytes = be32_get(buf + LH_KEY_BYTES);
    memcpy(out->digest, buf + LH_DIGEST, LUKS_DIGEST_BYTES);
    memcpy(out->salt, buf + LH_SALT, LUKS_SALT_BYTES);
    out->iterations = be32_get(buf + LH_ITERATIONS);
    decode_uuid(buf + LH_UUID, out->uuid);
    for (size_t i = 0; i < LUKS_SLOTS; i++)
        decode_slot(buf + LH_SLOTS + i * LS_BYTES, &out->slots[i]);
    return 0;
}

void luks_encode_slot(const struct luks_slot *slot, uint8_t *p)
{
    be32_put(p + LS_STATE, slot->state);
    be32_put(p + LS_ITERATIONS, slot->iterations);
    memcpy(p + LS_SALT, slot->salt, LUKS_SALT_BYTES);
    be32_put(p + LS_SECTOR, slot->sector);
    be32_put(p + LS_STRIPES, slot->stripes);
}

void luks_encode(const struct luks_header *h, uint8_t *buf)
{
    memset(buf, 0, LUKS_HEADER_BYTES);
    memcpy(buf, magic, MAGIC_BYTES);
    be16_put(buf + LH_VERSION, VERSION);
    memcpy(buf + LH_CIPHER, h->cipher, LUKS_NAME_BYTES);
    memcpy(buf + LH_MODE, h->mode, LUKS_NAME_BYTES);
    memcpy(buf + LH_HASH, h->hash, LUKS_NAME_BYTES);
    be32_put(buf + LH_PAYLOAD, h->payload_sector);
    be32_put(buf + LH_KEY_BYTES, h->key_bytes);
    memcpy(buf + LH_DIGEST, h->digest, LUKS_DIGEST_BYTES);
    memcpy(buf + LH_SALT, h->salt, LUKS_SALT_BYTES);
    be32_put(buf + LH_ITERATIONS, h->iterations);
    memcpy(buf + LH_UUID, h->uuid, LUKS_UUID_BYTES);
    for (size_t i = 0; i < LUKS_SLOTS; i++)
        luks_encode_slot(&h->slots[i], buf + LH_SLOTS + i * LS_BYTES);
}

/* ----------------------------------------------------- what the names mean */

static int parse_ivgen(const char *text, struct crypt_spec *spec,
                       struct lam_error *err)
{
    size_t length = strcspn(text, ":");

    if (ivgen_find(text, length, &spec->ivgen) < 0)
        return lam_fail(err, ENOTSUP, "IV generator '%s' is not supported",
                        text);
    spec->has_ivgen_hash = text[length] == ':';
    if (!spec->has_ivgen_hash)
        return spec->ivgen != IVGEN_ESSIV ? 0
            : lam_fail(err, EINVAL, "Missing IV generator hash specification");
    text += length + 1;
    if (hash_find(text, strlen(text), &spec->ivgen_hash) < 0)
        return lam_fail(err, ENOTSUP, "Hash algorithm '%s' is not supported",
                        text);
    return 0;
}

/* "xts-plain64", "cbc-essiv:sha256" */
static int parse_mode(const char *text, struct crypt_spec *spec,
                      struct lam_error *err)
{
    const char *dash = strchr(text, '-');

    if (!dash)
        return lam_fail(err, EINVAL, "Unexpected cipher mode string format "
                        "'%s'", text);
    if (cipher_mode_find(text, (size_t)(dash - text), &spec->mode) < 0)
        return lam_fail(err, ENOTSUP, "Cipher mode '%s' is not supported",
                        text);
    return parse_ivgen(dash + 1, spec, err);
}

static int parse_names(const struct luks_header *h, struct luks_params *out,
                       struct lam_error *err)
{
    struct crypt_spec *spec = &out->spec;

    *out = (struct luks_params){ 0 };
    int rc = parse_mode(h->mode, spec, err);
    if (rc < 0)
        return rc;
    bool halves = spec->mode == CIPHER_XTS;
    if (halves && h->key_bytes % 2)
        return lam_fail(err, EINVAL, "XTS cipher key length should be a "
                        "multiple of 2, not %" PRIu32, h->key_bytes);
    if (cipher_of_family(h->cipher, h->key_bytes / (halves ? 2 : 1),
                         &spec->cipher) < 0)
        return lam_fail(err, ENOTSUP, "Algorithm '%s' with key size %" PRIu32
                        " bytes not supported", h->cipher,
                        h->key_bytes / (halves ? 2 : 1));
    if (hash_find(h->hash, strlen(h->hash), &out->hash) < 0)
        return lam_fail(err, ENOTSUP, "Hash algorithm '%s' is not supported",
                        h->hash);
    return 0;
}

/* ----------------------------------------------------------------- validate */

uint64_t luks_material_bytes(const struct luks_header *h)
{
    return align_up((uint64_t)h->key_bytes * LUKS_STRIPES, LUKS_SECTOR);
}

uint64_t luks_slot_cost(const struct luks_header *h, enum hash_algorithm hash,
                        size_t i)
{
    uint64_t key_blocks = div_up(h->key_bytes, hash_size(hash));
    uint64_t digest_blocks = div_up(LUKS_DIGEST_BYTES, hash_size(hash));

    return h->slots[i].iterations * key_blocks + h->iterations * digest_blocks;
}

/* Sectors that a slot's material takes: whole groups of 8. */
static uint64_t slot_sectors(const struct luks_header *h)
{
    return align_up(luks_material_bytes(h) / LUKS_SECTOR, SLOT_ALIGNMENT);
}

/* @limit: the sector by which the material has to end. */
static int validate_slot(const struct luks_header *h, size_t i,
                         uint64_t limit, bool detached, struct lam_error *err)
{
    const struct luks_slot *s = &h->slots[i];
    uint64_t end = s->sector + luks_material_bytes(h) / LUKS_SECTOR;

    if (s->stripes != LUKS_STRIPES)
        return lam_fail(err, EUCLEAN, "Keyslot %zu is corrupted (stripes %"
                        PRIu32 " != %d)", i, s->stripes, LUKS_STRIPES);
    if (s->state != LUKS_SLOT_ACTIVE && s->state != LUKS_SLOT_FREE)
        return lam_fail(err, EUCLEAN, "Keyslot %zu state (active/disable) is "
                        "corrupted: %#" PRIx32, i, s->state);
    if (s->state == LUKS_SLOT_ACTIVE && !s->iterations)
        return lam_fail(err, EUCLEAN, "Keyslot %zu iteration count is zero", i);
    if (s->state == LUKS_SLOT_ACTIVE && s->iterations > LUKS_MAX_ITERATIONS)
        return lam_fail(err, EUCLEAN, "Keyslot %zu iteration count %" PRIu32
                        " is too large (limit: %d)", i, s->iterations,
                        LUKS_MAX_ITERATIONS);
    if (s->sector < LUKS_FIRST_SECTOR)
        return lam_fail(err, EUCLEAN, "Keyslot %zu at sector %" PRIu32 " is "
                        "overlapping with the LUKS header (%d sectors)", i,
                        s->sector, LUKS_FIRST_SECTOR);
    if (end <= limit || (detached && s->state != LUKS_SLOT_ACTIVE))
        return 0;
    return lam_fail(err, EUCLEAN, "Keyslot %zu ends at sector %" PRIu64 " and "
                    "is %s %" PRIu64, i, end, detached ? "beyond the end of "
                    "the detached header at" : "overlapping with the encrypted "
                    "payload at", limit);
}

static int validate_apart(const struct luks_header *h, size_t a, size_t b,
                          struct lam_error *err)
{
    uint64_t length = luks_material_bytes(h) / LUKS_SECTOR;
    uint64_t x = h->slots[a].sector, y = h->slots[b].sector;

    if (x + length <= y || y + length <= x)
        return 0;
    return lam_fail(err, EUCLEAN, "Keyslots %zu and %zu are overlapping in the "
                    "header: sectors %" PRIu64 " and %" PRIu64 ", %" PRIu64
                    " each", a, b, x, y, length);
}

static int validate_payload(const struct luks_header *h, uint64_t area_bytes,
                            struct lam_error *err)
{
    if (h->payload_sector < LUKS_FIRST_SECTOR)
        return lam_fail(err, EUCLEAN, "LUKS payload at sector %" PRIu32 " is "
                        "overlapping with the header (%d sectors)",
                        h->payload_sector, LUKS_FIRST_SECTOR);
    if ((uint64_t)h->payload_sector * LUKS_SECTOR > area_bytes)
        return lam_fail(err, EUCLEAN, "LUKS payload at sector %" PRIu32 " is "
                        "beyond the end of the header's area of %" PRIu64
                        " bytes", h->payload_sector, area_bytes);
    return 0;
}

static int validate_counts(const struct luks_header *h, struct lam_error *err)
{
    if (!h->iterations)
        return lam_fail(err, EUCLEAN, "LUKS key iteration count is zero");
    if (h->iterations > LUKS_MAX_ITERATIONS)
        return lam_fail(err, EUCLEAN, "LUKS key iteration count %" PRIu32
                        " is too large (limit: %d)", h->iterations,
                        LUKS_MAX_ITERATIONS);
    return 0;
}

int luks_validate(const struct luks_header *h, uint64_t area_bytes,
                  bool detached, struct luks_params *params,
                  struct lam_error *err)
{
    uint64_t limit = detached ? area_bytes / LUKS_SECTOR : h->payload_sector;
    /* First: from here on the length of a key is one that a cipher has. */
    int rc = parse_names(h, params, err);

    if (rc == 0 && !detached)
        rc = validate_payload(h, area_bytes, err);
    if (rc == 0)
        rc = validate_counts(h, err);
    for (size_t i = 0; i < LUKS_SLOTS && rc == 0; i++) {
        rc = validate_slot(h, i, limit, detached, err);
        for (size_t j = 0; j < i && rc == 0; j++)
            rc = validate_apart(h, j, i, err);
    }
    return rc;
}

/* ------------------------------------------------------------ a new header */

static int put_name(char out[LUKS_NAME_BYTES], int length,
                    struct lam_error *err)
{
    if (length >= LUKS_NAME_BYTES)
        return lam_fail(err, EINVAL, "Cipher mode '%s' is too long (limit: %d "
                        "bytes)", out, LUKS_NAME_BYTES - 1);
    return 0;
}

static int encode_mode(const struct crypt_spec *spec,
                       char out[LUKS_NAME_BYTES], struct lam_error *err)
{
    const char *mode = cipher_mode_name(spec->mode);
    const char *ivgen = ivgen_name(spec->ivgen);
    int length = spec->has_ivgen_hash
        ? snprintf(out, LUKS_NAME_BYTES, "%s-%s:%s", mode, ivgen,
                   hash_name(spec->ivgen_hash))
        : snprintf(out, LUKS_NAME_BYTES, "%s-%s", mode, ivgen);

    return put_name(out, length, err);
}

int luks_layout(const struct luks_params *params, struct luks_header *out,
                struct lam_error *err)
{
    const struct crypt_spec *spec = &params->spec;

    *out = (struct luks_header){ 0 };
    snprintf(out->cipher, sizeof out->cipher, "%s",
             cipher_family(spec->cipher));
    snprintf(out->hash, sizeof out->hash, "%s", hash_name(params->hash));
    int rc = encode_mode(spec, out->mode, err);
    if (rc < 0)
        return rc;
    out->key_bytes = (uint32_t)cipher_key_bytes(spec->cipher, spec->mode);
    uint64_t area = slot_sectors(out);
    for (size_t i = 0; i < LUKS_SLOTS; i++)
        out->slots[i] = (struct luks_slot){
            .state = LUKS_SLOT_FREE,
            .sector = (uint32_t)(LUKS_FIRST_SECTOR + i * area),
            .stripes = LUKS_STRIPES,
        };
    out->payload_sector = (uint32_t)(LUKS_FIRST_SECTOR + LUKS_SLOTS * area);
    return 0;
}
