/* SPDX-License-Identifier: MIT */
/*
 * digest.c - a digest of all guest bytes that a copy moves, in their order,
 * while workers move them in any.
 *
 * Chunks are numbered, and wait in a ring for those before them.  Whoever puts
 * one while nobody hashes goes on to hash all that is complete; the others copy
 * meanwhile.  Buffers change hands: none is copied.
 *
 * Invariants under the lock:
 * 1. What is in the ring has a number in [next, next + SLOTS).
 * 2. Only he who has set busy takes chunks out, feeds the hash, moves next.
 * 3. Nobody waits while he holds a number that he has not put: a chunk that is
 *    far ahead waits for others, the one that is next never does.
 */
#include "job/digest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "crypto/digest.h"
#include "job/cancel.h"

enum {
    SLOTS = 64,
    SPARE_BUFFERS = 4,          /* besides one a worker */
    ZERO_BYTES = 64 * 1024,     /* hashed again and again: stays in a cache */
    /* Leaves that a worker may work out for itself. */
    LEAVES_MAX = 16,
};

/* How often a long run of zeroes looks whether to stop. */
#define ZERO_STRIDE (UINT64_C(16) << 20)

struct slot {
    bool full;
    uint64_t length;
    uint8_t *buf;               /* NULL: zeroes, or leaves */
    size_t nb_leaves;
    uint8_t leaves[LEAVES_MAX * DIGEST_MAX_BYTES];
};

struct digest {
    char name[32];
    size_t algorithm_length;    /* of the name, without "-tree" */
    const volatile int *cancel;
    bool tree;
    size_t leaf_size;
    uint8_t zero_leaf[DIGEST_MAX_BYTES];
    uint8_t *zeroes;            /* ZERO_BYTES */

    /* Of whoever is busy. */
    struct digest_stream *stream;   /* the bytes, or the leaves' digests */
    struct digest_stream *leaf;     /* tree only: the block at hand */
    uint64_t leaf_fill;

    pthread_mutex_t lock;       /* all below */
    pthread_cond_t moved;
    uint64_t next;
    bool busy;
    int rc;                     /* the first failure */
    struct lam_error error;
    struct slot slots[SLOTS];
    uint8_t **spare;            /* buffers that nobody uses */
    size_t nb_spare, max_spare;
};

/* ------------------------------------------------------------ names */

static const char TREE[] = "-tree";
static const char *const tree_names[] = {
    "sha256-tree", "sha512-tree", "blake2b512-tree",
};

const char *lam_digest_name(size_t i)
{
    size_t plain = 0;

    while (digest_stream_name(plain))
        plain++;
    if (i < plain)
        return digest_stream_name(i);
    i -= plain;
    return plain && i < LAM_ARRAY_SIZE(tree_names) ? tree_names[i] : NULL;
}

/* "sha256, sha512, ..." */
static void list_names(char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    for (size_t i = 0; lam_digest_name(i) && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "",
                               lam_digest_name(i));
}

int lam_digest_check(const char *name, struct lam_error *err)
{
    char known[256];

    for (size_t i = 0; lam_digest_name(i); i++)
        if (!strcmp(lam_digest_name(i), name))
            return 0;
    list_names(known, sizeof known);
    if (!known[0])
        return lam_fail(err, ENOTSUP, "digests are not supported: built "
                        "without libcrypto");
    return lam_fail(err, EINVAL, "unknown digest '%.32s'; there are %s", name,
                    known);
}

static void set_name(struct digest *d, const char *name)
{
    size_t length = strlen(name), suffix = sizeof TREE - 1;

    d->tree = length > suffix && !strcmp(name + length - suffix, TREE);
    d->algorithm_length = d->tree ? length - suffix : length;
    snprintf(d->name, sizeof d->name, "%s", name);
}

/* ------------------------------------------------------------ hashing */

static int feed_leaf(struct digest *d, const uint8_t *leaf,
                     struct lam_error *err)
{
    return digest_stream_update(d->stream, leaf, d->leaf_size, err);
}

static int end_block(struct digest *d, struct lam_error *err)
{
    uint8_t leaf[DIGEST_MAX_BYTES];
    size_t size;
    int rc = digest_stream_finish(d->leaf, leaf, &size, err);

    d->leaf_fill = 0;
    return rc < 0 ? rc : feed_leaf(d, leaf, err);
}

/* @bytes inside one block of the tree, or any number of them without one. */
static int feed_bytes(struct digest *d, const uint8_t *bytes, uint64_t length,
                      struct lam_error *err)
{
    if (!d->tree)
        return digest_stream_update(d->stream, bytes, length, err);
    int rc = digest_stream_update(d->leaf, bytes, length, err);
    d->leaf_fill += length;
    return rc == 0 && d->leaf_fill == DIGEST_BLOCK ? end_block(d, err) : rc;
}

