/* SPDX-License-Identifier: MIT */
/*
 * chunks.c - a list of chunks: looking up, and reading the compressed ones.
 *
 * Whoever reads part of a chunk inflates all of it, and keeps it for who reads
 * the next part.
 */
#include "format/chunks/chunks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/chunks/inflate.h"

static const size_t MAX_CHUNKS = (size_t)1 << 22;

static bool is_compressed(const struct chunk *chunk)
{
    return chunk->kind != CHUNK_ZERO && chunk->kind != CHUNK_RAW;
}

static int judge(const struct chunks *c, const struct chunk *chunk,
                 uint64_t length, struct lam_error *err)
{
    if (chunk->length > INT64_MAX || chunk->guest > INT64_MAX)
        return lam_fail(err, EUCLEAN, "%s: chunk %zu of %" PRIu64 " bytes at "
                        "offset %" PRIu64 " (limit: 2^63)", c->name, c->count,
                        chunk->length, chunk->guest);
    if (chunk->kind == CHUNK_ZERO)
        return 0;
    if (!range_fits(chunk->host, chunk->host_length, length))
        return lam_fail(err, EUCLEAN, "%s: chunk %zu: %" PRIu64 " bytes at host"
                        " offset %" PRIu64 " end beyond the file's length of %"
                        PRIu64, c->name, c->count, chunk->host_length,
                        chunk->host, length);
    if (is_compressed(chunk) && (chunk->length > CHUNK_MAX ||
                                 chunk->host_length > CHUNK_MAX))
        return lam_fail(err, EUCLEAN, "%s: chunk %zu of %" PRIu64 " bytes, %"
                        PRIu64 " compressed (limit: %d)", c->name, c->count,
                        chunk->length, chunk->host_length, CHUNK_MAX);
    return 0;
}

int chunks_add(struct chunks *c, const struct chunk *chunk, uint64_t length,
               struct lam_error *err)
{
    int rc = judge(c, chunk, length, err);

    if (rc < 0 || !chunk->length)
        return rc;
    if (c->count == MAX_CHUNKS)
        return lam_fail(err, EFBIG, "%s: more than %zu chunks", c->name,
                        MAX_CHUNKS);
    if (c->count == c->capacity) {
        size_t capacity = max_u64(64, c->capacity * 2);
        struct chunk *grown = realloc(c->items, capacity * sizeof *grown);
        if (!grown)
            return lam_fail(err, ENOMEM, "no memory for %zu chunks", capacity);
        c->items = grown;
        c->capacity = capacity;
    }
    c->items[c->count++] = *chunk;
    return 0;
}

static int by_guest(const void *a, const void *b)
{
    const struct chunk *x = a, *y = b;
    return x->guest < y->guest ? -1 : x->guest > y->guest;
}

int chunks_settle(struct chunks *c, struct lam_error *err)
{
    uint64_t end = 0;

    if (c->count)
        qsort(c->items, c->count, sizeof *c->items, by_guest);
    for (size_t i = 0; i < c->count; i++) {
        const struct chunk *chunk = &c->items[i];
        if (chunk->guest < end)
            return lam_fail(err, EUCLEAN, "%s: two chunks at disk offset %"
                            PRIu64, c->name, chunk->guest);
        if (!range_fits(chunk->guest, chunk->length, c->size))
            return lam_fail(err, EUCLEAN, "%s: chunk of %" PRIu64 " bytes at "
                            "disk offset %" PRIu64 " ends beyond the disk's "
                            "size of %" PRIu64, c->name, chunk->length,
                            chunk->guest, c->size);
        int rc = chunk_can_inflate(chunk->kind, err);
        if (rc < 0)
            return lam_error_prefix(err, rc, "%s", c->name);
        end = chunk->guest + chunk->length;
    }
    return 0;
}

