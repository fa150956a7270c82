/* SPDX-License-Identifier: MIT */
/*
 * slot.c - one key slot of a LUKS volume (format document 10.2).
 */
#include "format/luks/slot.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "crypto/afsplit.h"

enum { WIPES = 8 };

/* A slot's material in memory, in whole sectors. */
struct material {
    uint8_t *bytes;
    uint64_t length;
};

static void material_deinit(struct material *m)
{
    crypto_wipe(m->bytes, m->length);
    free(m->bytes);
}

static int material_init(struct material *m, const struct luks_volume *v,
                         struct lam_error *err)
{
    m->length = luks_material_bytes(&v->header);
    m->bytes = buffer_new(m->length);
    if (!m->bytes)
        return lam_fail(err, ENOMEM, "no memory for a key slot of %" PRIu64
                        " bytes", m->length);
    memset(m->bytes, 0, m->length);
    return 0;
}

static uint64_t material_offset(const struct luks_volume *v, size_t i)
{
    return v->offset + (uint64_t)v->header.slots[i].sector * LUKS_SECTOR;
}

/* The material is encrypted as the payload is, under the key that comes out of
 * the passphrase; its sectors count from 0. */
static int material_crypt(const struct luks_volume *v, size_t i,
                          const char *passphrase, enum cipher_direction d,
                          struct material *m, struct lam_error *err)
{
    const struct luks_slot *s = &v->header.slots[i];
    uint8_t key[LUKS_MAX_KEY];
    struct crypt *crypt = NULL;
    int rc = hash_pbkdf2(v->params.hash, passphrase, strlen(passphrase),
                         s->salt, LUKS_SALT_BYTES, s->iterations, key,
                         v->header.key_bytes, err);
    if (rc == 0)
        rc = crypt_new(&v->params.spec, key, v->header.key_bytes, CRYPT_GUEST,
                       &crypt, err);
    if (rc == 0)
        rc = crypt_run(crypt, d, m->bytes, m->length, 0, 0, err);
    crypt_free(crypt);
    crypto_wipe(key, sizeof key);
    return rc;
}

static int key_fits(const struct luks_volume *v, const uint8_t *key, bool *fits,
                    struct lam_error *err)
{
    const struct luks_header *h = &v->header;
    uint8_t digest[LUKS_DIGEST_BYTES];
    int rc = hash_pbkdf2(v->params.hash, key, h->key_bytes, h->salt,
                         LUKS_SALT_BYTES, h->iterations, digest, sizeof digest,
                         err);

    *fits = rc == 0 && crypto_equal(digest, h->digest, sizeof digest);
    return rc;
}

int slot_open(const struct luks_volume *v, size_t i, const char *passphrase,
              uint8_t key[LUKS_MAX_KEY], bool *fits, struct lam_error *err)
{
    struct material m lam_cleanup(material_deinit) = { NULL, 0 };
    int rc = material_init(&m, v, err);

    *fits = false;
    if (rc == 0)
        rc = lam_io_read(v->io, m.bytes, m.length, material_offset(v, i), err);
    if (rc == 0)
        rc = material_crypt(v, i, passphrase, CIPHER_DECRYPT, &m, err);
    if (rc == 0)
        rc = afsplit_merge(v->params.hash, m.bytes, v->header.key_bytes,
                           LUKS_STRIPES, key, err);
    return rc < 0 ? rc : key_fits(v, key, fits, err);
}

int slot_iterations(const struct luks_volume *v, size_t out_length,
                    uint64_t iter_time, unsigned share, uint32_t *out,
                    struct lam_error *err)
{
    enum { DEFAULT_ITER_TIME = 2000, MILLISECONDS = 1000 };
    uint64_t rate, count, milliseconds = iter_time ? iter_time
                                                   : DEFAULT_ITER_TIME;
    int rc = hash_pbkdf2_rate(v->params.hash, out_length, milliseconds, &rate,
                              err);

