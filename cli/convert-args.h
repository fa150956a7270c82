/* SPDX-License-Identifier: MIT */
/*
 * convert-args.h - the command line of `convert`.
 */
#ifndef LAMELLA_CLI_CONVERT_ARGS_H
#define LAMELLA_CLI_CONVERT_ARGS_H

#include "command.h"
#include "option.h"

struct convert_args {
    struct source_options source;   /* -f -T -U --image-opts --untrusted */
    const char *snapshot;           /* -l: name or id, points into argv or
                                       @snapshot_options */
    struct keyvals snapshot_options;

    char **sources;                 /* point into argv */
    size_t nb_sources;
    const char *target;
    const char *format;             /* -O, "raw" by default; NULL with
                                       --target-image-opts */
    const char *backing_file;       /* -B, or backing_file of -o */
    const char *backing_format;
    const char *help;               /* the -o list that asked for help */
    struct keyvals create;          /* -o */
    enum lam_cache_mode cache;      /* -t */
    const char *bad_cache;          /* a -t that is none, or NULL */
    bool target_image_opts;

    uint64_t sparse_size;           /* -S */
    uint64_t rate;                  /* -r, 0: none */
    const char *digest;             /* --digest */
    const char *journal;            /* --resume */
    bool resuming;                  /* ... which is there already */
    unsigned requests;              /* -m, 0: default */
    bool offload;
    bool compress, no_create, target_is_zero, no_sync, strict_cache, bitmaps;
    bool out_of_order;
    bool skip_broken_bitmaps;
    bool is_dd;                     /* not `convert` at all */
    bool salvage, verify, force;
    bool explain, progress, progress_json, quiet;
};

extern const struct command_option convert_options[];

/*
 * Parse and judge what can be judged without opening a file.  Returns -1 to go
 * on, or the exit status if the command ends here; what was wrong has been
 * printed.  @args is to be deinitialised in every case.
 */
int convert_args_parse(const struct cli *cli, int argc, char **argv,
                       struct convert_args *args);
void convert_args_deinit(struct convert_args *args);

#endif
