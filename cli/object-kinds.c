/* SPDX-License-Identifier: MIT */
/*
 * object-kinds.c - the kinds of objects that --object makes, and what each can
 * be told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

#define TEXT(key) { .name = key, .kind = MEMBER_STRING }
#define NEEDED_TEXT(key)                                                    \
    { .name = key, .kind = MEMBER_STRING, .required = true }
#define OBJECT NEEDED_TEXT("qom-type"), NEEDED_TEXT("id")
#define SWITCH(key) { .name = key, .kind = MEMBER_BOOL }
#define NUMBER(key) { .name = key, .kind = MEMBER_INT }
#define WORD(key, name_of_type, list)                                       \
    { .name = key, .kind = MEMBER_WORD, .type = name_of_type, .words = list }
#define END { .kind = MEMBER_END }

const struct member object_type = NEEDED_TEXT("qom-type");
const struct member object_id = NEEDED_TEXT("id");

static const char *const formats[] = { "raw", "base64", NULL };
static const char *const endpoints[] = { "client", "server", NULL };
static const char *const policies[] = { "deny", "allow", NULL };
static const char *const rule_formats[] = { "exact", "glob", NULL };

#define SECRET                                                              \
    WORD("format", "QCryptoSecretFormat", formats), TEXT("keyid"),          \
    TEXT("iv")
#define TLS                                                                 \
    SWITCH("verify-peer"), TEXT("dir"),                                     \
    WORD("endpoint", "QCryptoTLSCredsEndpoint", endpoints), TEXT("priority")

static const struct member secret[] = {
    OBJECT, SECRET, TEXT("data"), TEXT("file"), END
};
static const struct member secret_keyring[] = {
    OBJECT, SECRET,
    { .name = "serial", .kind = MEMBER_INT, .required = true,
      .type = "int32_t", .least = INT32_MIN, .most = INT32_MAX },
    END
};
static const struct member tls_anon[] = { OBJECT, TLS, END };
static const struct member tls_psk[] = { OBJECT, TLS, TEXT("username"), END };
static const struct member tls_x509[] = {
    OBJECT, TLS, SWITCH("sanity-check"), TEXT("passwordid"), END
};
static const struct member main_loop[] = {
    OBJECT, NUMBER("aio-max-batch"), NUMBER("thread-pool-min"),
    NUMBER("thread-pool-max"), END
};

static const struct member affinity[] = {
    { .kind = MEMBER_INT, .type = "uint16_t", .most = UINT16_MAX }, END
};
#define AFFINITY(key)                                                       \
    { .name = key, .kind = MEMBER_LIST, .type = "int", .inner = affinity }
static const struct member thread_context[] = {
    OBJECT, AFFINITY("cpu-affinity"), AFFINITY("node-affinity"), END
};

static const struct member rule[] = {
    NEEDED_TEXT("match"),
    { .name = "policy", .kind = MEMBER_WORD, .required = true,
      .words = policies },
    WORD("format", "QAuthZListFormat", rule_formats), END
};
static const struct member rules[] = {
    { .kind = MEMBER_PART, .inner = rule }, END
};
static const struct member authz_list[] = {
    OBJECT, WORD("policy", "QAuthZListPolicy", policies),
    { .name = "rules", .kind = MEMBER_LIST, .type = "QAuthZListRule",
      .inner = rules },
    END
};
static const struct member authz_list_file[] = {
    OBJECT, TEXT("filename"), SWITCH("refresh"), END
};
static const struct member authz_simple[] = {
    OBJECT, NEEDED_TEXT("identity"), END
};
static const struct member pr_manager[] = { OBJECT, NEEDED_TEXT("path"), END };

/* Sorted.  Without make(): it has a description and nothing more, with the
 * genuine tool as well. */
static const struct object_kind kinds[] = {
    { "authz-list", authz_list, object_make_name },
    { "authz-list-file", authz_list_file, NULL },
    { "authz-simple", authz_simple, object_make_name },
    { "main-loop", main_loop, object_make_main_loop },
    { "pr-manager-helper", pr_manager, object_make_reservations },
    { "secret", secret, object_make_secret },
    { "secret_keyring", secret_keyring, object_make_secret },
    { "thread-context", thread_context, object_make_threads },
    { "throttle-group", throttle_members, object_make_throttle },
    { "tls-creds-anon", tls_anon, object_make_tls },
    { "tls-creds-psk", tls_psk, object_make_tls },
    { "tls-creds-x509", tls_x509, object_make_tls },
};

