/* SPDX-License-Identifier: MIT */
/*
 * tls-certificates.c - what is wrong with our own certificates is told when
 * they are loaded, rather than by a server that hangs up.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "crypto/tls-internal.h"

enum {
    MAX_AUTHORITIES = 16,
    MAX_FILE = 1 << 20,
};

struct certificates {
    gnutls_x509_crt_t list[MAX_AUTHORITIES];
    unsigned count;
};

static void certificates_deinit(struct certificates *c)
{
    for (unsigned i = 0; i < c->count; i++)
        libgnutls()->gnutls_x509_crt_deinit(c->list[i]);
}

/* What one of them is for. */
struct role {
    const char *path;
    bool authority, server;
};

static int read_file(const char *path, char **text, size_t *length,
                     struct lam_error *err)
{
    FILE *file = fopen(path, "re");
    char *bytes = file ? malloc(MAX_FILE) : NULL;
    int code = file ? 0 : errno;

    if (bytes) {
        *length = fread(bytes, 1, MAX_FILE, file);
        code = ferror(file) ? errno : *length == MAX_FILE ? EFBIG : 0;
        *text = bytes;
    } else if (file) {
        code = ENOMEM;
    }
    if (file)
        fclose(file);
    return code ? lam_fail_errno(err, code, "Cannot load CA cert list %s: %s "
                                 "file “%s”", path, file ? "Error reading"
                                 : "Failed to open", path) : 0;
}

/* --------------------------------------------------------------- one by one */

static int check_times(gnutls_x509_crt_t c, const struct role *r,
                       struct lam_error *err)
{
    const char *whose = r->authority ? "CA" : r->server ? "server" : "client";
    time_t now = time(NULL);

    if (libgnutls()->gnutls_x509_crt_get_expiration_time(c) < now)
        return lam_fail(err, EINVAL, "The %s certificate %s has expired",
                        whose, r->path);
    if (libgnutls()->gnutls_x509_crt_get_activation_time(c) > now)
        return lam_fail(err, EINVAL, "The %s certificate %s is not yet active",
                        whose, r->path);
    return 0;
}

static int check_constraints(gnutls_x509_crt_t c, const struct role *r,
                             struct lam_error *err)
{
    int authority = libgnutls()->gnutls_x509_crt_get_basic_constraints(
        c, NULL, NULL, NULL);

    if (authority > 0 && !r->authority)
        return lam_fail(err, EINVAL, "The certificate %s basic constraints "
                        "show a CA, but we need one for a %s", r->path,
                        r->server ? "server" : "client");
    if (authority == 0 && r->authority)
        return lam_fail(err, EINVAL, "The certificate %s basic constraints do "
                        "not show a CA", r->path);
    if (authority == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return r->authority
            ? lam_fail(err, EINVAL, "The certificate %s is missing basic "
                       "constraints for a CA", r->path) : 0;
    return authority < 0
        ? lam_fail(err, EINVAL, "Unable to query certificate %s basic "
                   "constraints: %s", r->path,
                   libgnutls()->gnutls_strerror(authority)) : 0;
}

/* What a certificate that says nothing can be used for is enough. */
static int check_usage(gnutls_x509_crt_t c, const struct role *r,
                       struct lam_error *err)
{
    static const struct {
        unsigned bit;
        bool authority;
        const char *name;
    } usages[] = {
        { GNUTLS_KEY_KEY_CERT_SIGN, true, "certificate signing" },
        { GNUTLS_KEY_DIGITAL_SIGNATURE, false, "digital signature" },
        { GNUTLS_KEY_KEY_ENCIPHERMENT, false, "key encipherment" },
    };
    unsigned usage = 0, critical = 0;
    int code = libgnutls()->gnutls_x509_crt_get_key_usage(c, &usage, &critical);

    if (code == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return 0;
    if (code < 0)
        return lam_fail(err, EINVAL, "Unable to query certificate %s key "
                        "usage: %s", r->path,
                        libgnutls()->gnutls_strerror(code));
    for (size_t i = 0; i < LAM_ARRAY_SIZE(usages); i++) {
        if (critical && usages[i].authority == r->authority &&
            !(usage & usages[i].bit))
            return lam_fail(err, EINVAL, "Certificate %s usage does not permit "
                            "%s", r->path, usages[i].name);
    }
    return 0;
}

static int check_purposes(gnutls_x509_crt_t c, const struct role *r,
                          struct lam_error *err)
{
    const char *needed = r->server ? GNUTLS_KP_TLS_WWW_SERVER
                                   : GNUTLS_KP_TLS_WWW_CLIENT;
    bool allowed = false, critical = false;
    unsigned count = 0;

