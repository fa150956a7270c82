/* SPDX-License-Identifier: MIT */
/*
 * volume.c - a LUKS area in a host object: open, make, change its slots.
 */
#include "format/luks/volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "format/luks/slot.h"

/* ------------------------------------------------------------------ opening */

static int load(struct luks_volume *v, struct lam_error *err)
{
    uint8_t buf[LUKS_HEADER_BYTES];

    if (v->length < sizeof buf)
        return lam_fail(err, EUCLEAN, "LUKS area of %" PRIu64 " bytes is too "
                        "short for a header of %d", v->length,
                        LUKS_HEADER_BYTES);
    int rc = lam_io_read(v->io, buf, sizeof buf, v->offset, err);
    if (rc == 0)
        rc = luks_decode(buf, &v->header, err);
    return rc < 0 ? rc : luks_validate(&v->header, v->length, v->detached,
                                       &v->params, err);
}

int luks_volume_load(struct luks_volume *v, struct lam_io *io, uint64_t offset,
                     uint64_t length, struct lam_error *err)
{
    *v = (struct luks_volume){ .io = io, .offset = offset, .length = length };
    return load(v, err);
}

int luks_volume_load_detached(struct luks_volume *v, struct lam_io *io,
                              uint64_t length, struct lam_error *err)
{
    *v = (struct luks_volume){ .io = io, .length = length, .detached = true };
    return load(v, err);
}

/* Slot @i is tried, too: *@cost is what that takes with all before. */
static int charge(const struct luks_volume *v, size_t i, uint64_t *cost,
                  struct lam_error *err)
{
    *cost += luks_slot_cost(&v->header, v->params.hash, i);
    if (*cost <= LUKS_MAX_UNLOCK)
        return 0;
    return lam_fail(err, EUCLEAN, "Keyslots 0 to %zu take %" PRIu64
                    " iterations to try (limit: %d)", i, *cost,
                    LUKS_MAX_UNLOCK);
}

int luks_volume_unlock(struct luks_volume *v, const char *passphrase,
                       struct lam_error *err)
{
    uint64_t cost = 0;

    for (size_t i = 0; i < LUKS_SLOTS && !v->unlocked; i++) {
        if (v->header.slots[i].state != LUKS_SLOT_ACTIVE)
            continue;
        int rc = charge(v, i, &cost, err);
        if (rc == 0)
            rc = slot_open(v, i, passphrase, v->key, &v->unlocked, err);
        if (rc < 0)
            return rc;
    }
    return v->unlocked ? 0 : lam_fail(err, EINVAL, "Invalid password, cannot "
                                      "unlock any keyslot");
}

int luks_volume_crypt(const struct luks_volume *v, enum crypt_basis basis,
                      struct crypt **out, struct lam_error *err)
{
    assert(v->unlocked);
    return crypt_new(&v->params.spec, v->key, v->header.key_bytes, basis, out,
                     err);
}

void luks_volume_deinit(struct luks_volume *v)
{
    crypto_wipe(v->key, sizeof v->key);
    v->unlocked = false;
}

void luks_volume_info(const struct luks_volume *v,
                      struct lam_encryption_info *out)
{
    const struct luks_header *h = &v->header;
    const struct crypt_spec *spec = &v->params.spec;

    *out = (struct lam_encryption_info){
        .format = "luks",
        .cipher_alg = cipher_name(spec->cipher),
        .cipher_mode = cipher_mode_name(spec->mode),
        .ivgen_alg = ivgen_name(spec->ivgen),
        /* A header may name one that nothing uses. */
        .ivgen_hash_alg = spec->ivgen == IVGEN_ESSIV
            ? hash_name(spec->ivgen_hash) : NULL,
        .hash_alg = hash_name(v->params.hash),
        .payload_offset = (uint64_t)h->payload_sector * LUKS_SECTOR,
        .master_key_iterations = h->iterations,
        .detached_header = h->payload_sector == 0,
    };
    snprintf(out->uuid, sizeof out->uuid, "%s", h->uuid);
    for (size_t i = 0; i < LUKS_SLOTS; i++) {
        const struct luks_slot *s = &h->slots[i];
        out->slots[i].active = s->state == LUKS_SLOT_ACTIVE;
        out->slots[i].iterations = s->iterations;
        out->slots[i].key_offset = (uint64_t)s->sector * LUKS_SECTOR;
        out->slots[i].stripes = s->stripes;
    }
}

