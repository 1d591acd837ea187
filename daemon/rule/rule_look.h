/*
 * rule_look.h - asks Azure Resource Manager for the rule that a Sentinel sink delivers to, and compares it (rule.h).
 *
 * One token, one GET: Microsoft.Insights/dataCollectionRules/read is all the right it takes, which the role Monitoring Reader
 * has. Whatever goes wrong on the way is a finding, too: unknown, where only the looking failed.
 */
#ifndef DAEMON_RULE_LOOK_H
#define DAEMON_RULE_LOOK_H

#include "daemon/rule/rule.h"

struct rule_look_conf {
    struct http *http;
    uv_loop_t *loop;
    const char *sink;                /* its name */
    const struct pen_conf *section;
    const char *schema;
    unsigned kinds;
    /* On later turns: the findings, and then the end. */
    finding_tell tell;
    void (*done)(void *arg);
    void *arg;
};

struct rule_look;

/* NULL: the sink names no rule to look at (dcr_resource_id). Texts are borrowed until rule_look_close(). */
struct rule_look *rule_look_start(const struct rule_look_conf *conf);
void rule_look_close(struct rule_look *look);     /* at any time but from tell(); done() will not come; accepts NULL */

#endif
