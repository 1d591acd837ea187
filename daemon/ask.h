/* ask.h - asks the running daemon, by the socket in its state folder. It belongs to the daemon's user: root and that user may. */
#ifndef DAEMON_ASK_H
#define DAEMON_ASK_H

#include "daemon/buf.h"
#include "parsers/parser.h"

/* One of the pages of pages.c in place of what `body` has. Negative: a sentence for people; UV_ENOENT: no daemon answers, UV_EACCES:
 * not to us. Blocks for a few seconds at most. */
int ask(const char *state_dir, const char *page, struct buf *body, struct pen_error *err);

#endif
