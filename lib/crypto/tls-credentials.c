/* SPDX-License-Identifier: MIT */
/*
 * tls-credentials.c - keys and certificates out of a folder.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "crypto/hash.h"
#include "crypto/tls-internal.h"

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for TLS credentials");
}

/* The file @name of @folder in *@path; NULL if it is not there and need not
 * be. */
static int find_file(const char *folder, const char *name, bool required,
                     char **path, struct lam_error *err)
{
    if (asprintf(path, "%s/%s", folder, name) < 0) {
        *path = NULL;
        return no_memory(err);
    }
    if (access(*path, R_OK) == 0)
        return 0;
    if (errno != ENOENT || required)
        return lam_fail_errno(err, errno, "Unable to access credentials %s",
                              *path);
    free(*path);
    *path = NULL;
    return 0;
}

/* --------------------------------------------------------------------- keys */

/* Identities and keys of TLS have less than 64 KiB (RFC 4279), and a key two
 * digits a byte: what is longer is no line of keys. */
enum { KEY_LINE_MAX = 256 * 1024, KEY_LINE_SIZE = KEY_LINE_MAX + 2 };

/* The key of @user in @file, lines of "USER:KEY" that are read into @line. */
static int find_key(FILE *file, const char *user, char *line, char **key)
{
    char *last = line + KEY_LINE_SIZE - 1;
    size_t length = strlen(user);

    /* The last byte tells that @line is full, as its length would not: a file
     * can have zeroes. */
    for (*last = 1; fgets(line, KEY_LINE_SIZE, file); *last = 1) {
        if (!*last && last[-1] != '\n')
            return -EFBIG;
        line[strcspn(line, "\r\n")] = '\0';
        if (strncmp(line, user, length) || line[length] != ':')
            continue;
        *key = strdup(line + length + 1);
        return *key ? 0 : -ENOMEM;
    }
    return -ENOENT;
}

static int read_key(const char *path, const char *user, char **key,
                    struct lam_error *err)
{
    char *line = malloc(KEY_LINE_SIZE);
    FILE *file = line ? fopen(path, "re") : NULL;
    int rc = -errno;

    if (file) {
        rc = find_key(file, user, line, key);
        crypto_wipe(line, KEY_LINE_SIZE);
        fclose(file);
    }
    free(line);
    if (rc == 0)
        return 0;
    if (rc == -ENOMEM)
        return no_memory(err);
    if (!file)
        return lam_fail_errno(err, -rc, "Unable to access credentials %s",
                              path);
    return rc == -EFBIG
        ? lam_fail(err, EINVAL, "PSK file %s has a line of more than %d "
                   "bytes, which is the limit", path, KEY_LINE_MAX)
        : lam_fail(err, EINVAL, "Username %s not found in PSK file %s", user,
                   path);
}

static int set_key(struct tls_credentials *c, const char *user, char *key,
                   struct lam_error *err)
{
    const gnutls_datum_t datum = { (unsigned char *)key,
                                   (unsigned)strlen(key) };
    int code = libgnutls()->gnutls_psk_allocate_client_credentials(&c->psk);

    if (code == 0)
        code = libgnutls()->gnutls_psk_set_client_credentials(
            c->psk, user, &datum, GNUTLS_PSK_KEY_HEX);
    return code < 0
        ? lam_fail(err, EINVAL, "Cannot set PSK client credentials: %s",
                   libgnutls()->gnutls_strerror(code)) : 0;
}

static int load_psk(struct tls_credentials *c,
                    const struct lam_tls_credentials *o, struct lam_error *err)
{
    const char *user = o->user ? o->user : "qemu";
    lam_autofree char *path = NULL;
    char *key = NULL;

    if (c->for_server && o->user)
        return lam_fail(err, EINVAL, "username should not be set when "
                        "endpoint=server");
    int rc = find_file(o->folder, "keys.psk", true, &path, err);
    if (rc < 0 || c->for_server)
        return rc;
    rc = read_key(path, user, &key, err);
    if (rc < 0)
        return rc;
    rc = set_key(c, user, key, err);
    crypto_wipe(key, strlen(key));
    free(key);
    return rc;
}

/* ------------------------------------------------------------- certificates */

static void files_deinit(struct tls_files *f)
{
    free(f->ca);
    free(f->crl);
    free(f->certificate);
    free(f->key);
}

static int find_files(const char *folder, bool server, struct tls_files *f,
                      struct lam_error *err)
{
    int rc = find_file(folder, "ca-cert.pem", true, &f->ca, err);

    if (rc == 0)
        rc = find_file(folder, "ca-crl.pem", false, &f->crl, err);
    if (rc == 0)
        rc = find_file(folder, server ? "server-cert.pem" : "client-cert.pem",
                       server, &f->certificate, err);
    if (rc == 0)
        rc = find_file(folder, server ? "server-key.pem" : "client-key.pem",
                       server, &f->key, err);
    return rc;
}