const struct object_kind *object_kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    }
    return NULL;
}

void object_kinds_print(void)
{
    puts("List of user creatable objects:");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        printf("  %s\n", kinds[i].name);
}

/* -------------------------------------------------------------------- help */

static const char *type_of(const struct member *m)
{
    return m->type ? m->type
         : m->kind == MEMBER_BOOL ? "bool"
         : m->kind == MEMBER_INT ? "int" : "string";
}

/* As whole lines: "x-iops-max=" comes before "x-iops=". */
static int by_line(const void *a, const void *b)
{
    const char *x = (*(const struct member *const *)a)->name;
    const char *y = (*(const struct member *const *)b)->name;

    for (; *x && *x == *y; x++)
        y++;
    return (*x ? *x : '=') - (*y ? *y : '=');
}

void object_members_print(const struct object_kind *kind)
{
    enum { MOST = 32 };
    const struct member *sorted[MOST];
    size_t count = 0;

    for (const struct member *m = kind->members + 2;
         m->kind != MEMBER_END && count < MOST; m++)
        sorted[count++] = m;
    qsort(sorted, count, sizeof *sorted, by_line);
    printf("%s options:\n", kind->name);
    for (size_t i = 0; i < count; i++)
        printf("  %s=<%s>\n", sorted[i]->name, type_of(sorted[i]));
}

/* -------------------------------------------------------- of other programs */

/* What each has to be told, in its order. */
static const struct foreign {
    const char *name;
    const char *required[4];
} foreign[] = {
    { "acpi-generic-initiator", { "pci-dev", "node" } },
    { "acpi-generic-port", { "pci-bus", "node" } },
    { "authz-pam", { "service" } },
    { "can-bus", { NULL } },
    { "can-host-socketcan", { "if", "canbus" } },
    { "colo-compare", { "primary_in", "secondary_in", "outdev", "iothread" } },
    { "cryptodev-backend", { NULL } },
    { "cryptodev-backend-builtin", { NULL } },
    { "cryptodev-backend-lkcf", { NULL } },
    { "cryptodev-vhost-user", { "chardev" } },
    { "dbus-vmstate", { "addr" } },
    { "filter-buffer", { "netdev", "interval" } },
    { "filter-dump", { "netdev", "file" } },
    { "filter-mirror", { "netdev", "outdev" } },
    { "filter-redirector", { "netdev" } },
    { "filter-replay", { "netdev" } },
    { "filter-rewriter", { "netdev" } },
    { "input-barrier", { "name" } },
    { "input-linux", { "evdev" } },
    { "iommufd", { NULL } },
    { "iothread", { NULL } },
    { "memory-backend-epc", { "size" } },
    { "memory-backend-file", { "size", "mem-path" } },
    { "memory-backend-memfd", { "size" } },
    { "memory-backend-ram", { "size" } },
    { "memory-backend-shm", { "size" } },
    { "pef-guest", { NULL } },
    { "qtest", { "chardev" } },
    { "rng-builtin", { NULL } },
    { "rng-egd", { "chardev" } },
    { "rng-random", { NULL } },
    { "s390-pv-guest", { NULL } },
    { "sev-guest", { "reduced-phys-bits" } },
    { "sev-snp-guest", { "reduced-phys-bits" } },
    { "tls-cipher-suites", { NULL } },
    { "x-remote-object", { "fd", "devid" } },
    { "x-vfio-user-server", { "socket", "device" } },
};

static const struct foreign *find_foreign(const char *name)
{
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (!strcmp(foreign[i].name, name))
            return &foreign[i];
    }
    return NULL;
}

int object_check_foreign(struct json_object *tree, const char *kind, bool json,
                         struct lam_error *err)
{
    const struct foreign *f = find_foreign(kind);
    const size_t most = sizeof f->required / sizeof f->required[0];

    if (!f)
        return option_fail(err, EINVAL, "Parameter 'qom-type' does not accept "
                           "value '%s'", kind);
    int rc = object_check_one(tree, &object_id, json, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < most && f->required[i]; i++) {
        if (!json_object_object_get_ex(tree, f->required[i], NULL))
            return option_fail(err, EINVAL, "Parameter '%s' is missing",
                               f->required[i]);
    }
    return 0;
}
