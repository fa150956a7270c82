/* SPDX-License-Identifier: MIT */
/*
 * describe.h - what a node's options mean: to every driver, and to the formats.
 */
#ifndef LAM_IMAGE_DESCRIBE_H
#define LAM_IMAGE_DESCRIBE_H

#include "format/format.h"
#include "image/name.h"

/* Options that every node has.  Those below one take over what it says, unless
 * they say it themselves. */
struct traits {
    enum node_switch read_only, auto_read_only, direct, no_flush, unmap,
                     force_share;
    bool has_detect_zeroes;     /* not taken over */
    enum lam_detect_zeroes detect_zeroes;
};

/* The traits of a node below one that has @above. */
struct traits traits_below(const struct traits *above);

/* Changes @traits, which begin as those of the node above. */
int describe_traits(struct node *node, struct traits *traits,
                    struct lam_error *err);

/*
 * The options of a format @ops into @o, whose unmap has been decided.  Strings
 * stay @node's.  Nodes below have been taken out.
 */
int describe_format(struct node *node, const struct format_ops *ops,
                    struct format_open *o, struct lam_error *err);

/* -EINVAL names the first option that nobody has asked for.  @protocol: the
 * driver is one that reads a host object itself. */
int describe_rest(const struct node *node, const char *driver, bool protocol,
                  struct lam_error *err);

#endif