static int cancelled(const struct digest *d, struct lam_error *err)
{
    if (cancel_wanted(d->cancel))
        return lam_fail(err, ECANCELED, "conversion was cancelled");
    return 0;
}

/* The next piece of a run of zeroes; its length, or negative. */
static int64_t feed_zero_piece(struct digest *d, uint64_t length,
                               struct lam_error *err)
{
    if (d->tree && d->leaf_fill == 0 && length >= DIGEST_BLOCK) {
        int rc = feed_leaf(d, d->zero_leaf, err);
        return rc < 0 ? rc : (int64_t)DIGEST_BLOCK;
    }
    uint64_t piece = min_u64(length, ZERO_BYTES);
    if (d->tree)
        piece = min_u64(piece, DIGEST_BLOCK - d->leaf_fill);
    int rc = feed_bytes(d, d->zeroes, piece, err);
    return rc < 0 ? rc : (int64_t)piece;
}

static int feed_zeroes(struct digest *d, uint64_t length,
                       struct lam_error *err)
{
    uint64_t look = 0;

    for (uint64_t done = 0; done < length; ) {
        if (done >= look) {
            int rc = cancelled(d, err);
            if (rc < 0)
                return rc;
            look = done + ZERO_STRIDE;
        }
        int64_t piece = feed_zero_piece(d, length - done, err);
        if (piece < 0)
            return (int)piece;
        done += (uint64_t)piece;
    }
    return 0;
}

static int feed_data(struct digest *d, const uint8_t *bytes, uint64_t length,
                     struct lam_error *err)
{
    int rc = 0;

    for (uint64_t done = 0; done < length && rc == 0; ) {
        uint64_t piece = length - done;
        if (d->tree)
            piece = min_u64(piece, DIGEST_BLOCK - d->leaf_fill);
        rc = feed_bytes(d, bytes + done, piece, err);
        done += piece;
    }
    return rc;
}

static int feed_slot(struct digest *d, const struct slot *slot,
                     struct lam_error *err)
{
    int rc = 0;

    if (slot->buf)
        return feed_data(d, slot->buf, slot->length, err);
    if (!slot->nb_leaves)
        return feed_zeroes(d, slot->length, err);
    for (size_t i = 0; i < slot->nb_leaves && rc == 0; i++)
        rc = feed_leaf(d, slot->leaves + i * d->leaf_size, err);
    return rc;
}

/* ------------------------------------------------------------ the ring */

static void failed(struct digest *d, int rc, const struct lam_error *err)
{
    if (d->rc == 0) {
        d->rc = rc;
        d->error = *err;
    }
    pthread_cond_broadcast(&d->moved);
}

/* Hash all that is complete; under the lock, which is let go meanwhile. */
static void drain(struct digest *d)
{
    struct lam_error err = LAM_ERROR_INIT;

    d->busy = true;
    while (d->rc == 0 && d->slots[d->next % SLOTS].full) {
        struct slot *slot = &d->slots[d->next % SLOTS];
        pthread_mutex_unlock(&d->lock);
        int rc = feed_slot(d, slot, &err);
        pthread_mutex_lock(&d->lock);
        if (rc < 0)
            failed(d, rc, &err);
        if (slot->buf)
            d->spare[d->nb_spare++] = lam_take(&slot->buf);
        slot->full = false;
        d->next++;
        pthread_cond_broadcast(&d->moved);
    }
    d->busy = false;
}

static int outcome(const struct digest *d, struct lam_error *err)
{
    if (d->rc < 0 && err)
        *err = d->error;
    return d->rc;
}

/*
 * Whole blocks of a tree are hashed by the worker that has them: only their
 * digests have an order.
 */
static int hash_leaves(const struct digest *d, struct slot *slot,
                       const uint8_t *bytes, struct lam_error *err)
{
    struct digest_stream *s lam_cleanup(digest_stream_cleanup) = NULL;
    int rc = digest_stream_new(d->name, d->algorithm_length, &s, err);
    size_t size;

    for (uint64_t at = 0; at < slot->length && rc == 0; at += DIGEST_BLOCK) {
        rc = digest_stream_update(s, bytes + at, DIGEST_BLOCK, err);
        if (rc == 0)
            rc = digest_stream_finish(s, slot->leaves + slot->nb_leaves++ *
                                      d->leaf_size, &size, err);
    }
    return rc;
}

