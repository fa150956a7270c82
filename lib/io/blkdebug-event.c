/* SPDX-License-Identifier: MIT */
/*
 * blkdebug-event.c - which rules are active, and who waits at a breakpoint.
 */
#include "io/blkdebug-internal.h"

#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

enum { SECTOR = 512 };

/* ------------------------------------------------------------------- events */

static bool rule_applies(const struct blkdebug *b, size_t i,
                         enum io_event event)
{
    const struct blkdebug_rule *rule = &b->options.rules[i];

    return rule->event == event && !b->rules[i].used_up &&
           (!rule->state || rule->state == b->state);
}

static void deactivate_all(struct blkdebug *b)
{
    for (size_t i = 0; i < b->options.nb_rules; i++)
        b->rules[i].active = false;
}

/* All rules see the state that was before. */
static void apply_rules(struct blkdebug *b, enum io_event event)
{
    uint32_t state = b->state;
    bool first = true;

    for (size_t i = 0; i < b->options.nb_rules; i++) {
        const struct blkdebug_rule *rule = &b->options.rules[i];

        if (!rule_applies(b, i, event))
            continue;
        if (rule->action == BLKDEBUG_SET_STATE) {
            state = rule->new_state;
            continue;
        }
        if (first)
            deactivate_all(b);
        first = false;
        b->rules[i].active = true;
    }
    b->state = state;
}

static void breakpoint_free(struct breakpoint *p)
{
    free(p->tag);
    free(p);
}

/* Each breakpoint of @event stops the thread, which goes on when all have been
 * resumed. */
static void wait_at_breakpoints(struct blkdebug *b, enum io_event event)
{
    struct breakpoint *mine[IO_BREAKS_MAX], **p = &b->set;
    const char *tags[IO_BREAKS_MAX];
    unsigned count = 0;

    while (*p && count < IO_BREAKS_MAX) {
        struct breakpoint *found = *p;
        if (found->event != event) {
            p = &found->next;
            continue;
        }
        *p = found->next;
        found->next = b->waiting;
        b->waiting = found;
        tags[count] = found->tag;
        mine[count++] = found;
    }
    if (count)
        mine[0]->told(mine[0]->opaque, tags, count);
    for (unsigned i = 0; i < count; i++) {
        while (!mine[i]->resumed)
            pthread_cond_wait(&b->resumed, &b->lock);
        breakpoint_free(mine[i]);
    }
}

void blkdebug_event(struct lam_io *io, enum io_event event)
{
    struct blkdebug *b = blkdebug_of(io);

    LAM_LOCKED(&b->lock);
    apply_rules(b, event);
    if (b->set)
        wait_at_breakpoints(b, event);
}

/* -------------------------------------------------------------- breakpoints */

struct lam_io *lam_io_blkdebug_find(struct lam_io *io)
{
    while (io && io->ops->event != blkdebug_event)
        io = io->ops->inner ? io->ops->inner(io) : NULL;
    return io;
}

static unsigned count_breakpoints(const struct blkdebug *b)
{
    unsigned count = 0;

    for (const struct breakpoint *p = b->set; p; p = p->next)
        count++;
    return count;
}

int blkdebug_break(struct lam_io *io, enum io_event event, const char *tag,
                   lam_stopped_fn *told, void *opaque,
                   struct lam_error *err)
{
    struct blkdebug *b = blkdebug_of(io);
    struct breakpoint *p = calloc(1, sizeof *p);

    if (p)
        p->tag = strdup(tag);
    if (!p || !p->tag) {
        free(p);
        return lam_fail(err, ENOMEM, "no memory for a breakpoint");
    }
    p->event = event;
    p->told = told;
    p->opaque = opaque;
    LAM_LOCKED(&b->lock);
    if (count_breakpoints(b) == IO_BREAKS_MAX) {
        breakpoint_free(p);
        return lam_fail(err, E2BIG, "more than %d breakpoints", IO_BREAKS_MAX);
    }
    p->next = b->set;
    b->set = p;
    return 0;
}

unsigned blkdebug_remove_break(struct lam_io *io, const char *tag)
{
    struct blkdebug *b = blkdebug_of(io);
    unsigned count = 0;

    LAM_LOCKED(&b->lock);
    for (struct breakpoint **p = &b->set; *p; ) {
        struct breakpoint *found = *p;
        if (strcmp(found->tag, tag)) {
            p = &found->next;
            continue;
        }
        *p = found->next;
        breakpoint_free(found);
        count++;
    }
    return count;
}

/* The latest one of @tag that somebody waits at, or NULL. */
static struct breakpoint **find_waiting(struct blkdebug *b, const char *tag)
{
    for (struct breakpoint **p = &b->waiting; *p; p = &(*p)->next)
        if (!strcmp((*p)->tag, tag))
            return p;
    return NULL;
}

bool blkdebug_resume(struct lam_io *io, const char *tag)
{
    struct blkdebug *b = blkdebug_of(io);

    LAM_LOCKED(&b->lock);
    struct breakpoint **p = find_waiting(b, tag);
    if (!p)
        return false;
    struct breakpoint *found = *p;
    *p = found->next;
    found->resumed = true;
    pthread_cond_broadcast(&b->resumed);
    return true;
}

void blkdebug_drop_breakpoints(struct blkdebug *b)
{
    assert(!b->waiting);        /* nobody closes what is in use */
    while (b->set) {
        struct breakpoint *p = b->set;
        b->set = p->next;
        breakpoint_free(p);
    }
}

/* ----------------------------------------------------------------- failures */

static bool rule_fits(const struct blkdebug_rule *rule, unsigned kind,
                      uint64_t offset, uint64_t length)
{
    if (!(rule->kinds & kind))
        return false;
    if (rule->sector == -1)
        return true;
    uint64_t at;
    return rule->sector >= 0 &&
           !mul_overflows((uint64_t)rule->sector, SECTOR, &at) &&
           at >= offset && at - offset < length;
}

int blkdebug_judge(struct blkdebug *b, unsigned kind, uint64_t offset,
                   uint64_t length)
{
    LAM_LOCKED(&b->lock);
    for (size_t i = 0; i < b->options.nb_rules; i++) {
        const struct blkdebug_rule *rule = &b->options.rules[i];

        if (!b->rules[i].active || !rule_fits(rule, kind, offset, length))
            continue;
        if (rule->once)
            b->rules[i] = (struct rule_state){ .used_up = true };
        return rule->errnum > 0 ? -rule->errnum : 0;
    }
    return 0;
}
