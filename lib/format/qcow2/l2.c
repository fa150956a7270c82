/* SPDX-License-Identifier: MIT */
/*
 * l2.c - a run of L2 entries → extents, by the decision tables of the format
 * document (3.3 standard, 3.4 extended).
 *
 * This is the scan loop of map, compare and convert: entries that continue
 * each other are counted first and reach the list as one extent.
 */
#include "format/qcow2/l2.h"

#include <inttypes.h>

#include "base/bytes.h"

struct qcow2_l2_entry l2_get(const struct qcow2_geometry *g,
                             const uint8_t *table, uint64_t index)
{
    const uint8_t *p = table + index * g->l2_entry_size;

    return (struct qcow2_l2_entry){
        .word = be64_get(p),
        .bitmap = g->extended_l2 ? be64_get(p + 8) : 0,
    };
}

void l2_put(const struct qcow2_geometry *g, uint8_t *table, uint64_t index,
            struct qcow2_l2_entry entry)
{
    uint8_t *p = table + index * g->l2_entry_size;

    be64_put(p, entry.word);
    if (g->extended_l2)
        be64_put(p + 8, entry.bitmap);
}

/* The scan: what is left of the request, and the extent in the making, which
 * goes to the list when the next one does not continue it. */
struct scan {
    const struct l2_context *ctx;
    uint64_t offset, end;       /* guest range not scanned yet */
    struct lam_extents *out;
    struct lam_extent pending;  /* length 0: none */
};

static int scan_flush(struct scan *s, struct lam_error *err)
{
    int rc = s->pending.length ? extents_append(s->out, &s->pending, err) : 0;

    s->pending.length = 0;
    return rc;
}

static bool continues(const struct lam_extent *last,
                      const struct lam_extent *next)
{
    return last->length && last->state == next->state &&
           last->flags == next->flags && next->state != LAM_EXTENT_COMPRESSED &&
           (!(next->flags & LAM_EXTENT_HAS_HOST) ||
            last->host_offset + last->length == next->host_offset);
}

/* Takes @e, which covers the guest from s->offset on. */
static int scan_add(struct scan *s, const struct lam_extent *e,
                    struct lam_error *err)
{
    s->offset += e->length;
    if (continues(&s->pending, e)) {
        s->pending.length += e->length;
        return 0;
    }
    int rc = scan_flush(s, err);
    if (rc == 0)
        s->pending = *e;
    return rc;
}

/* @state for the @length bytes from s->offset on; with @host (not NULL) on the
 * host at *@host. */
static int scan_state(struct scan *s, enum lam_extent_state state,
                      uint64_t length, const uint64_t *host,
                      struct lam_error *err)
{
    struct lam_extent e = {
        .offset = s->offset,
        .length = min_u64(length, s->end - s->offset),
        .host_offset = host ? *host : 0,
        .state = (uint8_t)state,
        .flags = host ? LAM_EXTENT_HAS_HOST : 0,
    };

    if (host && s->ctx->data_file)
        e.flags |= LAM_EXTENT_DATA_FILE;
    if (host && s->ctx->encrypted)
        e.flags |= LAM_EXTENT_ENCRYPTED;
    return scan_add(s, &e, err);
}

static int corrupt(const struct scan *s, struct qcow2_l2_entry entry,
                   struct lam_error *err, const char *what)
{
    return lam_fail(err, EUCLEAN, "L2 entry %#" PRIx64 " (guest offset %#"
                    PRIx64 "): %s", entry.word,
                    align_down(s->offset, s->ctx->geometry->cluster_size),
                    what);
}

/* What must hold of the host offset of a NORMAL or ZERO_ALLOC entry. */
static int check_host(const struct scan *s, struct qcow2_l2_entry entry,
                      struct lam_error *err)
{
    uint64_t cs = s->ctx->geometry->cluster_size;
    uint64_t host = entry_offset(entry.word);

    if (!is_aligned(host, cs))
        return corrupt(s, entry, err, "host offset is not a multiple of the "
                       "cluster size");
    if (s->ctx->data_file && host != align_down(s->offset, cs))
        return corrupt(s, entry, err, "offset in the external data file is "
                       "not the guest offset");
    return 0;
}

static int scan_compressed(struct scan *s, struct qcow2_l2_entry entry,
                           struct lam_error *err)
{
    const struct qcow2_geometry *g = s->ctx->geometry;
    uint64_t in = in_cluster(g, s->offset);

    if (s->ctx->data_file)
        return corrupt(s, entry, err,
                       "compressed cluster with an external data file");
    if (compressed_offset(g, entry.word) >> 56)
        return corrupt(s, entry, err, "compressed payload lies beyond 2^56");

    struct lam_extent e = {
        .offset = s->offset,
        .length = min_u64(g->cluster_size - in, s->end - s->offset),
        .host_offset = compressed_offset(g, entry.word),
        .host_length = (uint32_t)compressed_length(g, entry.word),
        .state = LAM_EXTENT_COMPRESSED,
        .flags = LAM_EXTENT_HAS_HOST,
    };
    return scan_add(s, &e, err);
}

/*
 * How many of the @max entries at @p continue the first one: the same word
 * (@step 0), or host offsets that grow by @step.  Bits outside @mask may
 * differ.
 */
