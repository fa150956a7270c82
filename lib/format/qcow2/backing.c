/* SPDX-License-Identifier: MIT */
/*
 * backing.c - the name of the backing file in the header.
 *
 * Everything that was copied for the sake of the new chain is on disk before
 * the header names it: one barrier, then the header, in which one sector
 * decides (header-rewrite.c).
 */
#include "format/qcow2/backing.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/bulk.h"

enum { MAX_NAME = 1023 };       /* format document 2.5 */

static int check_name(const struct qcow2 *q, const char *name,
                      struct lam_error *err)
{
    if (!name)
        return 0;
    if (strlen(name) > MAX_NAME)
        return lam_fail(err, EINVAL, "name of the backing file of %zu bytes "
                        "(limit: %d)", strlen(name), MAX_NAME);
    if (q->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW)
        return lam_fail(err, EINVAL, "an image whose external data file is a "
                        "raw image (data_file_raw) cannot have a backing "
                        "file");
    return 0;
}

/* Zeroes and discards look at this, under a claim or the lock. */
static void note_backing(struct qcow2 *q, bool has_backing)
{
    pthread_rwlock_wrlock(&q->lock);
    q->has_backing = has_backing;
    pthread_rwlock_unlock(&q->lock);
}

void qcow2_expect_backing(void *format, bool expected)
{
    struct qcow2 *q = format;

    note_backing(q, expected || q->header.backing_file);
}

/* Takes the new strings over, or leaves them. */
static int change_header(struct qcow2 *q, char **name, char **format,
                         struct lam_error *err)
{
    struct qcow2_header *h = &q->header;
    char *old_name = h->backing_file, *old_format = h->backing_format;

    h->backing_file = *name;
    h->backing_format = *format;
    int rc = qcow2_rewrite_header(q, err);
    if (rc < 0) {
        h->backing_file = old_name;
        h->backing_format = old_format;
        return rc;
    }
    *name = old_name;
    *format = old_format;
    note_backing(q, h->backing_file != NULL);
    return 0;
}

static int barrier(struct bulk *b, struct lam_error *err)
{
    struct qcow2 *q = b->q;
    int rc = q->data_file ? lam_io_flush(q->data_io, err) : 0;

    return rc < 0 ? rc : bulk_barrier(b, err);
}

int qcow2_set_backing(void *format, const char *name,
                      const char *backing_format, struct lam_error *err)
{
    struct qcow2 *q = format;
    lam_autofree char *new_name = name ? strdup(name) : NULL;
    lam_autofree char *new_format = name && backing_format
                                  ? strdup(backing_format) : NULL;
    struct bulk b;

    if ((name && !new_name) || (name && backing_format && !new_format))
        return lam_fail(err, ENOMEM, "no memory for the name of a file");
    int rc = check_name(q, name, err);
    if (rc < 0)
        return rc;
    rc = bulk_begin(&b, q, err);
    if (rc == 0)
        rc = barrier(&b, err);
    if (rc == 0)
        rc = change_header(q, &new_name, &new_format, err);
    bulk_end(&b);
    return rc;
}
