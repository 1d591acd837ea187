/*
 * health.h - does data move? A daemon that runs and delivers nothing is what nobody notices; this does.
 *
 * It looks at the numbers of status.h every few seconds and remembers when each source and sink last got on:
 *
 *   a sink is stalled    while something sealed waits for it and nothing of it comes to its end
 *   a sink is paused     while its spool takes nothing more, whatever trickles out of it: its sources wait
 *   a source is stalled  while nothing is read of it although more and more is there, or although it cannot be read
 *
 * Sources and sinks are known by their names: a reload may bring, take and move them.
 *
 * None of these is ever true of a daemon with nothing to do. A source at rest may still have some bytes that are no record
 * yet (the last line of a file, the end of a PT1H.json); so what counts is what came since it last read anything.
 */
#ifndef DAEMON_HEALTH_H
#define DAEMON_HEALTH_H

#include "daemon/base/buf.h"
#include "daemon/config/settings.h"
#include "daemon/status/status.h"

#define HEALTH_NAME_BYTES 65         /* a section's name has 64 at most */

struct health {
    uint32_t stalled_after_ms;       /* 0: never not ready */
    uint64_t record_max;
    struct health_source {
        char name[HEALTH_NAME_BYTES];
        uint64_t bytes, unread, troubles;          /* as of when it last got on */
        uint64_t seen_unread, seen_troubles, worse_ms;             /* at the last look; when either last grew */
        uint64_t since_ms;
        uint64_t moved_ms;           /* when something was last read; 0: never */
    } sources[SETTINGS_SOURCES_MAX];
    struct health_sink {
        char name[HEALTH_NAME_BYTES];
        uint64_t ended;
        uint64_t since_ms, paused_ms;
        uint64_t moved_ms;           /* when something was last delivered; 0: never */
    } sinks[SETTINGS_SINKS_MAX];
};

/* Takes a look: remembers what moved, and fills in the status's stalled_ms, paused_ms, states and ready. `now_ms` is a clock that only
 * grows. To be called often beside stalled_after_ms. */
void health_look(struct health *health, struct status *status, uint64_t now_ms);
/* Why a status is not ready, one sentence a line; nothing where it is. */
void health_reasons(const struct health *health, const struct status *status, struct buf *out);

#endif