static uint64_t count_run(const uint8_t *p, uint64_t max, uint64_t step,
                          uint64_t mask)
{
    uint64_t word = be64_get(p) & mask;
    uint64_t n = 1;

    if (step)       /* an offset that leaves its field would not continue */
        max = min_u64(max, (QCOW2_OFFSET_MASK - entry_offset(word)) / step + 1);
    while (n < max && (be64_get(p + n * 8) & mask) == word + n * step)
        n++;
    return n;
}

/* One run of standard entries from @p on; *@p moves behind it. */
static int scan_standard(struct scan *s, const uint8_t **p,
                         struct lam_error *err)
{
    const struct qcow2_geometry *g = s->ctx->geometry;
    struct qcow2_l2_entry entry = { .word = be64_get(*p) };
    enum qcow2_cluster_type type =
        entry_type(g, entry.word, s->ctx->data_file);
    uint64_t in = in_cluster(g, s->offset);
    bool has_host = type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC;
    bool zero = type == QCOW2_ZERO_PLAIN || type == QCOW2_ZERO_ALLOC;

    if (zero && s->ctx->version < 3)
        return corrupt(s, entry, err, "zero cluster in a version 2 image");
    int rc = has_host ? check_host(s, entry, err) : 0;
    if (rc < 0)
        return rc;
    if (type == QCOW2_COMPRESSED_CLUSTER) {
        *p += 8;
        return scan_compressed(s, entry, err);
    }

    /* In an external data file COPIED alone can tell NORMAL from
     * UNALLOCATED, at host offset 0. */
    uint64_t n = count_run(*p, div_up(in + (s->end - s->offset),
                                      g->cluster_size),
                           has_host ? g->cluster_size : 0,
                           s->ctx->data_file ? UINT64_MAX : ~QCOW2_COPIED);
    uint64_t host = entry_offset(entry.word) + in;
    *p += n * 8;
    return scan_state(s, zero ? LAM_EXTENT_ZERO
                         : has_host ? LAM_EXTENT_DATA : LAM_EXTENT_UNALLOCATED,
                      n * g->cluster_size - in, has_host ? &host : NULL, err);
}

/* Subclusters from @sc on that share the bits of @allocated and @zero with it:
 * the first bit that differs ends the run. */
static unsigned subcluster_run(uint32_t allocated, uint32_t zero, unsigned sc)
{
    uint32_t a = allocated >> sc, z = zero >> sc;
    uint32_t differs = ((a & 1) ? ~a : a) | ((z & 1) ? ~z : z);
    unsigned run = differs ? (unsigned)__builtin_ctz(differs) : 32;

    return run < QCOW2_SUBCLUSTERS - sc ? run : QCOW2_SUBCLUSTERS - sc;
}

/* The subclusters of one entry, from the one that holds s->offset on. */
static int scan_subclusters(struct scan *s, struct qcow2_l2_entry entry,
                            bool has_host, struct lam_error *err)
{
    const struct qcow2_geometry *g = s->ctx->geometry;
    uint64_t start = align_down(s->offset, g->cluster_size);
    uint64_t end = min_u64(s->end, start + g->cluster_size);
    uint32_t allocated = (uint32_t)entry.bitmap;
    uint32_t zero = (uint32_t)(entry.bitmap >> 32);

    while (s->offset < end) {
        uint64_t in = s->offset - start;
        unsigned sc = (unsigned)(in / g->subcluster_size);
        unsigned run = subcluster_run(allocated, zero, sc);
        uint64_t host = entry_offset(entry.word) + in;
        enum lam_extent_state state =
            zero >> sc & 1 ? LAM_EXTENT_ZERO
            : allocated >> sc & 1 ? LAM_EXTENT_DATA : LAM_EXTENT_UNALLOCATED;

        int rc = scan_state(s, state, (sc + run) * g->subcluster_size - in,
                            has_host ? &host : NULL, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int scan_extended(struct scan *s, const uint8_t **p,
                         struct lam_error *err)
{
    struct qcow2_l2_entry entry = l2_get(s->ctx->geometry, *p, 0);
    enum qcow2_cluster_type type =
        entry_type(s->ctx->geometry, entry.word, s->ctx->data_file);
    bool has_host = type == QCOW2_NORMAL;

    *p += 16;
    if (type == QCOW2_COMPRESSED_CLUSTER)
        return scan_compressed(s, entry, err);
    if (subclusters_invalid(entry.bitmap, has_host))
        return corrupt(s, entry, err, has_host
                       ? "a subcluster is both allocated and zero"
                       : "subclusters are allocated in no host cluster");
    int rc = has_host ? check_host(s, entry, err) : 0;
    return rc < 0 ? rc : scan_subclusters(s, entry, has_host, err);
}

int l2_extents(const struct l2_context *ctx, const uint8_t *table,
               uint64_t offset, uint64_t length, struct lam_extents *out,
               struct lam_error *err)
{
    struct scan s = {
        .ctx = ctx, .offset = offset, .end = offset + length, .out = out,
    };
    size_t count = out->count;
    struct lam_extent last = { 0 };
    int rc = 0;

    if (count)
        last = out->items[count - 1];
    while (rc == 0 && s.offset < s.end) {
        rc = ctx->geometry->extended_l2 ? scan_extended(&s, &table, err)
                                        : scan_standard(&s, &table, err);
    }
    if (rc == 0)
        rc = scan_flush(&s, err);
    if (rc < 0) {               /* the list is as it was */
        out->count = count;
        if (count)
            out->items[count - 1] = last;
    }
    return rc;
}
