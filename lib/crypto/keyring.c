/* SPDX-License-Identifier: MIT */
/*
 * keyring.c - secrets by name, and what else has one.
 */
#include "crypto/keyring.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "crypto/base64.h"
#include "crypto/cipher.h"
#include "crypto/hash.h"
#include "crypto/kernel-key.h"
#include "crypto/tls.h"

/* More than any passphrase; a wrong file name must not fill the memory. */
enum { MAX_SECRET = 1 << 20 };

/* Bytes, with a NUL behind them. */
struct bytes {
    uint8_t *data;
    size_t length;
};

struct entry {
    char *id;
    enum keyring_kind kind;
    struct bytes secret;
    struct tls_credentials *tls;
};

struct lam_keyring {
    struct entry *entries;
    size_t count;
};

static void bytes_deinit(struct bytes *b)
{
    crypto_wipe(b->data, b->length);
    free(b->data);
    *b = (struct bytes){ NULL, 0 };
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for a secret");
}

int lam_keyring_new(struct lam_keyring **out, struct lam_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : no_memory(err);
}

void lam_keyring_free(struct lam_keyring *keyring)
{
    if (!keyring)
        return;
    for (size_t i = 0; i < keyring->count; i++) {
        free(keyring->entries[i].id);
        bytes_deinit(&keyring->entries[i].secret);
        tls_credentials_put(keyring->entries[i].tls);
    }
    free(keyring->entries);
    free(keyring);
}

static const struct entry *find(const struct lam_keyring *keyring,
                                const char *id)
{
    for (size_t i = 0; keyring && i < keyring->count; i++) {
        if (!strcmp(keyring->entries[i].id, id))
            return &keyring->entries[i];
    }
    return NULL;
}

/* The entry @id, which has to be of @kind: "TLS credentials". */
static int find_kind(const struct lam_keyring *keyring, const char *id,
                     enum keyring_kind kind, const struct entry **out,
                     struct lam_error *err)
{
    static const struct { const char *one, *a; } names[] = {
        [KEYRING_SECRET] = { "secret", "a secret" },
        [KEYRING_TLS] = { "TLS credentials", "TLS credentials" },
        [KEYRING_RESERVATIONS] = { "persistent reservation manager",
                                   "a persistent reservation manager" },
    };

    *out = find(keyring, id);
    if (!*out)
        return lam_fail(err, EINVAL, "No %s with id '%s'", names[kind].one, id);
    if ((*out)->kind != kind)
        return lam_fail(err, EINVAL, "Object with id '%s' is not %s", id,
                        names[kind].a);
    return 0;
}

const uint8_t *keyring_find(const struct lam_keyring *keyring, const char *id,
                            size_t *length, struct lam_error *err)
{
    const struct entry *e;

    if (find_kind(keyring, id, KEYRING_SECRET, &e, err) < 0)
        return NULL;
    *length = e->secret.length;
    return e->secret.data;
}

int keyring_tls(const struct lam_keyring *keyring, const char *id,
                struct tls_credentials **out, struct lam_error *err)
{
    const struct entry *e;
    int rc = find_kind(keyring, id, KEYRING_TLS, &e, err);

    if (rc < 0)
        return rc;
    if (!tls_credentials_are_clients(e->tls))
        return lam_fail(err, EINVAL,
                        "Expected TLS credentials for a client endpoint");
    *out = tls_credentials_get(e->tls);
    return 0;
}

int keyring_find_reservations(const struct lam_keyring *keyring,
                              const char *id, struct lam_error *err)
{
    const struct entry *unused;

    return find_kind(keyring, id, KEYRING_RESERVATIONS, &unused, err);
}

/* Bytes of the UTF-8 character at @p, 0 if it is none. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
    static const uint32_t least[] = { 0, 1, 0x80, 0x800, 0x10000 };
    size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2
             : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
    uint32_t code = n == 1 ? *p : *p & (0x7fu >> n);

    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code < least[n] || surrogate || code > 0x10ffff ? 0 : n;
}

static bool is_text(const uint8_t *p, size_t length)
{
    while (length > 0) {
        size_t n = utf8_length(p, length);
        if (n == 0 || *p == 0)
            return false;
        p += n;
        length -= n;
    }
    return true;
}

int keyring_passphrase(const struct lam_keyring *keyring, const char *id,
                       const char *parameter, const char **out,
                       struct lam_error *err)
{
    size_t length = 0;

    if (!id)
        return lam_fail(err, EINVAL, "Parameter '%s' is required for cipher",
                        parameter);
    const uint8_t *secret = keyring_find(keyring, id, &length, err);
    if (!secret)
        return -EINVAL;
    if (!is_text(secret, length))
        return lam_fail(err, EINVAL, "Data from secret %s is not valid UTF-8",
                        id);
    *out = (const char *)secret;
    return 0;
}

/* ------------------------------------------------------------------- adding */

