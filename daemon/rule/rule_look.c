/* rule_look.c - see rule_look.h. */
#include "daemon/rule/rule_look.h"

#include "daemon/record/json.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define API_VERSION "2023-03-11"
#define BYTES_MAX (8u << 20)         /* of a rule; a stream of 500 columns has 30 KB */

#define MANAGEMENT(look) (int)(look)->target.management.size, (look)->target.management.data

struct rule_look {
    struct rule_look_conf conf;
    struct sentinel_target target;
    struct rule rule;
    struct entra *entra;
    struct http_request *request;
    struct buf body;
    bool too_long;
};

static void look_tell(struct rule_look *look, enum finding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void look_tell(struct rule_look *look, enum finding finding, const char *format, ...)
{
    char sentence[2048];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    look->conf.tell(look->conf.arg, finding, sentence);
}

/* ---- The answer ---- */

static void look_compare(struct rule_look *look)
{
    struct json *json = json_new();
    struct pen_json root = { 0 };
    const char *why;

    buf_reserve(&look->body, JSON_PADDING);
    if (look->too_long || json_parse(json, look->body.data, look->body.size, &root, &why) < 0)
        look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked: Azure Resource Manager's answer is too long, or no "
                  "JSON");
    else
        rule_compare(&look->rule, &root, look->conf.tell, look->conf.arg);
    json_free(json);
}

static void look_judge(struct rule_look *look, const struct http_answer *answer)
{
    if (answer->status == 200)
        look_compare(look);
    else if (answer->status == 404)
        look_tell(look, FINDING_WRONG, "there is no DCR under \"dcr_resource_id\" (status 404): copy the resource id from the "
                  "rule's properties in the portal");
    else if (answer->status == 403)
        look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked: the app may not read the rule (status 403); give it "
                  "the role Monitoring Reader on the DCR");
    else if (answer->status == 401)
        look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked: %.*s does not take Entra's token (status 401); "
                  "check tenant and cloud", MANAGEMENT(look));
    else if (answer->status > 0)
        look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked: %.*s answered with status %d",
                  MANAGEMENT(look), answer->status);
    else
        look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked: %.*s did not answer: %.256s",
                  MANAGEMENT(look), answer->trouble);
}

static bool on_data(void *arg, int status, const char *data, size_t size)
{
    struct rule_look *look = arg;

    (void)status;
    look->too_long = look->body.size + size > BYTES_MAX;
    if (!look->too_long)
        buf_add(&look->body, data, size);
    return !look->too_long;
}

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct rule_look *look = arg;

    look->request = NULL;
    look_judge(look, answer);
    look->conf.done(look->conf.arg);
}

/* ---- The question ---- */

static void look_ask(struct rule_look *look, const char *token)
{
    char *url, *authorization;
    const char *headers[] = { NULL, "Accept: application/json", NULL };
    struct http_ask ask = { .method = "GET", .headers = headers, .conf = look->target.http, .on_data = on_data };

    if (asprintf(&url, "%.*s%s?api-version=" API_VERSION, MANAGEMENT(look), look->target.resource_id) < 0 ||
        asprintf(&authorization, "Authorization: Bearer %s", token) < 0)
        abort();
    ask.url = url;
    headers[0] = authorization;
    look->request = http_start(look->conf.http, &ask, on_answer, look);
    explicit_bzero(authorization, strlen(authorization));
    free(authorization);
    free(url);
}

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct rule_look *look = arg;

    (void)refused, (void)retry_after_ms;
    if (token != NULL) {
        look_ask(look, token);
        return;
    }
    look_tell(look, FINDING_UNKNOWN, "the DCR's columns were not checked, without a token for %.*s: %.512s",
              MANAGEMENT(look), why);
    look->conf.done(look->conf.arg);
}

static void look_open(struct rule_look *look, struct pen_error *err)
{
    if (rule_add(&look->rule, look->conf.sink, &look->target, look->conf.schema, look->conf.kinds, err) == 0)
        (void)entra_new(&look->entra, look->conf.http, look->conf.loop, &look->target.management_entra, err);
}

struct rule_look *rule_look_start(const struct rule_look_conf *conf)
{
    struct rule_look *look = calloc(1, sizeof(*look));
    struct pen_error err = { 0 };

    assert(look != NULL);
    look->conf = *conf;
    if (sentinel_target_read(&look->target, conf->section, conf->schema, &err) < 0 || look->target.resource_id == NULL) {
        free(look);                                /* settings_read() has proved it: there is no resource id */
        return NULL;
    }
    look_open(look, &err);
    if (err.code < 0) {
        conf->tell(conf->arg, FINDING_WRONG, err.text);
        rule_look_close(look);
        return NULL;
    }
    entra_token(look->entra, on_token, look);
    return look;
}

void rule_look_close(struct rule_look *look)
{
    if (look == NULL)
        return;
    if (look->request != NULL)
        http_cancel(look->request);
    entra_close(look->entra);
    rule_free(&look->rule);
    buf_free(&look->body);
    free(look);
}