static int load_files(struct tls_credentials *c, const struct tls_files *f,
                      const char *password, struct lam_error *err)
{
    const struct libgnutls *lib = libgnutls();
    int code = lib->gnutls_certificate_allocate_credentials(&c->x509);

    if (code < 0)
        return lam_fail(err, ENOMEM, "Cannot allocate credentials: '%s'",
                        lib->gnutls_strerror(code));
    code = lib->gnutls_certificate_set_x509_trust_file(c->x509, f->ca,
                                                       GNUTLS_X509_FMT_PEM);
    if (code < 0)
        return lam_fail(err, EINVAL, "Cannot load CA certificate '%s': %s",
                        f->ca, lib->gnutls_strerror(code));
    if (f->certificate && f->key)
        code = lib->gnutls_certificate_set_x509_key_file2(
            c->x509, f->certificate, f->key, GNUTLS_X509_FMT_PEM, password, 0);
    if (code < 0)
        return lam_fail(err, EINVAL, "Cannot load certificate '%s' & key '%s': "
                        "%s", f->certificate, f->key,
                        lib->gnutls_strerror(code));
    if (f->crl)
        code = lib->gnutls_certificate_set_x509_crl_file(c->x509, f->crl,
                                                         GNUTLS_X509_FMT_PEM);
    return code < 0
        ? lam_fail(err, EINVAL, "Cannot load CRL '%s': %s", f->crl,
                   lib->gnutls_strerror(code)) : 0;
}

static int load_x509(struct tls_credentials *c,
                     const struct lam_tls_credentials *o, const char *password,
                     struct lam_error *err)
{
    struct tls_files f lam_cleanup(files_deinit) = { NULL, NULL, NULL, NULL };
    int rc = find_files(o->folder, c->for_server, &f, err);

    if (rc == 0 && o->check_certificates)
        rc = tls_check_certificates(&f, c->for_server, err);
    return rc < 0 ? rc : load_files(c, &f, password, err);
}

/* --------------------------------------------------------------- the object */

static int load(struct tls_credentials *c, const struct lam_tls_credentials *o,
                const char *password, struct lam_error *err)
{
    static const char *const added[] = {
        [LAM_TLS_ANONYMOUS] = ":+ANON-DH",
        [LAM_TLS_PSK] = ":+ECDHE-PSK:+DHE-PSK:+PSK", [LAM_TLS_X509] = "",
    };

    if (asprintf(&c->priority, "%s%s", o->priority ? o->priority : "NORMAL",
                 added[o->kind]) < 0) {
        c->priority = NULL;
        return no_memory(err);
    }
    if (o->kind != LAM_TLS_ANONYMOUS && !o->folder)
        return lam_fail(err, EINVAL, "Missing 'dir' property value");
    if (o->kind == LAM_TLS_PSK)
        return load_psk(c, o, err);
    if (o->kind == LAM_TLS_X509)
        return load_x509(c, o, password, err);
    return c->for_server ||
           libgnutls()->gnutls_anon_allocate_client_credentials(
               &c->anonymous) == 0 ? 0 : no_memory(err);
}

int tls_credentials_new(const struct lam_tls_credentials *options,
                        const char *password, struct tls_credentials **out,
                        struct lam_error *err)
{
    const struct libgnutls *lib;
    int rc = lam_check_choice(options->kind, LAM_TLS_X509, "kind of "
                              "credentials", err);

    if (rc == 0)
        rc = libgnutls_load(&lib, err);
    if (rc < 0)
        return rc;
    struct tls_credentials *c = calloc(1, sizeof *c);
    if (!c)
        return no_memory(err);
    atomic_init(&c->references, 1);
    c->kind = options->kind;
    c->for_server = options->for_server;
    c->verify_peer = options->verify_peer;
    rc = load(c, options, password, err);
    if (rc < 0)
        tls_credentials_put(c);
    else
        *out = c;
    return rc;
}

struct tls_credentials *tls_credentials_get(struct tls_credentials *c)
{
    atomic_fetch_add(&c->references, 1);
    return c;
}

void tls_credentials_put(struct tls_credentials *c)
{
    if (!c || atomic_fetch_sub(&c->references, 1) > 1)
        return;
    if (c->x509)
        libgnutls()->gnutls_certificate_free_credentials(c->x509);
    if (c->psk)
        libgnutls()->gnutls_psk_free_client_credentials(c->psk);
    if (c->anonymous)
        libgnutls()->gnutls_anon_free_client_credentials(c->anonymous);
    free(c->priority);
    free(c);
}

bool tls_credentials_are_clients(const struct tls_credentials *c)
{
    return !c->for_server;
}

bool tls_credentials_want_host(const struct tls_credentials *c)
{
    return c->kind == LAM_TLS_X509;
}
