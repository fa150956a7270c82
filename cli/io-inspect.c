/* SPDX-License-Identifier: MIT */
/*
 * io-inspect.c - length, info, map, alloc, flush, truncate: what a session asks
 * of its image as a whole.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "info.h"
#include "io-command.h"
#include "io-print.h"
#include "option.h"

int io_cmd_length(struct io_session *session, const struct io_command *command,
                  int argc, char **argv)
{
    char size[IO_SIZE_MAX];

    (void)command, (void)argc, (void)argv;
    printf("%s\n", io_size((double)lam_image_size(session->image), size));
    return 0;
}

int io_cmd_flush(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)command, (void)argc, (void)argv;
    int rc = lam_image_flush(session->image, &err);
    /* The genuine tool says nothing and shows it in its exit status. */
    if (rc < 0 && !session->cli->as_qemu)
        return io_failed(session, "flush", rc, &err);
    return rc < 0 ? -1 : 0;
}

/* --------------------------------------------------------------- allocation */

/*
 * Walks what the image itself stores of a range, window by window, so that a
 * large fragmented image does not need its whole map in memory.
 */
#define MAP_WINDOW (UINT64_C(1) << 30)

struct run {
    uint64_t offset, length;
    bool allocated;
};

typedef void run_fn(void *opaque, const struct run *run);

static void extend_run(struct run *run, const struct lam_extent *extent,
                       run_fn *told, void *opaque)
{
    bool allocated = extent->state != LAM_EXTENT_UNALLOCATED;

    if (run->length > 0 && run->allocated == allocated) {
        run->length += extent->length;
        return;
    }
    if (run->length > 0)
        told(opaque, run);
    *run = (struct run){ extent->offset, extent->length, allocated };
}

static int walk_runs(struct lam_image *image, uint64_t offset, uint64_t end,
                     run_fn *told, void *opaque, struct lam_error *err)
{
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct run run = { offset, 0, false };
    int rc = 0;

    while (rc == 0 && offset < end) {
        uint64_t length = lam_image_map_window(image, offset, 1, MAP_WINDOW);

        if (length > end - offset)
            length = end - offset;
        rc = lam_image_map(image, offset, length, 1, 0, &extents, err);
        for (size_t i = 0; rc == 0 && i < extents.count; i++)
            extend_run(&run, &extents.items[i], told, opaque);
        lam_extents_deinit(&extents);
        offset += length;
    }
    if (rc == 0 && run.length > 0)
        told(opaque, &run);
    return rc;
}

static void print_run(void *opaque, const struct run *run)
{
    char length[IO_SIZE_MAX], offset[IO_SIZE_MAX];

    (void)opaque;
    printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64
           ")\n", io_size((double)run->length, length), run->length,
           run->allocated ? "   " : "not", io_size((double)run->offset, offset),
           run->offset);
}

int io_cmd_map(struct io_session *session, const struct io_command *command,
               int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)command, (void)argc, (void)argv;
    int rc = walk_runs(session->image, 0, lam_image_size(session->image),
                       print_run, NULL, &err);
    return rc < 0 ? io_failed(session, "map", rc, &err) : 0;
}

static void sum_run(void *opaque, const struct run *run)
{
    uint64_t *sum = opaque;

    if (run->allocated)
        *sum += run->length;
}

int io_cmd_alloc(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t offset, length = 512, sum = 0;
    char text[IO_SIZE_MAX];

    (void)command;
    if (io_number(argv[1], &offset) < 0 ||
        (argc > 2 && io_number(argv[2], &length) < 0))
        return -1;
    uint64_t size = lam_image_size(session->image);
    uint64_t rest = offset < size ? size - offset : 0;
    if (length > rest)
        length = rest;
    int rc = walk_runs(session->image, offset, offset + length, sum_run, &sum,
                       &err);
    if (rc < 0)
        return io_failed(session, "alloc", rc, &err);
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum,
           length, io_size((double)offset, text));
    return 0;
}

/* --------------------------------------------------------------------- info */

/* What has clusters of its own: an image, or the one that filters stand on. */
static const struct lam_image_info *
find_clusters(const struct lam_image_info *info)
{
    const struct lam_image_info *found = info;

    for (size_t i = 0; !info->is_qcow2 && i < info->nb_children; i++)
        if (!strcmp(info->children[i].name, "file") && info->cluster_size)
            found = find_clusters(info->children[i].info);
    return found;
}

/* The VM state begins where the guest offsets of the next whole L2 table do. */
static uint64_t vm_state_offset(const struct lam_image_info *info)
{
    info = find_clusters(info);
    if (!info->is_qcow2)
        return 0;
    uint64_t entry = info->extended_l2 ? 16 : 8;
    uint64_t covered = info->cluster_size / entry * info->cluster_size;
    return (info->virtual_size + covered - 1) / covered * covered;
}

int io_cmd_info(struct io_session *session, const struct io_command *command,
                int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info *info;
    char text[IO_SIZE_MAX];

    (void)command, (void)argc, (void)argv;
    int rc = lam_image_info(session->image, &info, &err);
    if (rc < 0)
        return io_failed(session, "info", rc, &err);
    printf("format name: %s\n", info->format);
    /* Of some nodes nothing more is known, which counts as a failure. */
    bool known = !info->dirty_unknown;
    if (known) {
        printf("cluster size: %s\n",
               io_size((double)info->cluster_size, text));
        printf("vm state offset: %s\n",
               io_size((double)vm_state_offset(info), text));
        info_print_specific(stdout, info);
    }
    lam_image_info_free(info);
    return known ? 0 : -1;
}

/* ----------------------------------------------------------------- truncate */

int io_cmd_truncate(struct io_session *session,
                    const struct io_command *command, int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;
    enum lam_preallocation mode = LAM_PREALLOC_OFF;
    uint64_t size;
    int letter;

    while ((letter = getopt(argc, argv, "m:")) != -1) {
        if (letter == '?')
            return io_usage(command);
        if (preallocation_parse(optarg, &mode) < 0) {
            cli_error(session->cli, "Invalid preallocation mode '%s'", optarg);
            return -1;
        }
    }
    if (optind >= argc)
        return io_usage(command);
    if (io_number(argv[optind], &size) < 0)
        return -1;

    int rc = lam_image_resize(session->image, size, mode, LAM_TRUNCATE_SHRINK,
                              &err);
    if (rc < 0)
        cli_report(session->cli, &err);
    return rc < 0 ? -1 : 0;
}
