/* SPDX-License-Identifier: MIT */
/*
 * nbd-tls.h - an NBD connection that is encrypted from its first option on.
 */
#ifndef LAM_IO_NBD_TLS_H
#define LAM_IO_NBD_TLS_H

#include "io/tunnel.h"

/*
 * Asks the server at @fd, which becomes the function's, for TLS, and goes
 * through the handshake; what comes then is for @plain (the caller's), as by a
 * server that has just been connected to.  @host: whom the server has to be, or
 * NULL.
 */
int nbd_tls_start(int fd, struct tls_credentials *credentials,
                  const char *host, int *plain, struct tunnel **out,
                  struct lam_error *err);

#endif
