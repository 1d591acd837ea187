/*
 * status_view.h - status.json for people at a terminal: what `penstock status` prints once and `penstock top` again and again.
 */
#ifndef DAEMON_STATUS_VIEW_H
#define DAEMON_STATUS_VIEW_H

#include "daemon/base/buf.h"

enum status_view_flags { VIEW_COLOUR = 1, VIEW_RATES = 2 };

/* One answer as text with line breaks. `before` is an earlier answer, for the rates; NULL: none, and they are not known. Whatever
 * the answer says, nothing in it steers a terminal. */
void status_view(const struct pen_json *now, const struct pen_json *before, unsigned flags, struct buf *out);

#endif
