/* SPDX-License-Identifier: MIT */
/*
 * compare.c - do two images read the same?
 *
 * One walk over both maps, shared by all workers.  What both maps know to be
 * zero, and what both find at the same place of the same file (two overlays of
 * one base), is passed over without reading.  The rest is cut into chunks that
 * workers read and compare.  Chunks go out in ascending order and none after
 * the first finding, so that the finding with the lowest offset, once all
 * workers are done, is the first difference of the images.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "extent/extent.h"
#include "image/graph.h"

enum {
    SECTOR = 512,
    MAX_WORKERS = 16,
    /* Extents a window should have at most, and may have to be made longer. */
    WINDOW_MANY = 65536, WINDOW_FEW = 4096,
};

static const uint64_t CHUNK = 256 * LAM_KIB;
/* A multiple of every cluster size, so that windows cut no cluster. */
static const uint64_t WINDOW_MIN = 2 * LAM_MIB;
static const uint64_t WINDOW_MAX = 64 * LAM_GIB;

/* The files of one layer. */
struct files {
    struct lam_io_identity image, data;
};

/* One of the two images. */
struct side {
    struct lam_image *image;
    uint64_t size;
    struct files *files;        /* one a layer */
    struct lam_extents map;     /* of the window */
    size_t next;                /* the extent that c->offset lies in */
};

enum finding_kind { NOTHING, CONTENT, ALLOCATION, MAP_FAILED, READ_FAILED };

struct finding {
    enum finding_kind kind;
    uint64_t offset;
    int rc, side;               /* of a failure */
    struct lam_error err;
};

struct worker {
    uint64_t offset, length;    /* its chunk */
    struct lam_extents map[2];
    uint8_t *buf[2];
};

struct compare {
    struct side sides[2];
    uint64_t total, common;     /* the longer and the shorter size */
    uint64_t chunk;             /* bytes; a power of two */
    bool strict;
    lam_progress_fn *progress;
    void *opaque;
    struct worker workers[MAX_WORKERS];

    pthread_mutex_t lock;       /* all below, and the sides' maps */
    uint64_t offset;            /* up to here all is handed out */
    uint64_t window_end, window;
    struct finding first;
};

/* The lowest offset wins; at one offset, whoever came first. */
static void found(struct compare *c, const struct finding *finding)
{
    if (c->first.kind == NOTHING || finding->offset < c->first.offset)
        c->first = *finding;
}

/* ------------------------------------------------------------------ windows */

/* Beyond its end an image counts as zeroes. */
static int append_padding(struct side *side, uint64_t offset, uint64_t end,
                          struct lam_error *err)
{
    struct lam_extent padding = {
        .offset = max_u64(offset, side->size), .state = LAM_EXTENT_ZERO,
        .flags = LAM_EXTENT_BEYOND_BACKING,
    };

    if (padding.offset >= end)
        return 0;
    padding.length = end - padding.offset;
    return extents_append(&side->map, &padding, err);
}

static int map_side(struct side *side, uint64_t offset, uint64_t end,
                    struct lam_error *err)
{
    int rc = 0;

    side->map.count = 0;
    side->next = 0;
    if (offset < side->size)
        rc = image_map(side->image, offset,
                           min_u64(end, side->size) - offset, LAM_DEPTH_ALL,
                           LAM_MAP_HOST_HOLES, &side->map, err);
    return rc < 0 ? rc : append_padding(side, offset, end, err);
}

/* How far a map of both sides may go from @offset on. */
static uint64_t window_at(const struct compare *c, uint64_t offset)
{
    uint64_t window = c->total - offset;

    for (int i = 0; i < 2; i++)
        if (offset < c->sides[i].size)
            window = min_u64(window, max_u64(c->window, image_map_window(
                c->sides[i].image, offset, LAM_DEPTH_ALL, c->window)));
    return window;
}