/* ----------------------------------------------------------------- creating */

static int refuse_value(const char *parameter, const char *value,
                        struct lam_error *err)
{
    return lam_fail(err, EINVAL, "Parameter '%s' does not accept value '%s'",
                    parameter, value);
}

static const char *given(const char *value, const char *standard)
{
    return value ? value : standard;
}

static int parse_options(const struct lam_encryption_options *o,
                         struct luks_params *p, struct lam_error *err)
{
    const char *cipher = given(o->cipher_alg, "aes-256");
    const char *mode = given(o->cipher_mode, "xts");
    const char *ivgen = given(o->ivgen_alg, "plain64");
    const char *hash = given(o->hash_alg, "sha256");
    const char *ivgen_hash = o->ivgen_hash_alg;

    *p = (struct luks_params){ 0 };
    if (cipher_find(cipher, &p->spec.cipher) < 0)
        return refuse_value("cipher-alg", cipher, err);
    if (cipher_mode_find(mode, strlen(mode), &p->spec.mode) < 0)
        return refuse_value("cipher-mode", mode, err);
    if (ivgen_find(ivgen, strlen(ivgen), &p->spec.ivgen) < 0)
        return refuse_value("ivgen-alg", ivgen, err);
    if (hash_find(hash, strlen(hash), &p->hash) < 0)
        return refuse_value("hash-alg", hash, err);
    if (!ivgen_hash && p->spec.ivgen == IVGEN_ESSIV)
        ivgen_hash = "sha256";
    p->spec.has_ivgen_hash = ivgen_hash != NULL;
    if (ivgen_hash && hash_find(ivgen_hash, strlen(ivgen_hash),
                                &p->spec.ivgen_hash) < 0)
        return refuse_value("ivgen-hash-alg", ivgen_hash, err);
    return 0;
}

/* Everything that the payload needs is there: try it with any key. */
static int try_params(const struct luks_params *p, struct lam_error *err)
{
    static const uint8_t key[LUKS_MAX_KEY] = { 1 };
    const struct crypt_spec *spec = &p->spec;
    struct crypt *crypt;
    int rc = hash_check(p->hash, err);

    if (rc == 0)
        rc = crypt_new(spec, key, cipher_key_bytes(spec->cipher, spec->mode),
                       CRYPT_GUEST, &crypt, err);
    if (rc == 0)
        crypt_free(crypt);
    return rc;
}

int luks_volume_plan(struct luks_volume *v,
                     const struct lam_encryption_options *o,
                     const char *prefix, const char **passphrase,
                     struct lam_error *err)
{
    char parameter[64];

    *v = (struct luks_volume){ .length = UINT64_MAX };
    snprintf(parameter, sizeof parameter, "%skey-secret", prefix);
    int rc = parse_options(o, &v->params, err);
    if (rc == 0)
        rc = keyring_passphrase(o->keyring, o->key_secret, parameter,
                                passphrase, err);
    if (rc == 0)
        rc = try_params(&v->params, err);
    return rc < 0 ? rc : luks_layout(&v->params, &v->header, err);
}

uint64_t luks_volume_bytes(const struct luks_volume *v)
{
    return (uint64_t)v->header.payload_sector * LUKS_SECTOR;
}

/* A random one (RFC 9562, version 4). */
static int make_uuid(char out[LUKS_UUID_BYTES + 1], struct lam_error *err)
{
    uint8_t b[16];
    int rc = crypto_random(b, sizeof b, err);

    if (rc < 0)
        return rc;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, LUKS_UUID_BYTES + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-"
             "%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4],
             b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return 0;
}

/* Key, salt and digest, in memory. */
static int make_key(struct luks_volume *v, uint64_t iter_time,
                    struct lam_error *err)
{
    enum { SHARE = 8 };         /* of the time, for the digest */
    struct luks_header *h = &v->header;
    int rc = make_uuid(h->uuid, err);

    if (rc == 0)
        rc = crypto_random(v->key, h->key_bytes, err);
    if (rc == 0)
        rc = crypto_random(h->salt, sizeof h->salt, err);
    if (rc == 0)
        rc = slot_iterations(v, LUKS_DIGEST_BYTES, iter_time, SHARE,
                             &h->iterations, err);
    if (rc == 0)
        rc = hash_pbkdf2(v->params.hash, v->key, h->key_bytes, h->salt,
                         LUKS_SALT_BYTES, h->iterations, h->digest,
                         LUKS_DIGEST_BYTES, err);
    v->unlocked = rc == 0;
    return rc;
}