static int copy_bytes(const void *data, size_t length, struct bytes *out,
                      struct lam_error *err)
{
    out->data = malloc(length + 1);
    if (!out->data)
        return no_memory(err);
    memcpy(out->data, data, length);
    out->data[length] = '\0';
    out->length = length;
    return 0;
}

static int unreadable(const char *path, int code, struct lam_error *err)
{
    return lam_fail_errno(err, code, "Unable to read %s: Failed to open file "
                          "“%s”", path, path);
}

/* To the end: it may be a pipe. */
static int read_file(const char *path, struct bytes *out, struct lam_error *err)
{
    lam_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return unreadable(path, errno, err);
    out->data = malloc(MAX_SECRET + 1);
    if (!out->data)
        return no_memory(err);
    while (out->length < MAX_SECRET) {
        ssize_t n = read(fd, out->data + out->length,
                         MAX_SECRET - out->length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lam_fail_errno(err, errno, "Unable to read %s: Error "
                                  "reading file “%s”", path, path);
        if (n == 0) {
            out->data[out->length] = '\0';
            return 0;
        }
        out->length += (size_t)n;
    }
    return lam_fail(err, EFBIG, "Unable to read %s: a secret of more than %d "
                    "bytes", path, MAX_SECRET - 1);
}

static int decode(struct bytes *b, struct lam_error *err)
{
    struct bytes out = { malloc(b->length + 4), 0 };

    if (!out.data)
        return no_memory(err);
    if (base64_decode_secret((const char *)b->data, b->length, out.data,
                             &out.length) < 0) {
        bytes_deinit(&out);
        return lam_fail(err, EINVAL, "Base64 data contains invalid characters");
    }
    out.data[out.length] = '\0';
    bytes_deinit(b);
    *b = out;
    return 0;
}

static int decode_iv(const char *text, uint8_t iv[CIPHER_IV_BYTES],
                     struct lam_error *err)
{
    struct bytes b lam_cleanup(bytes_deinit) = { NULL, 0 };

    if (!text)
        return lam_fail(err, EINVAL, "IV is required to decrypt secret");
    int rc = copy_bytes(text, strlen(text), &b, err);
    if (rc == 0)
        rc = decode(&b, err);
    if (rc < 0)
        return rc;
    if (b.length != CIPHER_IV_BYTES)
        return lam_fail(err, EINVAL, "IV should be %d bytes in length not %zu",
                        CIPHER_IV_BYTES, b.length);
    memcpy(iv, b.data, CIPHER_IV_BYTES);
    return 0;
}

/* The last byte says how many were added to fill the last block. */
static int strip_padding(struct bytes *b, struct lam_error *err)
{
    uint8_t padding = b->length ? b->data[b->length - 1] : 0;

    if (padding == 0 || padding > CIPHER_IV_BYTES || padding > b->length)
        return lam_fail(err, EINVAL, "Incorrect number of padding bytes (%u) "
                        "found on decrypted data", padding);
    b->length -= padding;
    b->data[b->length] = '\0';
    return 0;
}

static int decrypt(const struct lam_keyring *keyring, const char *keyid,
                   const char *iv_text, struct bytes *b, struct lam_error *err)
{
    enum { KEY_BYTES = 32 };
    uint8_t iv[CIPHER_IV_BYTES];
    struct cipher *cipher;
    size_t key_length = 0;
    const uint8_t *key = keyring_find(keyring, keyid, &key_length, err);

    if (!key)
        return -EINVAL;
    if (key_length != KEY_BYTES)
        return lam_fail(err, EINVAL, "Key should be %d bytes in length",
                        KEY_BYTES);
    int rc = decode_iv(iv_text, iv, err);
    if (rc < 0)
        return rc;
    if (!b->length || b->length % CIPHER_IV_BYTES)
        return lam_fail(err, EINVAL, "Length %zu must be a multiple of block "
                        "size %d", b->length, CIPHER_IV_BYTES);
    rc = cipher_new(CIPHER_AES_256, CIPHER_CBC, key, KEY_BYTES, &cipher, err);
    if (rc < 0)
        return rc;
    rc = cipher_run(cipher, CIPHER_DECRYPT, b->data, b->length, b->length, iv,
                    err);
    cipher_free(cipher);
    return rc < 0 ? rc : strip_padding(b, err);
}

static int read_source(const struct lam_secret *secret, struct bytes *out,
                       struct lam_error *err)
{
    if (secret->serial)
        return kernel_key_read(secret->serial, &out->data, &out->length, err);
    return secret->file
        ? read_file(secret->file, out, err)
        : copy_bytes(secret->data, strlen(secret->data), out, err);
}

static int load(const struct lam_keyring *keyring,
                const struct lam_secret *secret, struct bytes *out,
                struct lam_error *err)
{
    if (secret->file && secret->data)
        return lam_fail(err, EINVAL,
                        "'file' and 'data' are mutually exclusive");
    if (secret->serial && (secret->file || secret->data))
        return lam_fail(err, EINVAL, "'serial' excludes 'file' and 'data'");
    if (!secret->file && !secret->data && !secret->serial)
        return lam_fail(err, EINVAL,
                        "Either 'file' or 'data' must be provided");
    int rc = read_source(secret, out, err);
    /* By then it is there, and has no data yet. */
    if (rc == 0 && secret->keyid && !strcmp(secret->keyid, secret->id))
        rc = lam_fail(err, EINVAL, "Secret with id '%s' has no data",
                      secret->id);
    if (rc == 0 && secret->base64)
        rc = decode(out, err);
    if (rc == 0 && secret->keyid)
        rc = decrypt(keyring, secret->keyid, secret->iv, out, err);
    return rc;
}

/* @id is free. */
static int check_name(const struct lam_keyring *keyring, const char *id,
                      struct lam_error *err)
{
    if (!id || !*id)
        return lam_fail(err, EINVAL, "Parameter 'id' is missing");
    if (find(keyring, id))
        return lam_fail(err, EEXIST, "attempt to add duplicate property '%s' "
                        "to object (type 'container')", id);
    return 0;
}

/* What @entry holds is the keyring's afterwards; its id is copied. */
static int append(struct lam_keyring *keyring, const char *id,
                  struct entry *entry, struct lam_error *err)
{
    struct entry *grown = realloc(keyring->entries,
                                  (keyring->count + 1) * sizeof *grown);
    if (grown)
        keyring->entries = grown;
    entry->id = grown ? strdup(id) : NULL;
    if (!entry->id)
        return no_memory(err);
    grown[keyring->count++] = *entry;
    *entry = (struct entry){ 0 };
    return 0;
}

int lam_keyring_add(struct lam_keyring *keyring,
                    const struct lam_secret *secret, struct lam_error *err)
{
    struct entry entry = { .kind = KEYRING_SECRET };
    int rc = check_name(keyring, secret->id, err);

    if (rc == 0)
        rc = load(keyring, secret, &entry.secret, err);
    if (rc == 0)
        rc = append(keyring, secret->id, &entry, err);
    bytes_deinit(&entry.secret);
    return rc;
}

int lam_keyring_add_tls(struct lam_keyring *keyring,
                        const struct lam_tls_credentials *credentials,
                        struct lam_error *err)
{
    struct entry entry = { .kind = KEYRING_TLS };
    const char *password = NULL;
    int rc = check_name(keyring, credentials->id, err);

    if (rc == 0 && credentials->key_secret)
        rc = keyring_passphrase(keyring, credentials->key_secret, "passwordid",
                                &password, err);
    if (rc == 0)
        rc = tls_credentials_new(credentials, password, &entry.tls, err);
    if (rc == 0)
        rc = append(keyring, credentials->id, &entry, err);
    tls_credentials_put(entry.tls);
    return rc;
}

int keyring_reserve(struct lam_keyring *keyring, const char *id,
                    enum keyring_kind kind, struct lam_error *err)
{
    struct entry entry = { .kind = kind };
    int rc = check_name(keyring, id, err);

    for (size_t i = 0; i < keyring->count && rc == 0; i++) {
        if (kind == KEYRING_MAIN_LOOP && keyring->entries[i].kind == kind)
            rc = lam_fail(err, EINVAL, "only one main-loop instance allowed");
    }
    return rc < 0 ? rc : append(keyring, id, &entry, err);
}

void keyring_forget(struct lam_keyring *keyring, const char *id)
{
    struct entry *last = &keyring->entries[keyring->count - 1];

    assert(keyring->count && !strcmp(last->id, id) && !last->secret.data &&
           !last->tls);
    free(last->id);
    keyring->count--;
}

int lam_keyring_reserve(struct lam_keyring *keyring, const char *id,
                        enum lam_name_kind kind, struct lam_error *err)
{
    int rc = lam_check_choice(kind, LAM_NAME_MAIN_LOOP, "kind of a name", err);

    return rc < 0 ? rc
        : keyring_reserve(keyring, id, kind == LAM_NAME_MAIN_LOOP
                          ? KEYRING_MAIN_LOOP : KEYRING_OTHER, err);
}