/* The first chunk that ends behind @offset; c->count: there is none. */
static size_t find(const struct chunks *c, uint64_t offset)
{
    size_t low = 0, high = c->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->items[middle].guest + c->items[middle].length > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int append(const struct chunk *chunk, struct range r,
                  struct lam_extents *out, struct lam_error *err)
{
    struct lam_extent e = { .offset = r.offset, .length = r.length,
                            .state = LAM_EXTENT_ZERO };

    if (chunk && chunk->kind == CHUNK_RAW) {
        e.state = LAM_EXTENT_DATA;
        e.flags = LAM_EXTENT_HAS_HOST;
        e.host_offset = chunk->host + (r.offset - chunk->guest);
    } else if (chunk && chunk->kind != CHUNK_ZERO) {
        e.state = LAM_EXTENT_COMPRESSED;
        e.flags = LAM_EXTENT_HAS_HOST;
        e.host_offset = chunk->host;
        e.host_length = (uint32_t)chunk->host_length;
    }
    return extents_append(out, &e, err);
}

int chunks_map(void *format, uint64_t offset, uint64_t length,
               struct lam_extents *out, struct lam_error *err)
{
    const struct chunks *c = format;
    const uint64_t end = offset + length;
    int rc = 0;

    for (size_t i = find(c, offset); offset < end && rc == 0;) {
        const struct chunk *chunk = i < c->count ? &c->items[i] : NULL;
        uint64_t next = !chunk ? end
                      : chunk->guest > offset ? min_u64(end, chunk->guest)
                      : min_u64(end, chunk->guest + chunk->length);
        bool inside = chunk && chunk->guest <= offset;

        rc = append(inside ? chunk : NULL,
                    range_make(offset, next - offset), out, err);
        i += inside;
        offset = next;
    }
    return rc;
}

static int inflate(struct chunks *c, const struct chunk *chunk, uint8_t *out,
                   struct lam_error *err)
{
    lam_autofree uint8_t *payload = malloc(chunk->host_length + 1);

    if (!payload)
        return lam_fail(err, ENOMEM, "no memory for a compressed chunk");
    int rc = chunk->host_length ? lam_io_read(c->io, payload,
                                              chunk->host_length, chunk->host,
                                              err) : 0;
    if (rc == 0)
        rc = chunk_inflate(chunk, payload, out, err);
    return lam_error_prefix(err, rc, "%s: chunk at host offset %" PRIu64,
                            c->name, chunk->host);
}

static bool read_kept(struct chunks *c, const struct chunk *chunk,
                      const struct lam_extent *extent, void *buf)
{
    LAM_LOCKED(&c->lock);
    if (c->kept != chunk)
        return false;
    memcpy(buf, c->bytes + (extent->offset - chunk->guest), extent->length);
    return true;
}

static void keep(struct chunks *c, const struct chunk *chunk, uint8_t **bytes)
{
    LAM_LOCKED(&c->lock);
    free(c->bytes);
    c->bytes = lam_take(bytes);
    c->kept = chunk;
}

/* An extent of our own map, perhaps clipped. */
int chunks_read(void *format, const struct lam_extent *extent, void *buf,
                struct lam_error *err)
{
    struct chunks *c = format;
    const struct chunk *chunk = &c->items[find(c, extent->offset)];

    if (extent->offset == chunk->guest && extent->length == chunk->length)
        return inflate(c, chunk, buf, err);
    if (read_kept(c, chunk, extent, buf))
        return 0;
    lam_autofree uint8_t *bytes = malloc(chunk->length);
    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a chunk of %" PRIu64
                        " bytes", chunk->length);
    int rc = inflate(c, chunk, bytes, err);
    if (rc < 0)
        return rc;
    memcpy(buf, bytes + (extent->offset - chunk->guest), extent->length);
    keep(c, chunk, &bytes);
    return 0;
}

uint64_t chunks_size(void *format)
{
    const struct chunks *c = format;
    return c->size;
}

uint64_t chunks_none(void *format)
{
    (void)format;
    return 0;
}

int chunks_close(void *format, struct lam_error *err)
{
    struct chunks *c = format;

    (void)err;
    free(c->items);
    free(c->bytes);
    pthread_mutex_destroy(&c->lock);
    free(c);
    return 0;
}

int chunks_open(const char *name, chunks_load_fn *load,
                const struct format_open *o, void **format,
                struct lam_error *err)
{
    struct chunks *c = calloc(1, sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for an image of format %s",
                        name);
    c->name = name;
    c->io = o->io;
    pthread_mutex_init(&c->lock, NULL);
    if (o->io->eof_unit < 512)
        o->io->eof_unit = 512;
    int rc = load(c, o, err);
    if (rc < 0)
        chunks_close(c, NULL);
    else
        *format = c;
    return rc;
}