int luks_volume_create(struct luks_volume *v, struct lam_io *io,
                       uint64_t offset, const char *passphrase,
                       uint64_t iter_time, struct lam_error *err)
{
    uint8_t buf[LUKS_HEADER_BYTES];

    v->io = io;
    v->offset = offset;
    int rc = make_key(v, iter_time, err);
    if (rc == 0)
        rc = slot_make(v, 0, passphrase, iter_time, err);
    if (rc < 0)
        return rc;
    luks_encode(&v->header, buf);
    return lam_io_write(io, buf, sizeof buf, offset, err);
}

/* ----------------------------------------------------------- changing slots */

static size_t nb_active(const struct luks_volume *v)
{
    size_t n = 0;

    for (size_t i = 0; i < LUKS_SLOTS; i++)
        n += v->header.slots[i].state == LUKS_SLOT_ACTIVE;
    return n;
}

static int erase_slot(struct luks_volume *v, size_t i, struct lam_error *err)
{
    struct luks_slot *s = &v->header.slots[i];

    s->state = LUKS_SLOT_FREE;
    int rc = slot_write_state(v, i, err);
    if (rc == 0)
        rc = slot_wipe(v, i, err);
    if (rc < 0)
        return rc;
    s->iterations = 0;
    memset(s->salt, 0, sizeof s->salt);
    return slot_write_entry(v, i, err);
}

/* The first that is not active; LUKS_SLOTS: there is none. */
static size_t free_slot(const struct luks_volume *v)
{
    size_t i = 0;

    while (i < LUKS_SLOTS && v->header.slots[i].state == LUKS_SLOT_ACTIVE)
        i++;
    return i;
}

static int pick_slot(const struct luks_volume *v,
                     const struct lam_key_slot_options *o, size_t *slot,
                     struct lam_error *err)
{
    if (o->slot >= LUKS_SLOTS)
        return lam_fail(err, EINVAL, "Invalid keyslot %d specified, must be "
                        "between 0 and %d", o->slot, LUKS_SLOTS - 1);
    *slot = o->slot < 0 ? free_slot(v) : (size_t)o->slot;
    if (*slot == LUKS_SLOTS)
        return lam_fail(err, EINVAL, "Can't add a keyslot - all keyslots are "
                        "in use");
    if (v->header.slots[*slot].state == LUKS_SLOT_ACTIVE && !o->force)
        return lam_fail(err, EINVAL, "Refusing to overwrite active keyslot %d "
                        "- please erase it first", o->slot);
    return 0;
}

/* What was made in slot @i takes effect, if @rc says that it was. */
static int activate(struct luks_volume *v, size_t i,
                    const struct luks_slot *before, int rc,
                    struct lam_error *err)
{
    if (rc == 0)
        rc = slot_write_entry(v, i, err);
    if (rc == 0)
        rc = slot_write_state(v, i, err);
    if (rc < 0)
        v->header.slots[i] = *before;
    return rc;
}

/* A new key into a slot that nobody looks at until its state says so. */
static int fill_slot(struct luks_volume *v, size_t i, const char *passphrase,
                     uint64_t iter_time, struct lam_error *err)
{
    struct luks_slot before = v->header.slots[i];
    int rc = slot_make(v, i, passphrase, iter_time, err);

    return activate(v, i, &before, rc, err);
}

/* Slot @i may be the only one: until it opens the volume again, another one
 * does.  If none is free, there are others. */
static int replace_slot(struct luks_volume *v, size_t i, const char *passphrase,
                        uint64_t iter_time, struct lam_error *err)
{
    size_t spare = free_slot(v);
    int rc = 0;

    if (spare < LUKS_SLOTS)
        rc = fill_slot(v, spare, passphrase, iter_time, err);
    if (rc == 0)
        rc = erase_slot(v, i, err);
    if (rc < 0)
        return rc;
    if (spare == LUKS_SLOTS)
        return fill_slot(v, i, passphrase, iter_time, err);

    struct luks_slot before = v->header.slots[i];
    rc = slot_copy(v, spare, i, err);
    rc = activate(v, i, &before, rc, err);
    return rc < 0 ? rc : erase_slot(v, spare, err);
}

