/* SPDX-License-Identifier: MIT */
/*
 * fuzz-luks.c - any bytes as a LUKS header: decode, validate, encode, and open
 * as info does, which needs no passphrase.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/luks.h"
#include "format/format.h"
#include "io/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_say_why(int rc, const struct lam_error *err)
{
    if (rc < 0 && !err->message[0])
        abort();
}

/* What is behind the end of a name is not kept; all else is. */
static void check_round_trip(const struct luks_header *h)
{
    uint8_t buf[LUKS_HEADER_BYTES] = { 0 };
    struct luks_header again;

    memset(&again, 0, sizeof again);
    luks_encode(h, buf);
    if (luks_decode(buf, &again, NULL) < 0 || strcmp(h->cipher, again.cipher) ||
        strcmp(h->mode, again.mode) || strcmp(h->hash, again.hash) ||
        strcmp(h->uuid, again.uuid) ||
        h->payload_sector != again.payload_sector ||
        h->key_bytes != again.key_bytes || h->iterations != again.iterations ||
        memcmp(h->digest, again.digest, sizeof h->digest) ||
        memcmp(h->salt, again.salt, sizeof h->salt))
        abort();
    for (size_t i = 0; i < LUKS_SLOTS; i++)
        if (h->slots[i].state != again.slots[i].state ||
            h->slots[i].iterations != again.slots[i].iterations ||
            h->slots[i].sector != again.slots[i].sector ||
            h->slots[i].stripes != again.slots[i].stripes)
            abort();
}

static void open_as_info_does(const uint8_t *data, size_t size)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct format_open o = { .metadata_only = true };
    struct lam_image_info *info = calloc(1, sizeof *info);
    void *format;

    if (!info)
        return;
    if (lam_io_memory_new(data, size, &o.io, NULL) < 0) {
        free(info);
        return;
    }
    int rc = format_luks.open(&o, &format, &err);
    must_say_why(rc, &err);
    if (rc == 0) {
        err = (struct lam_error)LAM_ERROR_INIT;
        must_say_why(format_luks.info(format, info, &err), &err);
        format_luks.close(format, NULL);
    }
    lam_image_info_free(info);
    lam_io_close(o.io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct luks_header h;
    struct luks_params params;

    memset(&h, 0, sizeof h);
    if (size >= LUKS_HEADER_BYTES) {
        int rc = luks_decode(data, &h, &err);

        must_say_why(rc, &err);
        if (rc == 0) {
            check_round_trip(&h);
            err = (struct lam_error)LAM_ERROR_INIT;
            rc = luks_validate(&h, size * 4096, size % 2, &params, &err);
            must_say_why(rc, &err);
        }
        /* What may be asked of PBKDF2 and of the memory is bounded. */
        if (rc == 0 && (h.key_bytes > LUKS_MAX_KEY ||
                        h.iterations > LUKS_MAX_ITERATIONS))
            abort();
    }
    open_as_info_does(data, size);
    return 0;
}
