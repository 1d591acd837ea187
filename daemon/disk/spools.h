/*
 * spools.h - the spools of a state folder, seen from outside: what each holds, whose it is, whether it is whole.
 *
 * Looking changes nothing, so it may be done beside a running daemon, whose spools move meanwhile: a segment that is gone
 * before it was looked at was delivered.
 */
#ifndef DAEMON_SPOOLS_H
#define DAEMON_SPOOLS_H

#include "daemon/config/settings.h"
#include "daemon/disk/segment.h"
#include "daemon/disk/spool.h"

/* ---- One spool ---- */

char *spools_dir(const char *state_dir, const char *sink);         /* the caller's to free */
/* As saved in state.db; zero where there is none. */
int spools_place(struct spool_place *place, const char *state_dir, const char *sink, struct pen_error *err);

struct spool_look {
    uint64_t segments, messages, bytes;            /* not settled; of the disk */
    uint64_t first, next;                          /* the oldest segment's number, and of the message that would come next */
    unsigned aside;                                /* files that were set aside */
    int64_t oldest_ticks, newest_ticks;            /* when the oldest segment was made, the newest written to */
    struct segment_header newest;                  /* of the newest segment with a header, if has_header */
    bool has_header;
};
/* Negative: the folder, or its last segment, cannot be read. */
int spool_look(struct spool_look *look, const char *dir, struct spool_place place);
/* Negative, and a sentence: what waits in it was made for another type of sink, or for another schema, than this one's. It would
 * be sent as what it is not, and a DCR drops the columns that it lacks without a word. */
int spool_look_fits(const struct spool_look *look, const struct sink_settings *to, struct pen_error *err);

struct spool_visitor {
    /* payload NULL: the frame's key is not in the ring; its bytes are those that were written. */
    void (*on_frame)(void *arg, const struct segment_file *file, const struct segment_frame *frame,
                     const struct segment_payload *payload);
    /* Messages that are not there, or not whole; offset: where that was seen. */
    void (*on_lost)(void *arg, uint64_t segment, uint64_t offset, uint64_t messages);
    void *arg;
};
/* Calls back for all that is not settled, in order. Negative: the disk or the process is in trouble. */
int spool_visit(const char *dir, struct spool_place place, const struct keys *keys, const struct spool_visitor *visitor);

/* ---- All of them ---- */

/* Calls back for each, in the order of names, until one says otherwise than 0; that is returned. */
int spools_each(const char *state_dir, int (*each)(void *arg, const char *sink), void *arg);
bool spools_is_configured(const struct settings *settings, const char *sink);
/* Of those whose sink is not configured, each that holds something. */
void spools_orphans(const char *state_dir, const struct settings *settings,
                    void (*each)(void *arg, const char *sink, const struct spool_look *look), void *arg);

#endif
