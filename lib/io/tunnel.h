/* SPDX-License-Identifier: MIT */
/*
 * tunnel.h - a TLS session behind a pair of sockets, for who speaks to a plain
 * one.
 */
#ifndef LAM_IO_TUNNEL_H
#define LAM_IO_TUNNEL_H

#include "crypto/tls.h"

struct tunnel;

/*
 * Takes @session and @fd, the socket below it, also if it fails.  What is
 * written to *@plain, a socket for the caller to close, goes to the server, and
 * back, after the @length bytes @greeting, which come first, and after @skip
 * bytes of what is written, which go nowhere.
 */
int tunnel_new(struct tls_session *session, int fd, const void *greeting,
               size_t length, size_t skip, int *plain, struct tunnel **out,
               struct lam_error *err);

/* After *@plain was closed.  NULL is allowed and does nothing. */
void tunnel_free(struct tunnel *t);

#endif