/* Map what follows c->offset; false if that failed. */
static bool next_window(struct compare *c)
{
    uint64_t start = c->offset;
    uint64_t end = start + window_at(c, start);

    for (int i = 0; i < 2; i++) {
        struct finding failed = { MAP_FAILED, start, 0, i, LAM_ERROR_INIT };
        failed.rc = map_side(&c->sides[i], start, end, &failed.err);
        if (failed.rc < 0) {
            found(c, &failed);
            return false;
        }
    }
    c->window_end = end;
    size_t count = c->sides[0].map.count + c->sides[1].map.count;
    if (count < WINDOW_FEW && c->window < WINDOW_MAX)
        c->window *= 2;
    else if (count > WINDOW_MANY && c->window > WINDOW_MIN)
        c->window /= 2;
    return true;
}

/* --------------------------------------------------------------------- walk */

static const struct lam_extent *current(struct side *side, uint64_t offset)
{
    const struct lam_extent *e = &side->map.items[side->next];

    while (e->offset + e->length <= offset)
        e = &side->map.items[++side->next];
    return e;
}

/* What strict mode wants equal: not where data are, but how they are had. */
static unsigned allocation(const struct lam_extent *e)
{
    unsigned flags = e->flags & (LAM_EXTENT_HOST_HOLE | LAM_EXTENT_ENCRYPTED);

    if (e->flags & LAM_EXTENT_BEYOND_BACKING)
        return LAM_EXTENT_UNALLOCATED << 8;
    if (e->state == LAM_EXTENT_ZERO)
        flags |= e->flags & LAM_EXTENT_HAS_HOST;
    return (unsigned)e->state << 8 | flags;
}

static bool same_identity(const struct lam_io_identity *a,
                          const struct lam_io_identity *b)
{
    return a->known && b->known && a->dev == b->dev && a->ino == b->ino &&
           a->is_block_device == b->is_block_device;
}

/* Both find the same bytes of the same file. */
static bool same_bytes(const struct compare *c, const struct lam_extent *a,
                       const struct lam_extent *b, uint64_t offset)
{
    if (a->state != LAM_EXTENT_DATA || b->state != LAM_EXTENT_DATA ||
        a->host_offset + (offset - a->offset) !=
            b->host_offset + (offset - b->offset))
        return false;

    const struct files *x = &c->sides[0].files[a->depth];
    const struct files *y = &c->sides[1].files[b->depth];
    return same_identity(a->flags & LAM_EXTENT_DATA_FILE ? &x->data : &x->image,
                         b->flags & LAM_EXTENT_DATA_FILE ? &y->data
                                                         : &y->image);
}

/*
 * The piece at c->offset: *@end is where it ends, *@skip says that it needs no
 * reading.  False if strict mode is not content with it.
 */
static bool look(struct compare *c, uint64_t offset, uint64_t *end, bool *skip)
{
    const struct lam_extent *a = current(&c->sides[0], offset);
    const struct lam_extent *b = current(&c->sides[1], offset);

    *end = min_u64(a->offset + a->length, b->offset + b->length);
    *skip = (extent_reads_zero(a) && extent_reads_zero(b)) ||
            same_bytes(c, a, b, offset);
    if (!c->strict || allocation(a) == allocation(b))
        return true;
    found(c, &(struct finding){ .kind = ALLOCATION, .offset = offset });
    return false;
}

static int take_extent(struct worker *w, int side, const struct lam_extent *e,
                       uint64_t offset, uint64_t end, struct lam_error *err)
{
    struct lam_extent clipped = extent_clip(e, offset, end - offset);

    return extents_append(&w->map[side], &clipped, err);
}

/* [w->offset, end) of both maps goes to @w. */
static int take_chunk(struct compare *c, struct worker *w, uint64_t end,
                      struct lam_error *err)
{
    int rc = 0;

    for (int i = 0; i < 2; i++) {
        w->map[i].count = 0;
        uint64_t offset = w->offset;
        while (offset < end && rc == 0) {
            const struct lam_extent *e = current(&c->sides[i], offset);
            uint64_t stop = min_u64(e->offset + e->length, end);
            rc = take_extent(w, i, e, offset, stop, err);
            offset = stop;
        }
    }
    w->length = end - w->offset;
    return rc;
}

/* Pass over what need not be read; true if something is left in the window
 * that has to be. */
