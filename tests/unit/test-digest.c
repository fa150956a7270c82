/* SPDX-License-Identifier: MIT */
/*
 * test-digest.c - a digest whose copy fails.
 */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "job/digest.h"

enum { CHUNK = 65536 };

/* Puts a chunk so far ahead that it has to wait. */
struct waiter {
    struct digest *digest;
    uint8_t *buf;
    int rc;
    struct lam_error err;
};

static void *wait_ahead(void *opaque)
{
    struct waiter *w = opaque;
    w->rc = digest_put(w->digest, 1000, 1000 * CHUNK, CHUNK, &w->buf, &w->err);
    return NULL;
}

/* Whoever waits fails as the one did who aborted: either may be heard first,
 * and a full disk is no interrupt. */
static void waits_fail_alike(void **state)
{
    (void)state;
    struct waiter w = { .err = LAM_ERROR_INIT, .buf = buffer_new(CHUNK) };
    struct lam_error err = LAM_ERROR_INIT;
    assert_non_null(w.buf);
    int rc = digest_new("sha256", 2, CHUNK, NULL, &w.digest, &err);
    if (rc == -ENOTSUP) {
        free(w.buf);
        print_message("SKIP: built without digests\n");
        skip();
    }
    assert_works(rc, &err);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_ahead, &w), 0);
    rc = lam_fail(&err, ENOSPC, "the disk is full");
    digest_abort(w.digest, rc, &err);
    pthread_join(thread, NULL);
    assert_int_equal(w.rc, -ENOSPC);
    assert_string_equal(w.err.message, "the disk is full");
    digest_free(w.digest);
    free(w.buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_fail_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
