/* SPDX-License-Identifier: MIT */
/*
 * io-command.h - the command language of `lamella io`: one session, the table
 * of its commands, and what they share.
 *
 * A session has at most one image open.  Commands run on one thread; only the
 * requests of aio_read and aio_write run beside it (io-aio.c).  A command
 * returns 0, or -1 after it has said why; the session goes on and the failure
 * shows in the exit status.
 */
#ifndef LAMELLA_CLI_IO_COMMAND_H
#define LAMELLA_CLI_IO_COMMAND_H

#include <pthread.h>

#include "cli.h"

struct io_aio;

/* How to open an image: what the command line, open and reopen say. */
struct io_open_spec {
    char *name;                 /* owned; NULL: only options */
    char *format;               /* owned; NULL: look at the file */
    char *options;              /* owned; "key=value,...", or NULL */
    bool read_only;
    bool force_share;
    bool copy_on_read;
    bool temporary;             /* write to an overlay that is thrown away */
    bool native_aio;            /* asked for: needs a direct cache mode */
    bool discard;
    enum lam_cache_mode cache;
    const struct cli *cli;      /* borrowed: objects, and who warns */
};

#define IO_OPEN_SPEC_INIT { NULL, NULL, NULL, false, false, false, false,   \
                            false, false, LAM_CACHE_WRITEBACK, NULL }

void io_open_spec_deinit(struct io_open_spec *spec);

/* -t, -d and -i: the value, or -1 after a message. */
int io_parse_cache(const struct cli *cli, const char *text,
                   struct io_open_spec *spec);
int io_parse_discard(const struct cli *cli, const char *text,
                     struct io_open_spec *spec);
int io_parse_aio(const struct cli *cli, const char *text,
                 struct io_open_spec *spec);

struct io_session {
    const struct cli *cli;
    struct lam_image *image;    /* NULL: none is open */
    struct io_open_spec spec;   /* of @image */
    struct io_aio *aio;         /* requests in flight */
    pthread_mutex_t serial;     /* one transfer at a time, with copy-on-read */
    bool misalign;              /* -m: buffers at odd addresses */
    bool quit;
    bool failed;                /* some command did */
};

/* Opens into @session->image and leaves its spec alone; io_open_checked() says
 * why not, and returns -1 then. */
int io_open_image(struct io_session *session, const struct io_open_spec *spec,
                  struct lam_error *err);
int io_open_checked(struct io_session *session,
                    const struct io_open_spec *spec);

/* A word that begins a list of options is a switch, too: "X" -> "X=on", with
 * the genuine warning.  -1: no memory, which has been told. */
int io_spell_out(const struct cli *cli, char **options);

/* Why it was not opened, be it for the first time or @again. */
void io_report_open(const struct cli *cli, const struct io_open_spec *spec,
                    bool again, const struct lam_error *err);

/* Takes over what @spec owns, on success and failure. */
int io_session_open(struct io_session *session, struct io_open_spec *spec);
int io_session_close(struct io_session *session);

/* Split @line into words at blanks and run it; an empty line is a success. */
int io_run_line(struct io_session *session, const char *line);

struct io_command;
typedef int io_command_fn(struct io_session *session,
                          const struct io_command *command, int argc,
                          char **argv);

enum {
    IO_NEEDS_IMAGE = 1 << 0,
    IO_WRITES = 1 << 1,         /* refused on a read-only image */
};

struct io_command {
    const char *name, *alias;
    io_command_fn *run;
    int least, most;            /* arguments; @most -1: any number */
    unsigned flags;             /* IO_... */
    const char *args, *summary;
    const char *help;           /* what `help NAME` adds, or NULL */
};

/* "NAME ARGS -- SUMMARY", on stdout, as wrong arguments are answered.
 * Returns -1. */
int io_usage(const struct io_command *command);

/*
 * "WHAT failed: reason" on stdout, where scripts look for it; called lamella,
 * also the library's own words on stderr.  Returns -1.
 */
int io_failed(const struct io_session *session, const char *what, int rc,
              const struct lam_error *err);

/* io-open.c */
io_command_fn io_cmd_open, io_cmd_close, io_cmd_reopen;
/* io-inspect.c */
io_command_fn io_cmd_length, io_cmd_info, io_cmd_map, io_cmd_alloc,
              io_cmd_flush, io_cmd_truncate;
/* io-rw.c */
io_command_fn io_cmd_read, io_cmd_readv, io_cmd_write, io_cmd_writev,
              io_cmd_discard;
/* io-aio.c */
io_command_fn io_cmd_aio_read, io_cmd_aio_write, io_cmd_aio_flush;
/* io-break.c */
io_command_fn io_cmd_break, io_cmd_remove_break, io_cmd_resume,
              io_cmd_wait_break;
/* Requests that wait at a breakpoint go on, so that the image can be closed. */
void io_resume_all(struct io_session *session);
/* io-zone.c */
io_command_fn io_cmd_zone_report, io_cmd_zone_change, io_cmd_zone_append;

#endif
