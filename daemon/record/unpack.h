/*
 * unpack.h - gzip and zstd archives as plain bytes, and plain bytes as themselves.
 *
 * The format is told by the first bytes, never by the name. Blocking; for worker threads and `penstock parse`. Members
 * and frames one behind the other are read as one. Positions are those of the unpacked bytes.
 */
#ifndef DAEMON_UNPACK_H
#define DAEMON_UNPACK_H

#include "parsers/parser.h"

#include <sys/types.h>

enum unpack_format { UNPACK_PLAIN, UNPACK_GZIP, UNPACK_ZSTD };

struct unpack;

/* Over an open fd, which stays the caller's. A regular file is read with pread() from its start; a pipe with read(). */
int unpack_new(struct unpack **ret, int fd, struct pen_error *err);
/* Over bytes that are fed, for what comes from a network. They are borrowed until unpack_read() has said 0: then there is
 * room for the next. The format is told by the first ones, of which there must be 4 where the archive has as many. */
int unpack_new_fed(struct unpack **ret, const char *data, size_t size, struct pen_error *err);
void unpack_feed(struct unpack *unpack, const char *data, size_t size);
enum unpack_format unpack_format(const struct unpack *unpack);
/* Reads up to size unpacked bytes into data: > 0 bytes, 0 end for now, negative trouble (UV_EINVAL: damaged archive; what
 * came before is good). */
ssize_t unpack_read(struct unpack *unpack, char *data, size_t size, struct pen_error *err);
/* At the end: true when the archive is complete (its trailer was read), or for plain bytes. */
bool unpack_complete(const struct unpack *unpack);
/* Plain: seek; packed: start over and skip. */
int unpack_seek(struct unpack *unpack, uint64_t position, struct pen_error *err);
void unpack_free(struct unpack *unpack);

#endif
