/* SPDX-License-Identifier: MIT */
/*
 * cmd-map.c - `map`: which layer of the chain has which part of the guest's
 * data, and where in its file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "print.h"
#include "source-option.h"

struct map_args {
    const char *filename;
    struct source_options source;
    uint64_t start, length;
    bool json;
};

static const struct command_option option_rows[] = {
    OPTION_FORMAT, OPTION_IMAGE_OPTS,
    { 's', "start-offset", "OFFSET",
      "begin at this guest offset (default: 0)", 0 },
    { 'l', "max-length", "LENGTH",
      "stop after so many bytes (default: all)", 0 },
    OPTION_SHARE,
    OPTION_OUTPUT, OPTION_OBJECT, OPTION_UNTRUSTED,
    OPTION_HELP,
    { 0 },
};

/* -1: go on; else the exit status. */
static int check_rc(const struct cli *cli, int rc, const struct lam_error *err)
{
    if (rc < 0)
        cli_report(cli, err);
    return rc < 0 ? 1 : -1;
}

static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct map_args *args = opaque;

    struct lam_error err = LAM_ERROR_INIT;

    switch (c) {
    case 's':
        return check_rc(cli, parse_size_named(optarg, "start offset",
                                              &args->start, &err), &err);
    case 'l':
        return check_rc(cli, parse_size_named(optarg, "max length",
                                              &args->length, &err), &err);
    case OPT_OUTPUT:
        return output_option(cli, optarg, &args->json) < 0 ? 1 : -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct map_args *args)
{
    int status = command_parse(cli, &command_map, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    return source_operand(cli, argc, argv, &args->source, &args->filename);
}

/* ---------------------------------------------------------------- the chain */

/* One layer: what its host offsets count in.  @floor is the smallest size of
 * the layers above and itself: what lies at or past it never gets here. */
struct layer {
    const char *name;
    uint64_t floor;
    bool sparse;                /* its file has so many holes that its data
                                   are worth asking about */
};

struct entry {
    uint64_t start, length, offset;
    unsigned depth;
    bool present, zero, data, compressed, has_offset;
    const char *file;           /* that @offset counts in; NULL: the layer's */
};

/* Neighbours that say the same are gathered in @pending, across windows. */
struct map_out {
    const struct cli *cli;
    struct lam_image *image;
    struct layer *layers;
    unsigned nb_layers;
    bool json, first, sparse;   /* any layer is */
    struct entry pending;
};

static void inspect(struct lam_image *image, struct layer *layer)
{
    struct lam_image_info *info = NULL;

    if (lam_image_info(image, &info, NULL) < 0)
        return;
    layer->sparse = info->tells_holes;
    lam_image_info_free(info);
}

static int load_layers(struct lam_image *image, struct map_out *out)
{
    unsigned count = 0;
    uint64_t floor = UINT64_MAX;

    for (struct lam_image *i = image; i; i = lam_image_backing(i))
        count++;
    out->layers = calloc(count, sizeof *out->layers);
    if (!out->layers)
        return -ENOMEM;
    for (struct lam_image *i = image; i; i = lam_image_backing(i)) {
        struct layer *layer = &out->layers[out->nb_layers++];
        floor = lam_image_size(i) < floor ? lam_image_size(i) : floor;
        layer->name = lam_image_name(i);
        layer->floor = floor;
        inspect(i, layer);
        out->sparse |= layer->sparse;
    }
    return 0;
}

/*
 * What no layer has is told of the last layer that reaches as far as @offset;
 * *@end is where that changes.  Floors never grow downwards: bisect.
 */
static unsigned deepest_layer(const struct map_out *out, uint64_t offset,
                              uint64_t *end)
{
    unsigned low = 0, high = out->nb_layers;    /* low reaches, high does not */

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (out->layers[middle].floor > offset)
            low = middle;
        else
            high = middle;
    }
    *end = out->layers[low].floor;
    return low;
}

/* ------------------------------------------------------------------ entries */

static const char *yes(bool value)
{
    return value ? "true" : "false";
}

static void print_json_entry(struct map_out *out, const struct entry *e)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s"
           ", \"compressed\": %s", out->first ? "[" : ",\n", e->start,
           e->length, e->depth, yes(e->present), yes(e->zero), yes(e->data),
           yes(e->compressed));
    if (e->has_offset)
        printf(", \"offset\": %" PRIu64, e->offset);
    putchar('}');
    out->first = false;
}

static int print_human_entry(struct map_out *out, const struct entry *e)
{
    const struct layer *layer = &out->layers[e->depth];

    if (!e->data || e->zero)
        return 0;
    if (!e->has_offset) {
        cli_error(out->cli,
                  "File contains external, encrypted or compressed clusters.");
        return -ENOTSUP;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, e->start, e->length,
           e->offset);
    print_escaped(stdout, e->file ? e->file : layer->name);
    putchar('\n');
    return 0;
}

static int flush_entry(struct map_out *out)
{
    struct entry e = out->pending;

    out->pending.length = 0;
    if (!e.length)
        return 0;
    if (!out->json)
        return print_human_entry(out, &e);
    print_json_entry(out, &e);
    return 0;
}

static bool continues(const struct entry *a, const struct entry *b)
{
    return a->length && a->present == b->present && a->zero == b->zero &&
           a->data == b->data && a->compressed == b->compressed &&
           a->has_offset == b->has_offset && a->depth == b->depth &&
           a->file == b->file &&
           (!a->has_offset || a->offset + a->length == b->offset);
}