static bool skip_known(struct compare *c)
{
    while (c->offset < c->window_end) {
        uint64_t end;
        bool skip;
        if (!look(c, c->offset, &end, &skip))
            return false;
        if (!skip)
            return true;
        c->offset = end;
    }
    return false;
}

/*
 * Where the chunk at c->offset ends: at a multiple of the chunk size, which no
 * compressed cluster crosses, or where something begins that is to be skipped
 * and is not small.
 */
static uint64_t chunk_end(struct compare *c)
{
    uint64_t limit = min_u64(align_down(c->offset, c->chunk) + c->chunk,
                             c->window_end);
    uint64_t offset = c->offset;

    while (offset < limit) {
        uint64_t end;
        bool skip;
        if (!look(c, offset, &end, &skip) || (skip && end >= limit))
            return offset;
        offset = end;
    }
    return limit;
}

/* 1: @w has a chunk; 0: nothing is left to do. */
static int next_chunk(struct compare *c, struct worker *w,
                      struct lam_error *err)
{
    LAM_LOCKED(&c->lock);
    while (c->first.kind == NOTHING && c->offset < c->total) {
        if (c->offset == c->window_end && !next_window(c))
            return 0;
        if (!skip_known(c))
            continue;
        size_t next[2] = { c->sides[0].next, c->sides[1].next };
        uint64_t end = chunk_end(c);
        c->sides[0].next = next[0];
        c->sides[1].next = next[1];
        if (end == c->offset)
            return 0;           /* strict mode found something right here */
        w->offset = c->offset;
        int rc = take_chunk(c, w, end, err);
        c->offset = end;
        if (c->progress)
            c->progress(c->opaque, w->offset, c->total);
        return rc < 0 ? rc : 1;
    }
    return 0;
}

/* ------------------------------------------------------------------- chunks */

static int read_side(struct compare *c, struct worker *w, int side,
                     struct lam_error *err)
{
    struct lam_image *image = c->sides[side].image;
    uint64_t end = w->offset + w->length;

    if (!w->buf[side])
        w->buf[side] = buffer_new(c->chunk);
    if (!w->buf[side])
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                        c->chunk);
    /* What was mapped may move in an image that is open for writing. */
    if (image->writable && end <= c->sides[side].size)
        return lam_image_read(image, w->buf[side], w->length, w->offset, err);
    return image_read_extents(image, &w->map[side], w->buf[side], w->length,
                              w->offset, err);
}

static const struct lam_extent *extent_at(const struct lam_extents *map,
                                          uint64_t offset)
{
    const struct lam_extent *e = map->items;

    while (e->offset + e->length <= offset)
        e++;
    return e;
}

/* The sector that byte @i of the chunk lies in.  Sectors count from where the
 * extents begin, since a file may end in the middle of one. */
static uint64_t sector_of(const struct worker *w, uint64_t i)
{
    uint64_t offset = w->offset + i;
    uint64_t base = max_u64(extent_at(&w->map[0], offset)->offset,
                            extent_at(&w->map[1], offset)->offset);

    return base + align_down(offset - base, SECTOR);
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b)
{
    uint64_t i = 0;

    while (!memcmp(a + i, b + i, 64))
        i += 64;
    while (a[i] == b[i])
        i++;
    return i;
}

static int compare_chunk(struct compare *c, struct worker *w)
{
    struct finding finding = { .kind = NOTHING, .offset = w->offset };

    for (int i = 0; i < 2 && finding.rc == 0; i++) {
        finding.side = i;
        finding.rc = read_side(c, w, i, &finding.err);
    }
    if (finding.rc < 0) {
        finding.kind = READ_FAILED;
    } else if (memcmp(w->buf[0], w->buf[1], w->length)) {
        finding.kind = CONTENT;
        finding.offset = sector_of(w, first_difference(w->buf[0], w->buf[1]));
    } else {
        return 1;
    }
    LAM_LOCKED(&c->lock);
    found(c, &finding);
    return 1;
}

static int step(void *job, unsigned worker, struct lam_error *err)
{
    struct compare *c = job;
    int rc = next_chunk(c, &c->workers[worker], err);

    return rc <= 0 ? rc : compare_chunk(c, &c->workers[worker]);
}

