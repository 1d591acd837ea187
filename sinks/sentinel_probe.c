/* sentinel_probe.c - `penstock check --online` at a Sentinel sink: tokens, the endpoint, the DCR, and one post if asked for. */
#include "daemon/rule/rule_look.h"
#include "daemon/remote/probe.h"
#include "sinks/sentinel.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Does it answer? ---- */

static void on_greeting(void *arg, const struct http_answer *answer)
{
    struct probe *probe = arg;

    if (answer->status > 0)
        probe_tell(probe, FINDING_GOOD, "the endpoint answers");
    else
        probe_tell(probe, FINDING_WRONG, "the endpoint cannot be reached: %s; check endpoint, proxy, ca_file, the firewall, and this machine's "
                                           "clock",
                   answer->trouble);
}

/* Any answer will do: what lies at the root is nobody's. */
static void probe_endpoint(struct probe *probe, const struct sentinel_target *target)
{
    const char *headers[] = { NULL };
    struct http_ask ask = { .method = "GET", .url = target->endpoint, .headers = headers, .conf = target->http };

    probe_ask(probe, &ask, on_greeting, probe);
}

/* ---- Does the DCR declare what is sent? ---- */

struct looking {
    struct probe *probe;
    bool done;
};

static void on_finding(void *arg, enum finding finding, const char *sentence)
{
    probe_tell(((struct looking *)arg)->probe, finding, "%s", sentence);
}

static void on_look_done(void *arg)
{
    ((struct looking *)arg)->done = true;
}

static void probe_rule(struct probe *probe, const struct pen_conf *conf)
{
    struct looking looking = { .probe = probe };
    struct rule_look *look = rule_look_start(&(struct rule_look_conf){
        .http = probe->http, .loop = probe->loop, .sink = probe->name, .section = conf, .schema = probe->schema,
        .kinds = probe->kinds, .tell = on_finding, .done = on_look_done, .arg = &looking,
    });

    if (look == NULL) {
        probe_tell(probe, FINDING_UNKNOWN, "whether the DCR declares all columns that are sent was not checked: set "
                   "\"dcr_resource_id\", and give the app the role Monitoring Reader on the DCR");
        return;
    }
    probe_wait(probe, &looking.done);
    rule_look_close(look);
}

/* ---- May we write? ---- */

struct posting {
    struct probe *probe;
    const char *stream;
};

static void on_posted(void *arg, const struct http_answer *answer)
{
    struct posting *posting = arg;
    char why[512];

    if (sentinel_judge(why, answer, posting->stream) == PEN_DELIVERED)
        probe_tell(posting->probe, FINDING_GOOD, "the test record was taken by the stream %s; its table shows it within 15 minutes",
                   posting->stream);
    else
        probe_tell(posting->probe, FINDING_WRONG, "the test record was not taken: %s", why);
}

static void probe_post(struct probe *probe, const struct sentinel_target *target, const char *token)
{
    struct posting posting = { .probe = probe };
    struct buf body = { 0 };
    char *url, *authorization;
    const char *headers[] = { NULL, "Content-Type: application/json", NULL };
    struct http_ask ask = { .method = "POST", .headers = headers, .conf = target->http };

    buf_char(&body, '[');
    posting.stream = target->streams[probe_test_record(probe, &body)];
    buf_char(&body, ']');
    if (asprintf(&url, "%.*s/dataCollectionRules/%s/streams/%s?api-version=2023-01-01",
                 (int)(strlen(target->endpoint) - (target->endpoint[strlen(target->endpoint) - 1] == '/')), target->endpoint,
                 target->dcr, posting.stream) < 0 || asprintf(&authorization, "Authorization: Bearer %s", token) < 0)
        abort();
    headers[0] = authorization;
    ask.url = url;
    ask.body = (struct pen_span){ body.data, body.size };
    probe_ask(probe, &ask, on_posted, &posting);
    probe_token_free(authorization);
    free(url);
    buf_free(&body);
}

void sentinel_probe(struct probe *probe, const struct pen_conf *conf)
{
    struct sentinel_target target;
    struct pen_error err = { 0 };
    char *token;

    if (sentinel_target_read(&target, conf, probe->schema, &err) < 0) {
        probe_tell(probe, FINDING_WRONG, "%s", err.text);
        return;
    }
    token = probe_token(probe, &target.entra);
    if (token != NULL)
        probe_tell(probe, FINDING_GOOD, "Entra gives a token");
    probe_endpoint(probe, &target);
    probe_rule(probe, conf);
    if (token != NULL)
        sentinel_metrics(probe, &target);
    if (token != NULL && probe->send_test_record)
        probe_post(probe, &target, token);
    else if (!probe->send_test_record)
        probe_tell(probe, FINDING_UNKNOWN, "whether the app may write there shows when something is sent: --send-test-record sends "
                   "one marked record");
    probe_token_free(token);
}