static int add_entry(struct map_out *out, const struct entry *e)
{
    if (continues(&out->pending, e)) {
        out->pending.length += e->length;
        return 0;
    }
    int rc = flush_entry(out);
    out->pending = *e;
    return rc;
}

/* The external data file as it was opened; the format knows of others. */
static const char *file_of(const struct map_out *out,
                           const struct lam_extent *e)
{
    return e->flags & LAM_EXTENT_DATA_FILE || e->state == LAM_EXTENT_DATA
        ? lam_image_extent_file(out->image, e) : NULL;
}

static struct entry entry_of(const struct map_out *out,
                             const struct lam_extent *e)
{
    bool compressed = e->state == LAM_EXTENT_COMPRESSED;
    bool data = compressed || e->state == LAM_EXTENT_DATA;
    bool absent = e->flags & LAM_EXTENT_ABSENT;
    bool hole = (e->flags & LAM_EXTENT_HOST_HOLE) &&
                out->layers[e->depth].sparse;
    bool has_offset = (e->flags & LAM_EXTENT_HAS_HOST) && !compressed &&
                      !absent && !(e->flags & LAM_EXTENT_ENCRYPTED);

    return (struct entry){
        .start = e->offset, .length = e->length, .offset = e->host_offset,
        .depth = e->depth,
        .present = e->state != LAM_EXTENT_UNALLOCATED &&
                   !(e->flags & LAM_EXTENT_BEYOND_BACKING) && !absent,
        .zero = !data || hole, .data = data && !absent,
        .compressed = compressed,
        .has_offset = has_offset, .file = has_offset ? file_of(out, e) : NULL,
    };
}

/* What no layer has is cut where the answering layer changes. */
static int add_absent(struct map_out *out, struct entry e)
{
    uint64_t left = e.length;
    int rc = 0;

    while (left && rc == 0) {
        uint64_t end;
        e.depth = deepest_layer(out, e.start, &end);
        e.length = end - e.start < left ? end - e.start : left;
        rc = add_entry(out, &e);
        left -= e.length;
        e.start += e.length;
        e.offset += e.length;
    }
    return rc;
}

static int add_extent(struct map_out *out, const struct lam_extent *extent)
{
    struct entry e = entry_of(out, extent);

    return e.present ? add_entry(out, &e) : add_absent(out, e);
}

/* ------------------------------------------------------------------ the map */

/*
 * Guest bytes to ask for at once: some thousand clusters, so that even a
 * wholly fragmented window takes little memory.
 */
static uint64_t window_size(struct lam_image *image)
{
    uint64_t window = UINT64_C(16) << 30;

    for (; image; image = lam_image_backing(image)) {
        uint64_t want = lam_image_cluster_size(image) * 8192;
        if (want && want < window)
            window = want;
    }
    return window;
}

static int map_range(struct lam_image *image, uint64_t offset, uint64_t end,
                     struct map_out *out)
{
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t window = window_size(image);
    int rc = 0;

    while (offset < end && rc == 0) {
        uint64_t length = lam_image_map_window(image, offset, LAM_DEPTH_ALL,
                                               window);
        if (length > end - offset)
            length = end - offset;
        rc = lam_image_map(image, offset, length, LAM_DEPTH_ALL,
                           out->sparse ? LAM_MAP_HOST_HOLES : 0, &extents,
                           &err);
        if (rc < 0)
            cli_report(out->cli, &err);
        for (size_t i = 0; i < extents.count && rc == 0; i++)
            rc = add_extent(out, &extents.items[i]);
        lam_extents_deinit(&extents);
        offset += length;
    }
    return rc < 0 ? rc : flush_entry(out);
}

static int map(const struct cli *cli, const struct map_args *args,
               struct lam_image *image)
{
    struct map_out out = { .cli = cli, .image = image, .json = args->json,
                           .first = true };
    uint64_t size = lam_image_size(image);
    uint64_t end = args->start >= size || args->length > size - args->start
                       ? size : args->start + args->length;

    if (load_layers(image, &out) < 0) {
        cli_error(cli, "no memory");
        return 1;
    }
    if (!args->json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    int rc = map_range(image, args->start, end, &out);
    if (args->json && rc == 0) {
        /* Nothing asked for, nothing there: still one entry, of length 0. */
        if (out.first)
            print_json_entry(&out, &(struct entry){ .start = args->start });
        puts("]");
    }
    free(out.layers);
    return rc < 0 ? 1 : 0;
}

static int run_map(const struct cli *cli, int argc, char **argv)
{
    struct map_args args = { .length = UINT64_MAX };
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (source_open(cli, args.filename, &args.source, 0, &image) < 0)
        return 1;
    status = map(cli, &args, image);
    lam_image_close(image, NULL);
    return cli_finish(cli, status);
}

const struct command command_map = {
    .name = "map",
    .run = run_map,
    .summary = "Show where the guest's data is stored",
    .synopsis =
        "[-f FMT | --image-opts] [-s OFFSET] [-l LENGTH] [-U] [--output "
        "human|json] FILENAME",
    .options = option_rows,
    .genuine =
        "help format output object image-opts force-share start-offset "
        "max-length",
    .notes =
        "OFFSET and LENGTH are in bytes or with a suffix (k M G T P E).\n\n"
        "Human output lists the ranges that hold data which a program could "
        "read from the files directly.  JSON output lists all: \"depth\" is "
        "the layer that answers (0 is the image itself), \"present\" whether "
        "a layer has the range at all, \"zero\" whether it reads as zeroes, "
        "\"data\" whether it has stored bytes, \"offset\" where.",
    .examples =
        "-f raw disk.raw\n"
        "--output=json -s 1M -l 64M overlay.qcow2\n",
};
