/* SPDX-License-Identifier: MIT */
/*
 * blkdebug.h - a host object that fails, waits and is awkward as rules say.
 *
 * Rules are bound to events (event.h) and to the state of a small machine,
 * which starts in state 1.  A rule that injects an error becomes active when
 * its event comes; from then on requests that it fits fail, until it has
 * failed one (once), or an event comes that makes others active.
 */
#ifndef LAM_IO_BLKDEBUG_H
#define LAM_IO_BLKDEBUG_H

#include "io/io.h"

/* Kinds of requests, as bits. */
enum {
    BLKDEBUG_READ = 1 << 0,
    BLKDEBUG_WRITE = 1 << 1,
    BLKDEBUG_WRITE_ZEROES = 1 << 2,
    BLKDEBUG_DISCARD = 1 << 3,
    BLKDEBUG_FLUSH = 1 << 4,
    BLKDEBUG_BLOCK_STATUS = 1 << 5,
    BLKDEBUG_ALL = (1 << 5) - 1,        /* unless the rule names it */
};

enum blkdebug_action { BLKDEBUG_INJECT_ERROR, BLKDEBUG_SET_STATE };

struct blkdebug_rule {
    enum blkdebug_action action;
    bool has_event;
    enum io_event event;
    uint32_t state;             /* 0: in any */
    uint32_t new_state;         /* SET_STATE */
    unsigned kinds;             /* INJECT_ERROR, these too */
    int errnum;                 /* below 1: the request succeeds */
    int64_t sector;             /* of 512 bytes; -1: any */
    bool once;
};

struct blkdebug_options {
    struct blkdebug_rule *rules;        /* owned */
    size_t nb_rules, capacity;
    uint64_t align;             /* bytes; 0: any, and so with the rest */
    uint64_t max_transfer;
    uint64_t opt_write_zero, max_write_zero;
    uint64_t opt_discard, max_discard;
};

void blkdebug_options_deinit(struct blkdebug_options *options);

/* ------------------------------------------------ rules: blkdebug-rules.c */

/* A new rule at the end, with the defaults of its kind; NULL: no memory. */
struct blkdebug_rule *blkdebug_add_rule(struct blkdebug_options *options,
                                        enum blkdebug_action action);

/* Whether a rule of this kind has an option @key. */
bool blkdebug_has_key(enum blkdebug_action action, const char *key);

/* A key that the rule has.  -EINVAL by name. */
int blkdebug_set(struct blkdebug_rule *rule, const char *key,
                 const char *value, struct lam_error *err);

/* What a rule must have. */
int blkdebug_check_rule(const struct blkdebug_rule *rule,
                        struct lam_error *err);

/* "[inject-error]\nevent = "read_aio"\n...": adds the rules of a file. */
int blkdebug_parse(struct blkdebug_options *options, const char *text,
                   struct lam_error *err);

/* The same from the file at @path. */
int blkdebug_read_config(struct blkdebug_options *options, const char *path,
                         struct lam_error *err);

/* ---------------------------------------------------- object: blkdebug.c */

/* Takes @inner over, also on failure, and what @options own. */
int lam_io_blkdebug_new(struct lam_io *inner, struct blkdebug_options *options,
                        struct lam_io **out, struct lam_error *err);

/* The object at or below @io that can stop requests; or NULL. */
struct lam_io *lam_io_blkdebug_find(struct lam_io *io);

/* As many may be set at a time. */
enum { IO_BREAKS_MAX = 64 };

/*
 * The next request that comes to @event waits until somebody resumes @tag; if
 * several are set for the event, until all of them have been.
 */
int blkdebug_break(struct lam_io *io, enum io_event event, const char *tag,
                   lam_stopped_fn *told, void *opaque,
                   struct lam_error *err);

/* Number of breakpoints of that tag that are no more. */
unsigned blkdebug_remove_break(struct lam_io *io, const char *tag);

/* One of those who wait at @tag goes on, the last first; false: nobody. */
bool blkdebug_resume(struct lam_io *io, const char *tag);

#endif
