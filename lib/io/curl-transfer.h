/* SPDX-License-Identifier: MIT */
/*
 * curl-transfer.h - a connection to an HTTP or FTP server, and what is fetched
 * by it.
 */
#ifndef LAM_IO_CURL_TRANSFER_H
#define LAM_IO_CURL_TRANSFER_H

#include "io/curl.h"

struct curl_connection;

/* @options are copied, their texts by libcurl. */
int curl_connection_new(const struct io_curl_options *options,
                        struct curl_connection **out, struct lam_error *err);
void curl_connection_free(struct curl_connection *connection);

/* The length of the file.  -ENOTSUP: the server has no ranges. */
int curl_fetch_size(struct curl_connection *connection, uint64_t *size,
                    struct lam_error *err);

/* All of [@offset, @offset + @length) of a file of @size bytes; or -errno.
 * -ESTALE: the file has another length by now. */
int curl_fetch(struct curl_connection *connection, void *to, uint64_t offset,
               uint64_t length, uint64_t size);

#endif
