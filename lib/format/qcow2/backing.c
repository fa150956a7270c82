/* SPDX-License-Identifier: MIT */
/*
 * backing.c - the name of the backing file in the header.
 *
 * Everything that was copied for the sake of the new chain is on disk before
 * the header names it: a flush, then the header, in which one sector decides
 * (header-rewrite.c).  What is in memory follows while no request is under way.
 */
#include "format/qcow2/backing.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/qcow2.h"

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

static void forget_next(struct qcow2 *q)
{
    free(q->next_backing);
    free(q->next_format);
    q->next_backing = q->next_format = NULL;
}

static int set_next(struct qcow2 *q, const char *name, const char *format,
                    struct lam_error *err)
{
    int rc = check_name(q, name, err);

    if (rc < 0 || !name)
        return rc;
    q->next_backing = strdup(name);
    q->next_format = format ? strdup(format) : NULL;
    return q->next_backing && (q->next_format || !format)
        ? 0 : lam_fail(err, ENOMEM, "no memory for the name of a file");
}

/* Guests write on.  What they have not flushed may be on disk or not in either
 * chain; what the new one needs is there. */
int qcow2_set_backing(void *format, const char *name,
                      const char *backing_format, struct lam_error *err)
{
    struct qcow2 *q = format;
    int rc = set_next(q, name, backing_format, err);

    if (rc == 0)
        rc = qcow2_before_change(q, err);
    if (rc == 0)
        rc = qcow2_write_back(q, true, err);
    if (rc == 0)
        rc = qcow2_rewrite_names(q, q->next_backing, q->next_format, err);
    if (rc < 0)
        forget_next(q);
    return rc;
}

void qcow2_take_backing(void *format)
{
    struct qcow2 *q = format;
    struct qcow2_header *h = &q->header;

    free(h->backing_file);
    free(h->backing_format);
    h->backing_file = lam_take(&q->next_backing);
    h->backing_format = lam_take(&q->next_format);
    note_backing(q, h->backing_file != NULL);
}