static int add_slot(struct luks_volume *v, const struct lam_key_slot_options *o,
                    struct lam_error *err)
{
    const char *passphrase;
    size_t i = 0;
    int rc = keyring_passphrase(o->keyring, o->new_secret, "new-secret",
                                &passphrase, err);
    if (rc == 0)
        rc = pick_slot(v, o, &i, err);
    if (rc < 0)
        return rc;
    if (v->header.slots[i].state == LUKS_SLOT_ACTIVE)
        return replace_slot(v, i, passphrase, o->iter_time, err);
    return fill_slot(v, i, passphrase, o->iter_time, err);
}

/* Which slots go; a bit each. */
static int slots_to_erase(const struct luks_volume *v,
                          const struct lam_key_slot_options *o,
                          unsigned *chosen, struct lam_error *err)
{
    uint8_t key[LUKS_MAX_KEY];
    const char *passphrase = NULL;
    uint64_t cost = 0;
    int rc = 0;

    *chosen = 0;
    if (o->old_secret)
        rc = keyring_passphrase(o->keyring, o->old_secret, "old-secret",
                                &passphrase, err);
    for (size_t i = 0; i < LUKS_SLOTS && rc == 0; i++) {
        bool fits = o->slot < 0 || (size_t)o->slot == i;
        if (v->header.slots[i].state != LUKS_SLOT_ACTIVE)
            fits = false;
        if (fits && passphrase)
            rc = charge(v, i, &cost, err);
        if (fits && passphrase && rc == 0)
            rc = slot_open(v, i, passphrase, key, &fits, err);
        *chosen |= (unsigned)fits << i;
    }
    crypto_wipe(key, sizeof key);
    return rc;
}

static int refuse_last(const struct lam_key_slot_options *o,
                       struct lam_error *err)
{
    if (o->slot < 0)
        return lam_fail(err, EINVAL, "All the active keyslots match the (old) "
                        "password that was given and erasing them will erase "
                        "all the data in the image irreversibly - refusing "
                        "operation");
    return lam_fail(err, EINVAL, "Attempt to erase the only active keyslot %d "
                    "which will erase all the data in the image irreversibly "
                    "- refusing operation", o->slot);
}

static int erase_slots(struct luks_volume *v,
                       const struct lam_key_slot_options *o,
                       struct lam_error *err)
{
    unsigned chosen;

    if (!o->old_secret && o->slot < 0)
        return lam_fail(err, EINVAL, "To erase keyslot(s), either explicit "
                        "keyslot index or the password currently contained in "
                        "them must be given");
    if (o->slot >= LUKS_SLOTS)
        return lam_fail(err, EINVAL, "Invalid keyslot %d specified, must be "
                        "between 0 and %d", o->slot, LUKS_SLOTS - 1);
    int rc = slots_to_erase(v, o, &chosen, err);
    if (rc < 0)
        return rc;
    if (!chosen && o->old_secret && o->slot >= 0)
        return lam_fail(err, EINVAL, "Given keyslot %d doesn't contain the "
                        "given old password for erase operation", o->slot);
    if (!chosen && o->old_secret)
        return lam_fail(err, EINVAL, "No keyslots match given (old) password "
                        "for erase operation");
    if (!chosen && !o->force)
        return lam_fail(err, EINVAL, "Given keyslot %d is already erased "
                        "(inactive)", o->slot);
    if ((size_t)__builtin_popcount(chosen) == nb_active(v) && !o->force)
        return refuse_last(o, err);
    for (size_t i = 0; i < LUKS_SLOTS && rc == 0; i++) {
        if (chosen >> i & 1)
            rc = erase_slot(v, i, err);
    }
    return rc;
}

/* Something left over is a misunderstanding, and keys are at stake. */
static int check_change(const struct lam_key_slot_options *o,
                        struct lam_error *err)
{
    if (o->active && !o->new_secret)
        return lam_fail(err, EINVAL, "'new-secret' is required to activate a "
                        "keyslot");
    if (o->active && o->old_secret)
        return lam_fail(err, EINVAL, "'old-secret' must not be given when "
                        "activating keyslots");
    if (!o->active && o->new_secret)
        return lam_fail(err, EINVAL, "'new-secret' must not be given when "
                        "erasing keyslots");
    return 0;
}

int luks_volume_change(struct luks_volume *v,
                       const struct lam_key_slot_options *o,
                       struct lam_error *err)
{
    int rc = check_change(o, err);

    assert(v->unlocked);
    if (rc < 0)
        return rc;
    return o->active ? add_slot(v, o, err) : erase_slots(v, o, err);
}
