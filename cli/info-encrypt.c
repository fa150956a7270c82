/* SPDX-License-Identifier: MIT */
/*
 * info-encrypt.c - how an image is encrypted, in the two shapes of `info`.
 */
#include <inttypes.h>

#include "info.h"
#include "print.h"

/* --------------------------------------------------------------------- JSON */

static void add_string(struct json_object *object, const char *key,
                       const char *value)
{
    json_object_object_add(object, key, json_object_new_string(value));
}

static void add_number(struct json_object *object, const char *key,
                       uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *slots_json(const struct lam_encryption_info *e)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < LAM_KEY_SLOTS; i++) {
        struct json_object *slot = json_object_new_object();
        json_object_object_add(slot, "active",
                               json_object_new_boolean(e->slots[i].active));
        if (e->slots[i].active)
            add_number(slot, "iters", e->slots[i].iterations);
        add_number(slot, "key-offset", e->slots[i].key_offset);
        if (e->slots[i].active)
            add_number(slot, "stripes", e->slots[i].stripes);
        json_object_array_add(array, slot);
    }
    return array;
}

static void fill_luks(struct json_object *object,
                      const struct lam_encryption_info *e, bool with_format)
{
    add_string(object, "ivgen-alg", e->ivgen_alg);
    json_object_object_add(object, "detached-header",
                           json_object_new_boolean(e->detached_header));
    add_string(object, "hash-alg", e->hash_alg);
    add_string(object, "cipher-alg", e->cipher_alg);
    add_string(object, "uuid", e->uuid);
    if (e->ivgen_hash_alg)
        add_string(object, "ivgen-hash-alg", e->ivgen_hash_alg);
    if (with_format)
        add_string(object, "format", e->format);
    add_string(object, "cipher-mode", e->cipher_mode);
    json_object_object_add(object, "slots", slots_json(e));
    add_number(object, "payload-offset", e->payload_offset);
    add_number(object, "master-key-iters", e->master_key_iterations);
}

struct json_object *info_encryption_json(const struct lam_encryption_info *e,
                                         bool with_format)
{
    struct json_object *object = json_object_new_object();

    if (e->cipher_alg)
        fill_luks(object, e, with_format);
    else
        add_string(object, "format", e->format);
    return object;
}

/* --------------------------------------------------------------------- text */

static void print_slot(FILE *out, const struct lam_encryption_info *e, size_t i,
                       int indent)
{
    fprintf(out, "%*s[%zu]:\n%*sactive: %s\n", indent, "", i, indent + 4, "",
            e->slots[i].active ? "true" : "false");
    if (e->slots[i].active)
        fprintf(out, "%*siters: %" PRIu64 "\n", indent + 4, "",
                e->slots[i].iterations);
    fprintf(out, "%*skey offset: %" PRIu64 "\n", indent + 4, "",
            e->slots[i].key_offset);
    if (e->slots[i].active)
        fprintf(out, "%*sstripes: %" PRIu32 "\n", indent + 4, "",
                e->slots[i].stripes);
}

static void print_luks(FILE *out, const struct lam_encryption_info *e,
                       int indent, bool with_format)
{
    fprintf(out, "%*sivgen alg: %s\n%*sdetached header: %s\n"
            "%*shash alg: %s\n%*scipher alg: %s\n%*suuid: ", indent, "",
            e->ivgen_alg, indent, "", e->detached_header ? "true" : "false",
            indent, "", e->hash_alg, indent, "", e->cipher_alg, indent, "");
    print_escaped(out, e->uuid);
    putc('\n', out);
    if (e->ivgen_hash_alg)
        fprintf(out, "%*sivgen hash alg: %s\n", indent, "", e->ivgen_hash_alg);
    if (with_format)
        fprintf(out, "%*sformat: %s\n", indent, "", e->format);
    fprintf(out, "%*scipher mode: %s\n%*sslots:\n", indent, "", e->cipher_mode,
            indent, "");
    for (size_t i = 0; i < LAM_KEY_SLOTS; i++)
        print_slot(out, e, i, indent + 4);
    fprintf(out, "%*spayload offset: %" PRIu64 "\n%*smaster key iters: %"
            PRIu64 "\n", indent, "", e->payload_offset, indent, "",
            e->master_key_iterations);
}

void info_print_encryption(FILE *out, const struct lam_encryption_info *e,
                           int indent, bool with_format)
{
    if (e->cipher_alg)
        print_luks(out, e, indent, with_format);
    else
        fprintf(out, "%*sformat: %s\n", indent, "", e->format);
}
