/* SPDX-License-Identifier: MIT */
/*
 * convert.c - any image into a new qcow2 image, with progress; Ctrl-C stops it.
 *
 *     convert SOURCE TARGET
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <lamella.h>

static volatile int stop;

static void on_interrupt(int number)
{
    (void)number;
    stop = 1;
}

/* From one thread at a time, not always the same. */
static void progress(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    fprintf(stderr, "\r%3u %%", total ? (unsigned)(done * 100 / total) : 100);
}

static int copy_to(struct lam_image *source, const char *name,
                   struct lam_error *err)
{
    struct lam_convert_options how = LAM_CONVERT_OPTIONS_INIT;
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_convert_result result;
    struct lam_image *target;

    options.flags = LAM_OPEN_WRITE;
    options.format = "qcow2";
    int rc = lam_image_open(name, &options, &target, err);
    if (rc < 0)
        return rc;
    how.flags = LAM_CONVERT_NEW_TARGET;     /* nobody has to zero it */
    how.progress = progress;
    how.cancel = &stop;
    rc = lam_convert(&source, 1, target, &how, &result, err);
    int closed = lam_image_close(target, rc < 0 ? NULL : err);
    fputc('\n', stderr);
    if (rc == 0)
        printf("%llu bytes of data in a disk of %llu\n",
               (unsigned long long)result.bytes_written,
               (unsigned long long)result.bytes_guest);
    return rc < 0 ? rc : closed;
}

static int convert(struct lam_image *source, const char *name,
                   struct lam_error *err)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;

    create.format = "qcow2";
    create.size = lam_image_size(source);
    int rc = lam_image_create(name, &create, err);
    if (rc < 0)
        return rc;
    rc = copy_to(source, name, err);
    if (rc < 0)
        unlink(name);           /* nobody should take half of it for all */
    return rc;
}

int main(int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *source;

    if (argc != 3) {
        fprintf(stderr, "usage: convert SOURCE TARGET\n");
        return 1;
    }
    signal(SIGINT, on_interrupt);
    int rc = lam_image_open(argv[1], NULL, &source, &err);
    if (rc == 0) {
        rc = convert(source, argv[2], &err);
        lam_image_close(source, NULL);
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.message);
    return rc < 0 || fflush(stdout) ? 1 : 0;
}