    for (;; count++) {
        char oid[128];
        size_t size = sizeof oid;
        unsigned is_critical = 0;
        int code = libgnutls()->gnutls_x509_crt_get_key_purpose_oid(
            c, count, oid, &size, &is_critical);
        if (code == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (code < 0)
            return lam_fail(err, EINVAL, "Unable to query certificate %s key "
                            "purpose: %s", r->path,
                            libgnutls()->gnutls_strerror(code));
        critical |= is_critical > 0;
        allowed |= !strcmp(oid, needed) || !strcmp(oid, GNUTLS_KP_ANY);
    }
    return count && critical && !allowed
        ? lam_fail(err, EINVAL, "Certificate %s purpose does not allow use "
                   "with a TLS %s", r->path, r->server ? "server" : "client")
        : 0;
}

static int check_one(gnutls_x509_crt_t c, const struct role *r,
                     struct lam_error *err)
{
    int rc = check_times(c, r, err);

    if (rc == 0)
        rc = check_constraints(c, r, err);
    if (rc == 0)
        rc = check_usage(c, r, err);
    return rc < 0 || r->authority ? rc : check_purposes(c, r, err);
}

/* ---------------------------------------------------------------------- all */

static int load_own(const struct role *r, struct certificates *out,
                    struct lam_error *err)
{
    const char *whose = r->server ? "server" : "client";
    lam_autofree char *text = NULL;
    size_t length = 0;
    int rc = read_file(r->path, &text, &length, err);

    if (rc < 0)
        return rc;
    if (libgnutls()->gnutls_x509_crt_init(&out->list[0]) < 0)
        return lam_fail(err, ENOMEM, "no memory for a certificate");
    out->count = 1;
    gnutls_datum_t datum = { (unsigned char *)text, (unsigned)length };
    int code = libgnutls()->gnutls_x509_crt_import(out->list[0], &datum,
                                                   GNUTLS_X509_FMT_PEM);
    return code < 0
        ? lam_fail(err, EINVAL, "Unable to import %s certificate %s: %s",
                   whose, r->path, libgnutls()->gnutls_strerror(code))
        : check_one(out->list[0], r, err);
}

static int load_authorities(const struct role *r, struct certificates *out,
                            struct lam_error *err)
{
    lam_autofree char *text = NULL;
    size_t length = 0;
    unsigned count = MAX_AUTHORITIES;
    int rc = read_file(r->path, &text, &length, err);

    if (rc < 0)
        return rc;
    gnutls_datum_t datum = { (unsigned char *)text, (unsigned)length };
    if (libgnutls()->gnutls_x509_crt_list_import(
            out->list, &count, &datum, GNUTLS_X509_FMT_PEM,
            GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED) < 0)
        return lam_fail(err, EINVAL, "Unable to import CA certificate list %s",
                        r->path);
    out->count = count;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = check_one(out->list[i], r, err);
    return rc;
}

static int check_pair(const struct certificates *own, const char *path,
                      const struct certificates *authorities,
                      const char *authorities_path, struct lam_error *err)
{
    unsigned status = 0;
    int code = libgnutls()->gnutls_x509_crt_list_verify(
        own->list, (int)own->count, authorities->list, (int)authorities->count,
        NULL, 0, 0, &status);

    if (code < 0)
        return lam_fail(err, EINVAL, "Unable to verify %s against %s: %s",
                        path, authorities_path,
                        libgnutls()->gnutls_strerror(code));
    const char *why =
        status & GNUTLS_CERT_SIGNER_NOT_FOUND
            ? "The certificate hasn't got a known issuer"
        : status & GNUTLS_CERT_REVOKED ? "The certificate has been revoked"
        : status & GNUTLS_CERT_INSECURE_ALGORITHM
            ? "The certificate uses an insecure algorithm"
        : "The certificate is not trusted";
    return status & GNUTLS_CERT_INVALID
        ? lam_fail(err, EINVAL, "Our own certificate %s failed validation "
                   "against %s: %s", path, authorities_path, why) : 0;
}

int tls_check_certificates(const struct tls_files *files, bool for_server,
                           struct lam_error *err)
{
    struct certificates own lam_cleanup(certificates_deinit) = { { NULL }, 0 };
    struct certificates authorities lam_cleanup(certificates_deinit) =
        { { NULL }, 0 };
    const struct role ours = { files->certificate, false, for_server };
    const struct role theirs = { files->ca, true, for_server };
    int rc = ours.path ? load_own(&ours, &own, err) : 0;

    if (rc == 0)
        rc = load_authorities(&theirs, &authorities, err);
    return rc == 0 && ours.path
        ? check_pair(&own, ours.path, &authorities, theirs.path, err) : rc;
}
