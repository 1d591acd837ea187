/*
 * replay_dry.h - `replay --dry-run`: the whole pipeline, with sinks that only count in the places of the configured ones.
 *
 * What Sentinel bills is the size of the columns as text: names, quotes and commas of the JSON are not in it, the workspace's id
 * in TenantId is; _ResourceId, _SubscriptionId, _ItemId, _IsBillable, _BilledSize and Type are not. In GB of 10^9 bytes (Azure
 * Monitor's page on cost calculations). It is an estimate: a transformation of one's own may add or drop, and some tables cost
 * less or nothing.
 */
#ifndef DAEMON_REPLAY_DRY_H
#define DAEMON_REPLAY_DRY_H

#include "daemon/config/settings.h"

/* Puts counting sinks in the places of all. */
void replay_dry(struct settings *settings);
/* While they are open: a table on stdout, one line for each sink and table. */
void replay_dry_print(const struct settings *settings);

#endif