    if (rc < 0)
        return rc;
    if (mul_overflows(rate, milliseconds, &count)
        || count / MILLISECONDS / share > LUKS_MAX_ITERATIONS)
        return lam_fail(err, EINVAL, "iter-time of %" PRIu64 " ms makes more "
                        "than %d iterations", iter_time, LUKS_MAX_ITERATIONS);
    *out = (uint32_t)max_u64(count / MILLISECONDS / share,
                             LUKS_MIN_ITERATIONS);
    return 0;
}

int slot_make(struct luks_volume *v, size_t i, const char *passphrase,
              uint64_t iter_time, struct lam_error *err)
{
    struct material m lam_cleanup(material_deinit) = { NULL, 0 };
    struct luks_slot *s = &v->header.slots[i];
    int rc = material_init(&m, v, err);

    if (rc == 0)
        rc = crypto_random(s->salt, sizeof s->salt, err);
    if (rc == 0)
        rc = slot_iterations(v, v->header.key_bytes, iter_time, 1,
                             &s->iterations, err);
    if (rc == 0)
        rc = afsplit_split(v->params.hash, v->key, v->header.key_bytes,
                           LUKS_STRIPES, m.bytes, err);
    if (rc == 0)
        rc = material_crypt(v, i, passphrase, CIPHER_ENCRYPT, &m, err);
    if (rc == 0)
        rc = lam_io_write(v->io, m.bytes, m.length, material_offset(v, i),
                          err);
    if (rc == 0)
        s->state = LUKS_SLOT_ACTIVE;
    return rc;
}

int slot_copy(struct luks_volume *v, size_t from, size_t to,
              struct lam_error *err)
{
    struct material m lam_cleanup(material_deinit) = { NULL, 0 };
    struct luks_slot *s = &v->header.slots[to];
    const struct luks_slot *source = &v->header.slots[from];
    int rc = material_init(&m, v, err);

    if (rc == 0)
        rc = lam_io_read(v->io, m.bytes, m.length, material_offset(v, from),
                         err);
    if (rc == 0)
        rc = lam_io_write(v->io, m.bytes, m.length, material_offset(v, to),
                          err);
    if (rc < 0)
        return rc;
    s->iterations = source->iterations;
    memcpy(s->salt, source->salt, sizeof s->salt);
    s->state = LUKS_SLOT_ACTIVE;
    return 0;
}

int slot_wipe(const struct luks_volume *v, size_t i, struct lam_error *err)
{
    struct material m lam_cleanup(material_deinit) = { NULL, 0 };
    int rc = material_init(&m, v, err);

    for (int n = 0; n < WIPES && rc == 0; n++) {
        rc = crypto_random(m.bytes, m.length, err);
        if (rc == 0)
            rc = lam_io_write(v->io, m.bytes, m.length, material_offset(v, i),
                              err);
        if (rc == 0)
            rc = lam_io_flush(v->io, err);
    }
    return rc;
}

static uint64_t entry_offset(const struct luks_volume *v, size_t i)
{
    return v->offset + LH_SLOTS + i * LS_BYTES;
}

int slot_write_entry(const struct luks_volume *v, size_t i,
                     struct lam_error *err)
{
    uint8_t entry[LS_BYTES];

    luks_encode_slot(&v->header.slots[i], entry);
    int rc = lam_io_write(v->io, entry + LS_ITERATIONS,
                          LS_BYTES - LS_ITERATIONS,
                          entry_offset(v, i) + LS_ITERATIONS, err);
    return rc < 0 ? rc : lam_io_flush(v->io, err);
}

int slot_write_state(const struct luks_volume *v, size_t i,
                     struct lam_error *err)
{
    uint8_t state[4];

    be32_put(state, v->header.slots[i].state);
    int rc = lam_io_write(v->io, state, sizeof state,
                          entry_offset(v, i) + LS_STATE, err);
    return rc < 0 ? rc : lam_io_flush(v->io, err);
}
