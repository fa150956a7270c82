/* SPDX-License-Identifier: MIT */
/*
 * keyring.c - secrets by name.
 */
#include "crypto/keyring.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "crypto/base64.h"
#include "crypto/cipher.h"
#include "crypto/hash.h"

/* More than any passphrase; a wrong file name must not fill the memory. */
enum { MAX_SECRET = 1 << 20 };

/* Bytes, with a NUL behind them. */
struct bytes {
    uint8_t *data;
    size_t length;
};

struct entry {
    char *id;
    struct bytes secret;
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
    }
    free(keyring->entries);
    free(keyring);
}

const uint8_t *keyring_find(const struct lam_keyring *keyring, const char *id,
                            size_t *length)
{
    for (size_t i = 0; keyring && i < keyring->count; i++) {
        const struct entry *e = &keyring->entries[i];
        if (strcmp(e->id, id))
            continue;
        *length = e->secret.length;
        return e->secret.data;
    }
    return NULL;
}

static int no_secret(const char *id, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "No secret with id '%s'", id);
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
    const uint8_t *secret = keyring_find(keyring, id, &length);
    if (!secret)
        return no_secret(id, err);
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
            return unreadable(path, errno, err);
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
    const uint8_t *key = keyring_find(keyring, keyid, &key_length);

    if (!key)
        return no_secret(keyid, err);
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

static int load(const struct lam_keyring *keyring,
                const struct lam_secret *secret, struct bytes *out,
                struct lam_error *err)
{
    if (secret->file && secret->data)
        return lam_fail(err, EINVAL,
                        "'file' and 'data' are mutually exclusive");
    if (!secret->file && !secret->data)
        return lam_fail(err, EINVAL,
                        "Either 'file' or 'data' must be provided");
    int rc = secret->file
        ? read_file(secret->file, out, err)
        : copy_bytes(secret->data, strlen(secret->data), out, err);
    if (rc == 0 && secret->base64)
        rc = decode(out, err);
    if (rc == 0 && secret->keyid)
        rc = decrypt(keyring, secret->keyid, secret->iv, out, err);
    return rc;
}

static int append(struct lam_keyring *keyring, const char *id,
                  struct bytes *secret, struct lam_error *err)
{
    struct entry *grown = realloc(keyring->entries,
                                  (keyring->count + 1) * sizeof *grown);
    if (grown)
        keyring->entries = grown;
    char *name = grown ? strdup(id) : NULL;
    if (!name)
        return no_memory(err);
    grown[keyring->count++] = (struct entry){ name, *secret };
    *secret = (struct bytes){ NULL, 0 };
    return 0;
}

int lam_keyring_add(struct lam_keyring *keyring,
                    const struct lam_secret *secret, struct lam_error *err)
{
    struct bytes bytes lam_cleanup(bytes_deinit) = { NULL, 0 };
    size_t length;

    if (!secret->id || !*secret->id)
        return lam_fail(err, EINVAL, "Parameter 'id' is missing");
    if (keyring_find(keyring, secret->id, &length))
        return lam_fail(err, EEXIST, "attempt to add duplicate property '%s' "
                        "to object (type 'container')", secret->id);
    int rc = load(keyring, secret, &bytes, err);
    return rc < 0 ? rc : append(keyring, secret->id, &bytes, err);
}