/* ---------------------------------------------------------------------- job */

static void identify(const struct lam_io *io, struct lam_io_identity *identity)
{
    *identity = (struct lam_io_identity){ .known = false };
    if (io)
        lam_io_identity(io, identity);
}

static int side_init(struct side *side, struct lam_image *image,
                     struct lam_error *err)
{
    unsigned depth = image_depth(image);

    side->image = image;
    side->size = lam_image_size(image);
    side->files = calloc(depth, sizeof *side->files);
    if (!side->files)
        return lam_fail(err, ENOMEM, "no memory for %u layers", depth);
    for (unsigned i = 0; i < depth; i++) {
        const struct lam_image *layer = image_layer(image, i);
        identify(layer->io, &side->files[i].image);
        identify(layer->data, &side->files[i].data);
    }
    return 0;
}

static uint64_t chunk_size(struct lam_image *a, struct lam_image *b)
{
    struct lam_image *const images[] = { a, b };
    uint64_t chunk = CHUNK;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(images); i++) {
        for (struct lam_image *l = images[i]; l; l = lam_image_backing(l))
            chunk = max_u64(chunk, lam_image_cluster_size(l));
    }
    return chunk;
}

static void compare_deinit(struct compare *c)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(c->workers); i++) {
        for (int side = 0; side < 2; side++) {
            lam_extents_deinit(&c->workers[i].map[side]);
            free(c->workers[i].buf[side]);
        }
    }
    for (int side = 0; side < 2; side++) {
        lam_extents_deinit(&c->sides[side].map);
        free(c->sides[side].files);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static int report(const struct compare *c, struct lam_compare_result *out,
                  struct lam_error *err)
{
    const struct finding *f = &c->first;

    out->offset = f->offset;
    out->beyond_end = f->kind == CONTENT && f->offset >= c->common;
    out->verdict = f->kind == CONTENT ? LAM_COMPARE_CONTENT
                   : f->kind == ALLOCATION ? LAM_COMPARE_ALLOCATION
                                           : LAM_COMPARE_EQUAL;
    if (f->kind != MAP_FAILED && f->kind != READ_FAILED)
        return 0;
    out->failed_image = f->side + 1;
    out->failed_mapping = f->kind == MAP_FAILED;
    if (err)
        *err = f->err;
    return f->rc;
}

static int run(struct compare *c, struct lam_image *a, struct lam_image *b,
               struct lam_compare_result *out, struct lam_error *err)
{
    int rc = side_init(&c->sides[0], a, err);

    if (rc == 0)
        rc = side_init(&c->sides[1], b, err);
    if (rc < 0)
        return rc;
    c->total = max_u64(c->sides[0].size, c->sides[1].size);
    c->common = min_u64(c->sides[0].size, c->sides[1].size);
    c->window = 64 * LAM_MIB;
    c->chunk = chunk_size(a, b);
    out->sizes_differ = c->total != c->common;
    if (c->strict && out->sizes_differ) {
        out->verdict = LAM_COMPARE_SIZE;
        return 0;
    }
    unsigned workers = workers_default();
    rc = workers_run(workers < MAX_WORKERS ? workers : MAX_WORKERS, step, c,
                     err);
    return rc < 0 ? rc : report(c, out, err);
}

int lam_image_compare(struct lam_image *a, struct lam_image *b, unsigned flags,
                      lam_progress_fn *progress, void *opaque,
                      struct lam_compare_result *out, struct lam_error *err)
{
    *out = (struct lam_compare_result){ .verdict = LAM_COMPARE_EQUAL };
    int rc = lam_check_flags(flags, LAM_COMPARE_STRICT, err);
    if (rc < 0)
        return rc;
    struct compare *c = calloc(1, sizeof *c);
    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a comparison");
    pthread_mutex_init(&c->lock, NULL);
    c->strict = flags & LAM_COMPARE_STRICT;
    c->progress = progress;
    c->opaque = opaque;
    image_graph_hold(a, b);
    rc = run(c, a, b, out, err);
    image_graph_release(a, b);
    compare_deinit(c);
    return rc;
}
