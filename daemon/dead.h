/*
 * dead.h - the dead letters of one sink: messages that can never be delivered as they are, one JSON line each with time,
 * sink, reason, stream and position, in `dead/SINK.jsonl` below the state folder. Nothing there is ever lost or sent
 * again by itself.
 */
#ifndef DAEMON_DEAD_H
#define DAEMON_DEAD_H

#include "daemon/batch.h"

/* Blocking; for the pool. Appends every message of the parts (part->why is the reason) and syncs. 0, or negative and then
 * the file ends where it did. */
int dead_append(const char *path, const char *sink, struct part *const *parts, uint32_t count, int64_t now_ticks);

#endif
