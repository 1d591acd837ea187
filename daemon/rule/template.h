/*
 * template.h - a rule with its tables as something that Azure deploys: an ARM template (JSON), or Bicep.
 *
 * Both hold the same: a custom table per stream that needs one, a data collection rule of kind Direct, and where a principal is
 * given, its role Monitoring Metrics Publisher on that rule. Parameters: workspaceResourceId, location, dcrName, principalId.
 * Outputs: immutableId and logsIngestion, which are the sink's `dcr` and `endpoint`, and dcrResourceId.
 *
 * The tables lie in the workspace, so both are deployed into the workspace's resource group.
 */
#ifndef DAEMON_TEMPLATE_H
#define DAEMON_TEMPLATE_H

#include "daemon/rule/rule.h"

enum template_form { TEMPLATE_ARM, TEMPLATE_BICEP };

/* principal: object id of who may write; NULL: nobody. Open streams are left out. */
void template_write(struct buf *out, enum template_form form, const struct rule *rule, const char *principal);

#endif
