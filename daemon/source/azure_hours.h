/*
 * azure_hours.h - where Azure puts an hour: PLACE/y=2026/m=11/d=22/h=18/m=00/…, in UTC.
 *
 * A *place* is what stands before the y=: one resource, one subscription, one flow log. Below it names sort as time does,
 * so that a place can be read in order and everything before an hour be forgotten. Pure functions over names.
 */
#ifndef DAEMON_SOURCE_AZURE_HOURS_H
#define DAEMON_SOURCE_AZURE_HOURS_H

#include "daemon/base/buf.h"

/* Hours since 1970. */
#define HOURS_NONE INT32_MIN         /* of a name that lies in no place */

/* Does the name lie in a place? Then how long that is (with the slash before y=; 0 where y= begins the name). */
bool hours_place(const char *name, size_t *place_size);
/* The hour a blob's name tells; HOURS_NONE where it does not tell all of it, whatever lies there. */
int32_t hours_of(const char *name, size_t *place_size);
int32_t hours_at(int64_t seconds);
/* The seconds since 1970 that such a name, or folder (with its slash), tells of; false where it tells none. */
bool hours_span(const char *name, int64_t *begin_s, int64_t *end_s);
/* "PLACEy=2026/m=11/d=22/h=18/" */
void hours_prefix(struct buf *out, const char *place, size_t size, int32_t hour);

/* What a folder below a place holds, from `from` on. */
enum hours_part {
    HOURS_BEFORE,                    /* nothing: it lies before */
    HOURS_STRADDLES,                 /* something: look into it */
    HOURS_WHOLE,                     /* all of it */
};
enum hours_part hours_part(const char *folder, size_t place_size, int32_t from);

/* `past` has a bit for each of the hours before, the last one lowest: whether it had a blob. True: this one has none, and was
 * expected to. Expected it is where of the 24 before it HOURS_EXPECTED had one: a resource that rests by night never is,
 * one that has ended only for some hours more. */
#define HOURS_EXPECTED 18
bool hours_miss(uint32_t *past, bool had);

#endif