static bool has_own_leaves(const struct digest *d, uint64_t offset,
                           uint64_t length)
{
    return d->tree && offset % DIGEST_BLOCK == 0 &&
           length % DIGEST_BLOCK == 0 && length / DIGEST_BLOCK <= LEAVES_MAX;
}

int digest_put(struct digest *d, uint64_t sequence, uint64_t offset,
               uint64_t length, uint8_t **buf, struct lam_error *err)
{
    struct slot chunk = { .full = true, .length = length };
    int rc = 0;

    if (buf && has_own_leaves(d, offset, length))
        rc = hash_leaves(d, &chunk, *buf, err);
    else if (buf)
        chunk.buf = *buf;
    if (rc < 0)
        return rc;

    LAM_LOCKED(&d->lock);
    while (d->rc == 0 && sequence >= d->next + SLOTS)
        pthread_cond_wait(&d->moved, &d->lock);
    if (d->rc < 0)
        return outcome(d, err);
    d->slots[sequence % SLOTS] = chunk;
    if (chunk.buf)
        *buf = NULL;
    if (!d->busy)
        drain(d);
    while (chunk.buf && d->rc == 0 && d->nb_spare == 0)
        pthread_cond_wait(&d->moved, &d->lock);
    if (chunk.buf && d->nb_spare)
        *buf = d->spare[--d->nb_spare];
    return outcome(d, err);
}

void digest_abort(struct digest *d, int rc, const struct lam_error *err)
{
    LAM_LOCKED(&d->lock);
    failed(d, rc, err);
}

/* -------------------------------------------------------- from new to end */

static int buffers_new(struct digest *d, unsigned workers, uint64_t chunk_max,
                       struct lam_error *err)
{
    d->max_spare = SPARE_BUFFERS;
    /* Those that the workers bring end up here as well. */
    d->spare = calloc(d->max_spare + workers, sizeof *d->spare);
    d->zeroes = calloc(1, ZERO_BYTES);
    if (!d->spare || !d->zeroes)
        return lam_fail(err, ENOMEM, "no memory for a digest");
    while (d->nb_spare < d->max_spare) {
        uint8_t *buf = buffer_new(chunk_max);
        if (!buf)
            return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                            chunk_max);
        d->spare[d->nb_spare++] = buf;
    }
    return 0;
}

static int tree_init(struct digest *d, struct lam_error *err)
{
    int rc = 0;

    for (uint64_t at = 0; at < DIGEST_BLOCK && rc == 0; at += ZERO_BYTES)
        rc = digest_stream_update(d->leaf, d->zeroes, ZERO_BYTES, err);
    return rc < 0 ? rc : digest_stream_finish(d->leaf, d->zero_leaf,
                                              &d->leaf_size, err);
}

int digest_new(const char *name, unsigned workers, uint64_t chunk_max,
               const volatile int *cancel, struct digest **out,
               struct lam_error *err)
{
    int rc = lam_digest_check(name, err);
    if (rc < 0)
        return rc;
    struct digest *d = calloc(1, sizeof *d);
    if (!d)
        return lam_fail(err, ENOMEM, "no memory for a digest");

    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->moved, NULL);
    d->cancel = cancel;
    set_name(d, name);
    rc = buffers_new(d, workers, chunk_max, err);
    if (rc == 0)
        rc = digest_stream_new(name, d->algorithm_length, &d->stream, err);
    if (rc == 0 && d->tree)
        rc = digest_stream_new(name, d->algorithm_length, &d->leaf, err);
    if (rc == 0 && d->tree)
        rc = tree_init(d, err);
    if (rc < 0)
        digest_free(d);
    else
        *out = d;
    return rc;
}

void digest_free(struct digest *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        free(d->slots[i].buf);
    for (size_t i = 0; i < d->nb_spare; i++)
        free(d->spare[i]);
    free(d->spare);
    free(d->zeroes);
    digest_stream_free(d->stream);
    digest_stream_free(d->leaf);
    pthread_cond_destroy(&d->moved);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

int digest_finish(struct digest *d, char text[LAM_DIGEST_TEXT],
                  struct lam_error *err)
{
    uint8_t bytes[DIGEST_MAX_BYTES];
    size_t size;
    int rc = outcome(d, err);

    if (rc == 0 && d->leaf_fill > 0)
        rc = end_block(d, err);
    if (rc == 0)
        rc = digest_stream_finish(d->stream, bytes, &size, err);
    if (rc < 0)
        return rc;
    int at = snprintf(text, LAM_DIGEST_TEXT, "%s:", d->name);
    for (size_t i = 0; i < size; i++)
        at += snprintf(text + at, (size_t)(LAM_DIGEST_TEXT - at), "%02x",
                       bytes[i]);
    return 0;
}
