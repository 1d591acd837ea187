/*
 * azure_notice.h - a storage queue that tells which blobs were written: they are looked at, at once.
 *
 * A notice is a hint, and nothing depends on it: hours are listed as without a queue, only less often. So a message may be lost,
 * come twice, late or never, or lie; what it names is looked at as a listing would show it.
 */
#ifndef DAEMON_SOURCE_AZURE_NOTICE_H
#define DAEMON_SOURCE_AZURE_NOTICE_H

#include "daemon/source/azure_storage.h"

struct blob_source;
struct notices;

int notices_new(struct notices **ret, struct blob_source *source, const struct storage_conf *conf, struct pen_error *err);
/* Asks for messages where it is time to. */
void notices_turn(struct notices *notices);
/* The queue was heard last time it was asked: listings may be rare. */
bool notices_come(const struct notices *notices);
uint64_t notices_count(const struct notices *notices);             /* messages dealt with and deleted */
void notices_stop(struct notices *notices);                        /* cancels what is under way; all three cope with NULL */
void notices_close(struct notices *notices);

#endif
