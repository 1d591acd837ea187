/*
 * quota.h - what one DCR may be sent in a minute, shared by all sinks of the process that name it.
 *
 * The service takes so many requests and bytes a minute per DCR (12,000 and 2 GB, Azure Monitor's service limits) and
 * answers 429 to what is beyond. Who asks here first does not meet that. Live messages go before what was read back from a
 * spool; should they use up all there is, the spool waits until its disk is full and holds back the sources, live ones too.
 *
 * A process knows of itself alone. So a `penstock replay` beside the daemon takes half of the minute at most, that the daemon
 * finds the other half; and it hears now and then what the daemon takes, and gives way where that leaves less than half. Where
 * that is not enough, Retry-After keeps the two apart. All of it belongs to the loop's thread.
 */
#ifndef SINKS_QUOTA_H
#define SINKS_QUOTA_H

#include "sinks/sink.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

struct quota;

struct quota_claim {                 /* one request */
    TAILQ_ENTRY(quota_claim) entry;  /* while it waits */
    uint64_t bytes;
    bool replayed;                   /* read back from a spool: live ones go first */
    void (*granted)(struct quota_claim *claim);
};

/* The DCR's, made by the first who names it. 0: no bound. Of several wishes the smallest holds, for as long as it is open. */
struct quota *quota_open(uv_loop_t *loop, const char *dcr, uint64_t requests_a_minute, uint64_t bytes_a_minute);
/* For a job beside the daemon, whose use of it `beside` tells for as long as the quota is open: half of the minute at most, no
 * more than the daemon leaves, and never less than a sixtieth, that the job ends some day. */
void quota_give_way(struct quota *quota, const struct pen_beside *beside);
/* True: go. False: granted() is called on a later turn, unless the claim is cancelled. */
bool quota_ask(struct quota *quota, struct quota_claim *claim);
void quota_cancel(struct quota *quota, struct quota_claim *claim);   /* one that waits */
/* A request that goes unasked, since it repeats one that was granted. */
void quota_charge(struct quota *quota, uint64_t bytes);
/* With the wishes it was opened with. The last one who leaves closes its timer; the memory goes on a later turn. Copes with NULL. */
void quota_close(struct quota *quota, uint64_t requests_a_minute, uint64_t bytes_a_minute);

#endif
