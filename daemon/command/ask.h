/*
 * ask.h - asks the running daemon, by the socket in its state folder: for `status`, `top`, `reload`, and a replay beside it.
 * Blocking. The socket is the daemon's user's: root and that user may ask.
 */
#ifndef DAEMON_ASK_H
#define DAEMON_ASK_H

#include "daemon/record/json.h"

struct answer {                      /* zero, before the first */
    struct buf body;
    struct json *tree;
    struct pen_json root;
    bool there;                      /* the last answer_get() brought one, and root is valid */
};

/* One of the pages of pages.c in place of what `body` has. Negative: a sentence for people; UV_ENOENT: no daemon answers there,
 * UV_EACCES: not to us. */
int ask(const char *state_dir, const char *page, long seconds, struct buf *body, struct pen_error *err);

/* What it says of itself, read. As ask(), and UV_EIO: that is no JSON. */
int answer_get(struct answer *answer, const char *state_dir, long seconds, struct pen_error *err);
void answer_free(struct answer *answer);

#endif
