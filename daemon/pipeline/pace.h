/*
 * pace.h - how fast a job beside the daemon may go, and whether it may go on at all. The loop's.
 *
 * What was read is paid for afterwards: a chunk may go while nothing is owed, and then the next one waits until it is paid. So
 * the rate holds over any few seconds, whatever a chunk holds. Held, nothing goes: the daemon's own traffic is first.
 */
#ifndef DAEMON_PACE_H
#define DAEMON_PACE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct pace;

enum pace_unit { PACE_BYTES, PACE_RECORDS };
struct pace_rate {
    uint64_t a_second;               /* 0: no bound */
    enum pace_unit unit;             /* bytes as they are parsed: unpacked */
};

struct pace *pace_new(uv_loop_t *loop, struct pace_rate rate);
/* Called on a later turn when it may go again. */
void pace_on_go(struct pace *pace, void (*go)(void *arg), void *arg);
/* The next two take NULL, for those whom nobody holds back. */
bool pace_may_go(const struct pace *pace);
void pace_spend(struct pace *pace, uint64_t bytes, uint64_t records);
void pace_hold(struct pace *pace, bool hold);
void pace_close(struct pace *pace);  /* its memory goes on a later turn */

#endif
